"""Starts the preloaded process (`preloaded.py`). It imports little: what takes long begins with it."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Final, NamedTuple

MODULE: Final = "portfolio_realtime.preloaded"
# What the interpreter and the C libraries read when they start. No setting is among them, hence no secret:
# those come with each request.
PASSED_ON: Final = (
    *("PATH", "HOME", "LANG", "LC_", "TZ", "TMPDIR", "PYTHON", "VIRTUAL_ENV"),
    *("LD_", "MALLOC_", "GLIBC_", "COMPARE_"),
)
ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1"}  # a fork takes no other thread along


class Importing(NamedTuple):
    """The process, which is importing, and our end of the socket. It ends when that is closed."""

    process: subprocess.Popen[bytes]
    socket: socket.socket


def is_possible() -> bool:
    """Whether services can be forked here: on Linux with pidfd_open(2).

    On macOS the system's libraries may not be used in a fork.
    """
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def begin(environment: Mapping[str, str]) -> Importing:
    """Start the preloaded process with what of `environment` is no setting. It imports in the background."""
    ours, theirs = socket.socketpair()
    passed_on = {name: value for name, value in environment.items() if name.startswith(PASSED_ON)}
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            env={**passed_on, **ONE_THREAD},
            stdin=theirs.fileno(),
            start_new_session=True,
        )
    return Importing(process, ours)

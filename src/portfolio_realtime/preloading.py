"""Starts the preloaded process (`preloaded.py`). It imports little: what takes long begins with it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

MODULE: Final = "portfolio_realtime.preloaded"
# What the interpreter and the C libraries read when they start. No setting is among them, hence no secret:
# those come with each request.
PASSED_ON: Final = (
    *("PATH", "HOME", "LANG", "LC_", "TZ", "TMPDIR", "PYTHON", "VIRTUAL_ENV"),
    *("LD_", "MALLOC_", "GLIBC_", "COMPARE_"),
)


class Ending(Protocol):
    """What `subprocess.Popen` shows of the process."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        ...

    def wait(self) -> int:
        """Wait until it has ended."""
        ...


class ForkedHere:
    """A process that was forked from this one."""

    def __init__(self, pid: int) -> None:
        self.pid: Final = pid
        self._has_ended = False

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        if not self._has_ended:
            os.kill(self.pid, signal.SIGKILL)  # not reaped, so the id is still its own

    def wait(self) -> int:
        """Wait until it has ended; its exit code."""
        _, status = os.waitpid(self.pid, 0)
        self._has_ended = True
        return os.waitstatus_to_exitcode(status)


class Importing(NamedTuple):
    """The process, which is importing, and our end of the socket. It ends when that is closed."""

    process: Ending
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
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            env=passed_on(environment),
            stdin=theirs.fileno(),
            start_new_session=True,
        )
    return Importing(process, ours)


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """What the preloaded process gets of an environment."""
    return {name: value for name, value in environment.items() if name.startswith(PASSED_ON)}

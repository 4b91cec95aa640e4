"""Processes of the benchmark: where they run, what they have used, that they end."""

import os
import resource
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

START_S_MAX = 20.0
END_S_MAX = 6.0
OPEN_FILES_MAX = 20_000

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def cores() -> tuple[set[int], set[int]]:
    """The core of the server under test and the core of everything else; one and the same if need be."""
    usable = sorted(os.sched_getaffinity(0))
    return {usable[0]}, {usable[-1]}


def start(stack: ExitStack, command: Sequence[str], core: set[int], **options: Any) -> subprocess.Popen[str]:
    """Start a process on a core; it ends with the stack."""

    def prepare() -> None:
        os.sched_setaffinity(0, core)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        most = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))

    process = subprocess.Popen(command, text=True, preexec_fn=prepare, **options)
    stack.callback(end, process)
    return process


def end(process: subprocess.Popen[str]) -> None:
    """Ask it to end, then make it."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(END_S_MAX)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def wait_for_port(port: int, process: subprocess.Popen[str]) -> None:
    """Return when a server listens. Raises RuntimeError when it ends instead, or takes too long."""
    give_up = time.monotonic() + START_S_MAX
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > give_up:
            raise RuntimeError(f"{process.args!r} does not listen on port {port}")
        time.sleep(0.05)

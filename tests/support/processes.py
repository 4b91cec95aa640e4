"""Processes of this machine."""

import os
import signal
from pathlib import Path

from portfolio_harness.system import System


def is_running(pid: int) -> bool:
    """Is there such a process, other than one that waits to be reaped?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def kill(system: System, *names: str) -> dict[str, list[int]]:
    """Kill these processes, all of each; name -> ids of the dead."""
    pids = {name: system.pids_of(name) for name in names}
    for dying in pids.values():
        assert dying
        for pid in dying:
            os.kill(pid, signal.SIGKILL)
    return pids


def are_back(system: System, dead: dict[str, list[int]]) -> bool:
    """Has each of them a successor?"""
    running = {name: system.pids_of(name) for name in dead}
    return all(
        len(running[name]) == len(pids) and not set(running[name]) & set(pids) for name, pids in dead.items()
    )

"""What processes use, read from /proc (proc(5)); Linux only."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from portfolio_harness import process_usage

MB: Final = 1024 * 1024
_IDLE_FIELDS: Final = (3, 4)  # idle and iowait of the line "cpu" in /proc/stat


@dataclass(frozen=True)
class Machine:
    """Processor seconds of the whole machine since its start, over all cores."""

    busy_s: float
    all_s: float


def machine() -> Machine:
    """Now; time that a hypervisor gave to others is neither idle nor ours, so it counts as busy."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = sum(ticks[field] for field in _IDLE_FIELDS)
    return Machine((sum(ticks) - idle) * process_usage.TICK_S, sum(ticks) * process_usage.TICK_S)


def tree(pid: int) -> dict[int, str]:
    """Process id -> command line of a process and of all that descend from it."""
    children: dict[int, list[int]] = {}
    commands: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        children.setdefault(parent, []).append(int(folder.name))
        commands[int(folder.name)] = command
    found, left = dict[int, str](), [pid]
    while left:
        one = left.pop()
        found[one] = commands.get(one, "")
        left += children.get(one, [])
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """User and system seconds that these have used, with their children that have ended."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended meanwhile
            total += process_usage.cpu_s(pid, with_ended_children=True)
    return total


def memory_mb(pid: int) -> tuple[float, float]:
    """Resident and proportional memory of a process (proc(5), smaps_rollup)."""
    sizes = dict[str, float]()
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, size = line.partition(":")
        sizes[name] = int(size.split()[0]) * 1024 / MB
    return sizes["Rss"], sizes["Pss"]

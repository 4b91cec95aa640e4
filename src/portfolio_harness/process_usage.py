"""Processor time of a process, read from Linux's /proc."""

import os
from pathlib import Path
from typing import Final

TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int, *, with_ended_children: bool = False) -> float:
    """User and system time of a process in seconds (proc(5): fields 14 and 15 of stat, children 16 and 17).

    Raises OSError without such a process or without /proc.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if with_ended_children else 13])) * TICK_S

"""Processes of this machine."""

from pathlib import Path


def is_running(pid: int) -> bool:
    """Is there such a process, other than one that waits to be reaped?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False

"""Where and when a figure was measured: without that it is no figure."""

import csv
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path


def provenance() -> dict[str, str]:
    """Date, commit and processor."""
    git = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "commit": commit, "cpu": _cpu()}


def record(figures: Mapping[str, object], path: Path) -> None:
    """Append a row to a table. Raises ValueError, and does nothing, if it has other columns."""
    row = {**provenance(), **figures}
    is_new = not path.exists()
    if not is_new:
        header = next(csv.reader(path.read_text().splitlines()), [])
        if header != list(row):
            raise ValueError(f"{path} has other columns: move it away, or choose another file")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as table:
        writer = csv.DictWriter(table, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} x{len(names)}"

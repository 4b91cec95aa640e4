"""Ctrl-C ends everything within seconds; a supervisor that is killed takes its processes with it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from portfolio_realtime.state.embedded import free_port
from tests.conftest import Until, end

END_S_MAX = 15.0  # on a quiet machine it takes two
START_S_MAX = 30.0


@pytest.fixture
def demo(tmp_path: Path) -> Generator[subprocess.Popen[bytes]]:
    """A running demo whose temporary folder is `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "portfolio_realtime", "demo", "--port", str(free_port())],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path), "LOG_LEVEL": "warning"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if b"in a browser" in line:
            break
    yield process
    end(process)


async def test_ctrl_c_ends_everything_soon(
    demo: subprocess.Popen[bytes], tmp_path: Path, until: Until
) -> None:
    """No process is left, no temporary folder either, and the exit code says that all is well."""
    family = _descendants(demo.pid)
    assert len(family) >= 6, "simulator, Valkey and four services should run"
    asked_s = time.monotonic()

    demo.send_signal(signal.SIGINT)
    demo.wait(END_S_MAX + 5)

    assert time.monotonic() - asked_s < END_S_MAX
    assert demo.returncode == 0
    assert not [pid for pid in family if _is_running(pid)]
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
async def test_a_killed_demo_takes_its_processes_with_it(
    demo: subprocess.Popen[bytes], tmp_path: Path, until: Until
) -> None:
    """Even kill -9 leaves no orphan."""
    family = _descendants(demo.pid)

    demo.kill()
    demo.wait(END_S_MAX)

    await until(
        lambda: not [pid for pid in family if _is_running(pid)], "all processes have ended", 2 * END_S_MAX
    )
    assert not list(tmp_path.iterdir())


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(status.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        begotten = children.get(waiting.pop(), [])
        found += begotten
        waiting += begotten
    return found


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

"""The fan-out benchmark, small: it runs, and its figures are of messages that arrived."""

import asyncio
import json
import shutil
import subprocess
import sys

import pytest

SERVERS = ("portfolio_realtime", "c_epoll")


@pytest.mark.skipif(
    shutil.which("cc") is None and shutil.which("gcc") is None, reason="its client is a C program"
)
@pytest.mark.drill
async def test_the_benchmark_measures_our_server_beside_the_floor() -> None:
    """One JSON object: per server what a message, an idle connection and a connect cost."""
    options = (
        "--connections",
        "100",
        "--seconds",
        "0.5",
        "--rounds",
        "2",
        "--servers",
        ",".join(SERVERS),
        "--json",
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "benchmarks.fanout", *options],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert tuple(figures) == SERVERS
    for name in SERVERS:
        assert figures[name]["messages_per_s"] > 0
        assert figures[name]["connects_per_s"] > 0
    assert figures["portfolio_realtime"]["bytes_per_connection"] > 0

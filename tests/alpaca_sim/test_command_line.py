"""The command line, as a process: one line when ready, one line when not, and a quiet end."""

import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner
from websockets.sync.client import connect

from alpaca_sim.cli import app
from alpaca_sim.core import faults

WAIT_S_MAX = 30


class Process:
    """Simulators started by one test."""

    def __init__(self) -> None:
        """None yet."""
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *options: str) -> subprocess.Popen[str]:
        """One simulator in a process of its own."""
        command = [sys.executable, "-m", "alpaca_sim", *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.started.append(process)
        return process


@pytest.fixture
def process() -> Generator[Process]:
    """Starts simulators and ends them."""
    processes = Process()
    yield processes
    for started in processes.started:
        started.kill()
        started.communicate(timeout=WAIT_S_MAX)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_once_where_it_serves_and_ends_quietly(
    process: Process, signal_number: signal.Signals
) -> None:
    """One line on stdout, nothing on stderr, code 0, even with streams open."""
    running = process.start("--port", "0", "--accounts", "3", "--symbols", "24", "--seed", "9")
    assert running.stdout is not None
    line = running.stdout.readline()
    url = line.removeprefix("alpaca-sim ready on ").split()[0]
    assert line == f"alpaca-sim ready on {url} (3 accounts, 24 symbols, seed 9)\n"
    events_url = f"{url}/v2beta1/events/activities"
    with (
        httpx.stream("GET", events_url, auth=("sim-key", "sim-secret")) as events,
        connect(f"{url.replace('http', 'ws')}/v2/sip") as market,
    ):
        assert next(events.iter_lines()).startswith(": welcome")
        assert "connected" in str(market.recv(WAIT_S_MAX))
        running.send_signal(signal_number)
        stdout, stderr = running.communicate(timeout=WAIT_S_MAX)
    assert (stdout, stderr, running.returncode) == ("", "", 0)


def test_a_used_port_is_one_line_with_the_remedy(process: Process) -> None:
    """Code 2 and no traceback."""
    first = process.start("--port", "0")
    assert first.stdout is not None
    port = first.stdout.readline().split()[3].rpartition(":")[2]
    second = process.start("--port", port)
    stdout, stderr = second.communicate(timeout=WAIT_S_MAX)
    assert (stdout, second.returncode) == ("", 2)
    assert stderr == (
        f"alpaca-sim: 127.0.0.1:{port} is in use: "
        "choose another one with --port, or --port 0 for a free one\n"
    )


@pytest.mark.parametrize(
    ("options", "remedy"),
    [([], "choose another --tape folder"), (["--tape-day", "Monday"], "write --tape-day as 2013-10-07")],
)
def test_a_wrong_tape_is_one_line_with_the_remedy(
    process: Process, tmp_path: Path, options: list[str], remedy: str
) -> None:
    """Code 2 and no traceback."""
    refused = process.start("--port", "0", "--tape", str(tmp_path), *options)
    stdout, stderr = refused.communicate(timeout=WAIT_S_MAX)
    assert (stdout, refused.returncode) == ("", 2)
    assert stderr.count("\n") == 1 and remedy in stderr


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (["--faults", "missing.yaml"], "No such file"),
        (["--faults", "pyproject.toml", "--fault-seed", "1"], "choose one"),
        (["--fault-seed", "1", "--fault-duration", "1e9"], "duration_s is 1e+09"),
        (["--set", "since_id"], "write since_id=exclusive|inclusive"),
        (["--calendar", "lse"], "write always or nyse"),
        (["--roll-at", "noon"], "write --roll-at as 02:15"),
        (["--roll-at", "12:00"], "--roll-at must be before 09:30"),
        (["--start", "today"], "write --start as 2026-11-23T04:00:00-05:00"),
        (["--start", "2040-01-03T00:00:00Z", "--calendar", "nyse"], "outside the calendar"),
    ],
)
def test_a_wrong_option_is_one_line_with_the_remedy(options: list[str], remedy: str) -> None:
    """Code 2, before anything is served."""
    refused = CliRunner().invoke(app, ["--port", "0", *options])
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1 and refused.stderr.startswith("alpaca-sim: ")
    assert remedy in refused.stderr


def test_a_fault_plan_of_a_seed_is_written_and_runs(process: Process) -> None:
    """To standard error, as the YAML that repeats it; it is active from the start."""
    options = ("--port", "0", "--fault-seed", "7", "--fault-duration", "600", "--accounts", "2")
    running = process.start(
        *options, "--calendar", "nyse", "--speed", "0", "--start", "2026-11-23T04:00:00-05:00"
    )
    assert running.stdout is not None
    url = running.stdout.readline().removeprefix("alpaca-sim ready on ").split()[0]
    told = httpx.get(f"{url}/_sim/faults").json()
    assert len(told["active"]) + len(told["waiting"]) == 100
    httpx.post(f"{url}/_sim/clock", json={"advance_s": 601}, timeout=WAIT_S_MAX).raise_for_status()
    assert httpx.get(f"{url}/_sim/faults").json()["done"] == 100
    running.send_signal(signal.SIGINT)
    _, stderr = running.communicate(timeout=WAIT_S_MAX)
    assert stderr == faults.dump(faults.plan(7, 600))

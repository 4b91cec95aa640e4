"""docs/from-the-guide.md: the local steps of the setup guide work as it writes them."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from portfolio_harness.valkey_node import ValkeyNode
from portfolio_realtime.state.embedded import free_port
from tests.conftest import StartSimulator, Until, end

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "from-the-guide.md"
SERVICES = ("websocket_server", "symbol_collector", "market_data_consumer", "portfolio_calculator")
END_S_MAX = 110


def steps() -> list[str]:
    """The commands of the page, line by line."""
    block = PAGE.read_text().partition("<!-- steps -->")[2].partition("<!-- /steps -->")[0]
    return [line for line in block.splitlines() if line and not line.startswith("```")]


def test_every_step_is_one_that_is_tried_here() -> None:
    """A step that is added to the page needs a test, too."""
    assert steps() == [
        "make install",
        "source .venv/bin/activate",
        *(f"python -m portfolio_realtime.{name}" for name in SERVICES),
        "python -m portfolio_realtime.run_services",
        "python -m pytest tests/test_websocket_server.py -v",
        "./run_tests.py",
    ]


def test_what_the_steps_name_exists() -> None:
    """The target, the script and the tests."""
    subprocess.run(["make", "-n", "install"], cwd=ROOT, check=True, capture_output=True)
    assert os.access(ROOT / "run_tests.py", os.X_OK)
    assert (ROOT / "tests" / "test_websocket_server.py").is_file()


async def test_the_four_terminals_and_the_one(
    simulator: StartSimulator, mortal_server: ValkeyNode, tmp_path: Path, until: Until
) -> None:
    """Each service on its own with the guide's `.env`, then all of them by run_services."""
    running = await simulator(accounts=3, symbols=10)
    port = free_port()
    _write_env(tmp_path / ".env", mortal_server.port, port)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("COV_")},
        **running.environment,
    }
    commands = [step.split() for step in steps() if step.startswith("python -m portfolio_realtime.")]
    apart, together = commands[: len(SERVICES)], commands[len(SERVICES) :]

    for group in (apart, together):
        processes = [
            subprocess.Popen([sys.executable, *words[1:]], cwd=tmp_path, env=environment) for words in group
        ]
        try:
            await until(lambda: _serving(port), f"all services of {group} work", END_S_MAX)
            for process in processes:
                process.send_signal(signal.SIGTERM)
            assert [process.wait(END_S_MAX) for process in processes] == [0] * len(processes)
        finally:
            for process in processes:
                end(process)


def _write_env(path: Path, valkey_port: int, port: int) -> None:
    """The guide's `.env`, its comments included, with free ports in place of its own."""
    path.write_text(
        "# Redis configuration (local)\n"
        f"REDIS_HOST=localhost\nREDIS_PORT={valkey_port}\nREDIS_DB=0\n\n"
        "# Service configuration\n"
        "SYMBOL_COLLECTION_INTERVAL=60  # Shorter interval for testing\n"
        "PRICE_TTL=3600\nMIN_UPDATE_INTERVAL=1\nRECALCULATION_INTERVAL=15\n"
        f"WEBSOCKET_PORT={port}\nRUN_SERVICES_PORT={port}\nWEBSOCKET_HOST=0.0.0.0\nDRAIN_GRACE_SECONDS=0\n"
    )


async def _serving(port: int) -> bool:
    """Do all four services leave their metrics, and does the collector know the accounts?"""
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    except httpx.HTTPError:
        return False
    known = re.search(r"^portfolio_realtime_accounts\{.*\} 3\.0$", text, re.MULTILINE)
    return known is not None and all(f'service="{name}"' in text for name in SERVICES)

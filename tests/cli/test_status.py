"""`portfolio-realtime status` tells what a whole running system does, to people and to programs."""

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from portfolio_harness.clients import Clients
from portfolio_harness.system import running
from portfolio_realtime.cli import status
from portfolio_realtime.cli.status import FeedStatus, Owner, Process, SystemStatus
from portfolio_realtime.state import State
from tests.conftest import Until

OPTIONS = ("--accounts", "6", "--symbols", "20", "--seed", "3", "--activities-per-second", "0.5")
UNPROVEN = 3


async def run(url: str, *options: str) -> tuple[int, str]:
    """The command's exit code and what it prints."""
    command = [sys.executable, "-m", "portfolio_realtime", "status", *options]
    environment = {"PATH": os.environ["PATH"], "REDIS_URL": url, "COLUMNS": "140"}
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, check=False, timeout=90
    )
    return done.returncode, done.stdout + done.stderr


async def test_a_whole_system(until: Until) -> None:
    """Four processes, every shard and feed owned, clients counted; then without a calculator."""
    async with running(OPTIONS, port=0, overrides={"LOG_LEVEL": "warning"}) as system:
        url = system.supervisor.environment["REDIS_URL"]
        clients = Clients(
            system.url, await system.oracle.account_ids(), system.token_for, interval_s=1, detail=True
        )
        await clients.start()
        found: dict[str, Any] = {}

        async def is_settled() -> bool:
            _, printed = await run(url, "--json")
            found.update(json.loads(printed))
            return not found["troubles"] and found["connections"] == found["watched"] == 6

        await until(is_settled, "everything runs, and is counted", 90)
        code, shown = await run(url, "--once")
        await clients.stop()

    assert code == 0, shown
    assert {one["service"] for one in found["processes"]} == set(status.SERVICES)
    assert len(found["shards"]) == 16
    assert all("portfolio_calculator" in one["owner"] for one in found["shards"])
    assert {one["feed"]: one["is_live"] for one in found["feeds"]}["stocks"]
    assert found["accounts"] == 6 and found["messages_per_s"] > 0
    for text in ("symbol_collector", "shards 0-15", "stocks", "live", "drift:"):
        assert text in shown


async def test_nothing_runs(state: State) -> None:
    """It says what is missing, and a program learns it by the exit code."""
    code, printed = await run(state.connection.url, "--json")

    found = json.loads(printed)
    assert code == UNPROVEN
    assert "no websocket_server runs" in found["troubles"] and "s07 has no owner" in found["troubles"]
    assert found["publication_p99_s"] is None and found["processes"] == []


async def test_there_is_no_valkey() -> None:
    """The remedy, no stack trace."""
    code, printed = await run("redis://127.0.0.1:9/0", "--once")

    assert code == 1 and "Valkey" in printed and "Traceback" not in printed


@pytest.mark.parametrize(
    ("numbers", "shown"), [([], ""), ([3], "3"), ([0, 1, 2], "0-2"), ([0, 2, 3, 7], "0, 2-3, 7")]
)
def test_shards_are_told_in_ranges(numbers: list[int], shown: str) -> None:
    """Sixteen rows would say no more."""
    assert status._ranges(numbers) == shown


def test_what_should_not_be_so_is_said() -> None:
    """A silent feed, an orphaned shard, a service that is missing."""
    found = SystemStatus(
        at="2026-11-29T00:00:00Z",
        processes=[Process(name, "one", 0, "") for name in status.SERVICES[:3]],
        leases=[Owner("symbol_collector", "a")],
        shards=[Owner("s00", None)],
        feeds=[FeedStatus("stocks", False, 90.0, 5, None, 1), FeedStatus("crypto", True, 5.0, 5, 1.0, 0)],
        **dict.fromkeys(("accounts", "watched", "stale", "unpriced", "connections", "record_drifts"), 0),
        **dict.fromkeys(("messages_per_s", "publication_p99_s", "revocations_complete_since_s"), None),
        **dict.fromkeys(("event_stream_lag_s", "book_drift_dollars"), 0.0),
    )

    assert found.troubles == [
        "no websocket_server runs",
        "s00 has no owner",
        "feed stocks has been silent for 90 s",
    ]

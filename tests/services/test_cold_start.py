"""Everybody waits while the collector knows nobody yet, or no longer: nobody is told not to come again.

`python -m pytest -s -m 'drill or not drill' tests/services/test_cold_start.py` prints the seconds, also for
10,000 clients.
"""

import asyncio
import os
import signal
import time
from typing import Final

import pytest

from portfolio_harness.clients import Clients
from portfolio_harness.convergence import converge
from portfolio_harness.system import System, counted, running
from portfolio_realtime.state import open_state
from tests.conftest import LEASE_MS, Until

SYMBOLS: Final = 40
UPDATE_S: Final = 2.0
SHARDS: Final = 16
CONNECTS_PER_S: Final = 1000  # so that all wait at the same time, and the kernel's backlog suffices
WAIT_S_MAX: Final = 600.0  # on a machine with much else to do
COME_AGAIN_MAX: Final = 4499  # a higher close code says: do not come again


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("accounts", "requests_a_minute"), [(200, 1200), pytest.param(10_000, 60_000, marks=pytest.mark.drill)]
)
async def test_all_wait_and_none_is_sent_away(
    accounts: int, requests_a_minute: int, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a cold start, and when Valkey is emptied as the collector is killed, under a limit of the broker."""
    monkeypatch.setattr("portfolio_harness.clients.CONNECTING_MAX", accounts)
    monkeypatch.setattr("portfolio_harness.clients.FIRST_VALUE_S_MAX", WAIT_S_MAX)
    limit = str(4 * accounts + 1000)
    overrides = {
        "MIN_UPDATE_INTERVAL": str(UPDATE_S),
        "LOG_LEVEL": "error",
        "SHARDS": str(SHARDS),
        "CONNECTIONS_PER_ADDRESS": limit,
        "CONNECTS_PER_MINUTE": limit,
    }
    options = ("--accounts", str(accounts), "--symbols", str(SYMBOLS), "--trades-per-second", "20")
    options += ("--rate-limit", str(requests_a_minute), "--seed", "4")
    began_s = time.monotonic()
    async with running(options, port=0, overrides=overrides) as system:
        account_ids = await system.oracle.account_ids()
        clients = Clients(
            system.url,
            account_ids,
            system.token_for,
            interval_s=UPDATE_S,
            detail=False,
            ramp_s=accounts / CONNECTS_PER_S,
        )
        known = await counted(system.url, "portfolio_realtime_accounts")
        assert known < accounts, "nobody had to wait"
        try:
            await _wait_for_all(clients, until)
            print(
                f"\n{accounts} clients, {known:.0f} accounts known at first: all have a value "
                f"{time.monotonic() - began_s:.1f} s after the services were started"
            )
            await _forget(system)
            began_s = time.monotonic()
            await until(
                lambda: counted(system.url, "portfolio_realtime_accounts"), "a collector is back", WAIT_S_MAX
            )
            await system.oracle.pause()
            differing, _ = await converge(system.oracle, clients, WAIT_S_MAX)
            assert not differing
            print(f"emptied and cold again: all equal the ledger after {time.monotonic() - began_s:.1f} s")
            sent_away = {code: count for code, count in clients.close_codes.items() if code > COME_AGAIN_MAX}
            assert not sent_away
            assert (clients.counts["regressions"], clients.counts["leaks"]) == (0, 0)
        finally:
            await clients.stop()


async def _wait_for_all(clients: Clients, until: Until) -> None:
    starting = asyncio.create_task(clients.start())
    await until(lambda: starting.done() or not clients.without_value, "every client has a value", WAIT_S_MAX)
    await starting


async def _forget(system: System) -> None:
    """Empty Valkey and kill the collector: the next one knows nothing."""
    state = open_state(
        system.supervisor.environment["REDIS_URL"], holder="test", shards=SHARDS, lease_ms=LEASE_MS
    )
    os.kill(system.supervisor.pids["symbol_collector"], signal.SIGKILL)
    await state.connection.commands.execute_command("FLUSHALL")
    await state.close()

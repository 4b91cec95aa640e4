"""The four services under Sentinels, with clients: the primary is handed over, then killed.

`python -m pytest -s -m drill tests/faults/test_sentinel_clients.py` prints the table of docs/reliability.md.
"""

import contextlib
import os
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from portfolio_harness.clients import Clients
from portfolio_harness.convergence import converge
from portfolio_harness.oracle import Oracle
from portfolio_harness.system import (
    free_port,
    settings_for,
    simulator_options,
    start_simulator,
    token,
    wait_known,
    wait_ready,
)
from portfolio_realtime.processes import end_all
from portfolio_realtime.run_services import SERVICES
from portfolio_realtime.supervisor import Supervisor
from tests.conftest import Until
from tests.support.regular import until_regular
from tests.support.sentinels import NAME, Watched, watched

CLIENTS: Final = 40
SYMBOLS: Final = 20
TRADES_PER_SYMBOL: Final = 5  # a second: every account has a newer value at each update
UPDATE_S: Final = 0.5
SECRET: Final = secrets.token_urlsafe(48)
TOKEN_S: Final = 3600
ELECTED_S_MAX: Final = 60.0
SILENT_S_MAX: Final = 30.0  # 10 s on a machine that has time
EQUAL_S_MAX: Final = 60.0
Change = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Stage:
    """Everything that runs."""

    group: Watched
    supervisor: Supervisor
    oracle: Oracle
    clients: Clients


@contextlib.asynccontextmanager
async def staged(folder: Path) -> AsyncGenerator[Stage]:
    """Started, with a value at every client."""
    async with contextlib.AsyncExitStack() as stack:
        group = await stack.enter_async_context(watched(folder))
        simulator, simulator_url = await start_simulator(
            simulator_options(CLIENTS, SYMBOLS, TRADES_PER_SYMBOL * SYMBOLS, seed=5)
        )
        stack.push_async_callback(end_all, [simulator])
        oracle = Oracle(simulator_url)
        stack.push_async_callback(oracle.close)
        port = free_port(0)
        settings = {
            **settings_for(simulator_url, port, SECRET),
            "REDIS_SENTINELS": group.places,
            "REDIS_SENTINEL_MASTER": NAME,
            "MIN_UPDATE_INTERVAL": str(UPDATE_S),
            "LOG_LEVEL": "error",
        }
        supervisor = Supervisor({**os.environ, **settings}, SERVICES)
        stack.push_async_callback(supervisor.stop)
        await supervisor.start(is_embedded=False)
        url = f"http://127.0.0.1:{port}"
        await wait_ready(url)
        await wait_known(url, CLIENTS, lambda _: None)
        clients = Clients(
            url,
            await oracle.account_ids(),
            lambda account_id: token(SECRET, account_id, [account_id], TOKEN_S),
            interval_s=UPDATE_S,
            detail=True,
        )
        stack.push_async_callback(clients.stop)
        await clients.start()
        yield Stage(group, supervisor, oracle, clients)


@pytest.mark.drill
@pytest.mark.timeout(600)
async def test_the_primary_changes_and_nobody_is_cut_off_or_goes_back(tmp_path: Path, until: Until) -> None:
    """Handed over while it lives on, then killed without a word: silence, closes, order, values."""
    async with staged(tmp_path) as stage:
        group, clients, pids = stage.group, stage.clients, dict(stage.supervisor.pids)

        async def hold(name: str, change: Change) -> None:
            await until_regular(clients, until)
            regular = [one for one in clients.all if one.is_regular]
            before = await group.primary_port()
            await change()

            async def has_moved() -> bool:
                return await group.primary_port() != before

            await until(has_moved, "the Sentinels have another primary", ELECTED_S_MAX)
            orders = {one.account_id: one.order for one in regular}
            await until(
                lambda: all(one.order > orders[one.account_id] for one in regular),
                "all of them have newer values",
                SILENT_S_MAX,
            )
            await until(lambda: not any(one.stale_hops for one in clients.all), "live", SILENT_S_MAX)
            silent_s = clients.silence_s
            await stage.oracle.pause()
            differing, equal_s = await converge(stage.oracle, clients, EQUAL_S_MAX)
            await stage.oracle.resume()
            print(f"| {name} | {silent_s:.1f} | {equal_s} | {clients.cut_off} |", flush=True)
            assert not differing
            assert silent_s <= SILENT_S_MAX
            assert (clients.cut_off, clients.counts["regressions"], clients.counts["leaks"]) == (0, 0, 0)
            assert stage.supervisor.pids == pids, "a service has ended"

        print("\n| the primary | worst silence s | all equal after s | cut |")
        await hold("is handed over (SENTINEL FAILOVER)", group.hand_over)
        await group.kill_first_sentinel()
        await hold("is killed, and the first Sentinel before it", group.kill_primary)

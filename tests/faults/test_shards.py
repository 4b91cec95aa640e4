"""Shards that move between calculators under clients: one joins, one is killed, nobody sees a step back."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator

import pytest

from portfolio_harness.clients import CheckedClient, Clients
from portfolio_harness.convergence import converge
from portfolio_harness.system import System, counted, running
from portfolio_realtime.processes import end_all, start_module
from portfolio_realtime.state import keys, open_state
from tests.conftest import KIND, LEASE_MS, Until

INTERVAL_S = 0.2
MOVED_S_MAX = 60.0  # start, lease and reading again, on a busy machine
CALCULATOR = "portfolio_realtime.portfolio_calculator"
OPTIONS = ("--accounts", "24", "--symbols", "30", "--seed", "12", "--activities-per-second", "3")
SHARDS = 16
OVERRIDES = {"MIN_UPDATE_INTERVAL": str(INTERVAL_S), "LOG_LEVEL": "warning", "SHARDS": str(SHARDS)}

Joined = asyncio.subprocess.Process


@pytest.fixture
async def system() -> AsyncGenerator[System]:
    """Everything, with one calculator."""
    async with running(OPTIONS, port=0, overrides=OVERRIDES, valkey=KIND) as ready:
        yield ready


@pytest.fixture
async def clients(system: System) -> AsyncGenerator[Clients]:
    """A client with positions for each account."""
    account_ids = await system.oracle.account_ids()
    clients = Clients(system.url, account_ids, system.token_for, interval_s=INTERVAL_S, detail=True)
    await clients.start()
    yield clients
    await clients.stop()


class Part:
    """The clients whose shards one process owns now. Whoever is slow enough owns none."""

    def __init__(self, owned: list[CheckedClient]) -> None:
        self.owned = owned
        self._before = {client.account_id: client.order[0] for client in owned}

    @property
    def has_moved(self) -> bool:
        """Whether another process has published for each of them since this was made."""
        return all(client.order[0] > self._before[client.account_id] for client in self.owned)


async def part_of(system: System, clients: Clients, pid: int) -> Part | None:
    """The part of a process; None while it has none."""
    url = system.supervisor.environment["REDIS_URL"]
    state = open_state(url, holder="test", shards=SHARDS, lease_ms=LEASE_MS)
    shards = {client.account_id: keys.shard_of(client.account_id, SHARDS) for client in clients.all}
    holders = await state.leases.holders([keys.shard_lease(shard) for shard in range(SHARDS)])
    await state.close()
    theirs = {shard for shard in range(SHARDS) if f"-{pid}-" in (holders[keys.shard_lease(shard)] or "")}
    owned = [client for client in clients.all if shards[client.account_id] in theirs]
    return Part(owned) if owned else None


async def check(system: System, clients: Clients) -> None:
    """All that happened was seen in its order and whole; now everybody has the ledger's value."""
    await system.oracle.pause()
    differing, converged_s = await converge(system.oracle, clients)
    assert not differing
    assert converged_s is not None
    conflated = await counted(system.url, "portfolio_realtime_conflated_total")
    assert clients.counts["gaps"] <= conflated, (
        "a number that no client saw, and that the server did not skip"
    )
    assert (clients.counts["regressions"], clients.counts["leaks"], clients.counts["unreadable"]) == (0, 0, 0)
    assert (clients.counts["reconnects"], clients.counts["errors"]) == (0, 0), (
        "clients hear nothing of it but values"
    )


async def values_go_on(clients: Clients, until: Until) -> None:
    """Every account that trades is published: some hundred messages more."""
    messages = clients.counts["messages"]
    await until(lambda: clients.counts["messages"] > messages + 200, "values go on", MOVED_S_MAX)


@pytest.mark.parametrize("killed", ["the one that joined", "the one that was there"])
async def test_clients_see_right_values_while_shards_move(
    system: System, clients: Clients, until: Until, killed: str
) -> None:
    """A calculator joins and takes half; then one of the two is killed, and the shards it had move again."""
    await values_go_on(clients, until)
    joined: Joined = await start_module(CALCULATOR, system.supervisor.environment)
    try:
        await until(
            lambda: part_of(system, clients, joined.pid), "the one that joined has a part", MOVED_S_MAX
        )
        await values_go_on(clients, until)

        is_own = killed == "the one that joined"
        pid = joined.pid if is_own else system.supervisor.pids["portfolio_calculator"]
        leaving: Part = await until(
            lambda: part_of(system, clients, pid), "the one to kill has a part", MOVED_S_MAX
        )
        os.kill(pid, signal.SIGKILL)
        await until(lambda: leaving.has_moved, "another publishes for the killed one's part", MOVED_S_MAX)
        await values_go_on(clients, until)
        await check(system, clients)
    finally:
        await end_all([joined])

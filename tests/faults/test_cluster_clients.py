"""The four services on a cluster, under clients: nodes are killed, failed over, stopped, and slots move.

`python -m pytest -s -m drill tests/faults/test_cluster_clients.py` prints the table of docs/reliability.md.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import pytest
from redis.crc import key_slot

from portfolio_harness.clients import CheckedClient, Clients
from portfolio_harness.convergence import converge
from portfolio_harness.system import System, running, simulator_options
from portfolio_harness.valkey_cluster import ValkeyCluster
from portfolio_harness.valkey_kinds import ValkeyKind
from portfolio_realtime.state import keys
from tests.conftest import KIND, Until
from tests.support.regular import until_regular

CLIENTS: Final = 40
SYMBOLS: Final = 20
TRADES_PER_SYMBOL: Final = 5  # a second: every account has a newer value at each update
UPDATE_S: Final = 0.5
SHARDS: Final = 16
SILENT_S_MAX: Final = 45.0  # 10 s on a machine that has time
EQUAL_S_MAX: Final = 90.0
MOVES: Final = 3  # newer values of each client
CLUSTER: Final = KIND if KIND.is_cluster else ValkeyKind.CLUSTER
OVERRIDES: Final = {"MIN_UPDATE_INTERVAL": str(UPDATE_S), "LOG_LEVEL": "error", "SHARDS": str(SHARDS)}
Change = Callable[[], Awaitable[None]]


class Stage:
    """A system on a cluster, and a client of each account."""

    def __init__(self, system: System, clients: Clients, until: Until) -> None:
        assert isinstance(system.valkeys, ValkeyCluster)
        self.cluster = system.valkeys
        self.clients = clients
        self._system = system
        self._until = until

    async def moved(self, clients: list[CheckedClient], within_s: float) -> None:
        """Until each of these has got MOVES newer values."""
        for _ in range(MOVES):
            before = {client.account_id: client.order for client in clients}
            await self._until(
                lambda before=before: all(client.order > before[client.account_id] for client in clients),
                "every client gets newer values",
                within_s,
            )

    async def hold(self, name: str, change: Change) -> None:
        """One change: clients may be silent for a while; none is cut, none goes back, all end right."""
        await self.cluster.wait_whole()
        await until_regular(self.clients, self._until)
        await change()
        await self.moved([one for one in self.clients.all if one.is_regular], SILENT_S_MAX)
        silent_s = self.clients.silence_s
        await self._system.oracle.pause()
        differing, equal_s = await converge(self._system.oracle, self.clients, EQUAL_S_MAX)
        await self._system.oracle.resume()
        print(f"| {name} | {silent_s:.1f} | {equal_s} | {self.clients.cut_off} |", flush=True)
        assert not differing, name
        assert silent_s <= SILENT_S_MAX, name
        counts = self.clients.counts
        assert (self.clients.cut_off, counts["regressions"], counts["leaks"]) == (0, 0, 0), name


@pytest.mark.drill
@pytest.mark.timeout(900)
async def test_nodes_change_and_nobody_is_cut_off_or_goes_back(until: Until) -> None:
    """Killed, failed over, stopped, and slots moved: nobody is cut off, none goes back, all end right."""
    options = simulator_options(CLIENTS, SYMBOLS, TRADES_PER_SYMBOL * SYMBOLS, seed=5)
    async with running(options, port=0, overrides=OVERRIDES, valkey=CLUSTER) as system:
        account_ids = await system.oracle.account_ids()
        clients = Clients(system.url, account_ids, system.token_for, interval_s=UPDATE_S, detail=True)
        await clients.start()
        try:
            await _hold_all(Stage(system, clients, until))
        finally:
            await clients.stop()


async def _hold_all(stage: Stage) -> None:
    cluster = stage.cluster
    of_marks, of_values = keys.marks(), keys.valuations(0)

    async def kill_primary() -> None:
        await cluster.kill_primary(await cluster.primary_of(of_marks))

    async def fail_over() -> None:
        await cluster.fail_over(await cluster.primary_of(of_values))

    async def pause() -> None:
        node = await cluster.primary_of(of_values)
        slots = await cluster.slots_of(node)
        node.pause()
        await cluster.wait_taken_over(node, slots)
        node.resume()

    async def move_slots() -> None:
        names = [*map(keys.valuations, range(SHARDS)), of_marks, keys.universe(), keys.life()]
        primaries = await cluster.primaries()
        for name in names:
            owner = await cluster.primary_of(name)
            to = primaries[(primaries.index(owner) + 1) % len(primaries)]
            await cluster.move_slots([key_slot(name.encode())], to)

    print("\n| the cluster | worst silence s | all equal after s | cut |\n| --- | ---: | ---: | ---: |")
    await stage.hold("a primary killed", kill_primary)
    await stage.hold("a planned failover", fail_over)
    await stage.hold("a primary stopped and continued", pause)
    await stage.hold("a slot of each tag moved", move_slots)

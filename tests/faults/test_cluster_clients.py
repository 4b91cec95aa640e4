"""The four services on a cluster, under clients: nodes are killed, failed over, stopped, and slots move.

`python -m pytest -s -m drill tests/faults/test_cluster_clients.py` prints the table of docs/reliability.md.
"""

from typing import Final

import pytest
from redis.crc import key_slot

from portfolio_harness.clients import CheckedClient
from portfolio_harness.system import kept
from portfolio_harness.valkey_cluster import ValkeyCluster
from portfolio_harness.valkey_kinds import ValkeyKind
from portfolio_realtime.state import keys
from tests.conftest import KIND, Until
from tests.support.regular import until_regular

from .failover_stages import Change, Stage, staged

SHARDS: Final = 16
SILENT_S_MAX: Final = 45.0  # 10 s on a machine that has time
MOVES: Final = 3  # newer values of each client
CLUSTER: Final = KIND if KIND.is_cluster else ValkeyKind.CLUSTER


@pytest.mark.drill
@pytest.mark.timeout(900)
async def test_nodes_change_and_nobody_is_cut_off_or_goes_back(until: Until) -> None:
    """Killed, failed over, stopped, and slots moved: nobody is cut off, none goes back, all end right."""
    async with kept(CLUSTER) as cluster:
        assert isinstance(cluster, ValkeyCluster)
        settings = {"REDIS_URL": cluster.url, "SHARDS": str(SHARDS)}
        async with staged(lambda _: settings) as stage:
            await _hold_all(stage, cluster, until)


async def _moved(clients: list[CheckedClient], until: Until) -> None:
    """Until each of these has got MOVES newer values."""
    for _ in range(MOVES):
        before = {client.account_id: client.order for client in clients}
        await until(
            lambda before=before: all(client.order > before[client.account_id] for client in clients),
            "every client gets newer values",
            SILENT_S_MAX,
        )


async def _hold_all(stage: Stage, cluster: ValkeyCluster, until: Until) -> None:
    async def hold(name: str, change: Change) -> None:
        await cluster.wait_whole()
        await until_regular(stage.clients, until)
        await change()
        await _moved([one for one in stage.clients.all if one.is_regular], until)
        await stage.judge(name, silent_s_max=SILENT_S_MAX)

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
    await hold("a primary killed", kill_primary)
    await hold("a planned failover", fail_over)
    await hold("a primary stopped and continued", pause)
    await hold("a slot of each tag moved", move_slots)

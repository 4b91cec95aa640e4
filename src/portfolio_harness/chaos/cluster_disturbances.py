"""The nemeses of a cluster's nodes. The node is the primary of a shard that the step chooses."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from redis.crc import key_slot

from portfolio_harness.chaos.chaos_step import ChaosStep
from portfolio_harness.chaos.place import SHARDS, Place, ServiceProcess
from portfolio_harness.valkey_cluster import BACK_S, ValkeyCluster
from portfolio_harness.valkey_node import ValkeyNode
from portfolio_realtime.state import keys


async def _node(place: Place, step: ChaosStep) -> tuple[ValkeyCluster, ValkeyNode]:
    assert place.cluster is not None
    shard = int(step.for_s * 1000) % SHARDS
    return place.cluster, await place.cluster.primary_of(keys.valuations(shard))


async def _kill(place: Place, step: ChaosStep, _: ServiceProcess) -> None:
    """Kill a primary; its replica takes over, and it comes back empty."""
    cluster, node = await _node(place, step)
    await cluster.kill_primary(node)
    await asyncio.sleep(max(step.for_s, BACK_S))
    await node.start()
    await cluster.wait_whole()


async def _stop(place: Place, step: ChaosStep, _: ServiceProcess) -> None:
    """Stop a primary (SIGSTOP): its replica takes over if that lasts longer than the node timeout."""
    cluster, node = await _node(place, step)
    node.pause()
    await asyncio.sleep(step.for_s)
    node.resume()
    await cluster.wait_whole()


async def _partition(place: Place, step: ChaosStep, _: ServiceProcess) -> None:
    """Cut a primary off from all other nodes; clients reach it all the time."""
    cluster, node = await _node(place, step)
    await cluster.partition(node)
    await asyncio.sleep(step.for_s)
    await cluster.partition(node, is_cut=False)
    await cluster.wait_whole()


async def _fail_over(place: Place, step: ChaosStep, _: ServiceProcess) -> None:
    cluster, node = await _node(place, step)
    await cluster.fail_over(node)
    await cluster.wait_whole()


async def _move_slots(place: Place, step: ChaosStep, _: ServiceProcess) -> None:
    """Move a slot of each shard, and of marks, universe and state, to the next primary."""
    cluster = (await _node(place, step))[0]
    names = [*map(keys.valuations, range(SHARDS)), keys.marks(), keys.universe(), keys.life()]
    primaries = await cluster.primaries()
    for name in names:
        owner = primaries.index(await cluster.primary_of(name))
        await cluster.move_slots([key_slot(name.encode())], primaries[(owner + 1) % len(primaries)])


async def _join_and_leave(place: Place, step: ChaosStep, _: ServiceProcess) -> None:
    """Add a primary, give it half of the slots of another one, give them back, and remove it."""
    cluster, node = await _node(place, step)
    slots = sorted(await cluster.slots_of(node))
    added = await cluster.add_primary()
    await cluster.move_slots_whole(slots[: len(slots) // 2], added)
    await asyncio.sleep(step.for_s)
    await cluster.move_slots_whole(await cluster.slots_of(added), node)
    await cluster.remove(added)
    await cluster.wait_whole()


async def _empty_part(place: Place, step: ChaosStep, _: ServiceProcess) -> None:
    node = (await _node(place, step))[1]
    await node.flush()


NEMESES: Final[dict[str, Callable[[Place, ChaosStep, ServiceProcess], Awaitable[None]]]] = {
    "node killed": _kill,
    "node stopped": _stop,
    "node partitioned": _partition,
    "node failed over": _fail_over,
    "slots moved": _move_slots,
    "node joins and leaves": _join_and_leave,
    "node emptied": _empty_part,
}

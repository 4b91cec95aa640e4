"""A calculator that hears nothing says so, although Valkey answers all its commands."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis import exceptions

from portfolio_harness.valkey_kinds import Valkeys
from portfolio_realtime import config
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.clock import SystemClock
from portfolio_realtime.portfolio_calculator import calculator
from portfolio_realtime.service import Context
from portfolio_realtime.state import State, keys
from portfolio_realtime.state.client.receiver import Receiver
from portfolio_realtime.state.connection import Message
from portfolio_realtime.state.valuations import decode_batch, is_stored
from tests.conftest import LEASE_MS, SHARDS, Until, running_service
from tests.support.calculators import NAMES, World

HEAL_S = 60.0
HEARING: tuple[str, ...] = ()
DEAF = ("valkey",)


@pytest.mark.parametrize("channel", [keys.marks, lambda: keys.accounts(0)], ids=["marks", "records"])
async def test_values_are_marked_while_what_they_rest_on_is_not_heard(
    state: State,
    session_valkey: Valkeys,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    channel: Callable[[], str],
) -> None:
    """Subscriptions are lost and cannot be made again; signs of life go on and name the hop."""
    subscribe, is_refused, refused = Receiver.subscribe, False, set[str]()

    async def subscribe_if_let(self: Receiver, channels: Sequence[str], **options: Any) -> None:
        if is_refused and channel() in channels:
            refused.update(channels)  # on a cluster, those of one node
            raise exceptions.ConnectionError("no more connections")
        await subscribe(self, channels, **options)

    monkeypatch.setattr(Receiver, "subscribe", subscribe_if_let)

    def is_told() -> bool:
        rests_on = {shard: (keys.accounts(shard), keys.marks()) for shard in range(SHARDS)}
        deaf = {shard for shard, channels in rests_on.items() if not refused.isdisjoint(channels)}
        return bool(deaf) and hops == {shard: DEAF if shard in deaf else HEARING for shard in rests_on}

    world, hops = World(state), dict[int, tuple[str, ...]]()

    async def hear() -> None:
        shard_of = state.valuations.channels()
        async for event in state.valuations.batches():
            if isinstance(event, Message) and not is_stored(event.payload):
                hops[shard_of[event.channel]] = decode_batch(event.payload).stale_hops

    hearing = asyncio.create_task(hear())
    settings = config.load(lease_ms=LEASE_MS, lease_renew_ms=LEASE_MS // 3, shards=SHARDS)
    context = Context(settings, state, SystemClock(), CollectorRegistry(), "test")
    await world.mark(100.0)
    await world.write(*NAMES)
    async with running_service(calculator.run(context)):
        await until(lambda: hops == dict.fromkeys(range(SHARDS), HEARING), "all is heard", HEAL_S)
        is_refused = True
        for node in await session_valkey.primaries():
            await node.do("CLIENT", "KILL", "TYPE", "pubsub")
        await until(is_told, "it is told", HEAL_S)
        is_refused = False
        await until(lambda: hops == dict.fromkeys(range(SHARDS), HEARING), "all is heard again", HEAL_S)
    await cancel_until_ended([hearing])
    await world.close()

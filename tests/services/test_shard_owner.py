"""What one calculator gives up, what it takes, and when it looks again, with a clock of the test."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

from prometheus_client import CollectorRegistry

from portfolio_realtime.portfolio_calculator.shard_owner import END_S, MINUTE_S, MOVES_PER_MINUTE, ShardOwner
from portfolio_realtime.service import LEASE_POLL_S
from portfolio_realtime.state import State, keys, open_state
from portfolio_realtime.telemetry import CalculatorMetrics
from tests.conftest import LEASE_MS, SHARDS


async def ignore(_: Sequence[int]) -> None:
    """Nothing comes of shards here."""


def test_a_calculator_gives_up_so_many_shards_a_minute_and_no_more() -> None:
    """Whatever makes loads swing: shards do not wander all the time."""
    now_s = 100.0
    clock = SimpleNamespace(monotonic_s=lambda: now_s)
    context = cast("Any", SimpleNamespace(settings=None, state=None, clock=clock))
    metrics = CalculatorMetrics(CollectorRegistry())
    owner = ShardOwner(context, metrics, ignore, lambda: None, Mock())

    assert [owner._may_give_up(0) for _ in range(MOVES_PER_MINUTE + 5)].count(True) == MOVES_PER_MINUTE
    now_s += MINUTE_S - 1
    assert not owner._may_give_up(0)
    now_s += 1
    assert owner._may_give_up(0)


def owner_of(renew_ms: int) -> ShardOwner:
    """A calculator's shards, with LEASE_RENEW_MS; nothing is asked."""
    context = cast(
        "Any", SimpleNamespace(settings=SimpleNamespace(lease_renew_ms=renew_ms), state=None, clock=None)
    )
    return ShardOwner(context, CalculatorMetrics(CollectorRegistry()), ignore, lambda: None, Mock())


def test_the_next_round_is_when_a_member_ends_or_its_leases_may() -> None:
    """Otherwise it comes with the next renewal: nobody asks more often for nothing."""
    owner = owner_of(1000)
    assert owner._pause_s(math.inf) == 1.0
    assert owner._pause_s(3.5) == 1.0
    assert owner._pause_s(0.3) == 0.3 + END_S
    owner._has_orphans = True
    assert owner._pause_s(3.5) == LEASE_POLL_S
    assert owner._pause_s(0.1) == 0.1 + END_S


async def test_free_shards_are_acquired_together(state: State) -> None:
    """One after the other, each with its readings, they took 5 s on a busy machine, unmarked."""
    settings = SimpleNamespace(lease_renew_ms=LEASE_MS // 3, shards=SHARDS)
    context = cast("Any", SimpleNamespace(settings=settings, state=state, clock=None))
    acquired = list[list[int]]()

    async def note(shards: Sequence[int]) -> None:
        assert owner.leases.keys() == set(range(SHARDS))
        acquired.append(list(shards))

    owner = ShardOwner(context, CalculatorMetrics(CollectorRegistry()), note, lambda: None, Mock())
    await owner._take_share({state.leases.holder})
    assert acquired == [list(range(SHARDS))]
    held = await state.leases.holders([keys.shard_lease(shard) for shard in range(SHARDS)])
    assert set(held.values()) == {state.leases.holder}
    await owner.leave()


async def test_a_shard_whose_holder_is_no_member_is_an_orphan(state: State, valkey_url: str) -> None:
    """Whoever has died holds its leases for a moment longer: they are looked at again soon, and taken."""
    settings = SimpleNamespace(lease_renew_ms=LEASE_MS // 3, shards=SHARDS)
    clock = SimpleNamespace(monotonic_s=lambda: 0.0)
    context = cast("Any", SimpleNamespace(settings=settings, state=state, clock=clock))
    owner = ShardOwner(context, CalculatorMetrics(CollectorRegistry()), ignore, lambda: None, Mock())
    gone = open_state(valkey_url, holder="gone", shards=SHARDS, lease_ms=60_000)
    lease = await gone.leases.acquire(keys.shard_lease(0))
    assert lease is not None
    for members in ({state.leases.holder}, {state.leases.holder, "another"}):
        await owner._take_share(members)
        assert owner._has_orphans
        assert 0 not in owner.leases
    await gone.leases.release(lease)
    await owner._take_share({state.leases.holder})
    assert not owner._has_orphans
    assert 0 in owner.leases
    await owner.leave()
    await gone.close()

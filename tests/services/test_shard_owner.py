"""What one calculator gives up, and when: pure of Valkey, with a clock of the test."""

from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

from prometheus_client import CollectorRegistry

from portfolio_realtime.portfolio_calculator.shard_owner import MINUTE_S, MOVES_PER_MINUTE, ShardOwner
from portfolio_realtime.telemetry import CalculatorMetrics


async def ignore(_: int) -> None:
    """Nothing comes of a shard here."""


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

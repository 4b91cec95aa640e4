"""The benchmark of more of each: a system of two calculators, two servers and three primaries delivers."""

from benchmarks.compare.load import Load
from benchmarks.scaleout.arrangement import Arrangement, run

LOAD = Load(
    connections=20,
    accounts=20,
    symbols=10,
    trades_per_s=20,
    rate=1.0,
    warm_up_s=1.0,
    duration_s=3.0,
    seed=7,
)


async def test_two_of_each_on_three_primaries_deliver_to_all_clients() -> None:
    found = await run(Arrangement("all", calculators=2, servers=2, primaries=3), LOAD)
    assert found.figures["messages_per_s"] > 1
    assert found.figures["messages_per_core_s"] > 0
    assert found.figures["cores.valkey"] > 0
    assert found.figures["resident_mb.portfolio_calculator"] > 0

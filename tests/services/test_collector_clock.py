"""A collector whose machine's clock is set: its turns do not jump with it."""

import dataclasses

from portfolio_realtime.clock import NS_PER_S, SystemClock
from portfolio_realtime.state import State
from portfolio_realtime.symbol_collector.records.account_record import Outcome
from tests.conftest import StartSimulator, Until
from tests.support.collectors import all_known, context_of, running

ACCOUNTS = 3
HOUR_NS = 3600 * NS_PER_S
TURNS = 3  # of each account


class JumpingClock(SystemClock):
    """A calendar that a test sets; seconds go on."""

    ahead_ns = 0

    def now_ns(self) -> int:
        """As set."""
        return super().now_ns() + self.ahead_ns


async def test_a_clock_that_was_an_hour_ahead_takes_no_turn_away(
    simulator: StartSimulator, state: State, until: Until
) -> None:
    """What was due by the wrong calendar is not left alone for an hour once it is right."""
    broker = await simulator(accounts=ACCOUNTS, activities_per_second=0)
    clock = JumpingClock()
    clock.ahead_ns = HOUR_NS
    context = dataclasses.replace(context_of(broker, state, symbol_collection_interval=1), clock=clock)

    def confirmed() -> float:
        labels = {"outcome": Outcome.CONFIRMED.value}
        return context.registry.get_sample_value("portfolio_realtime_reconciled_total", labels) or 0.0

    async with running(context):
        await until(all_known(broker, state), "all accounts are known")
        await until(lambda: confirmed() >= ACCOUNTS, "each has had a second turn")
        clock.ahead_ns = 0
        seen = confirmed()
        await until(lambda: confirmed() >= seen + TURNS * ACCOUNTS, "turns go on")

"""The past that accounts begin with: a line that has no holes, ends at the last equity, tells deposits."""

import itertools
import random
from datetime import date, timedelta
from decimal import Decimal

from alpaca_sim.core.past import invented_days
from portfolio_realtime.symbol_collector.sources.broker_client import BrokerClient
from portfolio_realtime.symbol_collector.sources.closed_days import closed_days
from tests.alpaca_sim.conftest import BROKER, Start


def before(day: date) -> date:
    """Every day is traded."""
    return day - timedelta(days=1)


def test_the_last_day_is_todays_base_and_each_day_follows_from_the_one_before() -> None:
    """Gains of a day stay small beside the account; what moved is named."""
    end = date(2026, 11, 20)
    days = invented_days(Decimal("104211.37"), end, 300, before, random.Random("past"))
    assert (days[-1].day, days[-1].equity) == (end, Decimal("104211.37"))
    assert [day.day for day in days] == [end - timedelta(days=299 - index) for index in range(300)]
    for earlier, later in itertools.pairwise(days):
        flow = sum(later.flows.values(), Decimal(0))
        assert abs(later.equity - earlier.equity - flow) < earlier.equity / 10
        assert (earlier.equity * 100) % 1 == 0
    moved = [kind for day in days for kind in day.flows]
    assert {"CSD", "CSW"} >= set(moved) >= {"CSD"}


def test_an_account_of_little_has_no_past() -> None:
    """Nor has one in debt."""
    for equity in ("99.99", "-5000.00"):
        assert invented_days(Decimal(equity), date(2026, 11, 20), 10, before, random.Random(1)) == []


async def test_the_history_that_is_served_begins_in_the_past_and_ends_at_the_last_equity(
    start: Start,
) -> None:
    """As the symbol collector reads it; without the option there is none."""
    running = await start(past_days=30)
    served = 0
    async with BrokerClient(running.url, BROKER) as client:
        for account_id in running.account_ids:
            days, refused = closed_days(
                await client.portfolio_history(account_id), await client.in_kind_rows(account_id)
            )
            row = await running.get(f"/v1/trading/accounts/{account_id}/account")
            assert not refused
            if days:
                assert len(days) == 30
                assert days[-1].equity is not None
                assert abs(days[-1].equity - Decimal(row["last_equity"])) < Decimal("0.01")
                served += 1
    assert served >= 2
    bare = await start()
    assert (await bare.get(f"/v1/trading/accounts/{bare.account_ids[0]}/account/portfolio/history"))[
        "equity"
    ] == []

"""Closed days from the broker's portfolio history: flows by type, gaps, in-kind days, and what is refused."""

from decimal import Decimal
from typing import Any

import pytest

from portfolio_realtime.model import ClosedDay
from portfolio_realtime.symbol_collector.sources.closed_days import closed_days
from portfolio_realtime.symbol_collector.sources.parse import PayloadRefused, decode

ALPACAS_EXAMPLE = """
{"timestamp":[1775606400,1775692800,1775779200,1775865600],"equity":[8425.21,8639.77,8766.1,8835.31],
 "profit_loss":[12.17,214.56,126.33,69.21],"profit_loss_pct":[0.0014,0.0255,0.0146,0.0079],
 "base_value":8413.04,"base_value_asof":"2026-04-06","timeframe":"1D",
 "cashflow":{"CSD":[9.93,10.13,10.16,0],"DIV":[0,0,0.63,0]}}
"""


def days(**fields: Any) -> list[ClosedDay]:
    found, refused = closed_days({**decode(ALPACAS_EXAMPLE), **fields}, [])
    assert refused == []
    return found


def test_alpacas_own_example_is_read_to_the_cent() -> None:
    """A deposit is the client's own money, a dividend is not; 00:00 UTC is the evening before in New York."""
    assert days() == [
        ClosedDay("2026-04-07", Decimal("8425.21"), Decimal("9.93")),
        ClosedDay("2026-04-08", Decimal("8639.77"), Decimal("10.13")),
        ClosedDay("2026-04-09", Decimal("8766.1"), Decimal("10.16")),
        ClosedDay("2026-04-10", Decimal("8835.31"), Decimal(0)),
    ]


def test_what_is_not_known_is_not_made_up() -> None:
    """A null equity is a gap; without cash flows nobody knows what was brought in."""
    with_gap = days(equity=[8425.21, None, 8766.1, 8835.31])
    assert [day.equity for day in with_gap] == [
        Decimal("8425.21"),
        None,
        Decimal("8766.1"),
        Decimal("8835.31"),
    ]
    assert {day.external_cash_flow for day in days(cashflow=None)} == {None}
    partly = days(cashflow={"CSD": [1, None, 0, 0]})
    assert [day.external_cash_flow for day in partly] == [Decimal(1), None, Decimal(0), Decimal(0)]


def test_cash_of_a_type_that_nobody_describes_makes_its_days_flow_unknown() -> None:
    """It may be the client's own: without this its day showed it as a gain."""
    moved = days(cashflow={"CSD": [1, 0, 0, 0], "NEWTYPE": [0, 500, 0, 0], "DIV": [0, 0, 7, 0]})
    assert [day.external_cash_flow for day in moved] == [1, None, 0, 0]


def test_what_came_in_kind_makes_its_days_flow_unknown() -> None:
    """The row's date may be the day of the booking or the one before its figures: neither is claimed."""
    found, refused = closed_days(decode(ALPACAS_EXAMPLE), [{"activity_type": "JNLS", "date": "2026-04-08"}])
    assert [day.external_cash_flow is None for day in found] == [False, True, True, False]
    assert refused == []


@pytest.mark.parametrize("wrong", [{"timestamp": [1775606400]}, {"equity": "8425.21"}])
def test_what_is_no_history_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PayloadRefused):
        closed_days({**decode(ALPACAS_EXAMPLE), **wrong}, [])


@pytest.mark.parametrize(
    ("wrong", "unknown"),
    [
        ({"equity": [True, 8639.77, 8766.1, 8835.31]}, "equity 0"),
        ({"timestamp": [1775606400, 1.5, 1775779200, 1775865600]}, "timestamp 1"),
        ({"cashflow": {"CSD": [1, 2]}}, "CSD"),
        ({"cashflow": {"CSD": ["x", 1, 2, 3]}}, "CSD 0"),
        ({"timestamp": [1775606400, 1775606400, 1775779200, 1775865600]}, "timestamp 1"),
    ],
)
def test_a_figure_that_cannot_be_read_makes_only_itself_unknown(wrong: dict[str, Any], unknown: str) -> None:
    """And it is named; a day that is told twice, and not alike, is known by neither."""
    found, refused = closed_days({**decode(ALPACAS_EXAMPLE), **wrong}, [])
    assert len(refused) == 1
    assert unknown in refused[0]
    good = {day.date: day for day in days(**({} if "CSD" not in unknown else {"cashflow": None}))}
    differing = [day for day in found if day != good[day.date]]
    assert all(
        day.equity is None or day.external_cash_flow != good[day.date].external_cash_flow for day in differing
    )


@pytest.mark.parametrize("row", [None, 7, {}, {"date": "soon"}, {"id": "x", "date": None}])
def test_a_row_in_kind_without_a_date_may_be_of_any_day(row: Any) -> None:
    """Of no day is then claimed that nothing came in; its id may still tell the date."""
    found, refused = closed_days(decode(ALPACAS_EXAMPLE), [row])
    assert {day.external_cash_flow for day in found} == {None}
    assert len(refused) == 1
    found, refused = closed_days(decode(ALPACAS_EXAMPLE), [{"id": "20260408000000000::a", "date": None}])
    assert [day.external_cash_flow is None for day in found] == [False, True, True, False]
    assert refused == []


def test_an_account_without_days_has_none() -> None:
    assert closed_days({"timestamp": [], "equity": [], "cashflow": {}}, []) == ([], [])

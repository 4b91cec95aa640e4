"""A position's day P&L: one formula for every way to come by a position, worked out by hand."""

from decimal import Decimal
from typing import Any

import pytest

from portfolio_realtime.valuation.position import position_day_pnl

from .records import mark, position

# Each case: quantity, quantity and cost of the day, multiplier, mark, previous close, and the answer.
CASES: list[tuple[str, dict[str, Any], float | None, float | None, str | None]] = [
    # 10 held since before at 100, now 103: 10 × 3 = 30
    ("carried", {"quantity": 10}, 103.0, 100.0, "30"),
    # bought 4 for 408.20, now worth 4 × 103 = 412: 3.80, whatever the previous close
    ("opened", {"quantity": 4, "day_quantity": 4, "day_cost": "408.20"}, 103.0, 100.0, "3.80"),
    # the same, without any previous close: a new listing
    ("opened, new listing", {"quantity": 4, "day_quantity": 4, "day_cost": "408.20"}, 103.0, None, "3.80"),
    # 10 carried × (103 − 100) = 30, and 5 bought for 510, now 515: 5; together 35
    ("partly both", {"quantity": 15, "day_quantity": 5, "day_cost": 510}, 103.0, 100.0, "35"),
    # 10 carried, 4 sold for 4 × 102 = 408: 6 × 103 − 10 × 100 + 408 = 618 − 1000 + 408 = 26
    ("reduced", {"quantity": 6, "day_quantity": -4, "day_cost": -408}, 103.0, 100.0, "26"),
    # 10 carried at 100, all sold for 1015.50: 15.50
    ("closed", {"quantity": 0, "day_quantity": -10, "day_cost": "-1015.50"}, 103.0, 100.0, "15.50"),
    # 3 bought for 300 and sold for 306 on the same day: nothing carried, cost −6: 6, without any mark
    ("opened and closed", {"quantity": 0, "day_quantity": 0, "day_cost": -6}, None, None, "6"),
    # short 10 since before at 100, now 103: −10 × 3 = −30
    ("short", {"quantity": -10}, 103.0, 100.0, "-30"),
    # shorted 10 for 1020 (cost −1020), now −10 × 103 = −1030: −1030 + 1020 = −10
    ("short, opened", {"quantity": -10, "day_quantity": -10, "day_cost": -1020}, 103.0, 100.0, "-10"),
    # long 5 at 100 turned to short 5 by selling 10 for 1010: −5 × 103 − 5 × 100 + 1010 = −5
    ("long to short", {"quantity": -5, "day_quantity": -10, "day_cost": -1010}, 103.0, 100.0, "-5"),
    # 2 contracts of 100: 2 × 100 × (1.25 − 1.10) = 30
    ("option", {"quantity": 2, "multiplier": 100}, 1.25, 1.1, "30.00"),
    # 1 of 3 contracts bought for 120: 100 × (3 × 1.25 − 2 × 1.10) − 120 = 155 − 120 = 35
    (
        "option, added",
        {"quantity": 3, "multiplier": 100, "day_quantity": 1, "day_cost": 120},
        1.25,
        1.1,
        "35.00",
    ),
    # 0.00000003 × (100000.50 − 100000) = 0.000000015
    ("crypto", {"quantity": "0.00000003"}, 100000.5, 100000.0, "0.000000015"),
    # in specie: 7 received and journaled in at 700, now 721: 21
    ("journaled in", {"quantity": 7, "day_quantity": 7, "day_cost": 700}, 103.0, 100.0, "21"),
    # carried without a previous close, or without a mark: not known, so not said
    ("carried, no previous close", {"quantity": 10}, 103.0, None, None),
    ("carried, unpriced", {"quantity": 10}, None, None, None),
    ("opened, unpriced", {"quantity": 4, "day_quantity": 4, "day_cost": 408}, None, None, None),
    ("closed, no previous close", {"quantity": 0, "day_quantity": -10, "day_cost": -1}, 103.0, None, None),
]


@pytest.mark.parametrize(
    ("fields", "price", "close", "answer"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_day_pnl_of_a_position_is_what_was_worked_out_by_hand(
    fields: dict[str, Any], price: float | None, close: float | None, answer: str | None
) -> None:
    """Worth now, less worth at the previous close of what was carried, less what the day cost."""
    shown = None if price is None else mark("A", price, previous_close=close)
    result = position_day_pnl(position("A", **fields), shown)
    assert result == (None if answer is None else Decimal(answer))

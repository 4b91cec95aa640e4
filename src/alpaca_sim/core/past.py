"""Invented portfolio history of a new account, computed backwards from its last equity.

Each earlier day's equity is the next one's without a small random gain or loss, and now and then without a
deposit or a withdrawal. Only portfolio history uses these days.
"""

import random
from collections.abc import Callable
from datetime import date
from decimal import Decimal

from alpaca_sim.core.books import DayEnd
from alpaca_sim.core.decimals import ZERO

CENT = Decimal("0.01")
HUNDRED = Decimal("1E2")
DRIFT = 0.0005  # mean daily return
SPREAD = 0.011  # its standard deviation
FLOW_SHARE = 0.02  # of the days have a deposit or a withdrawal
FLOW_PART_MAX = 0.08  # of the account's equity
EQUITY_MIN = Decimal(100)  # the history ends where equity is less


def invented_days(
    last_equity: Decimal, last_day: date, count: int, day_before: Callable[[date], date], rng: random.Random
) -> list[DayEnd]:
    """Up to `count` days that end with `last_day`, oldest first; `day_before` gives the day before."""
    days: list[DayEnd] = []
    equity, day = last_equity, last_day
    while len(days) < count and equity >= EQUITY_MIN:
        flow = _flow(equity, rng)
        kind = "CSW" if flow < 0 else "CSD"
        days.append(DayEnd(day, equity, {kind: flow} if flow else {}))
        gain = (equity - flow) * Decimal(str(round(rng.gauss(DRIFT, SPREAD), 6)))
        equity = (equity - flow - gain).quantize(CENT)
        day = day_before(day)
    return days[::-1]


def _flow(equity: Decimal, rng: random.Random) -> Decimal:
    if rng.random() >= FLOW_SHARE:
        return ZERO
    part = Decimal(str(round(rng.uniform(-FLOW_PART_MAX / 4, FLOW_PART_MAX), 4)))
    return (equity * part).quantize(HUNDRED)

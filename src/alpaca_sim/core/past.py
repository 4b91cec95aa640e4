"""A past for accounts that have just been made: what their books said on the days before, invented backwards.

From the newest day, whose equity is the account's last equity, each day before is a small gain or loss less,
and now and then a deposit or a withdrawal less. Nothing else of the simulator knows of these days.
"""

import random
from collections.abc import Callable
from datetime import date
from decimal import Decimal

from alpaca_sim.core.books import DayEnd
from alpaca_sim.core.decimals import ZERO

CENT = Decimal("0.01")
HUNDRED = Decimal("1E2")
DRIFT = 0.0005  # of a day, and how much it varies
SPREAD = 0.011
FLOW_SHARE = 0.02  # of the days
FLOW_PART_MAX = 0.08  # of the account
EQUITY_MIN = Decimal(100)  # an account that is worth less has no past


def invented_days(
    last_equity: Decimal, last_day: date, count: int, day_before: Callable[[date], date], rng: random.Random
) -> list[DayEnd]:
    """`count` days up to `last_day`, oldest first; `day_before` knows which days are traded."""
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

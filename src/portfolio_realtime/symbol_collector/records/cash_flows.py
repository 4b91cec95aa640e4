"""External cash flows, and the time from which they count.

Money or securities that the client brings in or takes out are external and must not look like a gain. What
the account earns or pays is internal and part of the P&L. `activity_types` lists which type is which.

`last_equity` is the equity at 16:00 New York of `balance_asof` ("as of previous trading day at 16:00:00 ET").
A flow therefore counts if it was executed after that moment, or booked after the broker had closed its books
of that day. The books of `balance_asof` are complete by 04:00 New York of the next date.
"""

import functools
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Final

from portfolio_realtime.clock import NEW_YORK, NS_PER_S
from portfolio_realtime.model import ZERO
from portfolio_realtime.symbol_collector import activity_types
from portfolio_realtime.symbol_collector.model import Activity

_CUT_OFF: Final = time(16, 0)
DAYS_KEPT: Final = 64  # accounts have few days at one time
_OVERNIGHT_OPENS: Final = time(20, 0)
_BOOKS_CLOSED: Final = time(4, 0)  # Alpaca, "Daily Processes": beginning of day is synchronised at 02:30


def external_cash_flow(activity: Activity) -> Decimal:
    """Dollars that the client brought in (+) or took out (−) by this booking; 0 if it is internal."""
    if activity.is_void or not activity_types.of(activity.activity_type).is_external:
        return ZERO
    securities = activity.value if activity.moves_quantity and activity.is_unit_known else ZERO
    return activity.net_amount + securities


@functools.lru_cache(maxsize=DAYS_KEPT)
def cut_off_ns(balance_asof: str) -> int:
    """16:00 New York of a day `YYYY-MM-DD`. What is executed later is not in `last_equity`."""
    return _new_york_ns(date.fromisoformat(balance_asof), _CUT_OFF)


@functools.lru_cache(maxsize=DAYS_KEPT)
def books_closed_ns(balance_asof: str) -> int:
    """04:00 New York of the date after `YYYY-MM-DD`. What is booked later is not in `last_equity`."""
    return _new_york_ns(date.fromisoformat(balance_asof) + timedelta(days=1), _BOOKS_CLOSED)


def new_prices_ns(split: Activity) -> int:
    """The time from which trades are at prices after a split.

    The overnight market opens at 20:00 New York with the next trade date's prices. If the booking states no
    ex-date, trades from its publication on count as new.
    """
    if split.ex_date is None:
        return split.published_ns
    return _new_york_ns(date.fromisoformat(split.ex_date) - timedelta(days=1), _OVERNIGHT_OPENS)


def new_york_day(at_ns: int) -> str:
    """The date in New York, `YYYY-MM-DD`."""
    return datetime.fromtimestamp(at_ns // NS_PER_S, UTC).astimezone(NEW_YORK).date().isoformat()


def _new_york_ns(day: date, at: time) -> int:
    return int(datetime.combine(day, at, NEW_YORK).timestamp()) * NS_PER_S

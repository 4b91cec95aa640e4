"""When US stocks trade: the sessions of a day in New York, with half days, holidays and DST changes.

A trading day begins on the evening before: overnight 20:00 to 04:00, extended until the open, core until the
close, extended for four more hours (until 20:00, on a half day until 17:00). There is no overnight session
before a day without trading. Source: Alpaca, "24/5 Trading"; open and close from exchange-calendars' XNYS
(`session_table`). Pure.
"""

import bisect
import functools
from datetime import date, datetime, time, timedelta
from enum import Enum
from typing import Final

from portfolio_realtime.clock import NEW_YORK, new_york, ns_of
from portfolio_realtime.market_data_consumer import session_table

OVERNIGHT_FROM: Final = time(20)
EXTENDED_FROM: Final = time(4)
AFTER_CLOSE: Final = timedelta(hours=4)


class Session(Enum):
    """The part of a trading day."""

    OVERNIGHT = "overnight"
    EXTENDED = "extended"
    CORE = "core"
    CLOSED = "closed"


def stock_session(at_ns: int) -> Session:
    """The session at a moment, in nanoseconds since 1970."""
    edges = _edges(_trade_date(at_ns))
    index = bisect.bisect_right(edges, at_ns, key=lambda edge: edge[0])
    return edges[index - 1][1] if index else Session.CLOSED


def close_ns(day: date) -> int | None:
    """When the core session of a day in New York closes, in ns since 1970; None on a day without one."""
    return next((edge_ns for edge_ns, session in _edges(day)[3:4] if session is Session.EXTENDED), None)


def _trade_date(at_ns: int) -> date:
    """The trading day of a moment: from 20:00 on, that of the next date."""
    moment = new_york(at_ns)
    return moment.date() + timedelta(days=moment.time() >= OVERNIGHT_FROM)


@functools.lru_cache(maxsize=64)
def _edges(day: date) -> list[tuple[int, Session]]:
    """When each session of a trading day begins, in ns since 1970; empty for a day without trading."""
    hours = session_table.hours(day)
    if hours is None:
        return []
    return [
        (ns_of(datetime.combine(day - timedelta(days=1), OVERNIGHT_FROM, NEW_YORK)), Session.OVERNIGHT),
        (ns_of(datetime.combine(day, EXTENDED_FROM, NEW_YORK)), Session.EXTENDED),
        (ns_of(hours.opened), Session.CORE),
        (ns_of(hours.closed), Session.EXTENDED),
        (ns_of(hours.closed + AFTER_CLOSE), Session.CLOSED),
    ]

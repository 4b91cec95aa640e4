"""Trading days and sessions in New York: the NYSE calendar (holidays, half days), or a market always open.

Sessions: pre 04:00-09:30, core 09:30-16:00, post 16:00-20:00, overnight 20:00-04:00 from Sunday to Thursday.
An overnight trade after 20:00 has the next day's trade date. Source: Alpaca, "24/5 Trading".
"""

import warnings
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache

from alpaca_sim.core.clock import new_york, new_york_ns

ALWAYS, NYSE = "always", "nyse"
FIRST_DAY, LAST_DAY = date(1990, 1, 2), date(2029, 12, 31)
OPEN, CLOSE, HALF_DAY_CLOSE = time(9, 30), time(16, 0), time(13, 0)
PRE_OPEN, POST_CLOSE, HALF_DAY_POST_CLOSE = time(4, 0), time(20, 0), time(17, 0)
DAYS_SEARCHED_MAX = 30  # two trading days are never further apart


class CalendarError(ValueError):
    """A day is outside the calendar. The message names the first and the last day."""


@dataclass(frozen=True, slots=True)
class TradingDay:
    """One trading day and its close, in New York time."""

    day: date
    close: time = CLOSE

    @property
    def post_close(self) -> time:
        """The end of extended hours; earlier on a half day."""
        return POST_CLOSE if self.close == CLOSE else HALF_DAY_POST_CLOSE


@lru_cache(maxsize=1)
def _nyse_closes() -> dict[date, time]:
    """Every NYSE trading day with its closing time."""
    # The import takes a second, and only this calendar needs it.
    import exchange_calendars

    with warnings.catch_warnings():
        # The library causes deprecation warnings of pandas.
        warnings.simplefilter("ignore")
        calendar = exchange_calendars.get_calendar("XNYS", start=str(FIRST_DAY), end=str(LAST_DAY))
    days = [moment.date() for moment in calendar.sessions]
    return dict.fromkeys(days, CLOSE) | {moment.date(): HALF_DAY_CLOSE for moment in calendar.early_closes}


class Calendar:
    """Trading days and sessions."""

    def __init__(self, name: str = ALWAYS) -> None:
        """`name` is `always` or `nyse`."""
        assert name in (ALWAYS, NYSE)
        self.is_always = name == ALWAYS

    def day(self, day: date) -> TradingDay | None:
        """The trading day, or None for a weekend or a holiday. Raises CalendarError outside the calendar."""
        if self.is_always:
            return TradingDay(day)
        if not FIRST_DAY <= day <= LAST_DAY:
            raise CalendarError(f"{day} is outside the calendar, which goes from {FIRST_DAY} to {LAST_DAY}")
        close = _nyse_closes().get(day)
        return None if close is None else TradingDay(day, close)

    def next_day(self, after: date) -> TradingDay:
        """The first trading day after a date. Raises CalendarError outside the calendar."""
        return self._search(after, 1)

    def previous_day(self, before: date) -> TradingDay:
        """The last trading day before a date. Raises CalendarError outside the calendar."""
        return self._search(before, -1)

    def _search(self, start: date, step: int) -> TradingDay:
        for distance in range(1, DAYS_SEARCHED_MAX):
            found = self.day(start + timedelta(days=step * distance))
            if found is not None:
                return found
        raise CalendarError(f"no trading day near {start}")

    def session(self, at_ns: int) -> str:
        """`pre`, `core`, `post`, `overnight` or `closed`; always `core` in the market that is always open."""
        if self.is_always:
            return "core"
        moment = new_york(at_ns)
        if moment.time() >= POST_CLOSE or moment.time() < PRE_OPEN:
            return "overnight" if self.day(trade_date(moment)) else "closed"
        day = self.day(moment.date())
        if day is None or moment.time() >= day.post_close:
            return "closed"
        if moment.time() < OPEN:
            return "pre"
        return "core" if moment.time() < day.close else "post"

    def opened_day(self, at_ns: int) -> TradingDay:
        """The newest trading day whose core session has begun."""
        moment = new_york(at_ns)
        day = self.day(moment.date())
        return day if day and moment.time() >= OPEN else self.previous_day(moment.date())

    def next_open_ns(self, at_ns: int) -> int:
        """The time at which the next core session begins, in ns since the epoch."""
        today = new_york(at_ns).date()
        opens_ns = at_time_ns(today, OPEN)
        return (
            opens_ns if self.day(today) and opens_ns > at_ns else at_time_ns(self.next_day(today).day, OPEN)
        )

    def next_close_ns(self, at_ns: int) -> int:
        """The time at which the present or the next core session ends, in ns since the epoch."""
        today = new_york(at_ns).date()
        day = self.day(today)
        if day is None or at_time_ns(today, day.close) <= at_ns:
            day = self.next_day(today)
        return at_time_ns(day.day, day.close)


def trade_date(moment: datetime) -> date:
    """The trade date of a New York time: from 20:00 on, it is the next date."""
    return moment.date() + timedelta(days=1) if moment.time() >= POST_CLOSE else moment.date()


def at_time_ns(day: date, at: time) -> int:
    """A New York date and time, to the minute, as ns since the epoch."""
    return new_york_ns(day, at.hour, at.minute)

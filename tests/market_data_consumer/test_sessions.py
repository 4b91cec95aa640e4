"""When US stocks trade, against the exchange's own timetable."""

import subprocess
import sys
from datetime import date, datetime, time, timedelta

import pytest

from portfolio_realtime.clock import NEW_YORK, new_york_date_of
from portfolio_realtime.market_data_consumer import session_table
from portfolio_realtime.market_data_consumer.trading_sessions import (
    Session,
    close_ns,
    stock_session,
)

OVERNIGHT, EXTENDED, CORE, CLOSED = Session.OVERNIGHT, Session.EXTENDED, Session.CORE, Session.CLOSED


def at(text: str) -> int:
    """Nanoseconds of a time in New York."""
    return int(datetime.fromisoformat(text).replace(tzinfo=NEW_YORK).timestamp()) * 10**9


@pytest.mark.parametrize(
    ("moment", "session"),
    [
        ("2026-11-22T19:59:59", CLOSED),  # Sunday
        ("2026-11-22T20:00", OVERNIGHT),
        ("2026-11-23T03:59:59", OVERNIGHT),
        ("2026-11-23T04:00", EXTENDED),
        ("2026-11-23T09:29:59", EXTENDED),
        ("2026-11-23T09:30", CORE),
        ("2026-11-23T16:00", EXTENDED),
        ("2026-11-23T20:00", OVERNIGHT),
        ("2026-11-25T20:00", CLOSED),  # before Thanksgiving
        ("2026-11-26T12:00", CLOSED),
        ("2026-11-26T20:00", OVERNIGHT),  # before the half day
        ("2026-11-27T12:59:59", CORE),
        ("2026-11-27T13:00", EXTENDED),
        ("2026-11-27T16:59:59", EXTENDED),  # four hours after 13:00: some calendars end it at 20:00
        ("2026-11-27T17:00", CLOSED),
        ("2026-11-27T20:00", CLOSED),  # Friday
        ("2026-11-28T12:00", CLOSED),
        ("2026-03-06T09:30", CORE),  # the Friday before clocks change, and the Monday after
        ("2026-03-08T20:00", OVERNIGHT),
        ("2026-03-09T09:29:59", EXTENDED),
        ("2026-03-09T09:30", CORE),
        ("2026-11-01T20:00", OVERNIGHT),
        ("2026-11-02T09:29:59", EXTENDED),
        ("2026-11-02T15:59:59", CORE),
        ("2026-12-06T19:59:59", CLOSED),  # a Sunday in winter: a calendar in UTC is an hour off
        ("2026-12-06T20:00", OVERNIGHT),
        ("2026-12-11T19:59:59", EXTENDED),
        ("2026-12-11T20:00", CLOSED),
        ("2026-12-31T20:00", CLOSED),  # before New Year's Day
        ("2027-01-03T20:00", OVERNIGHT),
    ],
)
def test_every_moment_has_its_session(moment: str, session: Session) -> None:
    """Half days, holidays, weekends and both changes of the clocks."""
    assert stock_session(at(moment)) is session


def test_the_close_of_a_day_is_the_exchanges() -> None:
    """16:00, on a half day 13:00, on a holiday none."""
    assert close_ns(date(2026, 11, 25)) == at("2026-11-25T16:00")
    assert close_ns(date(2026, 11, 27)) == at("2026-11-27T13:00")
    assert close_ns(date(2026, 11, 26)) is None


def test_a_date_is_new_yorks() -> None:
    """At 23:30 there it is tomorrow in UTC."""
    assert new_york_date_of(at("2026-11-22T23:30")) == "2026-11-22"


def test_the_table_says_what_the_library_says() -> None:
    """Of the locked version; `python -m …session_table` writes it after an update."""
    assert session_table.FILE.read_bytes() == session_table.text_of(session_table.made())


@pytest.mark.parametrize("year", [min(session_table.YEARS) - 1, max(session_table.YEARS) + 1, 2026])
def test_each_day_of_a_year_is_the_librarys(year: int) -> None:
    """Within the table and beyond it, where the library is asked."""
    known = session_table.year_of_library(year)
    days = [date(year, 1, 1) + timedelta(days=number) for number in range(365)]
    assert [session_table.hours(day) for day in days] == [known.get(day) for day in days]
    assert session_table.hours(date(2026, 11, 27)) == (
        datetime(2026, 11, 27, 9, 30, tzinfo=NEW_YORK),
        datetime.combine(date(2026, 11, 27), time(13), NEW_YORK),
    )


def test_the_service_needs_no_pandas() -> None:
    """It costs 40 MB and half a second at every start."""
    program = (
        "import sys, datetime\n"
        "from portfolio_realtime.market_data_consumer import consumer, trading_sessions\n"
        "trading_sessions.close_ns(datetime.date(2026, 11, 27))\n"
        "print(*sorted({'pandas', 'exchange_calendars'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

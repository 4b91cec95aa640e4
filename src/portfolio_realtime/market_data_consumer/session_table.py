"""When the New York Stock Exchange opens and closes, day by day.

The years in `xnys.json` are read from that file, other years from exchange-calendars. The file is made from
this library: `python -m portfolio_realtime.market_data_consumer.session_table` writes it again. The library
loads pandas, which would cost a process that needs only these days 40 MB and half a second.
"""

import functools
import warnings
from datetime import date, datetime, time, timedelta
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from portfolio_realtime.clock import NEW_YORK

FILE: Final = Path(__file__).with_name("xnys.json")
LIBRARY: Final = "exchange-calendars"
YEARS: Final = range(2020, 2041)
OPEN: Final = time(9, 30)
CLOSE: Final = time(16)
SATURDAY: Final = 5


class Hours(NamedTuple):
    """Open and close of one day, in New York time."""

    opened: datetime
    closed: datetime


class Year(msgspec.Struct, frozen=True):
    """The unusual days of a year, as MM-DD."""

    closed: frozenset[str]  # Monday to Friday without trading
    early: dict[str, str] = {}  # the close, HH:MM


class Table(msgspec.Struct, frozen=True):
    """The unusual days by year, and the library version that they come from."""

    made_of: str
    years: dict[str, Year]


def hours(day: date) -> Hours | None:
    """Open and close of the exchange on a day, or None if it stays closed."""
    year = _table().years.get(str(day.year))
    return _of_library(day) if year is None else _of_table(day, year)


@functools.cache
def _table() -> Table:
    return msgspec.json.decode(FILE.read_bytes(), type=Table)


def _of_table(day: date, year: Year) -> Hours | None:
    label = f"{day:%m-%d}"
    if day.weekday() >= SATURDAY or label in year.closed:
        return None
    close = time.fromisoformat(year.early[label]) if label in year.early else CLOSE
    return Hours(datetime.combine(day, OPEN, NEW_YORK), datetime.combine(day, close, NEW_YORK))


@functools.lru_cache(maxsize=32)
def year_of_library(year: int) -> dict[date, Hours]:
    """Hours of each day of a year on which the exchange opens, from the library."""
    # Imported here, because it costs half a second and 40 MB and is rarely needed.
    import exchange_calendars

    # pandas warns about the code of the calendars.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        calendar = exchange_calendars.get_calendar("XNYS", start=f"{year}-01-01", end=f"{year}-12-31")
    return {
        label.date(): Hours(
            calendar.session_open(label).tz_convert(NEW_YORK).to_pydatetime(),
            calendar.session_close(label).tz_convert(NEW_YORK).to_pydatetime(),
        )
        for label in calendar.sessions
    }


def _of_library(day: date) -> Hours | None:
    return year_of_library(day.year).get(day)


def made() -> Table:
    """The table from the installed library. Raises ValueError for a day that does not open at 9:30."""
    years: dict[str, Year] = {}
    for number in YEARS:
        known = year_of_library(number)
        closed: set[str] = set()
        early: dict[str, str] = {}
        day = date(number, 1, 1)
        while day.year == number:
            its = known.get(day)
            if its is None and day.weekday() < SATURDAY:
                closed.add(f"{day:%m-%d}")
            if its is not None and its.opened.time() != OPEN:
                raise ValueError(f"{day} opens at {its.opened:%H:%M}")
            if its is not None and its.closed.time() != CLOSE:
                early[f"{day:%m-%d}"] = f"{its.closed:%H:%M}"
            day += timedelta(days=1)
        years[str(number)] = Year(frozenset(closed), early)
    return Table(f"{LIBRARY} {metadata.version(LIBRARY)}", years)


def text_of(table: Table) -> bytes:
    """The table as the content of `xnys.json`."""
    return msgspec.json.format(msgspec.json.encode(table, order="sorted"), indent=1) + b"\n"


if __name__ == "__main__":
    FILE.write_bytes(text_of(made()))

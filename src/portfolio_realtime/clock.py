"""Clocks and time formats. Times are nanoseconds since the epoch in UTC, and tests can pass another clock."""

import functools
import time
from datetime import UTC, date, datetime, timedelta
from typing import Final, Protocol
from zoneinfo import ZoneInfo

NS_PER_S = 1_000_000_000
NEW_YORK: Final = ZoneInfo("America/New_York")
SECONDS_KEPT_MAX = 4096  # cached texts of seconds
_1970 = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """A source of wall-clock and monotonic time."""

    def now_ns(self) -> int:
        """Wall-clock time in nanoseconds since the epoch."""
        ...

    def monotonic_s(self) -> float:
        """Monotonic time in seconds, for deadlines."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ns(self) -> int:
        """Wall-clock time in nanoseconds since the epoch."""
        return time.time_ns()

    def monotonic_s(self) -> float:
        """Monotonic time in seconds."""
        return time.monotonic()


def rfc3339(ns: int) -> str:
    """RFC 3339 in UTC with microseconds, as on the wire: `2026-11-20T15:04:05.123456Z`."""
    seconds, remainder_ns = divmod(ns, NS_PER_S)
    return f"{_second(seconds)}.{remainder_ns // 1000:06d}Z"


@functools.lru_cache(maxsize=SECONDS_KEPT_MAX)
def _second(seconds: int) -> str:
    moment = time.gmtime(seconds)
    return (
        f"{moment.tm_year:04d}-{moment.tm_mon:02d}-{moment.tm_mday:02d}"
        f"T{moment.tm_hour:02d}:{moment.tm_min:02d}:{moment.tm_sec:02d}"
    )


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time, with any offset; digits beyond nanoseconds are cut.

    Raises ValueError when `text` is not such a time.
    """
    fraction_ns = 0
    if "." in text:
        head, rest = text.split(".", 1)
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        fraction_ns = int(digits[:9].ljust(9, "0"))
        text = head + rest[len(digits) :]
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"time without an offset: {text!r}")
    return (moment - _1970) // timedelta(seconds=1) * NS_PER_S + fraction_ns


def new_york_date_of(ns: int) -> str:
    """The New York date of a time, YYYY-MM-DD."""
    return new_york(ns).date().isoformat()


def new_york_midnight_ns(day: date) -> int:
    """The beginning of a New York day, in nanoseconds since the epoch."""
    return ns_of(datetime.combine(day, datetime.min.time(), NEW_YORK))


def new_york(ns: int) -> datetime:
    """The New York date and time, to the second."""
    return datetime.fromtimestamp(ns // NS_PER_S, NEW_YORK)


def ns_of(moment: datetime) -> int:
    """Nanoseconds since the epoch of a date and time, to the second."""
    return int(moment.timestamp()) * NS_PER_S

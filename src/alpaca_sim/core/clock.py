"""Clocks and time formats. Every time of the simulator comes from a `Clock`, in ns since the epoch, UTC."""

import re
import time
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")
SECOND_NS = 1_000_000_000
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)")


class Clock:
    """Wall-clock time, and strictly increasing stamps."""

    def __init__(self) -> None:
        self._last_stamp_ns = 0

    def now_ns(self) -> int:
        """Nanoseconds since the epoch."""
        return time.time_ns()

    def stamp_ns(self) -> int:
        """Now, or one nanosecond after the last stamp if the clock has not advanced past it."""
        self._last_stamp_ns = max(self.now_ns(), self._last_stamp_ns + 1)
        return self._last_stamp_ns


class MovableClock(Clock):
    """A clock that starts at a given time, runs `speed` times as fast as the wall clock, and can be moved.

    With speed 0, time is virtual: it only changes by `move_to`, and the same seed gives the same bytes.
    """

    def __init__(self, start_ns: int | None = None, speed: float = 1.0) -> None:
        """Start at `start_ns`, or now."""
        super().__init__()
        self.speed = speed
        self._base_ns = time.time_ns() if start_ns is None else start_ns
        self._started_ns = time.monotonic_ns()

    def now_ns(self) -> int:
        """Simulated time in nanoseconds since the epoch."""
        if not self.speed:
            return self._base_ns
        passed_ns = time.monotonic_ns() - self._started_ns
        return self._base_ns + (passed_ns if self.speed == 1 else int(passed_ns * self.speed))

    def move_to(self, at_ns: int) -> None:
        """Move ahead to `at_ns`; a time in the past changes nothing."""
        self._base_ns += max(0, at_ns - self.now_ns())


@lru_cache(maxsize=1024)
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339(at_ns: int) -> str:
    """UTC with nine decimals, as in 2022-08-17T10:18:24.114694956Z."""
    second, fraction_ns = divmod(at_ns, SECOND_NS)
    return f"{_second_text(second)}.{fraction_ns:09d}Z"


def rfc3339_seconds(at_ns: int) -> str:
    """UTC in whole seconds, as in 2022-08-17T10:18:24Z: the format of bar times."""
    return f"{_second_text(at_ns // SECOND_NS)}Z"


def parse_time_ns(text: str) -> int:
    """Read an RFC 3339 time, to the nanosecond, or a date (its midnight UTC), as ns since the epoch.

    Raises ValueError.
    """
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return _datetime_ns(datetime.fromisoformat(text).replace(tzinfo=UTC))
    matched = _RFC3339.fullmatch(text.strip())
    if matched is None:
        raise ValueError(f"not an RFC 3339 time or date: {text!r}")
    day, clock_time, fraction, offset = matched.groups()
    whole = datetime.fromisoformat(f"{day}T{clock_time}{'+00:00' if offset in 'Zz' else offset}")
    return _datetime_ns(whole) + int((fraction or "").ljust(9, "0"))


def _datetime_ns(moment: datetime) -> int:
    return int(moment.timestamp()) * SECOND_NS


def new_york(at_ns: int) -> datetime:
    """The New York date and time, to the microsecond."""
    return datetime.fromtimestamp(at_ns // SECOND_NS, NEW_YORK) + timedelta(
        microseconds=at_ns % SECOND_NS // 1000
    )


def new_york_ns(day: date, hour: int = 0, minute: int = 0) -> int:
    """A New York date and time as ns since the epoch."""
    return _datetime_ns(datetime(day.year, day.month, day.day, hour, minute, tzinfo=NEW_YORK))

"""Times as text and back, to the nanosecond."""

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_realtime.clock import NS_PER_S, SystemClock, parse_rfc3339, rfc3339

YEAR_1_S = -62_135_596_800
YEAR_10000_S = 253_402_300_800
MOMENT_NS = 1_795_187_045 * NS_PER_S  # 2026-11-20T15:04:05Z


@given(st.integers(YEAR_1_S * NS_PER_S, YEAR_10000_S * NS_PER_S - 1))
def test_a_time_reads_back_to_the_microsecond(ns: int) -> None:
    """What we write we read, less what lies below a microsecond."""
    assert parse_rfc3339(rfc3339(ns)) == ns - ns % 1000


@given(
    st.integers(YEAR_1_S + 86_400, YEAR_10000_S - 86_401),
    st.integers(0, 999_999_999),
    st.integers(0, 9),
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
)
def test_any_offset_and_fraction_is_read(second: int, fraction: int, digits: int, offset_min: int) -> None:
    """0 to 9 digits and every offset name the same instant, to the last digit given."""
    zone = timezone(timedelta(minutes=offset_min))
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
    shown = f"{fraction:09d}"[:digits]
    text = moment.astimezone(zone).isoformat()
    local, offset = text[:19], text[19:]
    expected_ns = second * NS_PER_S + int(shown.ljust(9, "0"))
    assert parse_rfc3339(f"{local}{'.' if digits else ''}{shown}{offset}") == expected_ns


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("2026-11-20T15:04:05Z", 0),
        ("2026-11-20T15:04:05.1Z", 100_000_000),
        ("2026-11-20T15:04:05.123456789Z", 123_456_789),
        ("2026-11-20T15:04:05.1234567899Z", 123_456_789),
        ("2026-11-20T10:04:05.5-05:00", 500_000_000),
        ("2026-11-20T20:49:05+05:45", 0),
        ("2026-11-20 15:04:05.000000001+00:00", 1),
    ],
)
def test_times_as_brokers_write_them(text: str, nanoseconds: int) -> None:
    """All the same second."""
    assert parse_rfc3339(text) == MOMENT_NS + nanoseconds


def test_a_fraction_before_1970_counts_forward() -> None:
    """Half a second after 23:59:59 is half a second before 1970."""
    assert parse_rfc3339("1969-12-31T23:59:59.5Z") == -NS_PER_S // 2
    assert rfc3339(-NS_PER_S // 2) == "1969-12-31T23:59:59.500000Z"


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00"])
def test_the_zero_time_of_other_languages_is_a_time(text: str) -> None:
    """The first instant that can be written does not overflow, whatever its offset."""
    assert parse_rfc3339(text) <= YEAR_1_S * NS_PER_S


@pytest.mark.parametrize(
    "text", ["", "soon", "2026-11-20", "2026-11-20T15:04:05", "2026-13-01T00:00:00Z", "15:04:05Z", "."]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    """Also a time without an offset: nobody knows when it was."""
    with pytest.raises(ValueError, match=r".+"):
        parse_rfc3339(text)


def test_the_systems_clock_is_the_machines() -> None:
    """Wall clock in nanoseconds, and seconds that do not go back."""
    clock = SystemClock()
    assert abs(clock.now_ns() - time.time_ns()) < 60 * NS_PER_S
    assert clock.monotonic_s() <= clock.monotonic_s()

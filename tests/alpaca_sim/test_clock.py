"""Stamps and times: nanoseconds kept, offsets understood, New York's days found."""

from datetime import date

import pytest

from alpaca_sim.core.clock import SECOND_NS, new_york, new_york_ns, parse_time_ns, rfc3339
from tests.support.clocks import START_NS, SetClock


def test_stamps_grow_while_the_clock_stands_still_or_goes_back() -> None:
    """Every stamp is later than the one before."""
    clock = SetClock()
    stamps = [clock.stamp_ns() for _ in range(3)]
    clock.at_ns -= SECOND_NS
    stamps.append(clock.stamp_ns())
    assert stamps == [START_NS, START_NS + 1, START_NS + 2, START_NS + 3]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2022-08-17T10:18:24.114694956Z", "2022-08-17T10:18:24.114694956Z"),
        ("2022-08-17T06:18:24.5-04:00", "2022-08-17T10:18:24.500000000Z"),
        ("2022-08-17T10:18:24+00:00", "2022-08-17T10:18:24.000000000Z"),
        ("2022-08-17", "2022-08-17T00:00:00.000000000Z"),
    ],
)
def test_times_are_read_to_the_nanosecond(written: str, meant: str) -> None:
    """With any offset and any number of decimals; a date is its midnight UTC."""
    assert rfc3339(parse_time_ns(written)) == meant


@pytest.mark.parametrize("written", ["", "now", "2022-13-01", "2022-08-17T10:18", "2022-08-17T10:18:24"])
def test_what_is_no_time_is_refused(written: str) -> None:
    """A time without an offset could mean anything."""
    with pytest.raises(ValueError, match=r".+"):
        parse_time_ns(written)


def test_new_york_days_follow_daylight_saving() -> None:
    """Midnight is at 04:00 UTC in summer and at 05:00 in winter."""
    assert rfc3339(new_york_ns(date(2026, 7, 1)))[11:13] == "04"
    assert rfc3339(new_york_ns(date(2026, 12, 1)))[11:13] == "05"
    assert new_york(parse_time_ns("2026-07-02T03:59:59Z")).date() == date(2026, 7, 1)

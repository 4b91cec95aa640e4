"""Marks by the minute, and bookings beside their records: what is written is what is read."""

import pytest

from portfolio_realtime.errors import LeaseLost
from portfolio_realtime.model import CRYPTO, US_EQUITY, Booking, Bookings, MinuteMark, MinuteMarks
from portfolio_realtime.state import State, keys
from portfolio_realtime.state.connection import WRITE_FIELDS_MAX
from portfolio_realtime.state.minutes import READ_KEYS_MAX, whole_at_or_before
from tests.support.leases import lease_of

from .records import NOW_NS, account

MINUTE_NS = 60_000_000_000


async def test_minutes_round_trip(state: State) -> None:
    """Several feeds share a minute; a lost mark and a class that nobody has completed are told apart."""
    stocks, crypto = await lease_of(state, "stocks"), await lease_of(state, "crypto")
    a, btc = MinuteMark(0.1, NOW_NS - 1), MinuteMark(123456.78900000001, NOW_NS)

    await state.minutes.write(stocks, NOW_NS, US_EQUITY, {"A": a, "B": None}, is_whole=True)
    await state.minutes.write(crypto, NOW_NS, CRYPTO, {"BTC/USD": btc}, is_whole=False)

    symbols = ["A", "B", "C", "BTC/USD"]
    assert await state.minutes.read([NOW_NS, NOW_NS + MINUTE_NS], symbols) == [
        MinuteMarks(NOW_NS, {US_EQUITY: True, CRYPTO: False}, {"A": a, "B": None, "BTC/USD": btc}),
        MinuteMarks(NOW_NS + MINUTE_NS, {}, {}),
    ]
    left_s = await state.connection.commands.ttl(keys.minute(NOW_NS))
    assert 0 < left_s <= keys.MINUTES_TTL_S


async def test_many_symbols_and_minutes_are_written_and_read_in_parts(state: State) -> None:
    """More fields than one step takes, more minutes than one pipeline."""
    lease = await lease_of(state)
    marks = {f"S{index}": MinuteMark(index + 0.5, NOW_NS) for index in range(WRITE_FIELDS_MAX + 2)}
    times_ns = [NOW_NS + index * MINUTE_NS for index in range(READ_KEYS_MAX + 2)]
    await state.minutes.write(lease, times_ns[-1], US_EQUITY, marks, is_whole=True)

    found = await state.minutes.read(times_ns, [*marks])

    assert [minute.at_ns for minute in found] == times_ns
    assert found[-1] == MinuteMarks(times_ns[-1], {US_EQUITY: True}, {**marks})
    assert not found[0].complete


async def test_a_consumer_that_was_paused_cannot_write_into_the_past(state: State) -> None:
    """A newer owner of the feed's lease has written: the older one is refused."""
    old = await lease_of(state, "stocks")
    await state.leases.release(old)
    new = await lease_of(state, "stocks")
    await state.minutes.write(new, NOW_NS, US_EQUITY, {}, is_whole=True)

    with pytest.raises(LeaseLost):
        await state.minutes.write(old, NOW_NS, US_EQUITY, {"A": MinuteMark(1.0, 1)}, is_whole=True)
    assert (await state.minutes.read([NOW_NS], ["A"]))[0].marks == {}


def test_the_key_of_a_minute_is_readable() -> None:
    """UTC, to the second."""
    assert keys.minute(NOW_NS) == "{minutes:20251120150000}"


def test_every_sixtieth_minute_is_whole() -> None:
    """Nobody needs to read further back than an hour of minutes."""
    assert whole_at_or_before(NOW_NS + 7 * MINUTE_NS, MINUTE_NS) == NOW_NS
    assert whole_at_or_before(NOW_NS, MINUTE_NS) == NOW_NS


async def test_bookings_are_read_with_the_record_they_belong_to(state: State) -> None:
    """Of another version, they are not given out; with the record, they go."""
    lease = await lease_of(state)
    one = Booking(
        NOW_NS, account("a").cash, account("a").cash, "A", US_EQUITY, account("a").cash, account("a").cash
    )
    bookings = Bookings("a", 1, NOW_NS - 2, NOW_NS - 1, (one,))
    assert await state.accounts.read_with_bookings("a") is None

    await state.accounts.write(lease, [account("a", 1)], [bookings])
    assert await state.accounts.read_with_bookings("a") == (account("a", 1), bookings)

    await state.accounts.write(lease, [account("a", 2)])
    assert await state.accounts.read_with_bookings("a") == (account("a", 2), None)

    await state.accounts.remove(lease, ["a"])
    await state.accounts.write(lease, [account("a", 1)])
    assert await state.accounts.read_with_bookings("a") == (account("a", 1), None)

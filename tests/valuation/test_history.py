"""The picture of the day, minute by minute, against sums made one by one in Decimal."""

from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from portfolio_realtime.model import US_EQUITY, Account, Booking, Bookings, MinuteMark, MinuteMarks
from portfolio_realtime.valuation.history import history, symbols_of
from tests.valuation.records import account, oracle_figures, position

MINUTE_NS = 60_000_000_000
BEGAN_NS = 1_763_672_400_000_000_000  # 2025-11-20T21:00:00Z


def minute(number: int, *, is_whole: bool = False, **prices: float | None) -> MinuteMarks:
    """A complete minute with these changes."""
    at_ns = BEGAN_NS + number * MINUTE_NS
    return MinuteMarks(at_ns, {US_EQUITY: is_whole}, marked_at(at_ns, prices))


def marked_at(at_ns: int, prices: dict[str, float | None]) -> dict[str, MinuteMark | None]:
    """Marks traded at that very moment."""
    return {symbol: None if price is None else MinuteMark(price, at_ns) for symbol, price in prices.items()}


def unknown(number: int, **prices: float | None) -> MinuteMarks:
    """A minute that nobody has seen to its end."""
    at_ns = BEGAN_NS + number * MINUTE_NS
    return MinuteMarks(at_ns, {}, marked_at(at_ns, prices))


def booking(number: float, cash: Any = 0, quantity: Any = 0, flow: Any = 0, symbol: str = "A") -> Booking:
    """A booking so many minutes after the beginning."""
    at_ns = BEGAN_NS + int(number * MINUTE_NS)
    sizes = (Decimal(cash), Decimal(flow), Decimal(quantity))
    return Booking(at_ns, sizes[0], sizes[1], symbol if quantity else "", US_EQUITY, sizes[2], Decimal(1))


def booked(*bookings: Booking, known_since: int = 0) -> Bookings:
    """The day's bookings; before `known_since` some may be missing."""
    return Bookings("alice", 1, BEGAN_NS, BEGAN_NS + known_since * MINUTE_NS, bookings)


def points(held: Account, bookings: Bookings, *minutes: MinuteMarks, since: int = 0) -> list[dict[str, Any]]:
    """The points of the picture."""
    answer = history(held, bookings, minutes, BEGAN_NS + since * MINUTE_NS, "1Min")
    return msgspec.json.decode(answer)["points"]


def equities(*arguments: Any, **options: Any) -> list[str | None]:
    """Their equities."""
    return [point["equity"] for point in points(*arguments, **options)]


def test_a_price_stays_until_it_changes() -> None:
    """Only changes are written down."""
    held = account(positions=[position("A", 10)], cash="0")

    assert equities(
        held, booked(), minute(0, is_whole=True, A=1.5), minute(1), minute(2, A=1.6), minute(3)
    ) == ["15.00", "15.00", "16.00", "16.00"]


def test_nothing_is_carried_over_a_gap() -> None:
    """After a gap only a minute that names all symbols says anything."""
    held = account(positions=[position("A", 10)], cash="0")

    seen = equities(
        held, booked(), minute(0, is_whole=True, A=1.5), unknown(1, A=7.0), minute(2), minute(3, A=1.6)
    )
    assert seen == ["15.00", None, None, "16.00"]
    assert equities(held, booked(), minute(0, is_whole=True, A=1.5), minute(1, is_whole=True)) == [
        "15.00",
        None,
    ]
    assert equities(held, booked(), minute(0, is_whole=True, A=1.5), minute(1, A=None), minute(2)) == [
        "15.00",
        None,
        None,
    ]


def test_a_booking_counts_from_the_minute_at_which_it_was_executed() -> None:
    """Bought and paid for, deposited: at that very moment, not before."""
    held = account(positions=[position("A", 10)], cash="85.00", last_equity="100", external_cash_flow="10")
    bookings = booked(booking(1, cash="-25.00", quantity=10), booking(1.5, cash=10, flow=10))

    seen = points(held, bookings, minute(0, is_whole=True, A=2.4), minute(1, A=2.5), minute(2, A=2.6))

    assert [(one["equity"], one["external_cash_flow"], one["day_pnl"]) for one in seen] == [
        ("100.00", "0.00", "0.00"),
        ("100.00", "0.00", "0.00"),
        ("111.00", "10.00", "1.00"),
    ]


def test_a_symbol_without_a_price_matters_only_while_it_is_held() -> None:
    """What was bought later does not make the morning unknown, nor does what was sold the evening."""
    held = account(positions=[position("A", 1)], cash="0")
    bookings = booked(booking(0.5, quantity=-3, cash=9, symbol="B"), booking(1.5, quantity=1, cash=-9))

    assert symbols_of(held, bookings) == ["A", "B"]
    assert equities(
        held, bookings, minute(0, is_whole=True, B=3.0), minute(1, is_whole=True), minute(2, A=5.0)
    ) == ["9.00", "9.00", "5.00"]


def test_before_bookings_are_known_nothing_is_said() -> None:
    """A point that a missing booking may have changed is null."""
    held = account(positions=[], cash="7")

    seen = points(held, booked(known_since=1), minute(0), minute(1))

    assert [(one["equity"], one["external_cash_flow"], one["day_pnl"]) for one in seen] == [
        (None, None, None),
        ("7.00", "0.00", "-993.00"),
    ]


def test_a_transfer_that_nobody_values_leaves_the_gain_unknown() -> None:
    """As in the publication."""
    held = account(positions=[], cash="7", unvalued=("A",))

    assert points(held, booked(), minute(0))[0]["day_pnl"] is None


def test_around_a_split_pieces_and_prices_must_be_of_the_same_kind() -> None:
    """New prices of old pieces, or old prices of new ones, are no value."""
    held = account(
        positions=[msgspec.structs.replace(position("A", 20), marks_from_ns=BEGAN_NS + MINUTE_NS)], cash="0"
    )
    split = msgspec.structs.replace(booking(2, quantity=10), is_split=True)
    late = msgspec.structs.replace(booking(0.5, quantity=10), is_split=True)
    minutes = [minute(0, is_whole=True, A=8.0), minute(1, A=4.0), minute(2), minute(3, A=4.5)]

    assert equities(held, booked(split), *minutes) == ["80.00", None, "80.00", "90.00"]
    assert equities(held, booked(late), minutes[0], minute(1), minute(2)) == ["80.00", None, None]
    assert equities(held, booked(), *minutes) == [None, "80.00", "80.00", "90.00"]


def test_earlier_minutes_only_bring_prices() -> None:
    """They are read to know the prices at the beginning and are no points themselves."""
    held = account(positions=[position("A", 10)], cash="0")

    assert equities(held, booked(), minute(-1, is_whole=True, A=1.5), minute(0), since=0) == ["15.00"]


quantities = st.decimals("-1e6", "1e6", places=9)
prices = st.floats(1e-4, 1e5)
trades = st.tuples(
    st.integers(1, 29), quantities, st.sampled_from("AB"), st.decimals("-1e6", "1e6", places=2)
)


@given(
    held=st.tuples(quantities, quantities),
    made=st.lists(trades, max_size=4),
    marked=st.lists(st.tuples(prices, prices), min_size=3, max_size=3),
    cash=st.decimals("-1e6", "1e6", places=3),
)
def test_every_point_is_the_exact_sum_rounded_once(
    held: tuple[Decimal, Decimal],
    made: list[tuple[int, Decimal, str, Decimal]],
    marked: list[tuple[float, float]],
    cash: Decimal,
) -> None:
    """Floats and their error bound lead to the same cents as Decimal does, whatever was booked."""
    now = account(positions=[position("A", held[0]), position("B", held[1])], cash=cash)
    bookings = booked(
        *(
            booking(tenth / 10, quantity=quantity, symbol=symbol, cash=paid)
            for tenth, quantity, symbol, paid in made
        )
    )
    minutes = [minute(index, is_whole=True, A=a, B=b) for index, (a, b) in enumerate(marked)]

    seen = points(now, bookings, *minutes)

    for index, (point, (a, b)) in enumerate(zip(seen, marked, strict=True)):
        later = [one for one in made if one[0] / 10 > index]
        units = {
            symbol: quantity - sum((one[1] for one in later if one[2] == symbol), Decimal(0))
            for symbol, quantity in zip("AB", held, strict=True)
        }
        then = account(
            positions=[position(symbol, quantity) for symbol, quantity in units.items()],
            cash=cash - sum((one[3] for one in later), Decimal(0)),
        )
        expected = oracle_figures(then, {"A": a, "B": b})
        assert (point["equity"], point["day_pnl"]) == (expected.equity, expected.day_pnl)

"""The table of conditions, row by row, as Alpaca prints it: minute open and close."""

import pytest

from portfolio_realtime.market_data_consumer.conditions import (
    TradeEffect,
    crypto_effect,
    option_effect,
    stock_effect,
)

ALL_TAPES = "ABCNO"
# code, tapes, minute open/close: copied from the published table, in its order
TABLE = [
    (" ", "AB", "yes"),
    ("@", "CO", "yes"),
    ("A", "C", "yes"),
    ("B", "AB", "no"),
    ("B", "C", "yes"),
    ("C", ALL_TAPES, "no"),
    ("D", "C", "yes"),
    ("E", "AB", "yes"),
    ("F", "ABC", "yes"),
    ("G", "C", "first"),
    ("H", "ABC", "no"),
    ("I", ALL_TAPES, "no"),
    ("K", "ABC", "yes"),
    ("L", "ABC", "yes"),
    ("M", "ABC", "no"),
    ("N", ALL_TAPES, "no"),
    ("O", "ABC", "yes"),
    ("P", ALL_TAPES, "first"),
    ("Q", "ABC", "no"),
    ("R", ALL_TAPES, "no"),
    ("T", ALL_TAPES, "yes"),
    ("U", ALL_TAPES, "no"),
    ("V", "ABC", "no"),
    ("W", "CO", "no"),
    ("X", "ABC", "yes"),
    ("Y", "C", "yes"),
    ("Z", "ABC", "first"),
    ("4", "ABC", "first"),
    ("5", "ABC", "yes"),
    ("6", "ABC", "yes"),
    ("7", "ABC", "no"),
    ("9", "ABC", "no"),
]
BY_NIGHT = [(" ", "N", "yes"), ("@", "N", "yes")]  # the published table has no regular trade for tape N
EFFECTS = {"yes": TradeEffect.MOVES, "no": TradeEffect.NEVER, "first": TradeEffect.FIRST_ONLY}
CODES = sorted({code for code, _, _ in TABLE})


@pytest.mark.parametrize(("code", "tapes", "minute"), [*TABLE, *BY_NIGHT])
def test_each_row_of_the_table_holds(code: str, tapes: str, minute: str) -> None:
    """A trade with this one condition does what the table says on its tapes, and only on them."""
    rows = [*TABLE, *BY_NIGHT]
    others = [row_tapes for row_code, row_tapes, _ in rows if row_code == code and row_tapes != tapes]
    for tape in ALL_TAPES:
        if tape in tapes:
            assert EFFECTS[minute] == stock_effect((code,), tape)
        elif tape not in "".join(others):
            assert stock_effect((code,), tape) == TradeEffect.UNKNOWN


@pytest.mark.parametrize("tape", ALL_TAPES)
def test_the_strictest_condition_wins(tape: str) -> None:
    """Two conditions together do what the stricter one does, in either order."""
    for first in CODES:
        for second in CODES:
            strictest = max(stock_effect((first,), tape), stock_effect((second,), tape))
            assert strictest == stock_effect((first, second), tape)


def test_an_unknown_condition_never_moves() -> None:
    """A code that nobody has described is treated as one that does not move the price."""
    assert stock_effect(("@", "?"), "C") == TradeEffect.UNKNOWN
    assert stock_effect(("@",), "") == TradeEffect.UNKNOWN
    assert option_effect("?", "") == TradeEffect.UNKNOWN


def test_a_trade_without_conditions_moves() -> None:
    """No condition says that there is nothing special about a trade."""
    assert stock_effect((), "C") == TradeEffect.MOVES
    assert stock_effect(None, "C") == TradeEffect.MOVES
    assert option_effect("", "") == TradeEffect.MOVES


@pytest.mark.parametrize("code", "ABCDEFG")
def test_cancelled_and_late_option_trades_never_move(code: str) -> None:
    """A to G say that the trade was cancelled or reported late."""
    assert option_effect(code, "") == TradeEffect.NEVER
    assert option_effect((code,), "") == TradeEffect.NEVER


@pytest.mark.parametrize("code", "HIJSabcdefghijk")
def test_other_option_trades_move(code: str) -> None:
    """The other letters are ordinary trades; I, an odd lot of a stock, is one of them here."""
    assert option_effect(code, "") == TradeEffect.MOVES


def test_every_crypto_trade_moves() -> None:
    """Crypto trades have no conditions; whatever is there is not looked at."""
    assert crypto_effect(("I",), "C") == TradeEffect.MOVES

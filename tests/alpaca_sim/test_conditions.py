"""The table of trade conditions, row by row: minute open/close, as Alpaca's market-data FAQ prints it."""

import pytest

from alpaca_sim.core.conditions import counts_volume, moves_price
from tests.support.condition_rows import ROWS


@pytest.mark.parametrize(("code", "tapes", "minute"), ROWS)
def test_each_condition_moves_the_price_as_the_table_says(code: str, tapes: str, minute: str) -> None:
    """With a price there, only a yes moves it; without one, "first only" sets it."""
    for tape in tapes:
        assert moves_price("us_equity", tape, (code,), has_price=True) == (minute == "yes")
        assert moves_price("us_equity", tape, (code,), has_price=False) == (minute != "no")


def test_the_strictest_condition_wins() -> None:
    """A sweep that is an odd lot does not move the price; a sweep after hours does."""
    assert not moves_price("us_equity", "C", ("@", "F", "I"), has_price=True)
    assert not moves_price("us_equity", "C", ("@", "4"), has_price=True)
    assert moves_price("us_equity", "C", ("@", "F", "T"), has_price=True)


@pytest.mark.parametrize(
    ("code", "tape"), [("?", "C"), ("@", "A"), (" ", "C"), ("W", "A"), ("Y", "B"), ("S", "A")]
)
def test_a_code_that_the_tape_does_not_know_never_moves_the_price(code: str, tape: str) -> None:
    """Not in the table is not a licence."""
    assert not moves_price("us_equity", tape, (code,), has_price=False)


def test_options_follow_their_own_letters_and_crypto_none() -> None:
    """Cancelled and late option reports do not count; each crypto trade does."""
    for code in "ABCDEFG?":
        assert not moves_price("us_option", "", (code,), has_price=True)
    for code in "HIJSabcdefghijk":
        assert moves_price("us_option", "", (code,), has_price=True)
    assert moves_price("crypto", "", (), has_price=True)


def test_official_prices_have_no_volume() -> None:
    """Q, M and 9 repeat what was traded already."""
    assert [code for code in "QM9@IT" if not counts_volume((code,))] == ["Q", "M", "9"]

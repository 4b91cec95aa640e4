"""Which trades set the last price. Of a trade's conditions, the strictest decides.

Source: Alpaca, Market Data FAQ, "how bars are computed", the column for a minute bar's open and close. A
code that the table does not list for the tape sets no price.
"""

from collections.abc import Sequence
from enum import Enum


class Effect(Enum):
    """Whether a trade with a condition may set the last price."""

    MOVES = "moves"
    FIRST_ONLY = "first only"  # only if the symbol has no price yet
    NEVER = "never"


ALL = "ABCNO"
STOCK_CONDITIONS: dict[tuple[str, str], Effect] = {}


def _row(codes: str, tapes: str, effect: Effect) -> None:
    for code in codes:
        for tape in tapes:
            STOCK_CONDITIONS[code, tape] = effect


_row(" ", "AB", Effect.MOVES)  # regular
_row("@", "CO", Effect.MOVES)  # regular
_row("A", "C", Effect.MOVES)  # acquisition
_row("B", "AB", Effect.NEVER)  # average price
_row("B", "C", Effect.MOVES)  # bunched
_row("C", ALL, Effect.NEVER)  # cash sale
_row("D", "C", Effect.MOVES)  # distribution
_row("E", "AB", Effect.MOVES)  # automatic execution
_row("F", "ABC", Effect.MOVES)  # intermarket sweep
_row("G", "C", Effect.FIRST_ONLY)  # bunched sold
_row("H", "ABC", Effect.NEVER)  # price variation
_row("I", ALL, Effect.NEVER)  # odd lot
_row("K", "ABC", Effect.MOVES)  # rule 127 / 155
_row("L", "ABC", Effect.MOVES)  # sold last
_row("M", "ABC", Effect.NEVER)  # official close
_row("N", ALL, Effect.NEVER)  # next day
_row("O", "ABC", Effect.MOVES)  # market-center opening
_row("P", ALL, Effect.FIRST_ONLY)  # prior reference price
_row("Q", "ABC", Effect.NEVER)  # official open
_row("R", ALL, Effect.NEVER)  # seller
_row("T", ALL, Effect.MOVES)  # extended hours: the minute bar, not the daily bar
_row("U", ALL, Effect.NEVER)  # extended hours, out of sequence
_row("V", "ABC", Effect.NEVER)  # contingent
_row("W", "CO", Effect.NEVER)  # average price
_row("X", "ABC", Effect.MOVES)  # cross
_row("Y", "C", Effect.MOVES)  # yellow flag
_row("Z", "ABC", Effect.FIRST_ONLY)  # sold out of sequence
_row("4", "ABC", Effect.FIRST_ONLY)  # derivatively priced
_row("56", "ABC", Effect.MOVES)  # reopening, closing
_row("79", "ABC", Effect.NEVER)  # qualified contingent, corrected consolidated close

OPTION_CONDITIONS_MOVING = frozenset("HIJSabcdefghijklmnopqrstuv")
REGULAR_CONDITIONS = " @"
VOLUMELESS_CONDITIONS = frozenset("QM9")


def moves_price(asset_class: str, tape: str, conditions: Sequence[str], has_price: bool) -> bool:
    """Whether a trade sets the last price.

    Crypto trades always do; options have condition codes of their own.
    """
    if asset_class == "crypto":
        return True
    if asset_class == "us_option":
        return all(condition in OPTION_CONDITIONS_MOVING for condition in conditions)
    for condition in conditions:
        effect = STOCK_CONDITIONS.get((condition, tape), Effect.NEVER)
        if effect is Effect.NEVER or (effect is Effect.FIRST_ONLY and has_price):
            return False
    return True


def moves_night_price(conditions: Sequence[str]) -> bool:
    """Whether a trade of the overnight market (tape N) sets that market's last price.

    The table has no regular code for this tape. Here a space and `@` both mean an ordinary trade.
    """
    odd = [condition for condition in conditions if condition not in REGULAR_CONDITIONS]
    return moves_price("us_equity", "N", odd, has_price=True)


def moves_daily_bar(conditions: Sequence[str]) -> bool:
    """Whether a trade that sets the price also counts for the daily bar's prices: extended hours do not."""
    return "T" not in conditions


def counts_volume(conditions: Sequence[str]) -> bool:
    """Whether a trade's size is part of bar volume: official prices and corrections are not counted."""
    return VOLUMELESS_CONDITIONS.isdisjoint(conditions)


def regular_condition(tape: str) -> str:
    """The condition code of an ordinary trade on a tape."""
    return " " if tape in "AB" else "@"

"""What the conditions of a trade let it do to a mark: one table for stocks, one for options.

The rule is Alpaca's for the open and close of minute bars, which is also the rule of its "latest trade":
the strictest condition of a trade wins, and a condition that the table does not have for the trade's tape
moves nothing. Source: Alpaca, Market Data FAQ, "How are bars aggregated?". The table has no regular condition
for tape N, the overnight market, though that market's bars are made of such trades: there both letters count.
"""

from enum import IntEnum
from typing import Final

CONDITION_SETS_MAX: Final = 4096  # remembered combinations; a feed has a few hundred


class Effect(IntEnum):
    """From the mildest to the strictest."""

    MOVES = 0
    FIRST_ONLY = 1  # sets a mark only where no other trade does
    NEVER = 2
    UNKNOWN = 3  # not in the table: treated as NEVER, and counted


Conditions = tuple[str, ...] | str | None

_TAPES: Final = {"all": "ABCNO", "AB": "AB", "ABC": "ABC", "C": "C", "CO": "CO", "N": "N"}
_MINUTE_RULE: Final = (
    # codes, tapes, effect on the open and close of the minute bar
    (" ", "AB", Effect.MOVES),  # regular
    ("@", "CO", Effect.MOVES),  # regular
    (" ", "N", Effect.MOVES),  # regular by night: not in the published table
    ("@", "N", Effect.MOVES),  # the same
    ("A", "C", Effect.MOVES),  # acquisition
    ("B", "AB", Effect.NEVER),  # average price
    ("B", "C", Effect.MOVES),  # bunched
    ("C", "all", Effect.NEVER),  # cash sale
    ("D", "C", Effect.MOVES),  # distribution
    ("E", "AB", Effect.MOVES),  # automatic execution
    ("F", "ABC", Effect.MOVES),  # intermarket sweep
    ("G", "C", Effect.FIRST_ONLY),  # bunched sold
    ("H", "ABC", Effect.NEVER),  # price variation
    ("I", "all", Effect.NEVER),  # odd lot
    ("K", "ABC", Effect.MOVES),  # rule 127 or 155
    ("L", "ABC", Effect.MOVES),  # sold last
    ("M", "ABC", Effect.NEVER),  # official close
    ("N", "all", Effect.NEVER),  # next day
    ("O", "ABC", Effect.MOVES),  # market-center opening
    ("P", "all", Effect.FIRST_ONLY),  # prior reference price
    ("Q", "ABC", Effect.NEVER),  # official open
    ("R", "all", Effect.NEVER),  # seller
    ("T", "all", Effect.MOVES),  # extended hours
    ("U", "all", Effect.NEVER),  # extended hours, out of sequence
    ("V", "ABC", Effect.NEVER),  # contingent
    ("W", "CO", Effect.NEVER),  # average price
    ("X", "ABC", Effect.MOVES),  # cross
    ("Y", "C", Effect.MOVES),  # yellow flag
    ("Z", "ABC", Effect.FIRST_ONLY),  # sold, out of sequence
    ("4", "ABC", Effect.FIRST_ONLY),  # derivatively priced
    ("5", "ABC", Effect.MOVES),  # reopening
    ("6", "ABC", Effect.MOVES),  # closing
    ("7", "ABC", Effect.NEVER),  # qualified contingent
    ("9", "ABC", Effect.NEVER),  # corrected consolidated close
)
_STOCKS: Final = {(code, tape): effect for code, tapes, effect in _MINUTE_RULE for tape in _TAPES[tapes]}
_OPTIONS: Final = {
    **dict.fromkeys("ABCDEFG", Effect.NEVER),  # cancelled or late
    **dict.fromkeys("HIJSabcdefghijklmnopqrstuv", Effect.MOVES),
}

_remembered: dict[tuple[Conditions, str], Effect] = {}


def stock_effect(conditions: Conditions, tape: str) -> Effect:
    """What a stock trade may do: the strictest of its conditions; without any condition it moves."""
    effect = _remembered.get((conditions, tape))
    if effect is None:
        effect = max(
            (_STOCKS.get((code, tape), Effect.UNKNOWN) for code in conditions or ()), default=Effect.MOVES
        )
        if len(_remembered) < CONDITION_SETS_MAX:
            _remembered[conditions, tape] = effect
    return effect


def option_effect(conditions: Conditions, tape: str) -> Effect:
    """What an option trade may do; its conditions are one string of one or more letters."""
    return max((_OPTIONS.get(code, Effect.UNKNOWN) for code in conditions or ()), default=Effect.MOVES)


def crypto_effect(conditions: Conditions, tape: str) -> Effect:
    """Every crypto trade moves the mark: the venue reports no conditions."""
    return Effect.MOVES

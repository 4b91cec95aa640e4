"""What the conditions of a trade let it do to a mark: one table for stocks, one for options.

The rule is Alpaca's rule for the open and close of minute bars, which also decides its "latest trade". The
strictest condition of a trade wins. A condition that the table does not list for the trade's tape moves
nothing. Source: Alpaca, Market Data FAQ, "How are bars aggregated?". That table lists no regular condition
for tape N, the overnight market, although that market's bars are made of such trades. Here " " and "@" are
both regular on tape N.
"""

from enum import IntEnum
from typing import Final

CONDITION_SETS_MAX: Final = 4096  # cached combinations; a feed has a few hundred


class TradeEffect(IntEnum):
    """What a trade may do to the mark, from the mildest to the strictest."""

    MOVES = 0
    FIRST_ONLY = 1  # sets a mark only while no other trade does
    NEVER = 2
    UNKNOWN = 3  # not in the table: treated as NEVER, and counted


Conditions = tuple[str, ...] | str | None

_TAPES: Final = {"all": "ABCNO", "AB": "AB", "ABC": "ABC", "C": "C", "CO": "CO", "N": "N"}
_MINUTE_RULE: Final = (
    # codes, tapes, effect on the open and close of the minute bar
    (" ", "AB", TradeEffect.MOVES),  # regular
    ("@", "CO", TradeEffect.MOVES),  # regular
    (" ", "N", TradeEffect.MOVES),  # regular overnight: not in the published table
    ("@", "N", TradeEffect.MOVES),  # the same
    ("A", "C", TradeEffect.MOVES),  # acquisition
    ("B", "AB", TradeEffect.NEVER),  # average price
    ("B", "C", TradeEffect.MOVES),  # bunched
    ("C", "all", TradeEffect.NEVER),  # cash sale
    ("D", "C", TradeEffect.MOVES),  # distribution
    ("E", "AB", TradeEffect.MOVES),  # automatic execution
    ("F", "ABC", TradeEffect.MOVES),  # intermarket sweep
    ("G", "C", TradeEffect.FIRST_ONLY),  # bunched sold
    ("H", "ABC", TradeEffect.NEVER),  # price variation
    ("I", "all", TradeEffect.NEVER),  # odd lot
    ("K", "ABC", TradeEffect.MOVES),  # rule 127 or 155
    ("L", "ABC", TradeEffect.MOVES),  # sold last
    ("M", "ABC", TradeEffect.NEVER),  # official close
    ("N", "all", TradeEffect.NEVER),  # next day
    ("O", "ABC", TradeEffect.MOVES),  # market-center opening
    ("P", "all", TradeEffect.FIRST_ONLY),  # prior reference price
    ("Q", "ABC", TradeEffect.NEVER),  # official open
    ("R", "all", TradeEffect.NEVER),  # seller
    ("T", "all", TradeEffect.MOVES),  # extended hours
    ("U", "all", TradeEffect.NEVER),  # extended hours, out of sequence
    ("V", "ABC", TradeEffect.NEVER),  # contingent
    ("W", "CO", TradeEffect.NEVER),  # average price
    ("X", "ABC", TradeEffect.MOVES),  # cross
    ("Y", "C", TradeEffect.MOVES),  # yellow flag
    ("Z", "ABC", TradeEffect.FIRST_ONLY),  # sold, out of sequence
    ("4", "ABC", TradeEffect.FIRST_ONLY),  # derivatively priced
    ("5", "ABC", TradeEffect.MOVES),  # reopening
    ("6", "ABC", TradeEffect.MOVES),  # closing
    ("7", "ABC", TradeEffect.NEVER),  # qualified contingent
    ("9", "ABC", TradeEffect.NEVER),  # corrected consolidated close
)
_STOCKS: Final = {(code, tape): effect for code, tapes, effect in _MINUTE_RULE for tape in _TAPES[tapes]}
_OPTIONS: Final = {
    **dict.fromkeys("ABCDEFG", TradeEffect.NEVER),  # cancelled or late
    **dict.fromkeys("HIJSabcdefghijklmnopqrstuv", TradeEffect.MOVES),
}

_remembered: dict[tuple[Conditions, str], TradeEffect] = {}


def stock_effect(conditions: Conditions, tape: str) -> TradeEffect:
    """The effect of a stock trade: that of its strictest condition, or MOVES without conditions."""
    effect = _remembered.get((conditions, tape))
    if effect is None:
        effect = max(
            (_STOCKS.get((code, tape), TradeEffect.UNKNOWN) for code in conditions or ()),
            default=TradeEffect.MOVES,
        )
        if len(_remembered) < CONDITION_SETS_MAX:
            _remembered[conditions, tape] = effect
    return effect


def option_effect(conditions: Conditions, tape: str) -> TradeEffect:
    """The effect of an option trade. Its conditions are one string of one or more letters."""
    return max(
        (_OPTIONS.get(code, TradeEffect.UNKNOWN) for code in conditions or ()), default=TradeEffect.MOVES
    )


def crypto_effect(conditions: Conditions, tape: str) -> TradeEffect:
    """The effect of a crypto trade: always MOVES, because the venue reports no conditions."""
    return TradeEffect.MOVES

"""Cash that open orders hold back.

Alpaca documents `equity = cash + market values`. In a live account, `cash` was once seen without the cash
that an open order held back, and `equity` with it. The account's answer shows which is the case: equity minus
the market value of all positions at the same moment is the cash including what is held back. The sum over the
positions, from a moment later, must not contradict it.
"""

from decimal import Decimal
from typing import Final

import msgspec

from portfolio_realtime.model import ZERO
from portfolio_realtime.symbol_collector.model import Statement

HOLD_MIN: Final = Decimal("0.05")  # dollars; less is rounding in the broker's own sums
MOVED_MAX: Final = Decimal("0.02")  # of all positions: how far prices may move between two requests


def without_hold(statement: Statement, known_cash: Decimal | None) -> tuple[Statement, Decimal]:
    """The statement with the cash that it would have without open orders, and the dollars these hold back.

    Cash that equals `known_cash` up to the broker's rounding becomes exactly that. If it is equal already,
    nothing is held back, and whatever else the equity contains is not cash.
    """
    held_back = _held_back(statement)
    if not held_back or statement.state.cash == known_cash:
        return statement, ZERO
    cash = statement.state.cash + held_back
    if known_cash is not None and abs(cash - known_cash) <= HOLD_MIN:
        cash = known_cash
    state = msgspec.structs.replace(statement.state, cash=cash)
    return msgspec.structs.replace(statement, state=state), held_back


def _held_back(statement: Statement) -> Decimal:
    state = statement.state
    if state.equity is None or state.market_value is None or statement.market_value is None:
        return ZERO
    held_back = state.equity - state.market_value - state.cash
    gross = statement.gross_value
    if (
        held_back < HOLD_MIN
        or abs(statement.market_value - state.market_value) > HOLD_MIN + MOVED_MAX * gross
    ):
        return ZERO
    return held_back

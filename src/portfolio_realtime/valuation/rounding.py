"""Exact cents from float64: Ziv's rounding test, with Decimal where floats cannot decide.

A float result and its error bound span an interval that holds the exact value. If no half cent lies in it,
every value inside rounds to the same cent and the float's rounding is the exact one. Otherwise the figure is
computed again in Decimal. Rounding is half-even, once, at publication.
(A. Ziv, Fast evaluation of elementary mathematical functions with correctly rounded last bit, 1991.)
"""

from decimal import Decimal
from typing import Final

import numpy as np
from numpy.typing import NDArray

from portfolio_realtime.model import EXACT, Account, exact
from portfolio_realtime.valuation.arrays import Floats, Ints

CENT: Final = Decimal("0.01")


def round_to_cents(dollars: Floats, error_bound: Floats) -> tuple[Ints, NDArray[np.bool_]]:
    """Cents, and where the float cannot decide (there the cents mean nothing). NaN cannot be decided."""
    hundredfold = 100.0 * dollars
    nearest = np.rint(hundredfold)
    distance = np.abs(np.abs(hundredfold - nearest) - 0.5)
    is_sure = distance > 100.0 * error_bound
    return np.where(is_sure, nearest, 0.0).astype(np.int64), ~is_sure


def exact_equity(account: Account, prices: dict[str, float]) -> Decimal:
    """Unrounded equity in dollars; positions without a price in `prices` are left out."""
    total = account.cash
    for position in account.positions:
        if position.quantity and position.symbol in prices:
            units = EXACT.multiply(position.quantity, position.multiplier)
            total = EXACT.add(total, EXACT.multiply(units, exact(prices[position.symbol])))
    return total


def exposure(account: Account, prices: dict[str, float]) -> Decimal:
    """What long and short positions are worth together, in dollars; those without a price are left out."""
    total = Decimal(0)
    for position in account.positions:
        if position.quantity and position.symbol in prices:
            units = EXACT.multiply(abs(position.quantity), position.multiplier)
            total = EXACT.add(total, EXACT.multiply(units, exact(prices[position.symbol])))
    return total


def exact_day_pnl(account: Account, equity: Decimal) -> Decimal:
    """Unrounded day P&L in dollars from unrounded equity."""
    return EXACT.subtract(EXACT.subtract(equity, account.last_equity), account.external_cash_flow)


def day_base(account: Account) -> Decimal:
    """What day P&L counts from, in dollars: last equity and what has come in since."""
    return account.last_equity + account.external_cash_flow


def cents(dollars: Decimal) -> int:
    """Cents of a Decimal, half-even."""
    return int(EXACT.scaleb(EXACT.quantize(dollars, CENT), 2))


def money(amount_cents: int) -> str:
    """Cents as dollars: 10421137 -> `104211.37`."""
    sign = "-" if amount_cents < 0 else ""
    dollars, remainder = divmod(abs(amount_cents), 100)
    return f"{sign}{dollars}.{remainder:02d}"

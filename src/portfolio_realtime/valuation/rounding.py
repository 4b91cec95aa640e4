"""Exact figures in Decimal, and their cents. Rounding is half-even, once, at publication."""

from decimal import Decimal
from typing import Final

from portfolio_realtime.model import EXACT, Account, exact

CENT: Final = Decimal("0.01")


def exact_equity(account: Account, prices: dict[str, float]) -> Decimal:
    """Unrounded equity in dollars, without positions that have no price in `prices`."""
    total = account.cash
    for position in account.positions:
        if position.quantity and position.symbol in prices:
            units = EXACT.multiply(position.quantity, position.multiplier)
            total = EXACT.add(total, EXACT.multiply(units, exact(prices[position.symbol])))
    return total


def exposure(account: Account, prices: dict[str, float]) -> Decimal:
    """The value of long and short positions added up, in dollars, without positions that have no price."""
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
    """The base of the day P&L in dollars: last equity + external cash flow."""
    return account.last_equity + account.external_cash_flow


def cents(dollars: Decimal) -> int:
    """Cents of dollars, rounded half-even."""
    return int(EXACT.scaleb(EXACT.quantize(dollars, CENT), 2))


def money(amount_cents: int) -> str:
    """Cents as text in dollars: 10421137 -> `104211.37`."""
    sign = "-" if amount_cents < 0 else ""
    dollars, remainder = divmod(abs(amount_cents), 100)
    return f"{sign}{dollars}.{remainder:02d}"

"""Exact decimal arithmetic. Money is rounded only where the broker rounds it.

Inside `exact()` an operation that would have to round raises `decimal.Inexact`, so the ledger can not be
wrong by a rounding.
"""

from contextlib import AbstractContextManager
from decimal import ROUND_HALF_UP, Context, Decimal, DivisionByZero, Inexact, InvalidOperation, localcontext

ZERO = Decimal(0)
CENT = Decimal("0.01")
RATIO = Decimal("0.0000000000000001")
DIGITS_MAX = 60

_EXACT = Context(prec=DIGITS_MAX, traps=[Inexact, InvalidOperation, DivisionByZero])
_ROUNDING = Context(prec=DIGITS_MAX, rounding=ROUND_HALF_UP, traps=[InvalidOperation, DivisionByZero])


def exact() -> AbstractContextManager[Context]:
    """A context in which +, − and × are exact or raise `decimal.Inexact`."""
    return localcontext(_EXACT)


def to_cents(amount: Decimal) -> Decimal:
    """Round dollars to whole cents, half away from zero, as the broker books a trade's net amount."""
    return amount.quantize(CENT, context=_ROUNDING)


def divide(numerator: Decimal, denominator: Decimal) -> Decimal:
    """The quotient, rounded to 16 decimals; zero when the denominator is zero."""
    if not denominator:
        return ZERO
    return _ROUNDING.divide(numerator, denominator).quantize(RATIO, context=_ROUNDING)


def text(number: Decimal) -> str:
    """The shortest plain decimal string: no exponent, no trailing zeros, no negative zero."""
    digits = format(number, "f")
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return "0" if digits == "-0" else digits

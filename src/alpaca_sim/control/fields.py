"""Fields of JSON request bodies under `/_sim`. Each function raises ApiError for an invalid value."""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

from alpaca_sim.api.web import ApiError
from alpaca_sim.core.market import MarketSymbol

SECONDS_MAX = 40 * 86_400.0


def symbol_field(symbols: Mapping[str, MarketSymbol], body: Mapping[str, Any]) -> str:
    """The field `symbol`: a listed symbol. Raises ApiError (404)."""
    symbol = str(body.get("symbol"))
    if symbol not in symbols:
        raise ApiError(404, f"unknown symbol {symbol}")
    return symbol


def decimal_field(body: Mapping[str, Any], name: str) -> Decimal:
    """A finite decimal, given as a string or a number. Raises ApiError (422)."""
    try:
        number = Decimal(str(body[name]))
    except (KeyError, InvalidOperation) as error:
        raise ApiError(422, f"{name} must be a decimal string") from error
    if not number.is_finite():
        raise ApiError(422, f"{name} must be finite")
    return number


def positive_field(body: Mapping[str, Any], name: str) -> Decimal:
    """A decimal above zero. Raises ApiError (422)."""
    number = decimal_field(body, name)
    if number <= 0:
        raise ApiError(422, f"{name} must be positive")
    return number


def price_field(body: Mapping[str, Any]) -> Decimal:
    """The field `price`: dollars above zero. Raises ApiError (422)."""
    return positive_field(body, "price")


def seconds_field(body: Mapping[str, Any], name: str, default: float) -> float:
    """Seconds from 0 to `SECONDS_MAX`. Raises ApiError (422)."""
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= SECONDS_MAX:
        raise ApiError(422, f"{name} must be a number of seconds from 0 to {SECONDS_MAX:g}")
    return float(value)


def date_field(body: Mapping[str, Any], name: str) -> date | None:
    """A date; None when the field is absent or null. Raises ApiError (422)."""
    if body.get(name) is None:
        return None
    try:
        return date.fromisoformat(str(body[name]))
    except ValueError as error:
        raise ApiError(422, f"{name} must be a date such as 2026-11-20") from error

"""Fields of JSON request bodies under `/_sim`. Each function raises ApiError for an invalid value."""

import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any, Final

from alpaca_sim.api.web import ApiError
from alpaca_sim.core.market import MarketSymbol

SECONDS_MAX = 40 * 86_400.0
# Within these limits, products of amounts have fewer digits than the ledger's exact arithmetic can hold.
AMOUNT_MAX: Final = Decimal(10**15)
DECIMALS_MAX: Final = 9
NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?")
NEW_SYMBOL: Final = re.compile(r"[A-Z][A-Z0-9./]{0,31}")


def symbol_field(symbols: Mapping[str, MarketSymbol], body: Mapping[str, Any]) -> str:
    """The field `symbol`: a listed symbol. Raises ApiError (404)."""
    symbol = str(body.get("symbol"))
    if symbol not in symbols:
        raise ApiError(404, f"unknown symbol {symbol}")
    return symbol


def new_symbol_field(body: Mapping[str, Any]) -> str:
    """The field `symbol`: a name that a symbol may have. Raises ApiError (422)."""
    symbol = body.get("symbol")
    if not isinstance(symbol, str) or not NEW_SYMBOL.fullmatch(symbol):
        raise ApiError(422, "symbol must be 1 to 32 capital letters, digits, dots and slashes, such as BRK.B")
    return symbol


def decimal_field(body: Mapping[str, Any], name: str) -> Decimal:
    """A decimal up to AMOUNT_MAX, given as a string or a number. Raises ApiError (422)."""
    value = body.get(name)
    is_number = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    if not is_number or not NUMBER.fullmatch(str(value)):
        raise ApiError(422, f"{name} must be a decimal string such as 12.5")
    number = Decimal(str(value))
    exponent = number.normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    if abs(number) > AMOUNT_MAX or -exponent > DECIMALS_MAX:
        raise ApiError(422, f"{name} must be at most {AMOUNT_MAX:f} and have at most {DECIMALS_MAX} decimals")
    return number


def bool_field(body: Mapping[str, Any], name: str, *, default: bool) -> bool:
    """True or false. Raises ApiError (422)."""
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise ApiError(422, f"{name} must be true or false")
    return value


def only_fields(body: Mapping[str, Any], *names: str) -> None:
    """Refuse unknown fields, where a misspelt field would mean something else. Raises ApiError (422)."""
    if unknown := sorted(body.keys() - set(names)):
        raise ApiError(422, f"unknown field {unknown[0]}: the fields are {', '.join(names)}")


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

"""Which symbol a booking moves.

A trade, a transfer and a dividend name it as `symbol`. A leg of a corporate action names what leaves and what
comes: `old_symbol` and `new_symbol`, `acquiree_symbol` and `acquirer_symbol`, and so on. The sign of its
quantity tells which of the two it moves in a long position; in a short one it is the other
(`Activity.opposite`). Bookings of options name the contract beside the underlying, which is their `symbol`.
Older ones may name neither.

Sources: Alpaca's broker OpenAPI file 1.1.1, the samples of the guide to the activity stream (2026-09-16), and
the changes of 2026-08-24 (`contract_symbol`) and 2026-10-28 (`asset`).
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from portfolio_realtime.model import US_OPTION
from portfolio_realtime.symbol_collector.model import asset_class_of

_CONTRACTS: Final = ("OPASN", "OPEXC", "OPEXP", "OPCA")  # these move contracts
_SHARES_OF_OPTION: Final = "OPTRD"
_SPIN_OFF: Final = "SPIN"  # only adds
_EXCHANGES: Final = ("MA", "NC", "REO", "REORG", "SPLIT", "VOF")
_FOR_CASH_TOO: Final = ("MA", "REO")
_LEAVES: Final = ("acquiree_symbol", "old_symbol", "source_symbol")
_COMES: Final = ("acquirer_symbol", "new_symbol")


def moved_symbol(
    fields: Mapping[str, Any], details: Mapping[str, Any], activity_type: str, quantity: Decimal
) -> str | None:
    """The symbol as the booking spells it, or None if it names none. Without a quantity nothing moves."""
    named = _first(details, "symbol") or _first(fields, "symbol")
    of_asset = _first(fields.get("asset"), "symbol")
    if not quantity:
        return named
    if activity_type in _CONTRACTS:
        changed = "old_contract_symbol" if quantity < 0 else "new_contract_symbol"
        return _first(details, "contract_symbol", changed) or of_asset or _contract(named)
    if activity_type == _SHARES_OF_OPTION and _contract(of_asset) is not None:
        return named
    return _first(details, *_names(details, activity_type, quantity)) or named or of_asset


def _names(details: Mapping[str, Any], activity_type: str, quantity: Decimal) -> tuple[str, ...]:
    """Where a leg of a corporate action names what it moves, in order; nothing for other types."""
    if activity_type == _SPIN_OFF:
        return ("new_symbol",)
    if activity_type not in _EXCHANGES:
        return ()
    if quantity < 0:
        return _LEAVES
    if _is_alternate(details, quantity):
        return ("alternate_symbol",)
    # For cash alone nothing comes in: this closes a short position.
    return (*_COMES, "symbol", *_LEAVES) if activity_type in _FOR_CASH_TOO else _COMES


def is_exchange(details: Mapping[str, Any]) -> bool:
    """Whether a corporate action replaces one symbol by another."""
    left, came = _first(details, "old_symbol", "symbol"), _first(details, "new_symbol")
    return left is not None and came is not None and left != came


def _is_alternate(details: Mapping[str, Any], quantity: Decimal) -> bool:
    """Whether the leg of a unit split adds the second of two symbols: their quantities tell them apart."""
    return details.get("new_qty") != details.get("alternate_qty") and _is(
        details.get("alternate_qty"), quantity
    )


def _is(stated: object, quantity: Decimal) -> bool:
    try:
        return Decimal(str(stated)) == quantity
    except InvalidOperation:
        return False


def _contract(symbol: str | None) -> str | None:
    return symbol if symbol is not None and asset_class_of(symbol) == US_OPTION else None


def _first(fields: Any, *names: str) -> str | None:
    if not isinstance(fields, Mapping):
        return None
    found = (fields.get(name) for name in names)
    return next((one for one in found if isinstance(one, str) and one), None)

"""From Alpaca's JSON to our terms: tolerant of what may vary, strict about money.

Unknown fields and enum values pass; what may be missing has a default; a number that money depends on and
that is missing, NaN or infinite refuses the whole payload (`PayloadRefused`). Nothing is guessed.
"""

from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any, Final, NamedTuple

import msgspec

from portfolio_realtime.clock import NS_PER_S, parse_rfc3339
from portfolio_realtime.errors import BrokerError
from portfolio_realtime.model import US_EQUITY, US_OPTION, ZERO
from portfolio_realtime.symbol_collector.activities import (
    TRADE,
    AccountState,
    Activity,
    Holding,
    Statement,
    asset_class_of,
    market_symbol,
    multiplier_of,
)

CURRENCY: Final = "USD"
_CENT: Final = Decimal("0.01")
_SIDES: Final = {"long": 1, "short": -1}
_CASH_FLOWS: Final = frozenset({"ACATC", "CSD", "CSW", "JNLC"})
_DATE_LENGTH: Final = len("2026-11-20")
_ULID_LENGTH: Final = 26
_ULID_TIME_LENGTH: Final = 10
_ULID_LETTERS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_NS_PER_MS: Final = NS_PER_S // 1000

_json: Final = msgspec.json.Decoder(float_hook=Decimal)  # a JSON number keeps every digit


class PayloadRefused(BrokerError):
    """A payload lacks or spoils what money depends on; the message names the field."""


class ListedAccount(NamedTuple):
    """One line of the account list."""

    account_id: str
    status: str
    created_at: str


def decode(text: str | bytes) -> Any:
    """JSON with exact numbers. Raises PayloadRefused."""
    try:
        return _json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PayloadRefused(f"not JSON: {error}") from None


def listed_accounts(payload: Any) -> list[ListedAccount]:
    """The answer of `GET /v1/accounts`. Raises PayloadRefused."""
    if not isinstance(payload, list):
        raise PayloadRefused("accounts are not a list: is ALPACA_BROKER_URL right?")
    return [
        ListedAccount(_text(one, "id"), str(one.get("status") or ""), _text(one, "created_at"))
        for one in map(_object, payload)
    ]


def account_state(account_id: str, payload: Any) -> AccountState:
    """The answer of `GET /v1/trading/accounts/{id}/account`. Raises PayloadRefused."""
    fields = _object(payload)
    currency = str(fields.get("currency") or CURRENCY)
    if currency != CURRENCY:
        raise PayloadRefused(f"the account is in {currency}; only accounts in {CURRENCY} can be valued")
    return AccountState(
        account_id=account_id,
        status=str(fields.get("status") or ""),
        currency=currency,
        cash=_number(fields, "cash"),
        last_equity=_number(fields, "last_equity"),
        balance_asof=_date(fields, "balance_asof"),
        last_cash=_number_if_any(fields, "last_cash"),
        equity=_number_if_any(fields, "equity"),
    )


def statement(account_id: str, state: Any, positions: Any) -> Statement:
    """The answers to both requests for an account. Raises PayloadRefused."""
    found = holdings(positions)
    return Statement(account_state(account_id, state), found, _prices(positions))


def holdings(payload: Any) -> dict[str, Holding]:
    """The answer of `GET /v1/trading/accounts/{id}/positions`, by symbol. Raises PayloadRefused."""
    if not isinstance(payload, list):
        raise PayloadRefused("positions are not a list")
    found: dict[str, Holding] = {}
    for element in payload:
        one = holding(element)
        if one.symbol in found:
            raise PayloadRefused(f"two positions in {one.symbol}")
        found[one.symbol] = one
    return found


def holding(payload: Any) -> Holding:
    """One position; a short one is negative whether or not its `qty` says so. Raises PayloadRefused."""
    fields = _object(payload)
    asset_class = str(fields.get("asset_class") or US_EQUITY)
    quantity = _number(fields, "qty")
    if (side := fields.get("side")) in _SIDES:
        quantity = _SIDES[side] * abs(quantity)
    cost_basis = _number(fields, "cost_basis", ZERO)
    is_option = asset_class == US_OPTION
    return Holding(
        symbol=market_symbol(_text(fields, "symbol"), asset_class),
        asset_class=asset_class,
        quantity=quantity,
        cost_basis=abs(cost_basis) if quantity > 0 else -abs(cost_basis),
        stated_multiplier=_stated_multiplier(fields, quantity) if is_option else None,
    )


def _prices(positions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The broker's own price of each position, without those that it does not price."""
    found: dict[str, float] = {}
    for fields in positions:
        asset_class = str(fields.get("asset_class") or US_EQUITY)
        if price := _number_if_any(fields, "current_price"):
            found[market_symbol(_text(fields, "symbol"), asset_class)] = float(price)
    return found


def _stated_multiplier(fields: Mapping[str, Any], quantity: Decimal) -> Decimal | None:
    """Shares per contract by the broker's own products, or None when they do not all show the same.

    A position does not name its contract's multiplier, but an adjusted contract's may differ from 100.
    """
    shown: set[Decimal | None] = set()
    for total_name, price_name in (("market_value", "current_price"), ("cost_basis", "avg_entry_price")):
        total = abs(_number(fields, total_name, ZERO))
        units = abs(quantity * _number(fields, price_name, ZERO))
        if total and units:
            multiplier = (total / units).quantize(Decimal(1))
            shown.add(multiplier if abs(multiplier * units - total) <= _CENT else None)
    return (shown.pop() or None) if len(shown) == 1 else None


def activity(payload: Any) -> Activity:
    """One event of `/v2beta1/events/activities`. Raises PayloadRefused."""
    fields = _object(payload)
    details = fields.get("details")
    details = details if isinstance(details, Mapping) else {}
    symbol = details.get("symbol") or fields.get("symbol")
    quantity = _number(fields, "qty", ZERO)
    side = str(details.get("side") or fields.get("side") or "")
    if side:
        quantity = -abs(quantity) if side.startswith("sell") else abs(quantity)
    event_id = _text(fields, "event_id")
    activity_type = _text(fields, "activity_type")
    symbol = market_symbol(str(symbol)) if symbol else None
    price = _number(fields, "price", ZERO)
    net_amount, rounding = _net_amount(fields, activity_type, symbol, quantity * price)
    at_ns = _time(fields, "at")
    status = str(fields.get("status") or "")
    return Activity(
        account_id=_text(fields, "account_id"),
        event_id=event_id,
        ref_id=str(fields.get("ref_id") or event_id),
        previous_id=str(fields["previous_id"]) if fields.get("previous_id") else None,
        activity_type=activity_type,
        status=status,
        symbol=symbol,
        quantity=quantity,
        price=price,
        net_amount=net_amount,
        executed_ns=_time(fields, "executed_at") if fields.get("executed_at") else at_ns,
        published_ns=published_ns(event_id) or at_ns,
        is_void=status == "canceled" or "bust" in str(details.get("execution_type") or ""),
        group_id=str(details["group_id"]) if details.get("group_id") else None,
        ex_date=_date_if_any(details, "ex_date"),
        rounding=rounding,
    )


def _net_amount(
    fields: Mapping[str, Any], activity_type: str, symbol: str | None, value: Decimal
) -> tuple[Decimal, Decimal]:
    """What a booking adds to the cash, and how far the broker's own figure may be from it.

    Rows of fills state no amount: it is quantity × price × multiplier, which the broker rounds to the cent.
    The client's own cash without an amount says nothing: it is refused, not taken for none.
    """
    if activity_type in _CASH_FLOWS:
        return _number(fields, "net_amount"), ZERO
    if activity_type != TRADE or fields.get("net_amount") not in (None, ""):
        return _number(fields, "net_amount", ZERO), ZERO
    if not value:
        raise PayloadRefused("net_amount is missing, and so is qty or price")
    try:
        dollars = value * multiplier_of(asset_class_of(symbol or ""))
        return -dollars.quantize(_CENT, ROUND_HALF_UP), _CENT
    except InvalidOperation:
        raise PayloadRefused(f"qty × price is out of range: {value}") from None


def published_ns(event_id: str) -> int | None:
    """When an event was published: the time inside its ULID, to the millisecond; None for other ids.

    A booking made up for later has an old `at`, but its event id is of the moment it was published.
    """
    if len(event_id) != _ULID_LENGTH:
        return None
    milliseconds = 0
    for letter in event_id[:_ULID_TIME_LENGTH].upper():
        value = _ULID_LETTERS.find(letter)
        if value < 0:
            return None
        milliseconds = milliseconds << 5 | value
    return milliseconds * _NS_PER_MS


def _object(payload: Any) -> Mapping[str, Any]:
    if not isinstance(payload, Mapping):
        raise PayloadRefused(f"expected a JSON object, was {type(payload).__name__}")
    return payload


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise PayloadRefused(f"{name} is missing")
    return value


def _number(fields: Mapping[str, Any], name: str, default: Decimal | None = None) -> Decimal:
    value = fields.get(name)
    if (value is None or value == "") and default is not None:
        return default
    if not isinstance(value, str | int | Decimal) or isinstance(value, bool):
        raise PayloadRefused(f"{name} is missing or not a number")
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise PayloadRefused(f"{name} is not a number: {value!r}") from None
    if not number.is_finite():
        raise PayloadRefused(f"{name} is not finite: {value!r}")
    return number


def _number_if_any(fields: Mapping[str, Any], name: str) -> Decimal | None:
    """A number that no money depends on: what cannot be read is not there."""
    try:
        return _number(fields, name)
    except PayloadRefused:
        return None


def _date(fields: Mapping[str, Any], name: str) -> str:
    text = _text(fields, name)[:_DATE_LENGTH]
    try:
        parse_rfc3339(f"{text}T00:00:00Z")
    except ValueError:
        raise PayloadRefused(f"{name} is not a date: {text!r}") from None
    return text


def _date_if_any(fields: Mapping[str, Any], name: str) -> str | None:
    """A date that no money depends on: what cannot be read is not there."""
    try:
        return _date(fields, name)
    except PayloadRefused:
        return None


def _time(fields: Mapping[str, Any], name: str) -> int:
    text = _text(fields, name)
    try:
        return parse_rfc3339(text if "T" in text else f"{text}T00:00:00Z")
    except ValueError:
        raise PayloadRefused(f"{name} is not a time: {text!r}") from None

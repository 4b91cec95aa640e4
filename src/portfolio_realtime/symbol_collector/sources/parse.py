"""Parses Alpaca's JSON into our terms: tolerant where it may vary, strict where money depends on it.

Unknown fields and enum values are accepted, and optional fields have defaults. If a number that money depends
on is missing, NaN or infinite, the whole payload is refused (`PayloadRefused`). Nothing is guessed.

A name that many accounts share is kept once (`intern`).
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from sys import intern
from typing import Any, Final, NamedTuple

import msgspec

from portfolio_realtime.clock import NS_PER_S, parse_rfc3339
from portfolio_realtime.errors import BrokerError
from portfolio_realtime.model import CRYPTO, US_EQUITY, ZERO
from portfolio_realtime.symbol_collector import activity_types
from portfolio_realtime.symbol_collector.model import (
    CANCELED,
    CENT,
    DOLLAR,
    TAKEN_BACK,
    AccountState,
    Activity,
    Holding,
    Statement,
    asset_class_of,
    cents,
    coin,
    market_symbol,
    multiplier_of,
    paid_in,
)
from portfolio_realtime.symbol_collector.sources.contract_size import shown_multiplier
from portfolio_realtime.symbol_collector.sources.moved_symbols import is_exchange, moved_symbol

_SIDES: Final = {"long": 1, "short": -1}
_COINS: Final = ("OCT", activity_types.CRYPTO_FEE)  # types whose symbol may be a single coin
_GROUP_NAMES: Final = ("group_id", "ca_id")  # the first is optional; all legs have the same action
_DATE_LENGTH: Final = len("2026-11-20")
_ULID_LENGTH: Final = 26
_ULID_TIME_LENGTH: Final = 10
_ULID_LETTERS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_NS_PER_MS: Final = NS_PER_S // 1000
_NUMERIC: Final = (str, int, Decimal)
_MAGNITUDE_MAX: Final = 14  # below 10¹⁵ dollars or units of one account; more is an error of the sender
_EXPONENT_MIN: Final = -30
_TIME_MIN_NS: Final = 0
_TIME_MAX_NS: Final = parse_rfc3339("2100-01-01T00:00:00Z")
_SHOWN_MAX: Final = 60  # characters of a value that a message quotes

_json: Final = msgspec.json.Decoder(float_hook=Decimal)  # keeps every digit of a JSON number


class PayloadRefused(BrokerError):
    """A payload lacks a field that money depends on, or it is unreadable; the message names it."""


class CurrencyRefused(PayloadRefused):
    """The account is in a currency other than dollars and can never be valued."""


class ListedAccount(NamedTuple):
    """One entry of the account list."""

    account_id: str
    status: str
    created_at: str
    number: str = ""  # for people: no money depends on it


def decode(text: str | bytes) -> Any:
    """JSON with exact numbers. Raises PayloadRefused."""
    try:
        return _json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PayloadRefused(f"not JSON: {error}") from None


def listed_accounts(payload: Any) -> tuple[list[ListedAccount], list[str]]:
    """The answer of `GET /v1/accounts`, and why each unreadable element was ignored.

    Raises PayloadRefused if it is not a list.
    """
    if not isinstance(payload, list):
        raise PayloadRefused("accounts are not a list: is ALPACA_BROKER_URL right?")
    listed: list[ListedAccount] = []
    refused: list[str] = []
    for index, element in enumerate(payload):
        try:
            listed.append(listed_account(element))
        except PayloadRefused as error:
            refused.append(f"account {index} of the list: {error}")
    return listed, refused


def listed_account(payload: Any) -> ListedAccount:
    """One account of the list; only paging needs `created_at`. Raises PayloadRefused."""
    fields = _object(payload)
    created_at, number = fields.get("created_at"), fields.get("account_number")
    return ListedAccount(
        _text(fields, "id"),
        str(fields.get("status") or ""),
        created_at if isinstance(created_at, str) else "",
        number if isinstance(number, str) else "",
    )


def account_id_of(payload: Any) -> str | None:
    """The account of an event that is otherwise unreadable, or None if it names none."""
    found = payload.get("account_id") if isinstance(payload, Mapping) else None
    return found if isinstance(found, str) and found else None


def account_state(account_id: str, payload: Any) -> AccountState:
    """The answer of `GET /v1/trading/accounts/{id}/account`. Raises PayloadRefused."""
    fields = _object(payload)
    currency = _currency(fields)
    if currency != DOLLAR:
        raise CurrencyRefused(f"the account is in {currency}; only accounts in {DOLLAR} can be valued")
    return AccountState(
        account_id=account_id,
        status=intern(str(fields.get("status") or "")),
        currency=DOLLAR,
        cash=_number(fields, "cash"),
        last_equity=_number(fields, "last_equity"),
        balance_asof=intern(_date(fields, "balance_asof")),
        last_cash=_number_if_any(fields, "last_cash"),
        equity=_number_if_any(fields, "equity"),
        market_value=_market_value(fields),
    )


def _market_value(fields: Mapping[str, Any]) -> Decimal | None:
    total = _number_if_any(fields, "position_market_value")
    long, short = (_number_if_any(fields, f"{side}_market_value") for side in _SIDES)
    return long + short if total is None and long is not None and short is not None else total


def statement(account_id: str, state: Any, positions: Any) -> Statement:
    """The answers to both requests for an account. Raises PayloadRefused."""
    found = _positions(positions)
    values = [one.market_value or ZERO for one in found]
    return Statement(
        account_state(account_id, state),
        {one.holding.symbol: one.holding for one in found},
        {one.holding.symbol: float(price) for one in found if (price := one.price)},
        sum(values, ZERO),
        sum(map(abs, values), ZERO),
    )


def holdings(payload: Any) -> dict[str, Holding]:
    """The answer of `GET /v1/trading/accounts/{id}/positions`, by symbol. Raises PayloadRefused."""
    return {one.holding.symbol: one.holding for one in _positions(payload)}


class _Position(NamedTuple):
    """A holding, with what the broker states of its value at its own price."""

    holding: Holding
    market_value: Decimal | None
    price: Decimal | None


def _positions(payload: Any) -> list[_Position]:
    """Every element of the list; equal ones of one symbol are kept. Raises PayloadRefused."""
    if not isinstance(payload, list):
        raise PayloadRefused("positions are not a list")
    elements: list[Any] = payload
    found: list[_Position] = []
    stated: dict[str, Any] = {}
    for index, element in enumerate(elements):
        try:
            one = _position(element)
        except PayloadRefused as error:
            raise PayloadRefused(f"{_position_name(index, element)}: {error}") from None
        first = stated.setdefault(one.holding.symbol, element)
        if first is not element and first != element:
            raise PayloadRefused(f"two positions in {one.holding.symbol}")
        found.append(one)
    return found


def _position_name(index: int, element: Any) -> str:
    symbol = element.get("symbol") if isinstance(element, Mapping) else None
    name = f"position {index} of the list"
    return f"{name} ({_shown(symbol)})" if isinstance(symbol, str) else name


def holding(payload: Any) -> Holding:
    """One position; a short one is negative even if its `qty` is not. Raises PayloadRefused."""
    return _position(payload).holding


def _position(payload: Any) -> _Position:
    fields = _object(payload)
    asset_class = _asset_class(fields)
    quantity = _number(fields, "qty")
    if side := _side(fields):
        if side not in _SIDES:
            raise PayloadRefused(f"side is neither long nor short: {_shown(side)}")
        quantity = _SIDES[side] * abs(quantity)
    stated_cost, market_value, price = (
        _number_if_any(fields, name) for name in ("cost_basis", "market_value", "current_price")
    )
    cost_basis = stated_cost or ZERO
    multiplier, is_disputed = None, False
    if asset_class not in (US_EQUITY, CRYPTO):
        entry_price = _number_if_any(fields, "avg_entry_price")
        figures = (market_value, price), (stated_cost, entry_price)
        multiplier, is_disputed = shown_multiplier(asset_class, quantity, figures)
    held = Holding(
        symbol=_held_symbol(fields, asset_class),
        asset_class=asset_class,
        quantity=quantity,
        cost_basis=abs(cost_basis) if quantity > 0 else -abs(cost_basis),
        stated_multiplier=multiplier,
        is_cost_known=stated_cost is not None,
        is_multiplier_disputed=is_disputed,
    )
    return _Position(held, market_value, price)


def _asset_class(fields: Mapping[str, Any]) -> str:
    """The class that the broker states, otherwise the one suggested by the symbol's form."""
    stated = fields.get("asset_class")
    if isinstance(stated, str) and stated:
        return intern(stated)
    return asset_class_of(market_symbol(_text(fields, "symbol")))


def _held_symbol(fields: Mapping[str, Any], asset_class: str) -> str:
    symbol = market_symbol(_text(fields, "symbol"), asset_class)
    return intern(coin(symbol) if asset_class == CRYPTO else symbol)


def activity(payload: Any) -> Activity:
    """One event of `/v2beta1/events/activities`. Raises PayloadRefused.

    A trade that is paid for with another coin moves that coin and no dollars; it has no price in dollars, nor
    has a booking in another currency. A split into another symbol is a new name: it is of another unit.
    """
    fields = _object(payload)
    details = fields.get("details")
    details = details if isinstance(details, Mapping) else {}
    event_id = _text(fields, "event_id")
    activity_type = _text(fields, "activity_type")
    subtype = str(fields.get("activity_subtype") or fields.get("activity_sub_type") or "")
    status = str(fields.get("status") or "").lower()
    takes_back = status == CANCELED or (status in TAKEN_BACK and bool(fields.get("previous_id")))
    is_void = takes_back or "bust" in str(details.get("execution_type") or "")
    stated_symbol = details.get("symbol") or fields.get("symbol")
    is_fee_in_coins = _is_fee_in_coins(fields, activity_type, stated_symbol)
    is_coin = activity_type in _COINS or is_fee_in_coins
    named = _traded_symbol(stated_symbol, is_coin=is_coin)
    quantity = _quantity(fields, details, (activity_type, subtype, named or ""))
    pair, opposite = (
        _traded_symbol(moved_symbol(fields, details, activity_type, signed), is_coin=is_coin)
        for signed in (quantity, -quantity)
    )
    if quantity and pair is None and not is_void and activity_types.is_described(activity_type):
        raise PayloadRefused("symbol is missing: which position has moved is unknown")
    if activity_type == activity_types.SPLIT and is_exchange(details):
        activity_type = activity_types.NEW_NAME
    price = _number(fields, "price", ZERO)
    counter_symbol = paid_in(pair or "") if quantity else None
    net_amount, rounding = (
        _net_amount(fields, activity_type, pair, quantity * price) if counter_symbol is None else (ZERO, ZERO)
    )
    at_ns = _time(fields, "at")
    booked_ns = published_ns(event_id) or at_ns
    executed_ns = _time(fields, "executed_at") if fields.get("executed_at") else at_ns
    return Activity(
        account_id=_text(fields, "account_id"),
        event_id=event_id,
        ref_id=str(fields.get("ref_id") or event_id),
        previous_id=str(fields["previous_id"]) if fields.get("previous_id") else None,
        activity_type=activity_type,
        status=status,
        symbol=coin(pair) if pair is not None and "/" in pair else pair,
        quantity=quantity,
        price=price if counter_symbol is None and _currency(fields) == DOLLAR else ZERO,
        net_amount=net_amount,
        executed_ns=min(executed_ns, max(booked_ns, at_ns)),  # corporate actions state hours, or days, ahead
        published_ns=booked_ns,
        is_void=is_void,
        group_id=next((str(one) for name in _GROUP_NAMES if (one := details.get(name))), None),
        ex_date=_date_if_any(details, "ex_date"),
        rounding=rounding,
        subtype=subtype,
        counter=None if counter_symbol is None else (counter_symbol, _paid(quantity, price)),
        is_tentative=is_fee_in_coins or (bool(net_amount) and _currency(fields) != DOLLAR),
        opposite=None if opposite == pair else opposite,
    )


def _traded_symbol(symbol: object, *, is_coin: bool) -> str | None:
    """The symbol as market data spells it. A single coin, as in on-chain transfers, is priced in dollars."""
    if not symbol:
        return None
    spelled = market_symbol(str(symbol))
    return coin(spelled) if is_coin else spelled


def _is_fee_in_coins(fields: Mapping[str, Any], activity_type: str, symbol: object) -> bool:
    """Whether a fee names something that is no pair, and takes a quantity of it and no dollars: a coin."""
    if activity_type != activity_types.FEE or not symbol or "/" in market_symbol(str(symbol)):
        return False
    return _number(fields, "qty", ZERO) < 0 and not _number(fields, "net_amount", ZERO)


def _quantity(fields: Mapping[str, Any], details: Mapping[str, Any], kind: tuple[str, str, str]) -> Decimal:
    """What comes in (+) or goes out (−) by a booking; a quantity that was only held moves nothing."""
    if not activity_types.moves_position(*kind):
        return ZERO
    quantity = _number(fields, "qty", ZERO)
    side = _side(details) or _side(fields)
    if not side:
        return _traded_without_side(fields, quantity) if kind[0] == activity_types.TRADE else quantity
    if not side.startswith(("buy", "sell")):
        raise PayloadRefused(f"side is neither buy nor sell: {_shown(side)}")
    return -abs(quantity) if side.startswith("sell") else abs(quantity)


def _side(fields: Mapping[str, Any]) -> str:
    """The side in lower case; "" without one. The sign of a quantity depends on it."""
    return str(fields.get("side") or "").lower()


def _traded_without_side(fields: Mapping[str, Any], quantity: Decimal) -> Decimal:
    """A trade's quantity by its own sign, otherwise by what was paid (−) or received (+) for it."""
    if quantity <= 0:
        return quantity
    net_amount = _number(fields, "net_amount", ZERO)
    if not net_amount:
        raise PayloadRefused("side is missing, and net_amount does not show it")
    return quantity.copy_sign(-net_amount)


def _paid(quantity: Decimal, price: Decimal) -> Decimal:
    """How much of the coin that paid for the trade has come in or gone out."""
    if not price:
        raise PayloadRefused("price is missing: the amount of the coin that paid for the trade is unknown")
    return -quantity * price


def _currency(fields: Mapping[str, Any]) -> str:
    return str(fields.get("currency") or DOLLAR).upper()


def _net_amount(
    fields: Mapping[str, Any], activity_type: str, symbol: str | None, value: Decimal
) -> tuple[Decimal, Decimal]:
    """What a booking adds to the cash, and how far the broker's own figure may differ from it.

    Fill rows state no amount: it is quantity × price × multiplier, which the broker rounds to the cent. A
    booking of the client's own cash without an amount is refused, because it does not mean zero.
    """
    if activity_types.of(activity_type).needs_amount:
        return _number(fields, "net_amount"), ZERO
    if activity_type != activity_types.TRADE or fields.get("net_amount") not in (None, ""):
        return _number(fields, "net_amount", ZERO), ZERO
    if not value:
        raise PayloadRefused("net_amount is missing, and so is qty or price")
    try:
        dollars = value * multiplier_of(asset_class_of(symbol or ""))
        return -cents(dollars), CENT
    except InvalidOperation:
        raise PayloadRefused(f"qty × price is out of range: {value}") from None


def published_ns(event_id: str) -> int | None:
    """When an event was published: the time in its ULID, to the millisecond; None for other ids.

    A booking that is entered later has an old `at`, but its event id has the time of publication.
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
        raise PayloadRefused(f"expected a JSON object, got {type(payload).__name__}")
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
    return number(value, name)


def number(value: Any, name: str) -> Decimal:
    """A JSON value as an exact number within a plausible range. Raises PayloadRefused, with its name."""
    if isinstance(value, float):
        value = repr(value)
    if not isinstance(value, _NUMERIC) or isinstance(value, bool):
        raise PayloadRefused(f"{name} is missing or not a number")
    try:
        found = Decimal(value)
    except InvalidOperation:
        raise PayloadRefused(f"{name} is not a number: {_shown(value)}") from None
    if not found.is_finite():
        raise PayloadRefused(f"{name} is not finite: {_shown(value)}")
    magnitude = found.adjusted()
    if not found:
        return ZERO if magnitude < _EXPONENT_MIN else found
    if magnitude > _MAGNITUDE_MAX or (
        # A number has at most as many digits as characters; only a long one has to be taken apart.
        not (isinstance(value, str) and magnitude - len(value) >= _EXPONENT_MIN)
        and _exponent(found) < _EXPONENT_MIN
    ):
        raise PayloadRefused(f"{name} is out of range: {_shown(value)}")
    return found


def _exponent(found: Decimal) -> int:
    exponent = found.as_tuple().exponent
    assert isinstance(exponent, int)  # it is finite
    return exponent


def _shown(value: object) -> str:
    return repr(value)[:_SHOWN_MAX]


def _number_if_any(fields: Mapping[str, Any], name: str) -> Decimal | None:
    """A number on which no money depends; None if it cannot be read."""
    try:
        return _number(fields, name)
    except PayloadRefused:
        return None


def _date(fields: Mapping[str, Any], name: str) -> str:
    text = _text(fields, name)[:_DATE_LENGTH]
    _moment(f"{text}T00:00:00Z", name, text)
    return text


def _date_if_any(fields: Mapping[str, Any], name: str) -> str | None:
    """A date on which no money depends; None if it cannot be read."""
    try:
        return _date(fields, name)
    except PayloadRefused:
        return None


def _time(fields: Mapping[str, Any], name: str) -> int:
    text = _text(fields, name)
    return _moment(text if "T" in text else f"{text}T00:00:00Z", name, text)


def _moment(text: str, name: str, shown: str) -> int:
    try:
        at_ns = parse_rfc3339(text)
    except (ValueError, OverflowError):
        raise PayloadRefused(f"{name} is not a time: {_shown(shown)}") from None
    if not _TIME_MIN_NS <= at_ns < _TIME_MAX_NS:
        raise PayloadRefused(f"{name} is not a plausible time: {_shown(shown)}")
    return at_ns

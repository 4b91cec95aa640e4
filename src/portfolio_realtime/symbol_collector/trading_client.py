"""Alpaca's Trading API: the one account of a key pair, in the terms that a broker's accounts have.

A row of `/v2/account/activities` becomes the same event that the Broker API's stream would send, so that one
parser and one record serve both. Rows state less; what they leave out is left out, not guessed:

| row                    | event                                                                            |
| ---------------------- | -------------------------------------------------------------------------------- |
| FILL                   | TRD without `net_amount` (see `parse.activity`)                                  |
| status `canceled`      | a second event that takes the first one back: the row keeps its id               |
| `qty` of a cash payment | the shares that are paid for: no position moves                                  |
| no `created_at`        | published when we first saw it; in the first reading, at noon New York of `date` |
"""

from collections.abc import Callable, Generator, Mapping
from datetime import UTC, date, datetime, time
from typing import Any, Final
from zoneinfo import ZoneInfo

import httpx

from portfolio_realtime.clock import NS_PER_S, parse_rfc3339, rfc3339
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import BrokerRefused, BrokerUnavailable
from portfolio_realtime.symbol_collector import activity_types, parse
from portfolio_realtime.symbol_collector.activities import Statement, market_symbol
from portfolio_realtime.symbol_collector.broker_client import BrokerClient
from portfolio_realtime.symbol_collector.closed_days import HISTORY_PARAMS, IN_KIND_PARAMS
from portfolio_realtime.symbol_collector.parse import ListedAccount, PayloadRefused

TRADES: Final = "trade_activity"
CASH_AND_OTHERS: Final = "non_trade_activity"
CATEGORIES: Final = (TRADES, CASH_AND_OTHERS)
PAGE_LENGTH: Final = 100  # the most that Alpaca gives
INTERVAL_S_MAX: Final = (
    30.0  # one account is reconciled more often than thousands: 2 of 200 requests a minute
)
REMEDY: Final = (
    "check APCA_API_KEY_ID and APCA_API_SECRET_KEY, and that ALPACA_SANDBOX fits them: "
    "true for the keys of a paper account, false for those of a live one"
)

_FILL_NEEDS: Final = ("side", "symbol", "transaction_time")  # without one of these it is refused
_CANCELED: Final = "canceled"
_NOON: Final = time(12)
_NEW_YORK: Final = ZoneInfo("America/New_York")


class KeyHeaders(httpx.Auth):
    """The two headers by which a Trading API key proves itself."""

    def __init__(self, key: str, secret: str) -> None:
        self._headers = {"APCA-API-KEY-ID": key, "APCA-API-SECRET-KEY": secret}

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add them."""
        request.headers.update(self._headers)
        yield request


class TradingClient(BrokerClient):
    """The connection of one Trading API key; it knows one account."""

    def __init__(self, settings: Settings, counted: Callable[[str], None] = lambda status: None) -> None:
        auth = KeyHeaders(settings.apca_api_key_id, settings.apca_api_secret_key.get_secret_value())
        super().__init__(settings.host("trading"), auth, counted)

    async def accounts(self) -> list[ListedAccount]:
        """The account of this key. Raises BrokerUnavailable, BrokerRefused, PayloadRefused."""
        return [parse.listed_account(await self._account())]

    async def account(self, account_id: str) -> ListedAccount | None:
        """The account of this key, or None when it is another one. Raises as `accounts`."""
        own = parse.listed_account(await self._account(is_urgent=False))
        return own if own.account_id == account_id else None

    async def statement(self, account_id: str, *, is_urgent: bool) -> Statement | None:
        """How the account stands, or None when the key's account is another one.

        Source: `GET /v2/account` and `/v2/positions`, one after the other.
        Raises BrokerUnavailable, BrokerRefused, PayloadRefused.
        """
        state = await self._account(is_urgent=is_urgent)
        if not isinstance(state, Mapping) or state.get("id") != account_id:
            return None
        positions = await self._get("/v2/positions", is_urgent=is_urgent)
        return parse.statement(account_id, state, positions)

    async def prove(self) -> None:
        """Does the broker answer at all? Raises BrokerUnavailable, BrokerRefused."""
        await self._account()

    async def portfolio_history(self, account_id: str) -> Any:
        """The account's closed days. Source: `GET /v2/account/portfolio/history`. Raises BrokerError."""
        return await self._get("/v2/account/portfolio/history", HISTORY_PARAMS, is_urgent=False)

    async def in_kind_rows(self, account_id: str) -> Any:
        """The newest rows of what came or left in kind. Source: `GET /v2/account/activities`."""
        return await self._get("/v2/account/activities", IN_KIND_PARAMS, is_urgent=False)

    async def activities(self, category: str, page_token: str | None) -> list[Any]:
        """A page of rows, newest first, after the row of this id. Raises BrokerUnavailable, BrokerRefused."""
        params = {"category": category, "direction": "desc", "page_size": str(PAGE_LENGTH)}
        if page_token is not None:
            params["page_token"] = page_token
        try:
            rows = await self._get("/v2/account/activities", params)
        except PayloadRefused as error:
            raise BrokerUnavailable(f"activities: {error}") from error
        if not isinstance(rows, list):
            raise BrokerUnavailable("activities are not a list")
        return rows

    async def _account(self, *, is_urgent: bool = True) -> Any:
        account = await self._get("/v2/account", is_urgent=is_urgent)
        if account is None:
            raise BrokerUnavailable("/v2/account: HTTP 404: is ALPACA_TRADING_URL right?")
        return account

    async def _get(
        self, path: str, params: Mapping[str, str] | None = None, *, is_urgent: bool = True
    ) -> Any:
        try:
            return await super()._get(path, params, is_urgent=is_urgent)
        except BrokerRefused as error:
            raise BrokerRefused(f"Alpaca refuses the Trading API key ({path}): {REMEDY}") from error


def row_id(row: Any) -> str:
    """What tells one state of a row from another: its id, and whether it has been canceled since."""
    if not isinstance(row, Mapping):
        return ""
    name = str(row.get("id") or "")
    return f"{name}/{_CANCELED}" if row.get("status") == _CANCELED else name


def row_ns(row: Any) -> int | None:
    """When a row was booked, in ns, or None when it does not say more than a date."""
    if not isinstance(row, Mapping):
        return None
    for name in ("transaction_time", "created_at"):
        try:
            if text := row.get(name):
                return parse_rfc3339(str(text))
        except ValueError:
            continue
    return None


def about_ns(row: Any) -> int:
    """When a row was booked, in ns, by its date where it says no more."""
    booked_ns = row_ns(row)
    if booked_ns is None:
        booked_ns = _noon_ns(row) if isinstance(row, Mapping) else 0
    return booked_ns


def event_of(row: Any, account_id: str, seen_ns: int | None, now_ns: int) -> dict[str, Any]:
    """The activity event that says what a row says; `seen_ns` is when it appeared, None for history.

    What is wrong with a row is left for `parse.activity` to refuse.
    """
    if not isinstance(row, Mapping):
        return {}
    fields: Mapping[str, Any] = row
    activity_type = str(fields.get("activity_type") or "")
    subtype = str(fields.get("activity_sub_type") or "")
    is_fill = activity_type == activity_types.FILL
    is_canceled = fields.get("status") == _CANCELED
    booked_ns = row_ns(fields) or seen_ns or min(_noon_ns(fields), now_ns)
    published_ns = seen_ns if seen_ns is not None and is_canceled else booked_ns
    is_whole = not is_fill or all(fields.get(name) for name in _FILL_NEEDS)
    spelled = market_symbol(str(fields.get("symbol") or ""))
    is_moving = is_whole and activity_types.moves_position(activity_type, subtype, spelled)
    event = {
        "account_id": account_id,
        "event_id": row_id(fields),
        "previous_id": fields.get("id") if is_canceled else None,
        "activity_type": activity_types.TRADE if is_fill else activity_type,
        "activity_subtype": subtype or None,
        "status": fields.get("status") or "executed",
        "symbol": fields.get("symbol") if is_moving else None,
        "side": fields.get("side"),
        "qty": fields.get("qty") if is_moving else None,
        "price": fields.get("price") if is_moving else None,
        "net_amount": fields.get("net_amount"),
        "currency": fields.get("currency"),
        "at": rfc3339(published_ns),
        "executed_at": rfc3339(booked_ns),
        "details": {"group_id": fields.get("group_id")},
    }
    return {name: value for name, value in event.items() if value is not None}


def _noon_ns(row: Mapping[str, Any]) -> int:
    """Noon New York of the row's date: after its morning's bookings and before the close."""
    try:
        day = date.fromisoformat(str(row.get("date"))[:10])
    except ValueError:
        day = datetime.fromtimestamp(0, UTC).date()
    return int(datetime.combine(day, _NOON, _NEW_YORK).timestamp()) * NS_PER_S

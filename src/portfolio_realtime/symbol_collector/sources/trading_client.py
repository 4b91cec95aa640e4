"""Alpaca's Trading API: the one account of a key, in the same terms as a broker's accounts."""

import urllib.parse
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from portfolio_realtime.alpaca.credentials import key_headers
from portfolio_realtime.clock import Clock
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import BrokerRefused, BrokerUnavailable
from portfolio_realtime.symbol_collector.model import Statement
from portfolio_realtime.symbol_collector.sources import parse
from portfolio_realtime.symbol_collector.sources.account_source import Inbox
from portfolio_realtime.symbol_collector.sources.closed_days import HISTORY_PARAMS, IN_KIND_PARAMS
from portfolio_realtime.symbol_collector.sources.parse import ListedAccount, PayloadRefused
from portfolio_realtime.symbol_collector.sources.rest_client import RestClient
from portfolio_realtime.symbol_collector.sources.trading_follower import TradingFollower
from portfolio_realtime.symbol_collector.sources.trading_rows import PAGE_LENGTH
from portfolio_realtime.symbol_collector.sources.trading_rows import event_of as event_of

# One account is reconciled more often than thousands are. This uses 2 of 200 requests per minute.
INTERVAL_S_MAX: Final = 30.0
REMEDY: Final = (
    "check APCA_API_KEY_ID and APCA_API_SECRET_KEY, and that ALPACA_SANDBOX matches them: "
    "true for the keys of a paper account, false for those of a live one"
)


class TradingClient:
    """The connection of one Trading API key, which has one account."""

    interval_s_max: float = INTERVAL_S_MAX

    def __init__(self, settings: Settings, counted: Callable[[str], None] = lambda status: None) -> None:
        secret = settings.apca_api_secret_key.get_secret_value()
        authentication = key_headers(settings.apca_api_key_id, secret)
        self._settings = settings
        self._rest = RestClient(settings.host("trading"), authentication, _refusal, counted)
        self.broker_time = self._rest.broker_time
        self.refused: list[str] = []  # always empty: an unreadable account is an error, not a shorter list

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._rest.close()

    def follower(self, clock: Clock, inbox: Inbox) -> TradingFollower:
        """The follower of the account's activities."""
        return TradingFollower(self, self._settings, clock, inbox)

    async def accounts(self) -> list[ListedAccount]:
        """The account of this key. Raises BrokerUnavailable, BrokerRefused, PayloadRefused."""
        return [parse.listed_account(await self._account())]

    async def account(self, account_id: str) -> ListedAccount | None:
        """The account of this key, or None if another one is asked for. Raises as `accounts`."""
        own = parse.listed_account(await self._account(is_urgent=False))
        return own if own.account_id == account_id else None

    async def statement(self, account_id: str, *, is_urgent: bool) -> Statement | None:
        """The statement of the account, or None if another one is asked for.

        Source: `GET /v2/account` and `/v2/positions`, one after the other. Raises BrokerUnavailable,
        BrokerRefused, PayloadRefused.
        """
        state = await self._account(is_urgent=is_urgent)
        if not isinstance(state, Mapping) or state.get("id") != account_id:
            return None
        positions = await self._rest.get("/v2/positions", is_urgent=is_urgent)
        return parse.statement(account_id, state, positions)

    async def prove(self) -> None:
        """Return if the broker answers at all. Raises BrokerUnavailable, BrokerRefused."""
        await self._account()

    async def portfolio_history(self, account_id: str) -> Any:
        """The account's closed days. Source: `GET /v2/account/portfolio/history`. Raises BrokerError."""
        return await self._rest.get("/v2/account/portfolio/history", HISTORY_PARAMS, is_urgent=False)

    async def in_kind_rows(self, account_id: str) -> Any:
        """The newest rows of transfers in kind. Source: `GET /v2/account/activities`."""
        return await self._rest.get("/v2/account/activities", IN_KIND_PARAMS, is_urgent=False)

    async def asset(self, symbol: str) -> Any:
        """The broker's answer about an asset. Source: `GET /v2/assets/{symbol}`. Raises BrokerError."""
        return await self._rest.get(f"/v2/assets/{urllib.parse.quote(symbol, safe='')}", is_urgent=False)

    async def activities(self, category: str, page_token: str | None) -> list[Any]:
        """A page of rows, newest first, after the row of this id. Raises BrokerUnavailable, BrokerRefused."""
        params = {"category": category, "direction": "desc", "page_size": str(PAGE_LENGTH)}
        if page_token is not None:
            params["page_token"] = page_token
        try:
            rows = await self._rest.get("/v2/account/activities", params)
        except PayloadRefused as error:
            raise BrokerUnavailable(f"activities: {error}") from error
        if not isinstance(rows, list):
            raise BrokerUnavailable("activities are not a list")
        return rows

    async def _account(self, *, is_urgent: bool = True) -> Any:
        account = await self._rest.get("/v2/account", is_urgent=is_urgent)
        if account is None:
            raise BrokerUnavailable("/v2/account: HTTP 404: is ALPACA_TRADING_URL right?")
        return account


def _refusal(path: str, status: int) -> BrokerRefused:
    return BrokerRefused(f"Alpaca refuses the Trading API key ({path}, HTTP {status}): {REMEDY}")

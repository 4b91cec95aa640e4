"""Alpaca's Broker REST API: the account list, the state and the positions of one account.

If credentials are refused, BrokerRefused names the setting.
"""

import math
import time
import urllib.parse
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from portfolio_realtime.alpaca.http import Authentication, basic
from portfolio_realtime.alpaca.oauth import BearerAuthentication, TokenSource
from portfolio_realtime.clock import NS_PER_S, Clock, parse_rfc3339, rfc3339
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import BrokerRefused, BrokerUnavailable
from portfolio_realtime.symbol_collector import activity_types
from portfolio_realtime.symbol_collector.model import Statement
from portfolio_realtime.symbol_collector.sources import parse, trading_rows
from portfolio_realtime.symbol_collector.sources.account_source import Inbox
from portfolio_realtime.symbol_collector.sources.broker_events import REMEDY
from portfolio_realtime.symbol_collector.sources.broker_follower import EventFollower
from portfolio_realtime.symbol_collector.sources.closed_days import HISTORY_PARAMS, IN_KIND_PARAMS
from portfolio_realtime.symbol_collector.sources.parse import ListedAccount, PayloadRefused
from portfolio_realtime.symbol_collector.sources.rest_client import RestClient

PAGE_LENGTH: Final = 1000
PAGES_MAX: Final = 10_000
CLOCK_SKEW_NS: Final = 3600 * NS_PER_S  # largest difference of the broker's clock from ours
ROWS_PATH: Final = "/v1/accounts/activities"
ROW_PAGES_MAX: Final = 200  # 20,000 rows
EXTERNAL_PARAMS: Final = {
    "activity_types": ",".join(
        kind.code
        for kind in activity_types.TABLE.values()
        if kind.is_external and kind.code != activity_types.MEMO
    ),
    "direction": "desc",
    "page_size": str(trading_rows.PAGE_LENGTH),
}
PROOF_PATH: Final = "/v1/clock"  # answers every request with valid credentials


def credentials(settings: Settings) -> Authentication:
    """The authentication of requests: OAuth2 client, else key. Raises BrokerRefused without either."""
    if settings.broker_client_id:
        secret = settings.broker_client_secret.get_secret_value()
        return BearerAuthentication(TokenSource(settings.host("auth"), settings.broker_client_id, secret))
    if not settings.broker_api_key:
        raise BrokerRefused(
            "no Broker API credentials: set BROKER_CLIENT_ID and BROKER_CLIENT_SECRET, or BROKER_API_KEY and "
            "BROKER_SECRET_KEY"
        )
    return basic(settings.broker_api_key, settings.broker_secret_key.get_secret_value())


class BrokerClient:
    """One key's connection to the Broker API; an async context manager. `counted` receives every status."""

    interval_s_max: float = math.inf  # accounts are reconciled at the interval of the setting

    def __init__(
        self,
        base_url: str,
        authentication: Authentication,
        counted: Callable[[str], None] = lambda status: None,
    ) -> None:
        self._rest = RestClient(base_url, authentication, lambda path, status: refusal(status), counted)
        self.refused: list[str] = []  # why elements of the newest list were left out
        self.open_stream = self._rest.open_stream
        self.has_room = self._rest.has_room
        self.now_ns = self._rest.now_ns
        self.broker_time = self._rest.broker_time

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._rest.close()

    def follower(self, clock: Clock, inbox: Inbox) -> EventFollower:
        """The follower of all accounts' events."""
        return EventFollower(self, clock, inbox)

    async def accounts(self) -> list[ListedAccount]:
        """Every account of the correspondent, oldest first.

        Source: `GET /v1/accounts`, 1000 at a time; `created_after` is inclusive, so pages overlap by the
        accounts of one moment. Raises BrokerUnavailable, BrokerRefused, PayloadRefused.
        """
        found: dict[str, ListedAccount] = {}
        self.refused = []
        params = {"sort": "asc", "entities": "contact"}  # the smallest set of entities
        for _ in range(PAGES_MAX):
            page, refused = parse.listed_accounts(await self._rest.get("/v1/accounts", params))
            known = len(found)
            found.update((one.account_id, one) for one in page)
            self.refused += refused
            if len(page) + len(refused) < PAGE_LENGTH:
                return list(found.values())
            if len(found) == known:
                raise BrokerUnavailable(f"more than {PAGE_LENGTH} accounts share one created_at")
            params["created_after"] = _newest(page)
        raise BrokerUnavailable(f"more than {PAGES_MAX} pages of accounts")

    async def account(self, account_id: str) -> ListedAccount | None:
        """One account as in the list, or None if it does not exist; not urgent.

        Source: `GET /v1/accounts/{id}`. Raises BrokerUnavailable, BrokerRefused, PayloadRefused.
        """
        try:
            found = await self._rest.get(f"/v1/accounts/{account_id}", is_urgent=False)
        except BrokerRefused:
            await self._rest.get(PROOF_PATH, is_urgent=False)
            return None
        return None if found is None else parse.listed_account(found)

    async def statement(self, account_id: str, *, is_urgent: bool) -> Statement | None:
        """The statement of one account, or None if there is no such trading account.

        Source: `GET /v1/trading/accounts/{id}/account` and `…/positions`, one after the other. An unknown
        account may be a 404 or, in Alpaca's SDK, a 401; then another request shows whether our key is
        refused. Raises BrokerUnavailable, BrokerRefused, PayloadRefused.
        """
        base = f"/v1/trading/accounts/{account_id}"
        try:
            state = await self._rest.get(f"{base}/account", is_urgent=is_urgent)
            if state is None:
                return None
            positions = await self._rest.get(f"{base}/positions", is_urgent=is_urgent)
        except BrokerRefused:
            await self._rest.get(PROOF_PATH)
            return None
        if positions is None:
            return None
        return parse.statement(account_id, state, positions)

    async def external_rows(self, since_ns: int) -> list[Any]:
        """All rows since `since_ns` of what clients brought in or took out, newest first; not urgent.

        Source: `GET /v1/accounts/activities` without an account, 100 at a time. Raises BrokerUnavailable,
        PayloadRefused.
        """
        params = {**EXTERNAL_PARAMS, "after": rfc3339(since_ns)}
        found: list[Any] = []
        seen: set[str] = set()
        for _ in range(ROW_PAGES_MAX):
            try:
                page = await self._rest.get(ROWS_PATH, params, is_urgent=False)
            except BrokerRefused as error:
                # Only this list is refused: the credentials work elsewhere.
                raise BrokerUnavailable(f"{ROWS_PATH}: {error}") from None
            if not isinstance(page, list):
                raise PayloadRefused(f"{ROWS_PATH}: not a list")
            rows: list[Any] = page
            found += rows
            names = {trading_rows.row_name(row) for row in rows}
            if len(rows) < trading_rows.PAGE_LENGTH:
                return found
            last_id = trading_rows.last_id(rows)
            if last_id is None or names <= seen:
                raise PayloadRefused(f"{ROWS_PATH}: the page does not lead to a next one")
            seen |= names
            params["page_token"] = last_id
        raise BrokerUnavailable(f"{ROWS_PATH}: more than {ROW_PAGES_MAX} pages")

    async def prove(self) -> None:
        """Return if the broker answers at all. Raises BrokerUnavailable, BrokerRefused."""
        await self._rest.get(PROOF_PATH)

    async def portfolio_history(self, account_id: str) -> Any:
        """The account's closed days. Source: `GET …/account/portfolio/history`. Raises BrokerError."""
        path = f"/v1/trading/accounts/{account_id}/account/portfolio/history"
        return await self._rest.get(path, HISTORY_PARAMS, is_urgent=False)

    async def in_kind_rows(self, account_id: str) -> Any:
        """The newest rows of transfers in kind. Source: `GET /v1/accounts/activities`."""
        params = {"account_id": account_id, **IN_KIND_PARAMS}
        return await self._rest.get("/v1/accounts/activities", params, is_urgent=False)

    async def asset(self, symbol: str) -> Any:
        """The broker's answer about an asset. Source: `GET /v1/assets/{symbol}`. Raises BrokerError."""
        return await self._rest.get(f"/v1/assets/{urllib.parse.quote(symbol, safe='')}", is_urgent=False)


def _newest(page: list[ListedAccount]) -> str:
    """The newest creation time on a page, without those that are unreadable or in the future."""
    now_ns = time.time_ns()
    times: list[tuple[int, str]] = []
    for one in page:
        try:
            created_ns = parse_rfc3339(one.created_at)
        except ValueError:
            continue
        if created_ns <= now_ns + CLOCK_SKEW_NS:
            times.append((created_ns, one.created_at))
    if not times:
        raise BrokerUnavailable(f"{len(page)} accounts in a row, and none states when it was created")
    return max(times)[1]


def refusal(status: int) -> BrokerRefused:
    """The error for refused credentials."""
    return BrokerRefused(f"Alpaca refuses the Broker API credentials (HTTP {status}): {REMEDY}")

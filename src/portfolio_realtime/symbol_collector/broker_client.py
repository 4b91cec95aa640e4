"""Alpaca's Broker REST interface: the account list, one account's state, one account's positions.

Every request waits for its turn in the quota. Reads are repeated after network failures and 5xx, a bounded
number of times; what remains is BrokerUnavailable. Refused credentials are BrokerRefused, naming the setting.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

import httpx
import stamina

from portfolio_realtime.alpaca.oauth import BearerAuth, TokenSource
from portfolio_realtime.alpaca.rate_limit import TOO_MANY, Quota
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import BrokerRefused, BrokerUnavailable
from portfolio_realtime.outbound import transport_to
from portfolio_realtime.symbol_collector import parse
from portfolio_realtime.symbol_collector.activities import Statement
from portfolio_realtime.symbol_collector.closed_days import HISTORY_PARAMS, IN_KIND_PARAMS
from portfolio_realtime.symbol_collector.parse import ListedAccount, PayloadRefused

CONNECTIONS_MAX: Final = 16
REQUEST_TIMEOUT: Final = httpx.Timeout(10.0, pool=30.0)
ATTEMPTS_MAX: Final = 4
ATTEMPT_WAIT_S: Final = 0.2
ATTEMPT_WAIT_S_MAX: Final = 3.0
RATE_REFUSALS_MAX: Final = 3  # of one request, before it is given up
JITTER_S_MAX: Final = 0.5
SLEEP_S_MAX: Final = 1.0  # then the quota is asked again: it may have changed
PAGE_LENGTH: Final = 1000
PAGES_MAX: Final = 10_000
UNAUTHORIZED: Final = 401
REFUSED: Final = (UNAUTHORIZED, 403)
NOT_FOUND: Final = 404
PROOF_PATH: Final = "/v1/clock"  # answers everybody whose credentials are good


def credentials(settings: Settings) -> httpx.Auth:
    """How requests prove who we are: OAuth2 client, else key. Raises BrokerRefused when neither is set."""
    if settings.broker_client_id:
        secret = settings.broker_client_secret.get_secret_value()
        return BearerAuth(TokenSource(settings.host("auth"), settings.broker_client_id, secret))
    if not settings.broker_api_key:
        raise BrokerRefused(
            "no Broker API credentials: set BROKER_CLIENT_ID and BROKER_CLIENT_SECRET, or BROKER_API_KEY and "
            "BROKER_SECRET_KEY"
        )
    return httpx.BasicAuth(settings.broker_api_key, settings.broker_secret_key.get_secret_value())


class BrokerClient:
    """One key's connection to the Broker API; an async context manager. `counted` is told every status."""

    def __init__(
        self, base_url: str, auth: httpx.Auth, counted: Callable[[str], None] = lambda status: None
    ) -> None:
        limits = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX)
        self._http = httpx.AsyncClient(
            base_url=base_url, auth=auth, timeout=REQUEST_TIMEOUT, transport=transport_to(base_url, limits)
        )
        self._counted = counted
        self._quota = Quota()
        self.refused: list[str] = []  # why elements of the newest list were left out
        self._turn = {True: asyncio.Lock(), False: asyncio.Lock()}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def accounts(self) -> list[ListedAccount]:
        """Every account of the correspondent, oldest first.

        Source: `GET /v1/accounts`, 1000 at a time; `created_after` is inclusive, so pages overlap by the
        accounts of one moment. Raises BrokerUnavailable, BrokerRefused, PayloadRefused.
        """
        found: dict[str, ListedAccount] = {}
        self.refused = []
        params = {"sort": "asc", "entities": "contact"}  # the least that may be asked for
        for _ in range(PAGES_MAX):
            page, refused = parse.listed_accounts(await self._get("/v1/accounts", params))
            known = len(found)
            found.update((one.account_id, one) for one in page)
            self.refused += refused
            if len(page) + len(refused) < PAGE_LENGTH:
                return list(found.values())
            if len(found) == known:
                raise BrokerUnavailable(f"more than {PAGE_LENGTH} accounts share one created_at")
            params["created_after"] = max(one.created_at for one in page)
        raise BrokerUnavailable(f"more than {PAGES_MAX} pages of accounts")

    async def account(self, account_id: str) -> ListedAccount | None:
        """One account as the list would have it, or None when there is none; not urgent.

        Source: `GET /v1/accounts/{id}`. Raises BrokerUnavailable, BrokerRefused, PayloadRefused.
        """
        try:
            found = await self._get(f"/v1/accounts/{account_id}", is_urgent=False)
        except BrokerRefused:
            await self._get(PROOF_PATH, is_urgent=False)
            return None
        return None if found is None else parse.listed_account(found)

    async def statement(self, account_id: str, *, is_urgent: bool) -> Statement | None:
        """How one account stands, or None when there is no such trading account.

        Source: `GET /v1/trading/accounts/{id}/account` and `…/positions`, one after the other. No such
        account may be a 404 or, as Alpaca's SDK has it, a 401; then other requests tell whether it is us.
        Raises BrokerUnavailable, BrokerRefused, PayloadRefused.
        """
        base = f"/v1/trading/accounts/{account_id}"
        try:
            state = await self._get(f"{base}/account", is_urgent=is_urgent)
            positions = None if state is None else await self._get(f"{base}/positions", is_urgent=is_urgent)
        except BrokerRefused:
            await self._get(PROOF_PATH)
            return None
        if positions is None:
            return None
        return parse.statement(account_id, state, positions)

    async def prove(self) -> None:
        """Does the broker answer at all? Raises BrokerUnavailable, BrokerRefused."""
        await self._get(PROOF_PATH)

    async def portfolio_history(self, account_id: str) -> Any:
        """The account's closed days. Source: `GET …/account/portfolio/history`. Raises BrokerError."""
        path = f"/v1/trading/accounts/{account_id}/account/portfolio/history"
        return await self._get(path, HISTORY_PARAMS, is_urgent=False)

    async def in_kind_rows(self, account_id: str) -> Any:
        """The newest rows of what came or left in kind. Source: `GET /v1/accounts/activities`."""
        params = {"account_id": account_id, **IN_KIND_PARAMS}
        return await self._get("/v1/accounts/activities", params, is_urgent=False)

    def stream(self, path: str, params: Mapping[str, str], timeout: httpx.Timeout) -> httpx.Request:
        """A request for an event stream, to be sent with `send_stream`."""
        headers = {"Accept": "text/event-stream"}
        request = self._http.build_request("GET", path, params=dict(params), headers=headers)
        request.extensions["timeout"] = timeout.as_dict()
        return request

    async def send_stream(self, request: httpx.Request) -> httpx.Response:
        """Send it, once; the body is still to be read. Raises BrokerUnavailable."""
        return await self._send(request, is_urgent=True, is_stream=True)

    async def _get(
        self, path: str, params: Mapping[str, str] | None = None, *, is_urgent: bool = True
    ) -> Any:
        async for attempt in stamina.retry_context(
            on=BrokerUnavailable,
            attempts=ATTEMPTS_MAX,
            wait_initial=ATTEMPT_WAIT_S,
            wait_max=ATTEMPT_WAIT_S_MAX,
        ):
            with attempt:
                return await self._get_once(path, dict(params or {}), is_urgent)
        raise AssertionError("stamina returns or raises")

    async def _get_once(self, path: str, params: dict[str, str], is_urgent: bool) -> Any:
        for _ in range(RATE_REFUSALS_MAX):
            request = self._http.build_request("GET", path, params=params)
            answer = await self._send(request, is_urgent=is_urgent, is_stream=False)
            if answer.status_code != TOO_MANY:
                return _decoded(path, answer)
            await asyncio.sleep(random.uniform(0, JITTER_S_MAX))
        raise BrokerUnavailable(f"{path}: the rate limit has refused it {RATE_REFUSALS_MAX} times")

    async def _send(self, request: httpx.Request, *, is_urgent: bool, is_stream: bool) -> httpx.Response:
        await self._wait_for_turn(is_urgent)
        status: int | None = None
        headers: Mapping[str, str] = {}
        try:
            answer = await self._http.send(request, stream=is_stream)
            status, headers = answer.status_code, answer.headers
        except httpx.HTTPError as error:
            raise BrokerUnavailable(f"{request.url.path}: {type(error).__name__}: {error}") from error
        finally:
            self._quota.answered(status, headers, time.monotonic(), time.time())
            self._counted(str(status or "none"))
        return answer

    async def _wait_for_turn(self, is_urgent: bool) -> None:
        async with self._turn[is_urgent]:
            while wait_s := self._quota.wait_s(time.monotonic(), is_urgent=is_urgent):
                await asyncio.sleep(min(wait_s, SLEEP_S_MAX))
            self._quota.sent(time.monotonic())


def refusal(status: int) -> BrokerRefused:
    """What to say when the credentials are not accepted."""
    return BrokerRefused(
        f"Alpaca refuses the Broker API credentials (HTTP {status}): check BROKER_API_KEY and "
        "BROKER_SECRET_KEY (or BROKER_CLIENT_ID and BROKER_CLIENT_SECRET), and that ALPACA_SANDBOX fits them"
    )


def _decoded(path: str, answer: httpx.Response) -> Any:
    status = answer.status_code
    if status in REFUSED:
        raise refusal(status)
    if status == NOT_FOUND:
        return None
    if not answer.is_success:
        raise BrokerUnavailable(f"{path}: HTTP {status}")
    found = parse.decode(answer.content)
    if found is None:
        raise PayloadRefused(f"{path}: null")
    return found

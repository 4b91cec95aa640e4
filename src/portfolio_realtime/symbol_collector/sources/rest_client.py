"""Requests to Alpaca's REST APIs: each waits for the quota, and failed reads are repeated.

After network failures and 5xx a read is repeated a limited number of times, and then raises
BrokerUnavailable. Refused credentials raise the BrokerRefused that the owner of the client provides.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx
import stamina

from portfolio_realtime.alpaca.rate_limit import TOO_MANY, Quota
from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.errors import BrokerRefused, BrokerUnavailable
from portfolio_realtime.outbound import transport_to
from portfolio_realtime.symbol_collector.sources import parse
from portfolio_realtime.symbol_collector.sources.parse import PayloadRefused

CONNECTIONS_MAX: Final = 16
REQUEST_TIMEOUT: Final = httpx.Timeout(10.0, pool=30.0)
ATTEMPTS_MAX: Final = 4
ATTEMPT_WAIT_S: Final = 0.2
ATTEMPT_WAIT_S_MAX: Final = 3.0
RATE_REFUSALS_MAX: Final = 3  # per request, before it is given up
JITTER_S_MAX: Final = 0.5
PROMPT_S: Final = 1.0  # an answer that comes within this tells the time
CLOCK_MARGIN_NS: Final = NS_PER_S // 2
SLEEP_S_MAX: Final = 1.0  # then the quota is checked again: it may have changed
UNAUTHORIZED: Final = 401
REFUSED: Final = (UNAUTHORIZED, 403)
NOT_FOUND: Final = 404

Refusal = Callable[[str, int], BrokerRefused]
"""Makes the error for a path that answered with a status of REFUSED."""


class RestClient:
    """One key's connection to one host; `counted` receives every status."""

    def __init__(
        self, base_url: str, auth: httpx.Auth, refusal: Refusal, counted: Callable[[str], None]
    ) -> None:
        limits = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX)
        self._http = httpx.AsyncClient(
            base_url=base_url, auth=auth, timeout=REQUEST_TIMEOUT, transport=transport_to(base_url, limits)
        )
        self._refusal = refusal
        self._counted = counted
        self._quota = Quota()
        self._turn = {True: asyncio.Lock(), False: asyncio.Lock()}
        self._ahead_s = 0.0  # our clock, of the broker's

    def has_room(self, limit_min: int) -> bool:
        """May an urgent request go out now, and are at least so many allowed each minute?"""
        return self._quota.has_room(time.monotonic(), limit_min)

    def now_ns(self) -> int:
        """The broker's clock in ns, by its newest answer: behind it by up to 2 s, never ahead."""
        return time.time_ns() - int(max(0.0, self._ahead_s) * NS_PER_S) - CLOCK_MARGIN_NS

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    def stream(self, path: str, params: Mapping[str, str], timeout: httpx.Timeout) -> httpx.Request:
        """A request for an event stream, to be sent with `send_stream`."""
        headers = {"Accept": "text/event-stream"}
        request = self._http.build_request("GET", path, params=dict(params), headers=headers)
        request.extensions["timeout"] = timeout.as_dict()
        return request

    async def send_stream(self, request: httpx.Request) -> httpx.Response:
        """Send the request once; the body is not read yet. Raises BrokerUnavailable."""
        return await self._send(request, is_urgent=True, is_stream=True)

    async def get(self, path: str, params: Mapping[str, str] | None = None, *, is_urgent: bool = True) -> Any:
        """The decoded answer, or None for a 404. Raises BrokerUnavailable, BrokerRefused, PayloadRefused."""
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
                return self._decoded(path, answer)
            await asyncio.sleep(random.uniform(0, JITTER_S_MAX))
        raise BrokerUnavailable(f"{path}: the rate limit refused the request {RATE_REFUSALS_MAX} times")

    async def _send(self, request: httpx.Request, *, is_urgent: bool, is_stream: bool) -> httpx.Response:
        await self._wait_for_turn(is_urgent)
        status: int | None = None
        headers: Mapping[str, str] = {}
        sent_s = time.monotonic()
        try:
            answer = await self._http.send(request, stream=is_stream)
            status, headers = answer.status_code, answer.headers
        except httpx.HTTPError as error:
            raise BrokerUnavailable(f"{request.url.path}: {type(error).__name__}: {error}") from error
        finally:
            self._quota.answered(status, headers, time.monotonic(), time.time())
            if time.monotonic() - sent_s < PROMPT_S:
                self._note_time(headers.get("date", ""))
            self._counted(str(status or "none"))
        return answer

    def _note_time(self, date: str) -> None:
        with contextlib.suppress(ValueError):
            self._ahead_s = time.time() - parsedate_to_datetime(date).timestamp()

    async def _wait_for_turn(self, is_urgent: bool) -> None:
        async with self._turn[is_urgent]:
            while wait_s := self._quota.wait_s(time.monotonic(), is_urgent=is_urgent):
                await asyncio.sleep(min(wait_s, SLEEP_S_MAX))
            self._quota.sent(time.monotonic())

    def _decoded(self, path: str, answer: httpx.Response) -> Any:
        status = answer.status_code
        if status in REFUSED:
            raise self._refusal(path, status)
        if status == NOT_FOUND:
            return None
        if not answer.is_success:
            raise BrokerUnavailable(f"{path}: HTTP {status}")
        found = parse.decode(answer.content)
        if found is None:
            raise PayloadRefused(f"{path}: null")
        return found

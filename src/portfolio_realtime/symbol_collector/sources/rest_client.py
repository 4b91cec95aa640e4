"""Requests to Alpaca's REST APIs: each waits for the quota, and failed reads are repeated.

After network failures and 5xx a read is repeated a limited number of times, and then raises
BrokerUnavailable. Refused credentials raise the BrokerRefused that the owner of the client provides.
"""

import asyncio
import contextlib
import functools
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

import aiohttp
import stamina
import structlog
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from portfolio_realtime.alpaca.http import Answer, Authentication, HttpClient
from portfolio_realtime.alpaca.rate_limit import TOO_MANY, Quota
from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.errors import BrokerRefused, BrokerUnavailable, RequestFailed
from portfolio_realtime.symbol_collector.broker_time import BrokerTime
from portfolio_realtime.symbol_collector.sources import parse
from portfolio_realtime.symbol_collector.sources.parse import PayloadRefused

CONNECTIONS_MAX: Final = 16
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
NO_HEADERS: Final[Mapping[str, str]] = {}
NOT_FOUND: Final = 404

Refusal = Callable[[str, int], BrokerRefused]
"""Makes the error for a path that answered with a status of REFUSED."""


AnswerT = TypeVar("AnswerT", Answer, aiohttp.ClientResponse)

log = structlog.get_logger()


def _tell_retry(details: RetryDetails) -> None:
    log.debug("request failed: trying it again", reason=str(details.caused_by), wait_s=details.wait_for)


set_on_retry_hooks([_tell_retry])  # its own line is a warning; callers warn once, of what was given up


class RestClient:
    """One key's connection to one host; `counted` receives every status."""

    def __init__(
        self,
        base_url: str,
        authentication: Authentication,
        refusal: Refusal,
        counted: Callable[[str], None],
    ) -> None:
        self._http = HttpClient(base_url, authentication, connections_max=CONNECTIONS_MAX)
        self._refusal = refusal
        self._counted = counted
        self._quota = Quota()
        self._turn = {True: asyncio.Lock(), False: asyncio.Lock()}
        self._ahead_s = 0.0  # our clock, of the broker's
        self.broker_time = BrokerTime()

    def has_room(self, limit_min: int) -> bool:
        """May an urgent request go out now, and are at least so many allowed each minute?"""
        return self._quota.has_room(time.monotonic(), limit_min)

    def now_ns(self) -> int:
        """The broker's clock in ns, by its newest answer: behind it by up to 2 s, never ahead."""
        return time.time_ns() - int(max(0.0, self._ahead_s) * NS_PER_S) - CLOCK_MARGIN_NS

    async def close(self) -> None:
        """Close all connections."""
        await self._http.close()

    async def open_stream(
        self, path: str, params: Mapping[str, str], read_s_max: float
    ) -> aiohttp.ClientResponse:
        """An event stream, opened by one request; the body is not read yet. Raises BrokerUnavailable."""
        headers = {"Accept": "text/event-stream"}
        await self._wait_for_turn(is_urgent=True)
        return await self._answered(
            path, self._http.begin(path, params, headers=headers, read_s_max=read_s_max)
        )

    async def get(self, path: str, params: Mapping[str, str] | None = None, *, is_urgent: bool = True) -> Any:
        """The decoded answer, or None for a 404. Raises BrokerUnavailable, BrokerRefused, PayloadRefused."""
        try:
            return await self._get_once(path, params, is_urgent)
        except BrokerUnavailable as error:
            failed = error
        # Stamina counts the attempt that was made above, so that a first success costs nothing of it.
        async for attempt in stamina.retry_context(
            on=BrokerUnavailable,
            attempts=ATTEMPTS_MAX,
            wait_initial=ATTEMPT_WAIT_S,
            wait_max=ATTEMPT_WAIT_S_MAX,
        ):
            with attempt:
                if attempt.num == 1:
                    raise failed
                return await self._get_once(path, params, is_urgent)
        raise AssertionError("stamina returns or raises")

    async def _get_once(self, path: str, params: Mapping[str, str] | None, is_urgent: bool) -> Any:
        for _ in range(RATE_REFUSALS_MAX):
            await self._wait_for_turn(is_urgent)
            answer = await self._answered(path, self._http.get(path, params))
            if answer.status != TOO_MANY:
                return self._decoded(path, answer)
            await asyncio.sleep(random.uniform(0, JITTER_S_MAX))
        raise BrokerUnavailable(f"{path}: the rate limit refused the request {RATE_REFUSALS_MAX} times")

    async def _answered(self, path: str, request: Awaitable[AnswerT]) -> AnswerT:
        """Send a request whose turn it is, and learn from its answer. Raises BrokerUnavailable."""
        sent_s, status, headers = time.monotonic(), None, NO_HEADERS
        try:
            answer = await request
            status, headers = answer.status, answer.headers
            return answer
        except RequestFailed as error:
            raise BrokerUnavailable(f"{path}: {error}") from error
        finally:
            received_s = time.monotonic()
            self._quota.answered(status, headers, received_s, time.time())
            self._note_time(headers.get("date", ""), sent_s, received_s)
            self._counted(str(status or "none"))

    def _note_time(self, date: str, sent_s: float, received_s: float) -> None:
        with contextlib.suppress(ValueError):
            date_s = _seconds(date)
            self.broker_time.learn(date_s, sent_s, received_s)
            if received_s - sent_s < PROMPT_S:
                self._ahead_s = time.time() - date_s

    async def _wait_for_turn(self, is_urgent: bool) -> None:
        async with self._turn[is_urgent]:
            while wait_s := self._quota.wait_s(time.monotonic(), is_urgent=is_urgent):
                await asyncio.sleep(min(wait_s, SLEEP_S_MAX))
            self._quota.sent(time.monotonic())

    def _decoded(self, path: str, answer: Answer) -> Any:
        status = answer.status
        if status in REFUSED:
            raise self._refusal(path, status)
        if status == NOT_FOUND:
            return None
        if not answer.is_success:
            raise BrokerUnavailable(f"{path}: HTTP {status}")
        found = parse.decode(answer.body)
        if found is None:
            raise PayloadRefused(f"{path}: null")
        return found


@functools.lru_cache(maxsize=16)  # answers of one second have one date
def _seconds(date: str) -> float:
    """The time of a `Date` in seconds since the epoch. Raises ValueError."""
    return parsedate_to_datetime(date).timestamp()

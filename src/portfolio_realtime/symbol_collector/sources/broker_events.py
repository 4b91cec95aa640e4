"""The activity event stream: every booking of every account, live or replayed.

`/v2beta1/events/activities` sends no history without a cursor. `since_id` resumes after an event; `since`
with `until` replays a span of time and ends. A stream that is silent for longer than IDLE_S is dead; the
broker's heartbeats count as signs of life.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, Protocol

import httpx

from portfolio_realtime.clock import rfc3339
from portfolio_realtime.errors import BrokerRefused, BrokerUnavailable
from portfolio_realtime.symbol_collector.sources.rest_client import REFUSED
from portfolio_realtime.symbol_collector.sources.sse import Comment, SseParser

PATH: Final = "/v2beta1/events/activities"
IDLE_S: Final = 45.0
HISTORY_IDLE_S: Final = 20.0  # heartbeats alone do not keep a bounded history alive
TIMEOUT: Final = httpx.Timeout(10.0, read=IDLE_S, pool=30.0)
REMEDY: Final = (
    "check BROKER_API_KEY and BROKER_SECRET_KEY (or BROKER_CLIENT_ID and BROKER_CLIENT_SECRET), and that "
    "ALPACA_SANDBOX matches them"
)
CURSOR_STATUSES: Final = (400, 404, 410, 422)
GAP_COMMENTS: Final = ("you are reading too slowly", "internal server error")


class Streaming(Protocol):
    """A client of the Broker API that opens streams."""

    def stream(self, path: str, params: Mapping[str, str], timeout: httpx.Timeout) -> httpx.Request:
        """A request for an event stream."""
        ...

    async def send_stream(self, request: httpx.Request) -> httpx.Response:
        """Send the request; the body is not read yet."""
        ...


class Broker(Streaming, Protocol):
    """A client that opens streams and also reads the REST list of bookings."""

    async def external_rows(self, since_ns: int) -> list[Any]:
        """All rows since `since_ns` of what clients brought in or took out. Raises BrokerError."""
        ...

    def has_room(self, limit_min: int) -> bool:
        """May a request go out now, and are so many allowed each minute?"""
        ...

    def now_ns(self) -> int:
        """The broker's clock, never ahead of it by much."""
        ...


class CursorRefused(BrokerUnavailable):
    """The broker does not know the event after which to resume."""


class StreamRefused(BrokerUnavailable):
    """The broker lives, and does not open the stream: too many requests, or not in this way."""


class EventsLost(BrokerUnavailable):
    """The broker says that it has dropped events: resume after the last one received."""


async def live(
    client: Streaming,
    since_id: str | None,
    connected: Callable[[], None],
    heard: Callable[[], None] = lambda: None,
) -> AsyncGenerator[str]:
    """Each event as JSON text, from after `since_id` or from now on; it never ends normally.

    `connected` is called when the broker has accepted the stream, `heard` at each sign of life. Raises
    BrokerUnavailable when it is cut, silent or closed, EventsLost, CursorRefused, BrokerRefused.
    """
    params = {"since_id": since_id} if since_id else {}
    async with aclosing(_read(client, params, connected, heard)) as events:
        async for event in events:
            yield event
    raise BrokerUnavailable("the event stream has ended")


async def history(client: Streaming, since_ns: int, until_ns: int) -> AsyncGenerator[str]:
    """Each event of a span of time as JSON text, then it ends. Raises as `live` does."""
    params = {"since": rfc3339(since_ns), "until": rfc3339(until_ns)}
    loop = asyncio.get_running_loop()
    async with aclosing(_read(client, params, lambda: None, lambda: None)) as events:
        while True:
            ends_s = loop.time() + HISTORY_IDLE_S
            try:
                async with asyncio.timeout_at(ends_s):
                    event = await anext(events)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise BrokerUnavailable(
                    f"the event history has not ended, and nothing has arrived for {HISTORY_IDLE_S:.0f} s"
                ) from None
            yield event


async def _read(
    client: Streaming,
    params: dict[str, str],
    connected: Callable[[], None],
    heard: Callable[[], None],
) -> AsyncGenerator[str]:
    response = await client.send_stream(client.stream(PATH, params, TIMEOUT))
    try:
        _check(response, has_cursor="since_id" in params)
        connected()
        parser = SseParser()
        async for text in response.aiter_text():
            heard()
            for item in parser.feed(text):
                if not isinstance(item, Comment):
                    yield item.data
                elif item.text.startswith(GAP_COMMENTS):
                    raise EventsLost(f"the event stream says: {item.text}")
    except (httpx.HTTPError, ValueError) as error:
        raise BrokerUnavailable(f"event stream: {type(error).__name__}: {error}") from error
    finally:
        await response.aclose()


def _check(response: httpx.Response, *, has_cursor: bool) -> None:
    status = response.status_code
    if status in REFUSED:
        raise BrokerRefused(f"Alpaca refuses the Broker API credentials (HTTP {status}): {REMEDY}")
    if has_cursor and status in CURSOR_STATUSES:
        raise CursorRefused(f"event stream: the broker refuses the cursor (HTTP {status})")
    if response.is_client_error:
        raise StreamRefused(f"event stream: HTTP {status}")
    if not response.is_success:
        raise BrokerUnavailable(f"event stream: HTTP {status}")

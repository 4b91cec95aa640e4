"""The activity event stream: every booking of every account, live or replayed.

`/v2beta1/events/activities` sends no history without a cursor. `since_id` resumes after an event; `since`
with `until` replays a span of time and ends. A stream that is silent for longer than IDLE_S is dead; the
broker's heartbeats count as signs of life.
"""

import asyncio
import codecs
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, Protocol

import aiohttp

from portfolio_realtime.alpaca.http import FAILURES, failed, is_success
from portfolio_realtime.clock import rfc3339
from portfolio_realtime.errors import BrokerRefused, BrokerUnavailable
from portfolio_realtime.symbol_collector.sources.rest_client import REFUSED
from portfolio_realtime.symbol_collector.sources.sse import Comment, SseParser

PATH: Final = "/v2beta1/events/activities"
IDLE_S: Final = 45.0
HISTORY_IDLE_S: Final = 20.0  # heartbeats alone do not keep a bounded history alive
REMEDY: Final = (
    "check BROKER_API_KEY and BROKER_SECRET_KEY (or BROKER_CLIENT_ID and BROKER_CLIENT_SECRET), and that "
    "ALPACA_SANDBOX matches them"
)
CURSOR_STATUSES: Final = (400, 404, 410, 422)
GAP_COMMENTS: Final = ("you are reading too slowly", "internal server error")


class Streaming(Protocol):
    """A client of the Broker API that opens streams."""

    async def open_stream(
        self, path: str, params: Mapping[str, str], read_s_max: float
    ) -> aiohttp.ClientResponse:
        """An event stream; the body is not read yet. Raises BrokerUnavailable."""
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
    response = await client.open_stream(PATH, params, IDLE_S)
    try:
        _check(response, has_cursor="since_id" in params)
        connected()
        parser = SseParser()
        text_of = codecs.getincrementaldecoder("utf-8")("replace").decode
        loop = asyncio.get_running_loop()
        heard_s = loop.time()
        async for part in response.content.iter_any():
            if b"\n" in part or b"\r" in part:
                heard_s = loop.time()
                heard()
            elif loop.time() - heard_s > IDLE_S:
                raise BrokerUnavailable(f"event stream: no whole line has come for {IDLE_S:.0f} s")
            for item in parser.feed(text_of(part)):
                if not isinstance(item, Comment):
                    yield item.data
                elif item.text.startswith(GAP_COMMENTS):
                    raise EventsLost(f"the event stream says: {item.text}")
    except FAILURES as error:
        raise BrokerUnavailable(f"event stream: {failed(error)}") from error
    finally:
        response.close()


def _check(response: aiohttp.ClientResponse, *, has_cursor: bool) -> None:
    status = response.status
    if status in REFUSED:
        raise BrokerRefused(f"Alpaca refuses the Broker API credentials (HTTP {status}): {REMEDY}")
    if has_cursor and status in CURSOR_STATUSES:
        raise CursorRefused(f"event stream: the broker refuses the cursor (HTTP {status})")
    if status in range(400, 500):
        raise StreamRefused(f"event stream: HTTP {status}")
    if not is_success(status):
        raise BrokerUnavailable(f"event stream: HTTP {status}")

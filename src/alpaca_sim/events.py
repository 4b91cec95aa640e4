"""Server-sent events: each connection is an index into the ledger's list of activities, so history turns
live without a seam.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from alpaca_sim.activities_json import event_json, fill_json
from alpaca_sim.broker_rest import find_account
from alpaca_sim.clock import Clock, parse_time_ns
from alpaca_sim.ledger import Activity, Ledger
from alpaca_sim.ulid import milliseconds
from alpaca_sim.web import ApiError, json_response, sim_of

CONNECTIONS_MAX = 25
UNREAD_MAX = 10_000  # events a live reader may be behind before they are dropped
CHUNK_EVENTS = 200
CURSOR_POLL_S = 0.2  # how often an idle stream with an end looks at the clock
WELCOME = b": welcome to the Alpaca events\n\n"
HEARTBEAT = b":heartbeat\n\n"


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a stream begins and ends. Ids are exclusive at the start and inclusive at the end."""

    since_ns: int | None = None
    until_ns: int | None = None
    since_id: str | None = None
    until_id: str | None = None

    @property
    def has_history(self) -> bool:
        """Whether anything from before the connection is wanted."""
        return self.since_ns is not None or self.since_id is not None

    def takes(self, activity: Activity) -> bool:
        """Whether the activity lies between both ends."""
        return (
            (self.since_ns is None or activity.at_ns >= self.since_ns)
            and (self.until_ns is None or activity.at_ns <= self.until_ns)
            and (self.since_id is None or activity.event_id > self.since_id)
            and (self.until_id is None or activity.event_id <= self.until_id)
        )

    def is_past(self, now_ns: int) -> bool:
        """Whether nothing published from now on can still be taken."""
        if self.until_ns is not None:
            return now_ns > self.until_ns
        return self.until_id is not None and now_ns // 1_000_000 > milliseconds(self.until_id)


def read_cursor(params: QueryParams, open_since: bool) -> Cursor:
    """Alpaca's cursor rules, or 400/422. `open_since`: `since` may stand without `until`."""
    since, until = params.get("since"), params.get("until")
    since_id, until_id = params.get("since_id"), params.get("until_id")
    if (since or until) and (since_id or until_id):
        raise ApiError(422, "since/until and since_id/until_id cannot be mixed")
    if until and not since:
        raise ApiError(400, "until requires since")
    if until_id and not since_id:
        raise ApiError(400, "until_id requires since_id")
    if since and not until and not open_since:
        raise ApiError(400, "if you specify since, you also need to specify until")
    try:
        for ulid in filter(None, (since_id, until_id)):
            milliseconds(ulid)
        since_ns, until_ns = (parse_time_ns(text) if text else None for text in (since, until))
    except ValueError as error:
        raise ApiError(422, f"invalid cursor: {error}") from error
    return Cursor(since_ns, until_ns, since_id, until_id)


@dataclass(slots=True, eq=False)
class Reader:
    """One open event stream."""

    client: tuple[str, int]
    index: int  # of the next activity to read
    live_from: int  # activities from here on are live and may be dropped
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    is_idle: bool = False


class EventStreams:
    """All open event streams over one ledger."""

    def __init__(self, ledger: Ledger, clock: Clock, heartbeat_s: float) -> None:
        """`heartbeat_s`: how often a comment shows that the stream lives."""
        self.readers: set[Reader] = set()
        self._ledger = ledger
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._is_closed = False

    def notify(self) -> None:
        """Something was booked: wake all readers."""
        for reader in self.readers:
            reader.wake.set()

    def close(self) -> None:
        """End all streams."""
        self._is_closed = True
        self.notify()

    @property
    def is_flushed(self) -> bool:
        """Whether every reader has been handed every activity."""
        return all(reader.is_idle and reader.index >= len(self._ledger.activities) for reader in self.readers)

    async def stream(
        self,
        client: tuple[str, int],
        cursor: Cursor,
        encode: Callable[[Activity], dict[str, Any] | None],
    ) -> AsyncGenerator[bytes]:
        """The body of one stream: welcome, history, live events, heartbeats. `encode` gives None to skip."""
        count = len(self._ledger.activities)
        reader = Reader(client, 0 if cursor.has_history else count, count)
        self.readers.add(reader)
        try:
            yield WELCOME
            heartbeat_at = asyncio.get_running_loop().time() + self._heartbeat_s
            while not self._is_closed:
                chunk = self._next_chunk(reader, cursor, encode)
                if chunk:
                    yield chunk
                elif reader.index >= len(self._ledger.activities):
                    if cursor.is_past(self._clock.now_ns()):
                        return
                    await self._sleep(reader, cursor, heartbeat_at)
                if asyncio.get_running_loop().time() >= heartbeat_at:
                    yield HEARTBEAT
                    heartbeat_at = asyncio.get_running_loop().time() + self._heartbeat_s
        finally:
            self.readers.discard(reader)

    async def _sleep(self, reader: Reader, cursor: Cursor, heartbeat_at: float) -> None:
        loop = asyncio.get_running_loop()
        has_end = cursor.until_ns is not None or cursor.until_id is not None
        wait_s = max(0.0, heartbeat_at - loop.time())
        reader.wake.clear()
        reader.is_idle = True
        timer = loop.call_later(min(wait_s, CURSOR_POLL_S) if has_end else wait_s, reader.wake.set)
        try:
            await reader.wake.wait()
        finally:
            timer.cancel()
            reader.is_idle = False

    def _next_chunk(
        self, reader: Reader, cursor: Cursor, encode: Callable[[Activity], dict[str, Any] | None]
    ) -> bytes:
        activities = self._ledger.activities
        parts: list[bytes] = []
        unread = len(activities) - max(reader.index, reader.live_from)
        if reader.index >= reader.live_from and unread > UNREAD_MAX:
            parts.append(b": you are reading too slowly, dropped %d messages\n\n" % unread)
            reader.index = len(activities)
        for activity in activities[reader.index : reader.index + CHUNK_EVENTS]:
            reader.index += 1
            body = encode(activity) if cursor.takes(activity) else None
            if body is not None:
                parts.append(b"data: %b\n\n" % msgspec.json.encode(body))
        return b"".join(parts)


def _open_stream(
    request: Request, open_since: bool, encode: Callable[[Activity], dict[str, Any] | None]
) -> Response:
    streams = sim_of(request).events
    cursor = read_cursor(request.query_params, open_since)
    if len(streams.readers) >= CONNECTIONS_MAX:
        raise ApiError(429, "Too many requests")
    assert request.client is not None
    body = streams.stream((request.client.host, request.client.port), cursor, encode)
    return StreamingResponse(body, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


async def activity_stream(request: Request) -> Response:
    """`GET /v2beta1/events/activities`: every change of cash or positions."""
    return _open_stream(request, open_since=False, encode=event_json)


async def trade_stream(request: Request) -> Response:
    """`GET /v2/events/trades`: fills only."""
    market = sim_of(request).market

    def encode(activity: Activity) -> dict[str, Any] | None:
        return fill_json(activity, market) if activity.activity_type == "TRD" else None

    return _open_stream(request, open_since=True, encode=encode)


async def one_event(request: Request) -> Response:
    """`GET /v2beta1/accounts/{id}/events/activities/{event_id}`."""
    account = find_account(sim_of(request), request.path_params["account_id"])
    for activity in account.activities:
        if activity.event_id == request.path_params["event_id"]:
            return json_response(event_json(activity))
    raise ApiError(404, "activity not found")


ROUTES = [
    Route("/v2beta1/events/activities", activity_stream),
    Route("/v2beta1/accounts/{account_id}/events/activities/{event_id}", one_event),
    Route("/v2/events/trades", trade_stream),
]

"""Open event streams. Each is an index into a list that only grows, so that no event is lost or repeated
between history and live events.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from alpaca_sim.core.books import SystemEvent
from alpaca_sim.core.clock import Clock
from alpaca_sim.core.faults import Faults
from alpaca_sim.core.ledger import Activity
from alpaca_sim.core.statuses import StatusEvent
from alpaca_sim.core.switches import Switches
from alpaca_sim.core.ulid import milliseconds

CONNECTIONS_MAX = 25
UNREAD_MAX = 10_000  # a live reader that is further behind loses its unread events
CHUNK_EVENTS = 200
CURSOR_POLL_S = 0.2  # how often an idle stream with an `until` checks whether it has ended
WELCOME = b": welcome to the Alpaca events\n\n"
HEARTBEAT = b":heartbeat\n\n"
INTERNAL_ERROR = b": internal server error\n\n"
REPEAT_REACH = 50  # the fault `events.repeat` repeats one of this many events

Published = Activity | SystemEvent | StatusEvent
Encode = Callable[[Any], dict[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a stream begins and ends.

    `until_…` and `since_ns` are inclusive; `since_id` is exclusive unless `is_inclusive`. None: no bound.
    """

    since_ns: int | None = None
    until_ns: int | None = None
    since_id: str | None = None
    until_id: str | None = None
    is_inclusive: bool = False

    @property
    def has_history(self) -> bool:
        """Whether the stream begins with events from before the connection."""
        return self.since_ns is not None or self.since_id is not None

    def takes(self, activity: Published) -> bool:
        """Whether the event is between both ends."""
        return (
            (self.since_ns is None or activity.at_ns >= self.since_ns)
            and (self.until_ns is None or activity.at_ns <= self.until_ns)
            and (self.since_id is None or activity.event_id > self.since_id or self._is_first(activity))
            and (self.until_id is None or activity.event_id <= self.until_id)
        )

    def _is_first(self, activity: Published) -> bool:
        return self.is_inclusive and activity.event_id == self.since_id

    def is_past(self, now_ns: int) -> bool:
        """Whether every event published from now on is after the end."""
        if self.until_ns is not None:
            return now_ns > self.until_ns
        return self.until_id is not None and now_ns // 1_000_000 > milliseconds(self.until_id)


@dataclass(slots=True, eq=False)
class Reader:
    """One open event stream."""

    client: tuple[str, int]
    stream_name: str
    log: Sequence[Published]
    index: int  # of the next event to read
    live_from: int  # events from this index on are live and may be dropped
    dropped: int = 0  # events dropped and not reported yet
    last_chunk: bytes | None = None  # when set, the stream sends it and ends
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    is_idle: bool = False


class EventStreams:
    """All open event streams."""

    def __init__(self, clock: Clock, heartbeat_s: float, faults: Faults, switches: Switches) -> None:
        """`heartbeat_s`: seconds between heartbeat comments."""
        self.readers: set[Reader] = set()
        self.connect_count = 0
        self._clock = clock
        self._faults = faults
        self._switches = switches
        self._heartbeat_s = heartbeat_s
        self._is_closed = False

    def notify(self) -> None:
        """Wake all readers: there are new events, or a fault began or ended."""
        for reader in self.readers:
            reader.wake.set()

    def close(self) -> None:
        """End all streams."""
        self._is_closed = True
        self.notify()

    @property
    def is_flushed(self) -> bool:
        """Whether every reader has read every event."""
        return all(reader.is_idle and reader.index >= len(reader.log) for reader in self.readers)

    async def stream(
        self,
        client: tuple[str, int],
        name: str,
        log: Sequence[Published],
        cursor: Cursor,
        encode: Encode,
    ) -> AsyncGenerator[bytes]:
        """Yield the body of one stream: welcome, history, live events and heartbeats.

        `log` only grows. `encode` returns the JSON object of an event, or None to skip it.
        """
        reader = Reader(client, name, log, 0 if cursor.has_history else len(log), len(log))
        self.readers.add(reader)
        self.connect_count += 1
        try:
            if self._switches.sse_welcome == "yes":
                yield WELCOME
            async with contextlib.aclosing(self._chunks(reader, cursor, encode)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self.readers.discard(reader)

    async def _chunks(self, reader: Reader, cursor: Cursor, encode: Encode) -> AsyncGenerator[bytes]:
        """History, live events and heartbeats, until the end of the span or of the stream."""
        loop = asyncio.get_running_loop()
        heartbeat_at = loop.time() + self._heartbeat_s
        while not self._is_closed and reader.last_chunk is None:
            chunk = await self._next_chunk(reader, cursor, encode)
            if chunk:
                yield chunk
            elif reader.index >= len(reader.log):
                if cursor.is_past(self._clock.now_ns()):
                    return
                await self._sleep(reader, cursor, heartbeat_at)
            if loop.time() >= heartbeat_at:
                yield HEARTBEAT
                heartbeat_at = loop.time() + self._heartbeat_s
        if reader.last_chunk:
            yield reader.last_chunk

    async def _next_chunk(self, reader: Reader, cursor: Cursor, encode: Encode) -> bytes:
        """The next bytes to send; waits while a fault mutes or delays the stream."""
        while self._faults.is_on("events.mute", reader.stream_name) and reader.last_chunk is None:
            reader.wake.clear()
            # The end of a fault wakes all readers, and so does `close`.
            await reader.wake.wait()
            if self._is_closed:
                return b""
        if reader.index < len(reader.log):
            await asyncio.sleep(self._faults.level("events.reorder", reader.stream_name) or 0.0)
        return self._read(reader, cursor, encode)

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

    def _read(self, reader: Reader, cursor: Cursor, encode: Encode) -> bytes:
        unread = len(reader.log) - max(reader.index, reader.live_from)
        is_live = reader.index >= reader.live_from
        is_losing = self._faults.is_on("events.drop", reader.stream_name)
        if is_live and (is_losing or unread > UNREAD_MAX):
            reader.dropped += unread
            reader.index = len(reader.log)
        parts: list[bytes] = []
        if reader.dropped and not is_losing:
            parts.append(b": you are reading too slowly, dropped %d messages\n\n" % reader.dropped)
            reader.dropped = 0
        for event in self._next_events(reader):
            body = encode(event) if cursor.takes(event) else None
            if body is not None:
                parts.append(self._wire(reader, event, body))
        return b"".join(parts)

    def _next_events(self, reader: Reader) -> list[Published]:
        """Up to CHUNK_EVENTS next events, in order, or reordered and repeated by a fault."""
        first = reader.index
        events = list(reader.log[first : first + CHUNK_EVENTS])
        reader.index += len(events)
        if self._faults.is_on("events.reorder", reader.stream_name):
            # Alpaca promises the order of each account's events, so only whole accounts change places.
            keys = sorted({_account_of(event) for event in events})
            self._faults.rng.shuffle(keys)
            events.sort(key=lambda event: keys.index(_account_of(event)))
        if not self._faults.is_on("events.repeat", reader.stream_name):
            return events
        repeated: list[Published] = []
        for offset, event in enumerate(events):
            repeated.append(event)
            if self._faults.strikes("events.repeat", reader.stream_name):
                reach = min(REPEAT_REACH, first + offset - reader.live_from)
                repeated.append(reader.log[first + offset - self._faults.rng.randint(0, max(0, reach))])
        return repeated

    def _wire(self, reader: Reader, event: Published, body: dict[str, Any]) -> bytes:
        if self._faults.strikes("events.irregular", reader.stream_name):
            body = irregular(body)
        lines = self._switches.sse_lines
        head = b"event: %b\n" % reader.stream_name.encode() if lines in ("event", "all") else b""
        head += b"id: %b\n" % event.event_id.encode() if lines in ("id", "all") else b""
        return b"%bdata: %b\n\n" % (head, msgspec.json.encode(body))


def _account_of(event: Published) -> str:
    return "" if isinstance(event, SystemEvent) else event.account_id


def irregular(body: dict[str, Any]) -> dict[str, Any]:
    """An event with irregularities of Alpaca's own samples: empty currency, a time for a date, new keys."""
    odd = {**body, "added_later": {"list": [1, None]}}
    if "settle_date" in odd:
        odd |= {"settle_date": f"{odd['settle_date']}T00:00:00Z", "currency": ""}
    return odd

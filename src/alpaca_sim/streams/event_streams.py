"""Open event streams: each is an index into a log that only grows, so history turns live without a seam."""

import asyncio
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
UNREAD_MAX = 10_000  # events a live reader may be behind before they are dropped
CHUNK_EVENTS = 200
CURSOR_POLL_S = 0.2  # how often an idle stream with an end looks at the clock
WELCOME = b": welcome to the Alpaca events\n\n"
HEARTBEAT = b":heartbeat\n\n"
INTERNAL_ERROR = b": internal server error\n\n"
REPEAT_REACH = 50  # a repeated event is one of so many before it

Published = Activity | SystemEvent | StatusEvent
Encode = Callable[[Any], dict[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a stream begins and ends. Ids are inclusive at the end, and at the start if `is_inclusive`."""

    since_ns: int | None = None
    until_ns: int | None = None
    since_id: str | None = None
    until_id: str | None = None
    is_inclusive: bool = False

    @property
    def has_history(self) -> bool:
        """Whether anything from before the connection is wanted."""
        return self.since_ns is not None or self.since_id is not None

    def takes(self, activity: Published) -> bool:
        """Whether the event lies between both ends."""
        return (
            (self.since_ns is None or activity.at_ns >= self.since_ns)
            and (self.until_ns is None or activity.at_ns <= self.until_ns)
            and (self.since_id is None or activity.event_id > self.since_id or self._is_first(activity))
            and (self.until_id is None or activity.event_id <= self.until_id)
        )

    def _is_first(self, activity: Published) -> bool:
        return self.is_inclusive and activity.event_id == self.since_id

    def is_past(self, now_ns: int) -> bool:
        """Whether nothing published from now on can still be taken."""
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
    live_from: int  # events from here on are live and may be dropped
    dropped: int = 0  # lost by a fault, and not told yet
    farewell: bytes | None = None  # the last words, when the stream is to end
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    is_idle: bool = False


class EventStreams:
    """All open event streams, each over a log that only grows."""

    def __init__(self, clock: Clock, heartbeat_s: float, faults: Faults, switches: Switches) -> None:
        """`heartbeat_s`: how often a comment shows that the stream lives."""
        self.readers: set[Reader] = set()
        self.connect_count = 0
        self._clock = clock
        self._faults = faults
        self._switches = switches
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
        return all(reader.is_idle and reader.index >= len(reader.log) for reader in self.readers)

    async def stream(
        self,
        client: tuple[str, int],
        name: str,
        log: Sequence[Published],
        cursor: Cursor,
        encode: Encode,
    ) -> AsyncGenerator[bytes]:
        """The body of one stream: welcome, history, live events, heartbeats. `encode` gives None to skip."""
        reader = Reader(client, name, log, 0 if cursor.has_history else len(log), len(log))
        self.readers.add(reader)
        self.connect_count += 1
        try:
            if self._switches.sse_welcome == "yes":
                yield WELCOME
            heartbeat_at = asyncio.get_running_loop().time() + self._heartbeat_s
            while not self._is_closed and reader.farewell is None:
                chunk = await self._next_chunk(reader, cursor, encode)
                if chunk:
                    yield chunk
                elif reader.index >= len(log):
                    if cursor.is_past(self._clock.now_ns()):
                        return
                    await self._sleep(reader, cursor, heartbeat_at)
                if asyncio.get_running_loop().time() >= heartbeat_at:
                    yield HEARTBEAT
                    heartbeat_at = asyncio.get_running_loop().time() + self._heartbeat_s
            if reader.farewell:
                yield reader.farewell
        finally:
            self.readers.discard(reader)

    async def _next_chunk(self, reader: Reader, cursor: Cursor, encode: Encode) -> bytes:
        """What is to be sent next; waits while a fault holds it back."""
        while self._faults.is_on("events.mute", reader.stream_name) and reader.farewell is None:
            reader.wake.clear()
            await reader.wake.wait()  # the end of a fault wakes all readers, and so does shutdown
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
        """The next events, as published, or as a fault has it."""
        first = reader.index
        events = list(reader.log[first : first + CHUNK_EVENTS])
        reader.index += len(events)
        if self._faults.is_on("events.reorder", reader.stream_name):
            # each account's own order is promised, so accounts change places as a whole
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
    """Spellings of Alpaca's own samples: an empty currency, a time for a date, keys not documented."""
    odd = {**body, "added_later": {"list": [1, None]}}
    if "settle_date" in odd:
        odd |= {"settle_date": f"{odd['settle_date']}T00:00:00Z", "currency": ""}
    return odd

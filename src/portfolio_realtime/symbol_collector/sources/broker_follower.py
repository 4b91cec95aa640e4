"""Every activity event without a gap: live, resumed after the last one, or replayed.

The live stream opens first, and history is then requested up to a moment after that. Both overlap, and the
records ignore repeats, so together they are one sequence. REST lists the same bookings. What clients brought
in or took out is compared with that list before the day's bookings count as known.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final

import structlog

from portfolio_realtime.clock import NS_PER_S, Clock
from portfolio_realtime.symbol_collector.model import Activity
from portfolio_realtime.symbol_collector.sources import broker_events, parse, trading_rows
from portfolio_realtime.symbol_collector.sources.account_source import Inbox
from portfolio_realtime.symbol_collector.sources.broker_events import Broker
from portfolio_realtime.symbol_collector.sources.parse import PayloadRefused
from portfolio_realtime.symbol_collector.sources.stream_probe import LIMIT_MIN, StreamProbe

OVERLAP_NS: Final = NS_PER_S // 2  # of history and live stream; also allows for different clocks
GAP_MARGIN_NS: Final = 60 * NS_PER_S  # replayed from before the last sign of life
LATE_NS: Final = 3 * NS_PER_S  # from an event's publication until it counts as late
PROBE_OVERLAP_NS: Final = 5 * NS_PER_S  # of what a probe asks for, over what is known
HISTORY_NS_MAX: Final = 7 * 24 * 3600 * NS_PER_S  # the longest history of a day

log = structlog.get_logger()


class EventFollower:
    """Follows the stream of one key; `cursor` is the id of the newest live event."""

    def __init__(self, client: Broker, clock: Clock, inbox: Inbox) -> None:
        self.cursor: str | None = None
        self.connected = asyncio.Event()
        self.lost_since_s: float | None = clock.monotonic_s()  # monotonic; None while the live stream is open
        self._client = client
        self._clock = clock
        self._inbox = inbox
        self._heard_ns = 0  # when the live stream last gave a sign of life
        self._is_opening = False  # nothing has come yet on this connection
        self._is_late = False  # the newest event came late, so that others behind it are late, too
        self._known_ns = 0  # until when the live stream, or a probe, has told everything
        self._probe = StreamProbe(clock, self._ask_for_missed, self._may_ask)
        self._history_since_ns: int | None = None
        self._history_turn = asyncio.Lock()
        self._gap_since_ns: int | None = None
        self._has_gap = asyncio.Event()

    @property
    def has_history(self) -> bool:
        """Whether the day's history is known, from some account's cut-off on."""
        return self._history_since_ns is not None

    @property
    def ahead(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        """The live stream: Alpaca lets a broker have up to 25 event streams at the same time."""
        return [("event stream", self.follow)]

    @property
    def parts(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        """Coroutines to be run side by side under the lease, with their names."""
        return [("event probe", self._probe.run)]

    async def follow(self) -> None:
        """Follow the live stream until it fails. Raises BrokerUnavailable, BrokerRefused."""
        cursor = self.cursor
        try:
            events = broker_events.live(self._client, cursor, self._connected(cursor), self._hear)
            async with aclosing(events) as live:
                async for text in live:
                    self._deliver(text, is_live=True)
        except broker_events.CursorRefused:
            self.cursor = None
            raise
        finally:
            self.connected.clear()
            if self.lost_since_s is None:
                self.lost_since_s = self._clock.monotonic_s()

    def _deliver(self, text: str, *, is_live: bool) -> None:
        payload: object = None
        try:
            payload = parse.decode(text)
            activity = parse.activity(payload)
        except PayloadRefused as error:
            self._inbox.refuse_activity(parse.account_id_of(payload), str(error))
            return
        if is_live:
            self.cursor = activity.event_id
            self._is_late = self._is_published_long_ago(activity.event_id)
        self._inbox.take_activity(activity, is_live=is_live)

    def _is_published_long_ago(self, event_id: str) -> bool:
        published_ns = parse.published_ns(event_id)
        now_ns = min(self._client.now_ns(), self._clock.now_ns())
        return published_ns is not None and now_ns - published_ns > LATE_NS

    def _hear(self) -> None:
        self._heard_ns = self._clock.now_ns()
        self._is_late = False
        if not self._is_opening:  # a mute broker, too, may say welcome
            self._known_ns = self._client.now_ns()
            self._probe.hear()
        self._is_opening = False

    def is_mute(self) -> bool:
        """Is the open stream silent, with no answer that it has nothing to tell, or are its events late?"""
        return self._is_late or self._probe.is_mute()

    def _may_ask(self) -> bool:
        return self.lost_since_s is None and self._client.has_room(LIMIT_MIN)

    async def _ask_for_missed(self) -> None:
        until_ns = self._client.now_ns()
        await self._replay(self._known_ns - PROBE_OVERLAP_NS, until_ns)
        self._known_ns = max(self._known_ns, until_ns)
        self._is_late = False

    def _connected(self, cursor: str | None) -> Callable[[], None]:
        heard_ns = self._heard_ns

        def note() -> None:
            if cursor is None and heard_ns:
                since_ns = heard_ns - GAP_MARGIN_NS
                self._gap_since_ns = min(self._gap_since_ns or since_ns, since_ns)
                self._has_gap.set()
            self._heard_ns = self._clock.now_ns()
            self._known_ns = self._known_ns or self._client.now_ns()
            self._is_opening = True
            self._probe.open()
            self.lost_since_s = None
            self.connected.set()
            log.info("event stream connected", resumes=cursor is not None)

        return note

    async def fill_gap(self) -> None:
        """Wait for a gap in the live stream and replay it. Raises BrokerUnavailable, BrokerRefused."""
        await self._has_gap.wait()
        since_ns = self._gap_since_ns
        assert since_ns is not None
        count = await self._replay(since_ns, self._clock.now_ns() + OVERLAP_NS)
        log.info("gap in the event stream replayed", events=count)
        if self._gap_since_ns == since_ns:
            self._gap_since_ns = None
            self._has_gap.clear()

    async def know_history_since(self, since_ns: int, *, is_whole: bool = False) -> None:
        """Replay, once, what happened since then, at most HISTORY_NS_MAX ago. Raises BrokerError.

        A late booking is an event of the stream, so `is_whole` adds nothing.
        """
        async with self._history_turn:
            now_ns = self._clock.now_ns()
            since_ns = max(since_ns, now_ns - HISTORY_NS_MAX)
            until_ns = self._history_since_ns or now_ns + OVERLAP_NS
            if self._history_since_ns is not None and since_ns >= self._history_since_ns:
                return
            count = await self._replay(since_ns, until_ns)
            await self._compare(since_ns)
            self._history_since_ns = since_ns
            log.info("activity history replayed", events=count)

    async def _compare(self, since_ns: int) -> None:
        """Find the client's own bookings in the REST list that no event has reported."""
        now_ns, rows = self._clock.now_ns(), list[Activity]()
        for row in await self._client.external_rows(since_ns):
            try:
                rows.append(parse.activity(trading_rows.broker_event_of(row, now_ns)))
            except PayloadRefused as error:
                self._inbox.refuse_activity(parse.account_id_of(row), str(error))
        self._inbox.take_rows(rows)

    async def _replay(self, since_ns: int, until_ns: int) -> int:
        if since_ns >= until_ns:
            return 0
        count = 0
        async with aclosing(broker_events.history(self._client, since_ns, until_ns)) as history:
            async for text in history:
                self._deliver(text, is_live=False)
                count += 1
        return count

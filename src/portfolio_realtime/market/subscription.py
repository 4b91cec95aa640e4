"""One feed's market subscription: which symbols we want, and the loops that keep their marks true.

`read`, `keep_subscribed`, `take_snapshots` and `refresh` run side by side for as long as one connection
lives; the book outlives it. Nothing is replayed by the feed, so a symbol's snapshot is taken after its
subscription is acknowledged and merged by trade time.

A socket that is open but mute is an outage. Silence alone proves nothing (a holiday, an illiquid symbol), so
after FEED_SILENCE_S without data all snapshots are taken: when they hold trades that the stream should have
brought, the connection is given up. The same refresh, every REFRESH_S, bounds any other drift and follows the
date.
"""

import asyncio
import contextlib
import itertools
import random
from collections.abc import Iterable
from typing import Final, NoReturn

import structlog

from portfolio_realtime.clock import NS_PER_S, Clock
from portfolio_realtime.errors import FeedUnavailable
from portfolio_realtime.market.feeds import Feed
from portfolio_realtime.market.marks import MarkBook, new_york_date_of
from portfolio_realtime.market.messages import (
    Cancel,
    Correction,
    Message,
    Snapshot,
    StreamTrade,
    as_of_ns,
)
from portfolio_realtime.market.snapshots import SYMBOLS_MAX, Snapshots
from portfolio_realtime.market.stream import MarketStream, StreamLost
from portfolio_realtime.telemetry import MarketMetrics

LEAVING_S: Final = 10.0  # a symbol that nobody holds any more stays subscribed for so long
SNAPSHOT_REQUESTS_MAX: Final = 4  # side by side
SNAPSHOT_RETRY_S: Final = 5.0
REFRESH_S: Final = 300.0
REFRESH_CHECK_S: Final = 1.0
FEED_SILENCE_S: Final = 30.0
FEED_LAG_S_MAX: Final = 5.0  # a trade younger than this may still be on its way
UNKNOWN_TYPES_MAX: Final = 32  # type names that become metric labels
LEFT_OUT_SHOWN_MAX: Final = 10

log = structlog.get_logger()


class MarketSubscription:
    """The wanted symbols of one feed and their marks."""

    def __init__(self, feed: Feed, clock: Clock, metrics: MarketMetrics) -> None:
        self.book = MarkBook(feed.source, feed.effect_of)
        self.feed = feed
        self.changed = asyncio.Event()  # what is wanted has changed
        self._clock = clock
        self._metrics = metrics
        self._wanted: frozenset[str] = frozenset()
        self._leaving: dict[str, float] = {}  # symbol -> until when it stays, in monotonic seconds
        self._pending: dict[str, None] = {}  # symbols whose snapshot is to be taken, oldest first
        self._is_pending = asyncio.Event()
        self._frame_s = 0.0  # when the stream last brought data
        self._is_given_up = False
        self._told_unknown_count = 0
        self._subscribed: frozenset[str] = frozenset()  # accepted on this connection
        self._caught_up_ns: int | None = None  # since when this connection has brought every trade
        self._unknown_types: set[str] = set()

    def want(self, symbols: Iterable[str]) -> None:
        """Keep the marks of exactly these symbols."""
        symbols = frozenset(symbols)
        if symbols == self._wanted:
            return
        until_s = self._clock.monotonic_s() + LEAVING_S
        for symbol in self._wanted - symbols:
            self._leaving[symbol] = until_s
        for symbol in symbols:
            self._leaving.pop(symbol, None)
        self._wanted = symbols
        self.book.follow(symbols)
        self.changed.set()

    def stand_by(self) -> None:
        """Somebody else consumes this feed: give everything up, marks included, for they grow old."""
        self._is_given_up = True
        self.book.forget([*self._wanted, *self._leaving])
        self._wanted = frozenset()
        self._leaving.clear()
        self.changed.set()

    @property
    def is_wanted(self) -> bool:
        """Is there any symbol to keep?"""
        return bool(self._wanted or self._leaving)

    def begin(self) -> None:
        """A new connection is there: it has brought nothing yet."""
        self._frame_s = self._clock.monotonic_s()
        self._subscribed = frozenset()
        self._is_given_up = False
        self._pending.clear()

    def end(self) -> None:
        """The connection is gone: trades may be missed from now on."""
        self._caught_up_ns = None

    def was_complete_at(self, at_ns: int) -> bool:
        """Were the marks at that moment the newest of all trades, as far as the feed brings them?"""
        return self._caught_up_ns is not None and self._caught_up_ns <= at_ns

    async def read(self, stream: MarketStream) -> NoReturn:
        """Apply what the stream brings. Raises FeedUnavailable, FeedRefused."""
        while True:
            messages, skipped = await stream.read()
            if messages:
                self._frame_s = self._clock.monotonic_s()
                self._apply(messages)
            for name in skipped:
                self._count_skipped(name)
            await asyncio.sleep(0)  # a full socket buffer must not keep the others from their turn

    def _apply(self, messages: list[Message]) -> None:
        received_ns = self._clock.now_ns()
        book = self.book
        ignored_count = book.counts.ignored + book.counts.refused
        trade_count = 0
        for message in messages:
            if type(message) is StreamTrade:
                trade_count += 1
                book.offer(message, received_ns)
            elif isinstance(message, Correction):
                self._count("c", 1)
                book.correct(message, received_ns)
            elif isinstance(message, Cancel):
                self._count("x", 1)
                book.cancel(message, received_ns)
        self._count("t", trade_count)
        ignored_count = book.counts.ignored + book.counts.refused - ignored_count
        self._metrics.ignored_trades.labels(self.feed.name).inc(ignored_count)

    def _count(self, name: str, count: int) -> None:
        self._metrics.messages.labels(self.feed.name, name).inc(count)

    def _count_skipped(self, name: str) -> None:
        if name not in self._unknown_types:
            if len(self._unknown_types) >= UNKNOWN_TYPES_MAX:
                name = "other"
            self._unknown_types.add(name)
            log.warning("a message that is not read", feed=self.feed.name, type=name)
        self._count(name, 1)

    async def keep_subscribed(self, stream: MarketStream) -> None:
        """Keep the subscription equal to what is wanted; return when nothing is. Raises FeedUnavailable."""
        asked: set[str] = set()
        refused: set[str] = set()
        while self.is_wanted and not self._is_given_up:
            self.changed.clear()
            self._let_go()
            wanted = {*self._wanted, *self._leaving}
            if gone := asked - wanted:
                await stream.unsubscribe(gone)
                asked -= gone
                refused.clear()  # there may be room again
            if new := wanted - asked - refused:
                left_out = await stream.subscribe(new)
                self._tell_left_out(left_out)
                refused.update(left_out)
                asked.update(new.difference(left_out))
                self._ask_snapshots(new)
            self._subscribed = frozenset(asked)
            self._metrics.subscribed.labels(self.feed.name).set(len(asked))
            await self._until_changed()
        self._metrics.subscribed.labels(self.feed.name).set(0)

    def _let_go(self) -> None:
        now_s = self._clock.monotonic_s()
        gone = [symbol for symbol, until_s in self._leaving.items() if until_s <= now_s]
        for symbol in gone:
            del self._leaving[symbol]
            self._pending.pop(symbol, None)
        self.book.forget(gone)

    async def _until_changed(self) -> None:
        next_s = min(self._leaving.values(), default=None)
        wait_s = None if next_s is None else max(0.0, next_s - self._clock.monotonic_s())
        with contextlib.suppress(TimeoutError):  # a symbol's time to leave has come
            async with asyncio.timeout(wait_s):
                await self.changed.wait()

    def _tell_left_out(self, left_out: list[str]) -> None:
        if left_out:
            log.error(
                "the feed does not accept symbols: their marks come from snapshots only",
                feed=self.feed.name,
                count=len(left_out),
                first=left_out[:LEFT_OUT_SHOWN_MAX],
                refresh_s=REFRESH_S,
            )

    def _ask_snapshots(self, symbols: Iterable[str]) -> None:
        self._pending.update(dict.fromkeys(symbols))
        self._is_pending.set()

    async def take_snapshots(self, snapshots: Snapshots) -> NoReturn:
        """Take the snapshots that are asked for. Raises FeedRefused; FeedUnavailable for a mute stream."""
        while True:
            await self._is_pending.wait()
            self._is_pending.clear()
            while parts := self._next_parts():
                frame_s = self._frame_s
                answers = await asyncio.gather(*map(snapshots.read, parts), return_exceptions=True)
                missed_count = 0
                for part, answer in zip(parts, answers, strict=True):
                    if isinstance(answer, dict):
                        missed_count += self._offer_all(answer)
                    elif isinstance(answer, FeedUnavailable):
                        await self._take_later(part, answer)
                    else:
                        raise answer
                if missed_count and self._frame_s == frame_s:
                    raise StreamLost(f"{self.feed.name} is mute: {missed_count} symbols traded", "mute")
            if self._caught_up_ns is None and self._subscribed:
                self._caught_up_ns = self._clock.now_ns()

    def _next_parts(self) -> list[list[str]]:
        symbols = list(itertools.islice(self._pending, SNAPSHOT_REQUESTS_MAX * SYMBOLS_MAX))
        for symbol in symbols:
            del self._pending[symbol]
        return [symbols[at : at + SYMBOLS_MAX] for at in range(0, len(symbols), SYMBOLS_MAX)]

    async def _take_later(self, symbols: list[str], reason: FeedUnavailable) -> None:
        log.warning("snapshots are taken later", feed=self.feed.name, reason=str(reason))
        self._ask_snapshots(symbols)
        await asyncio.sleep(SNAPSHOT_RETRY_S * random.uniform(0.5, 1.0))

    def _offer_all(self, found: dict[str, Snapshot]) -> int:
        """Offer snapshots; how many hold a trade that a silent stream should have brought."""
        received_ns = self._clock.now_ns()
        date = new_york_date_of(received_ns)
        is_silent = self._clock.monotonic_s() - self._frame_s > FEED_SILENCE_S
        missed_count = 0
        for symbol, snapshot in found.items():
            was_marked = self.book.is_marked(symbol)
            if not self.book.offer_snapshot(symbol, snapshot, date, received_ns) or not is_silent:
                continue
            traded_ns = as_of_ns(snapshot.latest_trade.at) if snapshot.latest_trade else None
            is_due = traded_ns is not None and received_ns - traded_ns > FEED_LAG_S_MAX * NS_PER_S
            missed_count += was_marked and is_due and symbol in self._subscribed
        return missed_count

    async def refresh(self) -> NoReturn:
        """Ask for all snapshots when the stream is silent, when the date changes, and every REFRESH_S;
        and for those of symbols whose trades have all been withdrawn."""
        silence_s = FEED_SILENCE_S
        refreshed_s = frame_s = self._clock.monotonic_s()
        date = new_york_date_of(self._clock.now_ns())
        while True:
            await asyncio.sleep(REFRESH_CHECK_S)
            self._ask_snapshots(self.book.take_to_refresh())
            now_s = self._clock.monotonic_s()
            new_date = new_york_date_of(self._clock.now_ns())
            if self._frame_s != frame_s:
                frame_s, silence_s = self._frame_s, FEED_SILENCE_S
            is_silent = now_s - max(frame_s, refreshed_s) > silence_s
            if is_silent or new_date != date or now_s - refreshed_s > REFRESH_S:
                silence_s = min(2 * silence_s, REFRESH_S) if is_silent else silence_s
                date, refreshed_s = new_date, now_s
                self._ask_snapshots(self._wanted)
                self._tell_unknown()

    def _tell_unknown(self) -> None:
        unknown_count = self.book.counts.unknown
        if unknown_count > self._told_unknown_count:
            log.warning(
                "trades with unknown conditions moved no mark",
                feed=self.feed.name,
                count=unknown_count - self._told_unknown_count,
            )
            self._told_unknown_count = unknown_count

"""One feed's market subscription: the wanted symbols, and the loops that keep their marks correct.

`read`, `keep_subscribed`, `take_snapshots` and `refresh` run side by side during one connection; the book
outlasts it. The feed replays nothing. A symbol's snapshot is therefore taken after its subscription is
acknowledged, and is merged by trade time.

An open connection without data is an outage, but silence alone proves nothing (a holiday, a halt, an illiquid
symbol). After some seconds without data, fewer while the market is open, all snapshots are therefore taken.
If they hold trades that the stream does not deliver within FEED_LAG_S_MAX either, the connection is given up.
A stream that is mute only for some symbols is found by the same evidence, at the latest after REFRESH_S, and
those symbols are subscribed again. The same refresh limits any other drift and follows the date.
"""

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from typing import Final, NoReturn

import structlog

from portfolio_realtime import logs
from portfolio_realtime.backoff import Backoff
from portfolio_realtime.clock import Clock, new_york_date_of
from portfolio_realtime.errors import FeedError, FeedRefused
from portfolio_realtime.market_data_consumer.apply_message import apply_message
from portfolio_realtime.market_data_consumer.clock_behind import ClockBehind
from portfolio_realtime.market_data_consumer.feeds import Feed, Schedule
from portfolio_realtime.market_data_consumer.kept_frames import KeptFrames
from portfolio_realtime.market_data_consumer.message_counts import FeedMessageCounts
from portfolio_realtime.market_data_consumer.messages import (
    Snapshot,
    SnapshotTrade,
    StreamTrade,
    as_of_ns,
)
from portfolio_realtime.market_data_consumer.silence import Silence
from portfolio_realtime.market_data_consumer.snapshots import SYMBOLS_MAX, Snapshots
from portfolio_realtime.market_data_consumer.sought_symbols import SoughtSymbols
from portfolio_realtime.market_data_consumer.stream import Arrived, MarketStream, StreamLost
from portfolio_realtime.market_data_consumer.trading_sessions import Session
from portfolio_realtime.model import Mark
from portfolio_realtime.telemetry import MarketMetrics
from portfolio_realtime.waiting import wait_at_most

LEAVING_S: Final = 10.0  # how long a symbol that no account holds any more stays subscribed
SNAPSHOT_REQUESTS_MAX: Final = 4  # at the same time
SNAPSHOT_RETRY_S: Final = 2.0  # the first pause after a failure; doubles
SNAPSHOT_RETRY_S_MAX: Final = 30.0
REFRESH_S: Final = 300.0
REFRESH_CHECK_S: Final = 1.0
SILENCE_CHECK_S: Final = 0.25
# Without data for so long, snapshots are taken. The time doubles up to the session's maximum, until data
# arrives. It begins the same in every session: what has just been traded may be traded again, and some
# options trade until 16:15.
SILENCE_S_MIN: Final = 5.0
SILENCE_S_MAX: Final = {
    Session.CORE: 30.0,
    Session.EXTENDED: REFRESH_S,
    Session.OVERNIGHT: REFRESH_S,
    Session.CLOSED: REFRESH_S,
}
FEED_LAG_S_MAX: Final = 3.0  # for so long a trade in a snapshot may still be missing in the stream
EXPLAINED_S: Final = FEED_LAG_S_MAX + 2.0  # after snapshots were requested
LEFT_OUT_SHOWN_MAX: Final = 10
IN_A_ROW_MAX: Final = 16  # messages that are read, if they are there, before other tasks run

log = structlog.get_logger()


class MarketSubscription:
    """The wanted symbols of one feed and their marks."""

    def __init__(self, schedule: Schedule, clock: Clock, metrics: MarketMetrics) -> None:
        self.book = schedule.new_book()
        self.feed = schedule.day  # the feed that is streamed
        self.changed = asyncio.Event()  # the wanted symbols have changed
        self.moved = asyncio.Event()  # a mark may have changed, or a symbol is known to have none
        self.is_idle = False  # nobody needs the marks at once: frames of trades are kept undecoded
        self._kept = KeptFrames()
        self._schedule = schedule
        self._clock = clock
        self._metrics = metrics
        self._wanted: frozenset[str] = frozenset()
        self._leaving: dict[str, float] = {}  # symbol -> until when it stays, in monotonic seconds
        self._pending: dict[str, None] = {}  # symbols that wait for a snapshot, oldest first
        self._is_pending = asyncio.Event()
        self._snapshot_backoff = Backoff(SNAPSHOT_RETRY_S, SNAPSHOT_RETRY_S_MAX)
        self._frame_s = 0.0  # when data last arrived, in monotonic seconds
        self._silence = Silence()
        self._is_suspect = False  # silent for suspiciously long, or found to be mute
        self._is_given_up = False
        self._clock_behind = ClockBehind()
        self._told_unknown_count = 0
        self._subscribed: frozenset[str] = frozenset()  # accepted on this connection
        self._caught_up_ns: int | None = None  # since when no trade is missed; None: some may be
        self._counts = FeedMessageCounts(metrics.messages)
        self._settled: set[str] = set()  # symbols with a snapshot since their subscription
        self._shown: dict[str, SnapshotTrade] = {}  # symbol -> the trade in its newest snapshot
        self._missed: dict[str, tuple[int, float]] = {}  # symbol -> time of a snapshot's trade, when seen
        self._renewing: set[str] = set()  # symbols that are subscribed and mute
        self._sought = SoughtSymbols()

    def want(self, symbols: Iterable[str]) -> None:
        """Keep the marks of exactly these symbols. Symbols dropped now stay for LEAVING_S."""
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
        """Give everything up, because another process consumes this feed; marks, too, would grow old."""
        self._is_given_up = True
        self.book.forget([*self._wanted, *self._leaving])
        self._wanted = frozenset()
        self._leaving.clear()
        self._sought.clear()
        self.book.set_boundary(None)
        self.changed.set()

    @property
    def is_wanted(self) -> bool:
        """Whether any symbol is to be subscribed, including those that will soon be dropped."""
        return bool(self._wanted or self._leaving)

    @property
    def is_held(self) -> bool:
        """Whether any account holds one of its symbols."""
        return bool(self._wanted)

    def begin(self, feed: Feed) -> None:
        """Begin with a new connection to this feed, which has delivered nothing yet."""
        if feed != self.feed:
            self._silence.reset()
        self.feed = feed
        for counter in (self._metrics.ignored_trades, self._metrics.refused_trades):
            counter.labels(feed.name)  # shown as 0 until there is one
        self._settled.clear()
        self._shown.clear()
        self._missed.clear()
        self._renewing.clear()
        self._frame_s = self._clock.monotonic_s()
        self.book.stream_from(feed.source, self._frame_s if feed.has_cancels else None)
        self._silence.interrupt()
        self._subscribed = frozenset()
        self._is_given_up = False
        self._pending.clear()

    def end(self) -> None:
        """Note that the connection is gone: trades may be missed from now on."""
        self.catch_up()
        self._caught_up_ns = None

    def was_complete_at(self, at_ns: int) -> bool:
        """Whether no trade that the feed delivers was missing from the marks at that moment."""
        return self._caught_up_ns is not None and self._caught_up_ns <= at_ns

    @property
    def is_live(self) -> bool:
        """Whether trades arrive and are accepted.

        That is: all symbols are caught up, the stream is not suspect, and our clock is not too far behind.
        """
        is_caught_up = self._caught_up_ns is not None and not self._is_suspect
        return is_caught_up and not self._clock_behind.is_behind(self._clock.monotonic_s())

    async def read(self, stream: MarketStream) -> NoReturn:
        """Read the stream and apply its messages. Raises FeedUnavailable, FeedRefused."""
        in_a_row = 0
        while True:
            arrived = await stream.read(is_idle=self.is_idle)
            if arrived.undecoded is not None:
                self._note_data(self._clock.monotonic_s())
                self._keep(arrived.undecoded)
            elif arrived.trades or arrived.messages:
                self.catch_up()
                self._note_data(self._clock.monotonic_s())
                self._apply(arrived)
            else:
                self._count_unread(arrived)
            # A full socket buffer must not keep other tasks from running; each pause is a turn of the loop.
            in_a_row += max(1, len(arrived.trades), len(arrived.messages))
            if in_a_row >= IN_A_ROW_MAX:
                in_a_row = 0
                await asyncio.sleep(0)

    def _keep(self, frame: bytes) -> None:
        self._kept.add(frame)
        self.moved.set()
        if self._kept.is_full or not self.is_idle:
            self.catch_up()

    def catch_up(self) -> None:
        """Decode and apply the trades that were kept undecoded. The book is complete then."""
        for arrived in self._kept.take():
            self._apply(arrived)

    def take_changed(self) -> list[tuple[Mark, bool]]:
        """The marks that have changed since the last call: see `MarkBook.take_changed`."""
        self.catch_up()
        self.moved.clear()
        return self.book.take_changed()

    def _note_data(self, now_s: float) -> None:
        """Note that data has arrived. After a suspicious silence trades may be missing: take snapshots."""
        if self._is_suspect:
            self._caught_up_ns = None
            self._ask_snapshots(self._wanted)
        self._frame_s = now_s
        self._silence.note_data(now_s)
        self._is_suspect = False

    def _apply(self, arrived: Arrived) -> None:
        received_ns = self._clock.now_ns()
        counts = self.book.counts
        ignored_count, refused_count = counts.ignored, counts.refused + counts.set_aside
        ahead_count = counts.ahead
        if arrived.trades:
            self.book.add_trades(arrived.trades, received_ns)
            self._count("t", len(arrived.trades))
        for message in arrived.messages:
            self._count(apply_message(self.book, message, received_ns), 1)
        ignored = counts.ignored - ignored_count
        refused = counts.refused + counts.set_aside - refused_count
        trades = len(arrived.trades) + sum(isinstance(one, StreamTrade) for one in arrived.messages)
        self._judge_clock(counts.ahead - ahead_count, trades - ignored - refused)
        name = self.feed.name
        if ignored or refused:
            self._metrics.ignored_trades.labels(name).inc(ignored)
            self._metrics.refused_trades.labels(name).inc(refused)
        self._count_unread(arrived)
        self.moved.set()

    def _count_unread(self, arrived: Arrived) -> None:
        for name in arrived.skipped:
            self._counts.add_unread(self.feed.name, name)

    def _judge_clock(self, ahead: int, accepted: int) -> None:
        now_s = self._clock.monotonic_s()
        self._clock_behind.note(ahead, accepted, now_s)
        if ahead and self._clock_behind.is_behind(now_s):
            log.error(
                "all trades are refused: the clock of this machine is behind",
                feed=self.feed.name,
                **logs.once(self.feed.name),
            )

    def _count(self, name: str, count: int) -> None:
        self._counts.add(self.feed.name, name, count)

    async def keep_subscribed(self, stream: MarketStream) -> None:
        """Subscribe to exactly the wanted symbols; return when there are none. Raises FeedUnavailable."""
        asked: set[str] = set()
        refused: set[str] = set()
        if self.feed.has_statuses and not await stream.subscribe_statuses():
            log.warning("the feed does not report halts", feed=self.feed.name)
        while self.is_wanted and not self._is_given_up:
            self.changed.clear()
            self._let_go()
            wanted = {*self._wanted, *self._leaving}
            if gone := asked & self._renewing | asked - wanted:
                await stream.unsubscribe(gone)
                asked -= gone
                self._settled -= gone
                self._missed = {symbol: seen for symbol, seen in self._missed.items() if symbol not in gone}
                self._renewing.clear()
                # The feed may have room again.
                refused.clear()
            refused &= wanted
            if new := wanted - asked - refused:
                left_out = await stream.subscribe(new)
                self._tell_left_out(left_out)
                refused.update(left_out)
                asked.update(new.difference(left_out))
                self._ask_snapshots(new)
            self._subscribed = frozenset(asked)
            self._metrics.subscribed.labels(self.feed.name).set(len(asked))
            self._metrics.left_out.labels(self.feed.name).set(len(refused))
            await self._until_changed()
        self._metrics.subscribed.labels(self.feed.name).set(0)

    def _let_go(self) -> None:
        now_s = self._clock.monotonic_s()
        gone = [symbol for symbol, until_s in self._leaving.items() if until_s <= now_s]
        for symbol in gone:
            del self._leaving[symbol]
            self._pending.pop(symbol, None)
            self._shown.pop(symbol, None)
            self._sought.forget(symbol)
        self.book.forget(gone)

    async def _until_changed(self) -> None:
        next_s = min(self._leaving.values(), default=None)
        wait_s = None if next_s is None else max(0.0, next_s - self._clock.monotonic_s())
        # On timeout, it is time to drop a symbol.
        await wait_at_most(wait_s, self.changed)

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

    async def take_snapshots(self, snapshots: Sequence[Snapshots]) -> NoReturn:
        """Take the requested snapshots, the streamed feed's first; repeat those that fail later."""
        while True:
            await self._is_pending.wait()
            self._is_pending.clear()
            while parts := self._next_parts():
                failures: list[FeedError] = []
                for each in snapshots:
                    failures += await self._read_snapshots(each, parts)
                if not failures:
                    self._sought.note(itertools.chain(*parts))
                    self.moved.set()
                await self._recover(failures)
            if self._caught_up_ns is None and self._subscribed:
                self._caught_up_ns = self._clock.now_ns()
                self._silence.resume(self._clock.monotonic_s())

    async def _read_snapshots(self, snapshots: Snapshots, parts: Sequence[list[str]]) -> list[FeedError]:
        """Read one feed's snapshots, a request a part. Returns the failures; their parts are asked again."""
        failures: list[FeedError] = []
        requested_s = self._clock.monotonic_s()
        answers = await asyncio.gather(*map(snapshots.read, parts), return_exceptions=True)
        for part, answer in zip(parts, answers, strict=True):
            if isinstance(answer, dict):
                self._add_snapshots(part, answer, snapshots.feed, requested_s)
            elif isinstance(answer, FeedError):
                failures.append(answer)
                self._ask_snapshots(part)
            else:
                raise answer
        return failures

    def take_unmarked(self) -> list[str]:
        """Symbols for which no price was found, each once, and again after `write_all_again`.

        As of the marks that were last taken from the book.
        """
        new = self._sought.take_untold()
        return [one for one in new if self.book.is_followed(one) and not self.book.has_mark(one)]

    def write_all_again(self) -> None:
        """Write all marks and all symbols without one again, because Valkey may have lost them."""
        self.book.touch_all()
        self._sought.tell_again()
        self.moved.set()

    def refuse_snapshot(self, symbol: str, reason: str) -> None:
        """Count and log a snapshot with an unreadable part, which counts as missing."""
        self._count("snapshot_refused", 1)
        log.warning("a snapshot could not be read", feed=self.feed.name, symbol=symbol, reason=reason)

    async def _recover(self, failures: Sequence[FeedError]) -> None:
        """Wait before the next snapshots if some failed. The stream goes on meanwhile."""
        if not failures:
            self._snapshot_backoff.reset()
            return
        is_refused = any(isinstance(failure, FeedRefused) for failure in failures)
        tell = log.error if is_refused else log.warning
        tell("snapshots failed and will be tried again", feed=self.feed.name, reason=str(failures[0]))
        await asyncio.sleep(self._snapshot_backoff.next_s())

    def _next_parts(self) -> list[list[str]]:
        symbols = list(itertools.islice(self._pending, SNAPSHOT_REQUESTS_MAX * SYMBOLS_MAX))
        for symbol in symbols:
            del self._pending[symbol]
        return [symbols[at : at + SYMBOLS_MAX] for at in range(0, len(symbols), SYMBOLS_MAX)]

    def _add_snapshots(
        self, asked: list[str], found: dict[str, Snapshot], feed: Feed, requested_s: float
    ) -> None:
        """Add the requested snapshots to the book, and note which trades the stream has not delivered.

        The first snapshot after a subscription holds a trade from before it, which is no evidence. Neither is
        a trade that the last snapshot already had: options' trades have no ids by which to recognize them.
        """
        self.catch_up()
        received_ns, now_s = self._clock.now_ns(), self._clock.monotonic_s()
        date = new_york_date_of(received_ns)
        for symbol, snapshot in found.items():
            was_marked, latest = self.book.is_marked(symbol), snapshot.latest_trade
            is_back = feed is self.feed and self.book.take_back(symbol, latest, requested_s, received_ns)
            is_moved = self.book.add_snapshot(
                symbol, snapshot, date, received_ns, feed.source, has_close=feed.has_closes
            )
            if feed is not self.feed or latest is None:
                continue
            is_new = not is_back and latest != self._shown.get(symbol)
            self._shown[symbol] = latest
            if is_moved and is_new and symbol in self._settled and was_marked:
                self._missed[symbol] = (as_of_ns(latest.at) or 0, now_s)
        if feed is self.feed:
            self._settled.update(self._subscribed.intersection(asked))
        self.moved.set()

    async def refresh(self) -> NoReturn:
        """Request snapshots, and judge whether the stream is mute.

        All snapshots are requested when the stream is silent, when the date changes, and every REFRESH_S.
        Those of single symbols are requested when the book asks for them. Raises FeedUnavailable for a mute
        stream.
        """
        silence_s = SILENCE_S_MIN
        refreshed_s = frame_s = self._clock.monotonic_s()
        date = new_york_date_of(self._clock.now_ns())
        session = self._schedule.session(self._clock.now_ns())
        while True:
            await asyncio.sleep(REFRESH_CHECK_S)
            if self._missed:
                self.catch_up()
            self._judge_missed()
            now_s, now_ns = self._clock.monotonic_s(), self._clock.now_ns()
            self._ask_snapshots([*self.book.take_to_refresh(), *self.book.take_suspect(now_s)])
            new_date = new_york_date_of(now_ns)
            session, before = self._schedule.session(now_ns), session
            if session is not before:
                self._silence.reset()
            if self._frame_s != frame_s:
                frame_s, silence_s = self._frame_s, SILENCE_S_MIN
            silence_s = min(silence_s, SILENCE_S_MAX[session])
            is_silent = now_s - max(frame_s, refreshed_s) > silence_s
            if self._is_suspect and refreshed_s > frame_s:
                self._explain_silence(now_s - refreshed_s)
            elif self._is_suspect:
                is_silent = True
            if is_silent or new_date != date or now_s - refreshed_s > REFRESH_S:
                silence_s *= 2 if is_silent else 1
                date, refreshed_s = new_date, now_s
                self._ask_snapshots(self._wanted)
                self._tell_unknown()

    async def watch_silence(self) -> NoReturn:
        """Suspect the stream when two checks in a row find it silent.

        After one check alone, the cause could be that this process was late to read.
        """
        was_unusual = False
        while True:
            now_s = self._clock.monotonic_s()
            await asyncio.sleep(max(SILENCE_CHECK_S, self._silence.earliest_s(now_s) - now_s))
            is_unusual = self._silence.is_unusual(self._clock.monotonic_s())
            if is_unusual and was_unusual:
                self._is_suspect = True
            was_unusual = is_unusual

    def _explain_silence(self, since_s: float) -> None:
        """End the suspicion if snapshots requested `since_s` ago show no trade that the stream has missed."""
        if since_s > EXPLAINED_S and not self._pending and not self._missed:
            self._silence.reset()
            self._is_suspect = False

    def _judge_missed(self) -> None:
        """Check that the stream has delivered what snapshots showed. Raises FeedUnavailable if it is mute."""
        due_s = self._clock.monotonic_s() - FEED_LAG_S_MAX
        due = {symbol: missed for symbol, missed in self._missed.items() if missed[1] <= due_s}
        for symbol in due:
            del self._missed[symbol]
        mute = {
            symbol: seen_s
            for symbol, (traded_ns, seen_s) in due.items()
            if not self.book.has_streamed(symbol, traded_ns)
        }
        if not mute:
            return
        if self._frame_s <= min(mute.values()):
            self._is_suspect = True
            raise StreamLost(f"{self.feed.name} is mute although {len(mute)} symbols traded", "mute")
        log.warning(
            "symbols were silent and have been subscribed again", feed=self.feed.name, count=len(mute)
        )
        self._metrics.renewed.labels(self.feed.name).inc(len(mute))
        self._renewing.update(mute)
        self.changed.set()

    def _tell_unknown(self) -> None:
        unknown_count = self.book.counts.unknown
        if unknown_count > self._told_unknown_count:
            log.warning(
                "trades with unknown conditions moved no mark",
                feed=self.feed.name,
                count=unknown_count - self._told_unknown_count,
            )
            self._told_unknown_count = unknown_count

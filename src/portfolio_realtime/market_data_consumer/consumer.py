"""Service 2: from Alpaca's market data to the mark of every symbol that an account holds.

Stocks, crypto and options run side by side. Each has one active consumer, chosen by lease, because Alpaca
limits connections. A feed has no connection while no account holds any of its symbols. The connection and the
marks in memory do not wait for Valkey: the newest mark of each symbol stays in the book until the next flush.
After a loss of Valkey all marks are written again. While nobody watches any account, marks are written rarely
(`idle_feed`).

    python -m portfolio_realtime.market_data_consumer
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

import structlog

from portfolio_realtime import service
from portfolio_realtime.alpaca.credentials import MarketLogin
from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.errors import FeedRefused, FeedUnavailable, StateUnavailable
from portfolio_realtime.market_data_consumer.feeds import Feed, Schedule, schedules
from portfolio_realtime.market_data_consumer.idle_feed import IDLE_S, IdleFeed
from portfolio_realtime.market_data_consumer.mark_traces import MarkTraces
from portfolio_realtime.market_data_consumer.reconnect_delay import REFUSED, SESSION, ReconnectDelay
from portfolio_realtime.market_data_consumer.snapshots import Snapshots
from portfolio_realtime.market_data_consumer.stream import StreamLost, open_stream
from portfolio_realtime.market_data_consumer.subscription import MarketSubscription
from portfolio_realtime.market_data_consumer.trading_sessions import Session
from portfolio_realtime.market_data_consumer.watchers import AnyWatchers
from portfolio_realtime.model import US_EQUITY, Mark, MinuteMark, Unmarked
from portfolio_realtime.pace import Pace
from portfolio_realtime.service import Context
from portfolio_realtime.state.connection import Subscribed
from portfolio_realtime.state.feeds import SourceStatus
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.state.minutes import whole_at_or_before
from portfolio_realtime.telemetry import MarketMetrics
from portfolio_realtime.waiting import wait_at_most

UNIVERSE_PAUSE_S: Final = 0.1  # between two reads of the universe
FLUSH_S_MIN: Final = 0.02  # marks that change within this time of a flush share the next one
KEEP_S: Final = 0.5  # a quarter of the time for which a feed stays live without renewal
LOOK_S: Final = 0.1  # between two looks while it is not live
SILENCE_CHECK_S: Final = 1.0
TURN_CHECK_S: Final = 1.0  # between two checks whether another feed is due
PRUNE_S: Final = 300.0  # between two searches for marks of symbols that no account holds

log = structlog.get_logger()


async def run(context: Context) -> None:
    """Consume all feeds until cancelled."""
    metrics = MarketMetrics(context.registry)
    login = MarketLogin(context.settings)
    watchers = AnyWatchers(context)
    consumers = [
        FeedConsumer(context, metrics, each, login, watchers) for each in schedules(context.settings)
    ]
    await service.together(watchers.run(), *(consumer.run() for consumer in consumers))


class FeedConsumer:
    """Consumes one feed: keeps it connected and, under its lease, writes its marks to Valkey."""

    def __init__(
        self,
        context: Context,
        metrics: MarketMetrics,
        schedule: Schedule,
        login: MarketLogin,
        watchers: AnyWatchers,
    ) -> None:
        self._context = context
        self._login = login
        self._metrics = metrics
        self._schedule = schedule
        self._subscription = MarketSubscription(schedule, context.clock, metrics)
        tracing = context.tracing
        self._traces = None if tracing is None else MarkTraces(tracing, context.clock)
        self._universe_changed = asyncio.Event()
        self._watchers = watchers
        self._idle = IdleFeed()
        self._woken = asyncio.Event()  # somebody has begun to watch
        self._status_due = asyncio.Event()
        watchers.call(self._wake)

    async def run(self) -> None:
        """Stay connected, and write marks under the lease; a failure of one does not stop the other."""
        await service.together(
            self._stay_connected(),
            self._measure_silence(),
            service.keep_running(
                self._write_marks, self._context.clock, f"market_data:{self._schedule.name}"
            ),
        )

    async def _stay_connected(self) -> NoReturn:
        clock, name, delay = self._context.clock, self._schedule.name, ReconnectDelay()
        while True:
            started_s = clock.monotonic_s()
            try:
                await self._connect_once()
                continue
            except FeedRefused as error:
                reason, pause_s = REFUSED, delay.pause_s(REFUSED, clock.monotonic_s() - started_s)
                log.error("feed refused", feed=name, reason=str(error), again_in_s=round(pause_s))
            except FeedUnavailable as error:
                reason, asked_s = _reason(error)
                pause_s = delay.pause_s(reason, clock.monotonic_s() - started_s, asked_s)
                if reason != SESSION:
                    log.warning("feed lost", feed=name, reason=str(error), again_in_s=round(pause_s, 1))
            self._metrics.reconnects.labels(name, reason).inc()
            await asyncio.sleep(pause_s)

    async def _connect_once(self) -> None:
        """Wait until a symbol is wanted, and keep one connection until none is or the connection is lost."""
        subscription, settings = self._subscription, self._context.settings
        while not subscription.is_wanted:
            subscription.changed.clear()
            await subscription.changed.wait()
        feed, *others = self._schedule.at(self._context.clock.now_ns())
        url = settings.host("stream") + feed.stream_path
        encoding = "msgpack" if feed.is_packed_only else settings.alpaca_stream_encoding
        async with contextlib.AsyncExitStack() as opened:
            stream = await open_stream(url, feed.name, feed.setting, encoding)
            opened.push_async_callback(stream.close)
            snapshots = [
                Snapshots(settings, each, self._login, subscription.refuse_snapshot)
                for each in (feed, *others)
            ]
            for each in snapshots:
                opened.push_async_callback(each.close)
            opened.callback(subscription.end)
            await stream.log_in(*await self._login.pair())
            subscription.begin(feed)
            log.info("feed connected", feed=feed.name, source=feed.source)
            await service.together(
                subscription.read(stream),
                subscription.keep_subscribed(stream),
                subscription.take_snapshots(snapshots),
                subscription.refresh(),
                subscription.watch_silence(),
                self._have_turn(feed),
            )

    async def _have_turn(self, feed: Feed) -> NoReturn:
        """Wait until another feed is due. Then raises FeedUnavailable."""
        while self._schedule.at(self._context.clock.now_ns())[0] == feed:
            await asyncio.sleep(TURN_CHECK_S)
        raise StreamLost(f"{feed.source} is not the feed of the current session", SESSION)

    async def _write_marks(self) -> None:
        name = f"market_data:{self._schedule.name}"
        await service.under_lease(self._context, name, self._own_feed, self._stand_by)

    async def _stand_by(self) -> NoReturn:
        """Have no connection while another consumer has one: Alpaca may allow only one."""
        self._subscription.stand_by()
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    async def _own_feed(self, lease: Lease) -> None:
        # An earlier owner may have written since we wrote last.
        self._subscription.book.begin_versions(lease.fencing_token)
        self._idle.is_behind = True
        self._wake()
        self._subscription.write_all_again()
        await service.together(
            self._hear_universe(),
            self._follow_universe(),
            self._flush(lease),
            self._record_minutes(lease),
            self._prune(lease),
            self._keep_live(),
        )

    async def _keep_live(self) -> NoReturn:
        """Mark the feed as live in Valkey for as long as it is.

        A feed that is not due now gets the same status as the one in use, because it would bring no trades
        now.
        """
        feeds, was_live = self._context.state.feeds, False
        while True:
            self._status_due.clear()
            is_live, status = self._subscription.is_live, self._status
            for source in self._schedule.sources:
                if is_live:
                    await feeds.keep(source, status)
                elif was_live:
                    await feeds.drop(source)
            if status is SourceStatus.IDLE and not self._watchers.is_any:
                self._idle.told(self._context.clock.monotonic_s())
            was_live = is_live
            await wait_at_most(KEEP_S if is_live else LOOK_S, self._status_due)

    @property
    def _status(self) -> SourceStatus:
        if self._idle.is_behind or not self._watchers.is_any:
            return SourceStatus.IDLE
        return SourceStatus.CORE if self._is_exchange_open else SourceStatus.LIVE

    def _wake(self) -> None:
        self._idle.wake()
        self._subscription.is_idle = False
        self._woken.set()
        self._subscription.moved.set()

    @property
    def _is_exchange_open(self) -> bool:
        return self._schedule.day.asset_class == US_EQUITY and self._is_market_open

    @property
    def _is_market_open(self) -> bool:
        return self._schedule.session(self._context.clock.now_ns()) is Session.CORE

    async def _measure_silence(self) -> NoReturn:
        """Measure for how long the feed has not been live while an account holds a symbol that trades now."""
        clock, gauge = self._context.clock, self._metrics.silence.labels(self._schedule.name)
        live_s = clock.monotonic_s()
        while True:
            subscription, now_s = self._subscription, clock.monotonic_s()
            if subscription.is_live or not subscription.is_held or not self._is_market_open:
                live_s = now_s
            gauge.set(now_s - live_s)
            await asyncio.sleep(SILENCE_CHECK_S)

    async def _hear_universe(self) -> None:
        async for message in self._context.state.accounts.universe_changes():
            if isinstance(message, Subscribed):
                self._subscription.write_all_again()  # Valkey may have lost our writes
            self._universe_changed.set()

    async def _follow_universe(self) -> NoReturn:
        state = self._context.state
        while True:
            await self._universe_changed.wait()
            self._universe_changed.clear()
            universe = await state.accounts.read_universe()
            asset_class = self._schedule.day.asset_class
            self._subscription.want(
                symbol for symbol, its_class in universe.items() if its_class == asset_class
            )
            await asyncio.sleep(UNIVERSE_PAUSE_S)

    async def _flush(self, lease: Lease) -> NoReturn:
        """Write the newest mark of each changed symbol, as one batch.

        The first change after quiet is written at once. While busy, the next flush starts at most
        MARK_FLUSH_INTERVAL after the end of the last one, or IDLE_S while nobody watches. Trades that change
        no mark make nothing wait.
        """
        clock, subscription = self._context.clock, self._subscription
        pace = Pace(FLUSH_S_MIN, self._context.settings.mark_flush_interval)
        while True:
            await subscription.moved.wait()
            self._woken.clear()
            began_s, is_idle = clock.monotonic_s(), self._idle.may_wait(clock.monotonic_s())
            changed = subscription.take_changed()
            await self._tell_unmarked(lease)
            is_waking = self._idle.is_behind and not is_idle
            if changed or is_waking:
                await self._write_changed(lease, changed, is_waking=is_waking)
                pace.took(began_s, clock.monotonic_s(), len(changed))
            if is_waking:
                self._idle.is_behind = False
                self._status_due.set()
            await self._rest(pace)

    async def _rest(self, pace: Pace) -> None:
        """Wait until the next flush may begin."""
        now_s = self._context.clock.monotonic_s()
        wait_s = pace.wait_s(now_s)
        if self._idle.may_wait(now_s):
            self._idle.is_behind = self._subscription.is_idle = True
            wait_s = IDLE_S
        await wait_at_most(wait_s, self._woken)

    async def _write_changed(
        self, lease: Lease, changed: Sequence[tuple[Mark, bool]], *, is_waking: bool
    ) -> None:
        followed = (
            None if self._traces is None else self._traces.begin(changed, self._subscription.book.received_ns)
        )
        traced = None if followed is None else followed.mark
        woken = sorted(self._schedule.sources) if is_waking else ()
        await self._context.state.marks.write(lease, [mark for mark, _ in changed], traced, woken)
        if self._traces is not None and followed is not None:
            self._traces.end(followed)
        name, written_ns = self._schedule.name, self._context.clock.now_ns()
        lag = self._metrics.feed_lag.labels(name)
        self._metrics.price_updates.labels(name).inc(len(changed))
        if self._idle.is_behind:  # the lag is our own choice
            return
        for mark, is_live in changed:
            if is_live:
                lag.observe((written_ns - mark.as_of_ns) / NS_PER_S)

    async def _tell_unmarked(self, lease: Lease) -> None:
        """Write once that a symbol has no price, so that it differs from a symbol not read yet."""
        if symbols := self._subscription.take_unmarked():
            source, now_ns = self._schedule.day.source, self._context.clock.now_ns()
            await self._context.state.marks.write_unmarked(
                lease, [Unmarked(symbol, source, now_ns) for symbol in symbols]
            )

    async def _prune(self, lease: Lease) -> NoReturn:
        """Remove the marks of symbols that no account holds, including those that an earlier owner left.

        A mark is removed when no account has held its symbol at two searches in a row.
        """
        state, subscription, unheld = self._context.state, self._subscription, frozenset[str]()
        while True:
            await asyncio.sleep(PRUNE_S)
            universe = await state.accounts.read_universe()
            marks, unmarked = await state.marks.read_whole()
            before, unheld = (
                unheld,
                frozenset(
                    one.symbol
                    for one in (*marks, *unmarked)
                    if one.source in self._schedule.sources
                    and one.symbol not in universe
                    and not subscription.book.is_followed(one.symbol)
                ),
            )
            if orphans := sorted(before & unheld):
                await state.marks.remove(lease, orphans)
                self._metrics.pruned.labels(self._schedule.name).inc(len(orphans))

    async def _record_minutes(self, lease: Lease) -> NoReturn:
        """Write the mark of every symbol at each HISTORY_INTERVAL, once delayed trades have arrived.

        Nothing is written for a moment at which the feed was away, because unknown is not the same as
        unchanged.
        """
        clock, book = self._context.clock, self._subscription.book
        settings = self._context.settings
        interval_ns = settings.history_interval * NS_PER_S
        written: dict[str, MinuteMark] = {}
        written_at_ns = 0
        while True:
            at_ns = (clock.now_ns() // interval_ns + 1) * interval_ns
            book.set_boundary(at_ns)
            await asyncio.sleep((at_ns - clock.now_ns()) / NS_PER_S + settings.history_delay_s)
            if not self._subscription.was_complete_at(at_ns):
                continue
            self._subscription.catch_up()
            marks = book.marks_at(at_ns)
            has_gap = written_at_ns != at_ns - interval_ns
            is_whole = has_gap or whole_at_or_before(at_ns, interval_ns) == at_ns
            changes = changed_marks({} if is_whole else written, marks)
            try:
                await self._context.state.minutes.write(
                    lease, at_ns, self._schedule.day.asset_class, changes, is_whole=is_whole
                )
            except StateUnavailable as error:
                # On a cluster, the part of this minute may be away alone: the minute stays unknown.
                if not self._context.state.connection.is_cluster:
                    raise
                service.tell_away(error)
            else:
                written, written_at_ns = marks, at_ns


def changed_marks(
    before: Mapping[str, MinuteMark], now: Mapping[str, MinuteMark]
) -> dict[str, MinuteMark | None]:
    """The marks that are new or differ from before, and None for each symbol that has no mark any more."""
    changes: dict[str, MinuteMark | None] = {
        symbol: mark for symbol, mark in now.items() if before.get(symbol) != mark
    }
    return {**changes, **{symbol: None for symbol in before if symbol not in now}}


def _reason(error: FeedUnavailable) -> tuple[str, float | None]:
    """The metric label of an error, and the pause that the feed asks for, in seconds."""
    return (error.reason, error.retry_after_s) if isinstance(error, StreamLost) else ("unreachable", None)

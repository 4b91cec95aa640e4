"""Service 2: from Alpaca's market data to the mark of every symbol that an account holds.

Stocks, crypto and options run side by side, each with one active consumer, chosen by lease, for Alpaca limits
connections. A feed's connection and the marks in memory do not wait for Valkey: the newest mark of each
symbol waits in the book until the next flush, and after a loss of Valkey all marks are written again.

    python -m portfolio_realtime.market_data_consumer
"""

import asyncio
import random
from collections.abc import Mapping
from typing import Final, NoReturn

import structlog

from portfolio_realtime import service
from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.errors import FeedRefused, FeedUnavailable
from portfolio_realtime.market.feeds import Feed, feeds
from portfolio_realtime.market.snapshots import Snapshots
from portfolio_realtime.market.stream import StreamLost, open_stream
from portfolio_realtime.market.subscription import MarketSubscription
from portfolio_realtime.model import MinuteMark
from portfolio_realtime.service import Context
from portfolio_realtime.state.connection import Subscribed
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.state.minutes import whole_at_or_before
from portfolio_realtime.telemetry import MarketMetrics

UNIVERSE_PAUSE_S: Final = 0.1  # between two readings of the universe
PAUSE_S_MIN: Final = 0.5  # between two connections; doubles
PAUSE_S_MAX: Final = 15.0  # a dropped connection may hold our place at the feed for 90 s
SETTLED_S: Final = 30.0  # a connection that lived so long starts the pauses anew
REFUSED_PAUSE_S: Final = 60.0

log = structlog.get_logger()


async def run(context: Context) -> None:
    """Consume all feeds until cancelled."""
    metrics = MarketMetrics(context.registry)
    consumers = [FeedConsumer(context, metrics, feed) for feed in feeds(context.settings)]
    await service.together(*(consumer.run() for consumer in consumers))


class FeedConsumer:
    """One feed: its connection on one side, its lease, universe and flushes on the other."""

    def __init__(self, context: Context, metrics: MarketMetrics, feed: Feed) -> None:
        self._context = context
        self._metrics = metrics
        self._feed = feed
        self._subscription = MarketSubscription(feed, context.clock, metrics)
        self._universe_changed = asyncio.Event()
        self._is_state_doubtful = True  # Valkey may have lost what we have written

    async def run(self) -> None:
        """Stay connected and write marks under the lease, each recovering by itself."""
        await service.together(
            self._stay_connected(),
            service.keep_running(self._write_marks, self._context.clock, f"market_data:{self._feed.name}"),
        )

    async def _stay_connected(self) -> NoReturn:
        clock = self._context.clock
        pause_s = PAUSE_S_MIN
        while True:
            started_s = clock.monotonic_s()
            try:
                await self._connect_once()
            except FeedRefused as error:
                log.error("feed refused", feed=self._feed.name, reason=str(error), again_in_s=REFUSED_PAUSE_S)
                self._metrics.reconnects.labels(self._feed.name, "refused").inc()
                await asyncio.sleep(REFUSED_PAUSE_S)
                continue
            except FeedUnavailable as error:
                log.warning("feed lost", feed=self._feed.name, reason=str(error))
                self._metrics.reconnects.labels(self._feed.name, _reason(error)).inc()
            if clock.monotonic_s() - started_s > SETTLED_S:
                pause_s = PAUSE_S_MIN
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, PAUSE_S_MAX)

    async def _connect_once(self) -> None:
        """One connection, from the first wanted symbol to the last, or to its loss."""
        subscription = self._subscription
        while not subscription.is_wanted:
            subscription.changed.clear()
            await subscription.changed.wait()
        settings = self._context.settings
        stream = await open_stream(settings.host("stream") + self._feed.stream_path, self._feed.name)
        snapshots = Snapshots(settings, self._feed)
        try:
            await stream.log_in(*settings.market_credentials)
            subscription.begin()
            log.info("feed connected", feed=self._feed.name)
            await service.together(
                subscription.read(stream),
                subscription.keep_subscribed(stream),
                subscription.take_snapshots(snapshots),
                subscription.refresh(),
            )
        finally:
            subscription.end()
            await stream.close()
            await snapshots.close()

    async def _write_marks(self) -> None:
        name = f"market_data:{self._feed.name}"
        await service.under_lease(self._context, name, self._own_feed, self._subscription.stand_by)

    async def _own_feed(self, lease: Lease) -> None:
        await service.together(
            self._hear_universe(), self._follow_universe(), self._flush(lease), self._record_minutes(lease)
        )

    async def _hear_universe(self) -> None:
        async for message in self._context.state.accounts.universe_changes():
            if isinstance(message, Subscribed):
                self._is_state_doubtful = True
            self._universe_changed.set()

    async def _follow_universe(self) -> NoReturn:
        state = self._context.state
        while True:
            await self._universe_changed.wait()
            self._universe_changed.clear()
            universe = await state.accounts.read_universe()
            asset_class = self._feed.asset_class
            self._subscription.want(
                symbol for symbol, its_class in universe.items() if its_class == asset_class
            )
            if self._is_state_doubtful:
                self._is_state_doubtful = False
                self._subscription.book.raise_floor(await state.marks.read_all())
                self._subscription.book.touch_all()
            await asyncio.sleep(UNIVERSE_PAUSE_S)

    async def _flush(self, lease: Lease) -> NoReturn:
        """Write the newest mark of each symbol that has changed, as one batch, every MARK_FLUSH_INTERVAL."""
        name = self._feed.name
        lag = self._metrics.feed_lag.labels(name)
        while True:
            await asyncio.sleep(self._context.settings.mark_flush_interval)
            changed = self._subscription.book.take_changed()
            if not changed:
                continue
            await self._context.state.marks.write(lease, [mark for mark, _ in changed])
            written_ns = self._context.clock.now_ns()
            self._metrics.price_updates.labels(name).inc(len(changed))
            for mark, is_live in changed:
                if is_live:
                    lag.observe((written_ns - mark.as_of_ns) / NS_PER_S)

    async def _record_minutes(self, lease: Lease) -> NoReturn:
        """Write what every mark was at each HISTORY_INTERVAL, once trades on their way have arrived.

        Where we cannot know it, because the feed was away, nothing is written: not known is not unchanged.
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
            marks = book.marks_at(at_ns)
            has_gap = written_at_ns != at_ns - interval_ns
            is_whole = has_gap or whole_at_or_before(at_ns, interval_ns) == at_ns
            changes = changed_marks({} if is_whole else written, marks)
            await self._context.state.minutes.write(
                lease, at_ns, self._feed.asset_class, changes, is_whole=is_whole
            )
            written, written_at_ns = marks, at_ns


def changed_marks(
    before: Mapping[str, MinuteMark], now: Mapping[str, MinuteMark]
) -> dict[str, MinuteMark | None]:
    """Symbols whose mark is new or another than before; None for those that have none any more."""
    changes: dict[str, MinuteMark | None] = {
        symbol: mark for symbol, mark in now.items() if before.get(symbol) != mark
    }
    return {**changes, **{symbol: None for symbol in before if symbol not in now}}


def _reason(error: FeedUnavailable) -> str:
    return error.reason if isinstance(error, StreamLost) else "unreachable"


if __name__ == "__main__":
    service.main("market_data_consumer", run)

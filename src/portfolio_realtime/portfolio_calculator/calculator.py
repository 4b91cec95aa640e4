"""SERVICE 3: the portfolio calculator values the watched accounts and publishes what has changed.

Any number of instances may run; they share the shards by leases. Accounts and marks are read from Valkey,
then followed, and read again after any loss. This file connects the parts and follows marks. `shard_owner`
decides which accounts are ours, `account_loader` reads their records, and `interest_follower` knows which are
watched. `idle_marks` knows which marks may be behind, `publisher` values and publishes, `totals_refresh`
keeps the totals of the whole book, and `loop_delay` measures pauses.

Run it: `python -m portfolio_realtime.portfolio_calculator`
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from portfolio_realtime.portfolio_calculator import loop_delay
from portfolio_realtime.portfolio_calculator.account_loader import AccountLoader
from portfolio_realtime.portfolio_calculator.idle_marks import IdleMarks
from portfolio_realtime.portfolio_calculator.interest_follower import InterestFollower
from portfolio_realtime.portfolio_calculator.publisher import Publisher
from portfolio_realtime.portfolio_calculator.shard_owner import ShardOwner
from portfolio_realtime.portfolio_calculator.totals_refresh import TotalsRefresh
from portfolio_realtime.portfolio_calculator.valuation_traces import ValuationTraces
from portfolio_realtime.service import Context, keep_running, together
from portfolio_realtime.state import feeds, keys
from portfolio_realtime.state.connection import Subscribed
from portfolio_realtime.state.feeds import SourceStatus
from portfolio_realtime.state.marks import decode_marks
from portfolio_realtime.telemetry import CalculatorMetrics
from portfolio_realtime.valuation.valuer import Valuer

# At the very first start, records are not stale for this long before the broker is first heard.
HEARD_S_MAX: Final = 5.0
FEEDS_S: Final = 0.5  # between two checks which feeds are live …
FEEDS_AWAY_S: Final = 0.1  # … while one is not
FEEDS_S_MAX: Final = keys.FEED_TTL_MS / 1000  # without a successful check; then no feed counts as live

log = structlog.get_logger()


class Calculator:
    """One attempt to run a portfolio calculator: from reading everything to the first failure."""

    def __init__(self, context: Context, metrics: CalculatorMetrics, began_s: float) -> None:
        """`began_s`: when the first attempt of this process began, in monotonic seconds."""
        settings = context.settings
        self._context = context
        self._state = context.state
        self._metrics = metrics
        self._valuer = Valuer(
            price_ttl_s=settings.price_ttl,
            min_update_interval_s=settings.min_update_interval,
            record_ttl_s=settings.record_ttl,
            is_told_unmarked=True,
        )
        self._began_s = began_s
        self._marks_read = asyncio.Event()
        self._live: set[str] = set()  # sources whose feed is live
        self._owner = ShardOwner(
            context, metrics, self._acquired, lambda: self._loader.load_all(), self._released
        )
        tracing = context.tracing
        self._traces = None if tracing is None else ValuationTraces(tracing, context.clock, self._valuer)
        self._idle_marks = IdleMarks(context.clock, self._count_away)
        self._publisher = Publisher(
            context, metrics, self._valuer, self._owner, self._idle_marks, self._traces
        )
        self._loader = AccountLoader(context, metrics, self._valuer, self._owner, self._publisher)
        self._interest = InterestFollower(context, self._valuer, self._owner, self._loader, self._publisher)
        self._totals = TotalsRefresh(context, metrics, self._valuer, self._loader.numbering)

    async def run(self) -> None:
        """Work until a failure. Raises StateUnavailable."""
        ready = (self._marks_read, self._loader.is_following, self._interest.is_following)
        try:
            await together(
                self._follow_marks(),
                self._follow_feeds(),
                self._loader.follow(),
                self._loader.read_announced(),
                self._interest.follow(),
                self._owner.share(ready),
                self._owner.keep_leases(),
                self._loader.keep_book(),
                self._interest.answer_all(),
                self._publisher.run(self._marks_read),
                self._totals.run(),
                loop_delay.measure(self._context.clock, self._metrics, lambda: bool(self._valuer.watchlist)),
            )
        finally:
            await self._owner.leave()

    async def _acquired(self, shards: Sequence[int]) -> None:
        # Watched accounts come first.
        await self._interest.answer(shards)
        for shard in shards:
            self._loader.load(shard)

    def _released(self, shard: int, watched: Sequence[str]) -> None:
        self._loader.unload(shard, watched)

    async def _follow_marks(self) -> None:
        async for message in self._state.marks.batches():
            if isinstance(message, Subscribed):
                marks, unmarked = await self._state.marks.read_whole()
                self._valuer.apply_stored(marks)
                self._valuer.take_unmarked(one.symbol for one in unmarked)
                self._marks_read.set()
                self._publisher.wake.set()
            else:
                self._take_marks(message.payload)

    def _take_marks(self, payload: bytes) -> None:
        heard_ns = self._context.clock.now_ns()
        batch = decode_marks(payload)
        if self._valuer.apply_marks(batch.marks):
            if self._traces is not None and batch.traced is not None:
                self._traces.hear(batch.traced, heard_ns)
            if self._valuer.watchlist:  # for nobody, the next turn comes soon enough by itself
                self._publisher.wake.set()
        self._idle_marks.hear(batch.woken)
        if batch.unmarked and self._valuer.take_unmarked(batch.unmarked):
            self._publisher.wake.set()

    async def _follow_feeds(self) -> None:
        """Mark the marks of a source as stale while its feed is not known to be live."""
        await self._marks_read.wait()
        book = self._valuer.book
        read_s = self._context.clock.monotonic_s()
        while True:
            # If a part of a cluster is away, the last answer counts until FEEDS_S_MAX.
            with self._owner.sparing(None):
                statuses = await self._state.feeds.read(book.sources | {feeds.ACCOUNTS})
                self._live = set(statuses)
                self._idle_marks.read([one for one in statuses if statuses[one] is SourceStatus.IDLE])
                self._publisher.is_core_session = SourceStatus.CORE in statuses.values()
                read_s = self._context.clock.monotonic_s()
            if self._context.clock.monotonic_s() - read_s > FEEDS_S_MAX:
                self._live = set()
            self._follow_broker(is_heard=feeds.ACCOUNTS in self._live)
            self._count_away()
            is_all_live = self._live >= book.sources | {feeds.ACCOUNTS}
            await asyncio.sleep(FEEDS_S if is_all_live else FEEDS_AWAY_S)

    def _count_away(self) -> None:
        """Count the marks of sources as stale that are not live, or do not wake."""
        book = self._valuer.book
        away = book.sources - self._live | self._idle_marks.overdue
        if book.set_away(away):
            log.warning("feeds are not live", sources=sorted(away)) if away else log.info(
                "all feeds are live"
            )
            self._publisher.wake.set()

    def _follow_broker(self, *, is_heard: bool) -> None:
        """Mark all records as stale while the broker is not known to be heard.

        Records from before our start may be old, so they are marked without the delay of HEARD_S_MAX.
        """
        is_young = self._context.clock.monotonic_s() - self._began_s < HEARD_S_MAX
        is_early = is_young and not self._loader.has_found_records
        if self._valuer.set_records_away(not is_heard and not is_early):
            self._publisher.stale_hops = () if is_heard else (feeds.COLLECTOR,)
            log.info("the broker answers again") if is_heard else log.warning("the broker is silent")
            self._publisher.wake.set()


async def run(context: Context) -> None:
    """Run a portfolio calculator until cancelled."""
    metrics, began_s = CalculatorMetrics(context.registry), context.clock.monotonic_s()
    await keep_running(
        lambda: Calculator(context, metrics, began_s).run(), context.clock, "portfolio calculator"
    )

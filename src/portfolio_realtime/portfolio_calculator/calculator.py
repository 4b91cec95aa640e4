"""SERVICE 3: the portfolio calculator values the accounts that somebody watches and publishes what changed.

Any number of instances may run; they share the shards by leases. Positions and marks are read from Valkey,
followed from then on, and read again after any loss.

Run it: `python -m portfolio_realtime.portfolio_calculator`
"""

import asyncio
import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import structlog

from portfolio_realtime.clock import Clock
from portfolio_realtime.errors import LeaseLost, StateUnavailable
from portfolio_realtime.model import Account, Publication
from portfolio_realtime.service import Context, keep_running, together
from portfolio_realtime.state import feeds, keys
from portfolio_realtime.state.accounts import decode_changes
from portfolio_realtime.state.connection import Subscribed
from portfolio_realtime.state.interest import decode_begun
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.state.marks import decode_marks
from portfolio_realtime.telemetry import CalculatorMetrics
from portfolio_realtime.valuation.book_totals import Totals
from portfolio_realtime.valuation.valuer import Flush, Valuer

GROUP: Final = "portfolio_calculators"
SWEEP_S: Final = 5.0  # interest that ends is noticed within this
HEARD_S_MAX: Final = 5.0  # at start, until somebody says that the broker is heard
FEEDS_S: Final = 0.5  # between two looks at which feeds are live
QUIET_S: Final = 0.5  # without any change, look again after this: marks grow stale by themselves
SIGN_S: Final = 1.0  # a shard of which nothing else was published gives a sign of life this often
REST_S_MIN: Final = 0.01  # what becomes due or is announced within this goes together …
REST_FACTOR: Final = 4  # … or within this many times what the last turn took: it costs for all the watched …
REST_S_MAX: Final = 0.05  # … but nobody waits longer than this
READ_STEP: Final = 250  # records taken in before other work gets its turn: a few milliseconds
SORT_STEP: Final = 5000  # ids looked at before other work gets its turn
ENDED: Final = object()
PROGRESS_S: Final = 1.0  # between two lines about reading
TOTALS_S: Final = 1.0  # between two looks at the whole book
PAUSE_LOOK_S: Final = 0.02  # how often the event loop's delay is measured
PAUSE_WINDOW_S: Final = 60.0  # the longest of the last one or two of these is shown

log = structlog.get_logger()


class Calculator:
    """One attempt at being a portfolio calculator: from reading everything to the first failure."""

    def __init__(self, context: Context, metrics: CalculatorMetrics) -> None:
        settings = context.settings
        self._context = context
        self._state = context.state
        self._metrics = metrics
        self._valuer = Valuer(
            price_ttl_s=settings.price_ttl,
            min_update_interval_s=settings.min_update_interval,
            record_ttl_s=settings.record_ttl,
        )
        self._began_s = context.clock.monotonic_s()
        self._leases: dict[int, Lease] = {}
        self._wanted: dict[int, dict[str, bool]] = {}  # shard -> watched account -> with positions
        self._answering = asyncio.Lock()  # an older reading of interest must not replace a newer one
        self._writing = [asyncio.Lock() for _ in range(settings.shards)]  # stored is what is watched, no more
        self._taking = asyncio.Lock()  # records are taken in in the order in which Valkey gave them
        self._unread: set[int] = set()  # shards whose records are to be read, all of them
        self._let_go: set[int] = set()  # shards whose records are to be forgotten
        self._numbering = asyncio.Lock()  # rows keep their numbers while somebody goes through them
        self._book_wake = asyncio.Event()
        self._stale_hops: tuple[str, ...] = ()  # from which nothing fresh comes to us
        self._spoken_hops: tuple[str, ...] = ()
        self._spoken_s: dict[int, float] = {}  # shard -> when something was published of it
        self._is_core_session = False  # the exchange is open, and its feed live
        self._announced: set[int] = set()  # shards whose interest has changed
        self._interest_wake = asyncio.Event()
        self._wake = asyncio.Event()
        self._following = {name: asyncio.Event() for name in ("marks", "accounts", "interest")}

    async def run(self) -> None:
        """Work until a failure. Raises StateUnavailable."""
        try:
            await together(
                self._follow_marks(),
                self._follow_feeds(),
                self._follow_accounts(),
                self._follow_interest(),
                self._share_shards(),
                self._keep_leases(),
                self._keep_book(),
                self._answer_interest(),
                self._publish(),
                self._recalculate(),
                self._measure_pauses(),
            )
        finally:
            await self._leave()

    # Marks

    async def _follow_marks(self) -> None:
        async for message in self._state.marks.batches():
            if isinstance(message, Subscribed):
                self._valuer.apply(await self._state.marks.read_all())
                self._following["marks"].set()
                self._wake.set()
            elif self._valuer.apply(decode_marks(message.payload)):
                self._wake.set()

    async def _follow_feeds(self) -> None:
        """Call the marks of a source stale for as long as nobody says that it is live."""
        await self._following["marks"].wait()
        book = self._valuer.book
        while True:
            live = await self._state.feeds.live(book.sources | {feeds.ACCOUNTS})
            away = book.sources - live
            self._follow_broker(is_heard=feeds.ACCOUNTS in live)
            self._is_core_session = await self._state.feeds.is_core_session(book.sources)
            if book.set_away(away):
                log.warning("feeds are away", sources=sorted(away)) if away else log.info(
                    "all feeds are live"
                )
                self._wake.set()
            await asyncio.sleep(FEEDS_S)

    def _follow_broker(self, *, is_heard: bool) -> None:
        """Call all records stale for as long as nobody says that the broker is heard."""
        is_early = self._context.clock.monotonic_s() - self._began_s < HEARD_S_MAX
        if self._valuer.set_records_away(not is_heard and not is_early):
            self._stale_hops = () if is_heard else (feeds.COLLECTOR,)
            log.info("the broker is heard") if is_heard else log.warning("the broker is not heard")
            self._wake.set()

    # Accounts

    async def _follow_accounts(self) -> None:
        async for message in self._state.accounts.changes(list(range(self._context.settings.shards))):
            if isinstance(message, Subscribed):
                self._following["accounts"].set()
                for shard in list(self._leases):
                    await self._read(shard, list(self._wanted.get(shard, ())))  # who is watched comes first
                self._unread.update(self._leases)
                self._book_wake.set()
                continue
            changes = decode_changes(message.payload)
            if changes and (shard := self._shard(changes[0].account_id)) in self._leases:
                await self._read(shard, [change.account_id for change in changes])

    async def _read(self, shard: int, account_ids: list[str]) -> None:
        """Take in the records of these accounts as they are now; forget those that have none."""
        gone: list[str] = []
        for at in range(0, len(account_ids), READ_STEP):
            part = account_ids[at : at + READ_STEP]
            async with self._taking:
                records = await self._state.accounts.read(shard, part)
                for account in records:
                    self._take(shard, account)
                for account_id in set(part).difference(account.account_id for account in records):
                    self._valuer.drop(account_id)
                    gone.append(account_id)
        await self._forget(shard, gone)

    def _take(self, shard: int, account: Account) -> None:
        """Take in a record as it was read; the shard and who is wanted may have changed meanwhile."""
        if shard not in self._leases:
            return
        with_positions = self._wanted[shard].get(account.account_id)
        if with_positions is None:
            self._valuer.put(account)
        else:
            self._valuer.watch(account, self._leases[shard].fencing_token, with_positions=with_positions)
            self._wake.set()

    # The book

    async def _keep_book(self) -> None:
        """Forget shards that were let go, read those that are new here or of which something was missed."""
        while True:
            await self._book_wake.wait()
            self._book_wake.clear()
            await self._forget_shards()
            await self._read_shards()

    async def _forget_shards(self) -> None:
        shards, self._let_go = self._let_go, set()
        if not shards:
            return
        found = _by_shard(shards)
        await self._sort(self._valuer.published_ids, found)
        await self._sort_book(found)
        for number, account_id in enumerate(itertools.chain(*found.values())):
            if self._shard(account_id) not in self._leases:  # it may have come back
                self._valuer.forget(account_id)
            if number % READ_STEP == READ_STEP - 1:
                await asyncio.sleep(0)

    async def _read_shards(self) -> None:
        """Read every record of the shards that need it, with a word about how far it has come."""
        shards, self._unread = self._unread & self._leases.keys(), set()
        known = _by_shard(shards)
        if shards:
            await self._sort_book(known)
        count = await self._state.accounts.count(shards)
        self._valuer.book.reserve(len(self._valuer.book) - sum(map(len, known.values())) + count)
        progress = _Progress(self._metrics, count, self._context.clock)
        for shard in sorted(shards):
            await self._read_shard(shard, known.pop(shard), progress)
        if shards:
            progress.end(len(shards))

    async def _read_shard(self, shard: int, known: set[str], progress: "_Progress") -> None:
        """Take in a shard, page by page; what was `known` and is not met may be gone."""
        cursor: int | None = 0
        while cursor is not None:
            async with self._taking:
                cursor, records = await self._state.accounts.read_page(shard, cursor)
                for number, account in enumerate(records):
                    self._take(shard, account)
                    known.discard(account.account_id)
                    if number % READ_STEP == READ_STEP - 1:
                        await asyncio.sleep(0)
            progress.advance(len(records))
        await self._read(shard, list(known))
        await self._forget(shard, await self._state.valuations.read_ids(shard))

    async def _sort_book(self, found: dict[int, set[str]]) -> None:
        """Add the book's accounts to what was found of their shards."""
        async with self._numbering:
            for account_ids in self._valuer.book.ids():
                await self._sort(account_ids, found)

    async def _sort(self, account_ids: Sequence[str], found: dict[int, set[str]]) -> None:
        for at in range(0, len(account_ids), SORT_STEP):
            for account_id in account_ids[at : at + SORT_STEP]:
                if (shard := self._shard(account_id)) in found:
                    found[shard].add(account_id)
            await asyncio.sleep(0)

    # Shards

    async def _share_shards(self) -> None:
        """Hold a fair share of the shards: take what is free, give up what is too much."""
        for ready in self._following.values():
            await ready.wait()
        settings = self._context.settings
        while True:
            members = await self._state.leases.enlist(GROUP)
            fair = math.ceil(settings.shards / members)
            owned = len(self._leases)
            for shard in range(settings.shards):
                if len(self._leases) < fair and shard not in self._leases:
                    await self._acquire(shard)
            if self._unread:
                self._book_wake.set()
            while len(self._leases) > fair:
                await self._give_up(next(iter(self._leases)))
            if len(self._leases) != owned:
                log.info("shards owned", shards=len(self._leases), of=settings.shards, calculators=members)
            self._metrics.shards.set(len(self._leases))
            await asyncio.sleep(settings.lease_renew_ms / 1000)

    async def _keep_leases(self) -> None:
        while True:
            held = list(self._leases.items())
            renewed = await asyncio.gather(*(self._state.leases.renew(lease) for _, lease in held))
            for (shard, lease), is_ours in zip(held, renewed, strict=True):
                if not is_ours and self._leases.get(shard) == lease:
                    log.warning("lease lost", shard=shard)
                    self._let_go_of(shard)
            await asyncio.sleep(self._context.settings.lease_renew_ms / 1000)

    async def _acquire(self, shard: int) -> None:
        lease = await self._state.leases.acquire(keys.shard_lease(shard))
        if lease is not None:
            self._leases[shard], self._wanted[shard] = lease, {}
            log.debug("shard acquired", shard=shard, epoch=lease.fencing_token)
            await self._answer(shard)  # who is watched comes first
            self._unread.add(shard)

    async def _give_up(self, shard: int) -> None:
        lease = self._leases[shard]
        self._let_go_of(shard)
        await self._state.leases.release(lease)
        log.debug("shard given up", shard=shard)

    def _let_go_of(self, shard: int) -> None:
        """Publish nothing of it from now on; the rest of its records goes bit by bit."""
        self._leases.pop(shard, None)
        for account_id in self._wanted.pop(shard, ()):
            self._valuer.forget(account_id)
        self._let_go.add(shard)
        self._book_wake.set()

    async def _leave(self) -> None:
        with contextlib.suppress(StateUnavailable):
            await self._state.leases.leave(GROUP)
            for lease in self._leases.values():
                await self._state.leases.release(lease)

    # Interest

    async def _follow_interest(self) -> None:
        async for message in self._state.interest.announcements(list(range(self._context.settings.shards))):
            if isinstance(message, Subscribed):
                self._following["interest"].set()
                self._announced.update(self._leases)
            else:
                self._announced.add(self._shard(decode_begun(message.payload)[0]))
            self._interest_wake.set()

    async def _answer_interest(self) -> None:
        """Look at the shards that were announced, and at all of them now and then."""
        clock = self._context.clock
        sweep_s = clock.monotonic_s() + SWEEP_S
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._interest_wake.wait(), max(0.0, sweep_s - clock.monotonic_s()))
            self._interest_wake.clear()
            if clock.monotonic_s() >= sweep_s:
                self._announced.update(self._leases)
                sweep_s = clock.monotonic_s() + SWEEP_S
            shards, self._announced = self._announced, set()
            began_s = clock.monotonic_s()
            for shard in shards & self._leases.keys():
                await self._answer(shard)
            await asyncio.sleep(rest_s(clock.monotonic_s() - began_s))

    async def _answer(self, shard: int) -> None:
        """Publish who began to be watched, forget whom nobody watches any more."""
        async with self._answering:
            watched = await self._state.interest.read(shard)
            if shard not in self._leases:
                return
            wanted = {account_id: account_id in watched.with_positions for account_id in watched.account_ids}
            before, self._wanted[shard] = self._wanted[shard], wanted
            ended = [account_id for account_id in before if account_id not in wanted]
            for account_id in ended:
                self._valuer.unwatch(account_id)
            await self._read(shard, [key for key, detail in wanted.items() if before.get(key) != detail])
            await self._forget(shard, ended)

    async def _forget(self, shard: int, account_ids: Sequence[str]) -> None:
        """Drop the stored publications of those of these accounts that are not watched."""
        for at in range(0, len(account_ids), READ_STEP):
            await self._forget_step(shard, account_ids[at : at + READ_STEP])

    async def _forget_step(self, shard: int, account_ids: Sequence[str]) -> None:
        async with self._writing[shard]:
            lease = self._leases.get(shard)
            unwatched = [key for key in account_ids if key not in self._valuer.watchlist]
            if lease is not None and unwatched:
                try:
                    await self._state.valuations.forget(lease, shard, unwatched)
                except LeaseLost:
                    self._refused(shard, lease)

    # Publications

    async def _publish(self) -> None:
        """Flush at every change, and again when something that waited becomes due; rest in between."""
        clock = self._context.clock
        await self._following["marks"].wait()
        wait_s = QUIET_S
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait_s)
            self._wake.clear()
            began_s = clock.monotonic_s()
            with self._metrics.flush.time():
                flush = self._valuer.flush(clock.now_ns(), began_s)
            await self._send(flush.publications)
            await self._give_signs(began_s)
            self._count(flush)
            await asyncio.sleep(rest_s(clock.monotonic_s() - began_s))
            wait_s = QUIET_S
            if flush.next_due_s is not None:
                wait_s = min(QUIET_S, max(0.0, flush.next_due_s - clock.monotonic_s()))

    async def _send(self, publications: list[Publication]) -> None:
        by_shard: dict[int, list[Publication]] = {}
        for publication in publications:
            by_shard.setdefault(self._shard(publication.account_id), []).append(publication)
        await asyncio.gather(
            *(self._send_shard(shard, self._leases[shard], batch) for shard, batch in by_shard.items())
        )

    async def _send_shard(self, shard: int, lease: Lease, batch: list[Publication]) -> None:
        """Publish what is still watched, under the lease it was valued under; nothing: a sign of life."""
        async with self._writing[shard]:
            watched = [
                publication for publication in batch if publication.account_id in self._valuer.watchlist
            ]
            if (watched or not batch) and self._leases.get(shard) == lease:
                self._spoken_s[shard] = self._context.clock.monotonic_s()
                try:
                    await self._state.valuations.publish(lease, shard, watched, self._stale_hops)
                except LeaseLost:
                    self._refused(shard, lease)

    async def _give_signs(self, now_s: float) -> None:
        """Let servers hear of each shard of which nothing was published for SIGN_S, or with other words."""
        silent = [
            (shard, lease)
            for shard, lease in self._leases.items()
            if now_s - self._spoken_s.get(shard, -SIGN_S) >= SIGN_S or self._spoken_hops != self._stale_hops
        ]
        self._spoken_hops = self._stale_hops
        await asyncio.gather(*(self._send_shard(shard, lease, []) for shard, lease in silent))

    def _refused(self, shard: int, lease: Lease) -> None:
        log.warning("a newer owner publishes this shard", shard=shard)
        if self._leases.get(shard) == lease:
            self._let_go_of(shard)

    def _count(self, flush: Flush) -> None:
        metrics = self._metrics
        metrics.publications.inc(len(flush.publications))
        metrics.exact.inc(flush.exact_count)
        metrics.unpriced.set(flush.unpriced_accounts)
        metrics.stale.set(flush.stale_accounts)
        metrics.watched.set(watched := len(self._valuer.watchlist))
        metrics.stale_ratio.set(flush.stale_accounts / watched if watched and self._is_core_session else 0)
        if flush.newest_as_of_ns:
            metrics.lag.observe(max(0.0, (self._context.clock.now_ns() - flush.newest_as_of_ns) / 1e9))

    async def _recalculate(self) -> None:
        """Keep the whole book current, watched or not; value it from scratch now and then."""
        clock, interval_s = self._context.clock, self._context.settings.recalculation_interval
        check_s = clock.monotonic_s() + interval_s
        while True:
            await asyncio.sleep(min(TOTALS_S, interval_s))
            if clock.monotonic_s() >= check_s:
                check_s = clock.monotonic_s() + interval_s
                await self._check_book()
            await self._tidy_book()
            await self._refresh_book()

    async def _tidy_book(self) -> None:
        """Give back, step by step, what accounts and symbols that are gone have left in the book."""
        book = self._valuer.book
        async with self._numbering:
            if book.is_loose:
                await self._in_steps(book.pack())
                log.info("book packed", rows=book.row_count)
            if not book.is_crowded:
                return
            await self._in_steps(book.count_holders())
        unheld = book.unheld()
        marked = await self._state.marks.read(list(unheld))  # may be held elsewhere, or here again soon
        gone = {symbol: mark for symbol, mark in unheld.items() if symbol not in marked}
        if count := self._valuer.free(gone):
            log.info("symbols forgotten", symbols=count)

    async def _in_steps(self, steps: Iterator[None]) -> None:
        """Do them all; between two, other work gets its turn."""
        while True:
            with self._metrics.recalculation_block.time():
                if next(steps, ENDED) is ENDED:
                    return
            await asyncio.sleep(0)

    async def _refresh_book(self) -> None:
        """Move the totals by what has changed, stretch by stretch."""
        metrics, totals = self._metrics, Totals()
        for stretch in self._valuer.whole.stretches():
            with metrics.book_refresh.time():
                stretch.refresh()
                totals = totals.plus(stretch.totals())
            await asyncio.sleep(0)  # what has become due meanwhile is published first
        metrics.accounts.set(len(self._valuer.book))
        metrics.positions.set(self._valuer.book.position_count)
        metrics.symbols.set(len(self._valuer.book.columns))
        metrics.book_equity.set(totals.equity)
        metrics.book_unpriced.set(totals.unpriced)
        metrics.book_negative.set(totals.negative)

    async def _check_book(self) -> None:
        """Value everything from scratch, stretch by stretch, and say what the refreshes had lost."""
        metrics, drift = self._metrics, 0.0
        with metrics.recalculation.time():
            for stretch in self._valuer.whole.stretches():
                with metrics.recalculation_block.time():
                    drift = max(drift, stretch.check())
                await asyncio.sleep(0)
        metrics.book_drift.set(drift)

    async def _measure_pauses(self) -> None:
        """How late the event loop comes to whoever waits: so late is a publication, at worst."""
        clock = self._context.clock
        window_ends_s, before_s, longest_s = clock.monotonic_s() + PAUSE_WINDOW_S, 0.0, 0.0
        while True:
            due_s = clock.monotonic_s() + PAUSE_LOOK_S
            await asyncio.sleep(PAUSE_LOOK_S)
            late_s = max(0.0, clock.monotonic_s() - due_s)
            self._metrics.pause.observe(late_s)
            longest_s = max(longest_s, late_s)
            if clock.monotonic_s() > window_ends_s:
                window_ends_s, before_s, longest_s = clock.monotonic_s() + PAUSE_WINDOW_S, longest_s, 0.0
            self._metrics.longest_pause.set(max(before_s, longest_s))

    def _shard(self, account_id: str) -> int:
        return keys.shard_of(account_id, self._context.settings.shards)


def rest_s(took_s: float) -> float:
    """How long to rest after a turn that took so long, in seconds; what comes meanwhile shares the next one.

    Without it, ten thousand accounts that become due, or are announced, one after the other would each cost a
    turn of all the watched.
    """
    return min(REST_S_MAX, max(REST_S_MIN, REST_FACTOR * took_s))


def _by_shard(shards: Iterable[int]) -> dict[int, set[str]]:
    """No accounts yet for each of these shards."""
    return {shard: set() for shard in shards}


class _Progress:
    """How far the reading of records has come, for logs and metrics."""

    def __init__(self, metrics: CalculatorMetrics, total: int, clock: Clock) -> None:
        self._metrics = metrics
        self._total = total
        self._clock = clock
        self._read = 0
        self._began_s = self._said_s = clock.monotonic_s()
        metrics.read_ratio.set(0.0 if total else 1.0)

    def advance(self, count: int) -> None:
        """So many records more; a line now and then."""
        self._read += count
        ratio = min(1.0, self._read / max(1, self._total))
        self._metrics.read_ratio.set(ratio)
        if self._clock.monotonic_s() - self._said_s >= PROGRESS_S:
            self._said_s = self._clock.monotonic_s()
            log.info("reading accounts", read=self._read, of=self._total, percent=int(100 * ratio))

    def end(self, shards: int) -> None:
        """Everything is read."""
        self._metrics.read_ratio.set(1.0)
        seconds = round(self._clock.monotonic_s() - self._began_s, 2)
        log.info("accounts read", accounts=self._read, shards=shards, seconds=seconds)


async def run(context: Context) -> None:
    """Be a portfolio calculator until cancelled."""
    metrics = CalculatorMetrics(context.registry)
    await keep_running(lambda: Calculator(context, metrics).run(), context.clock, "portfolio calculator")

"""Values the watched accounts and publishes what has changed, shard by shard under its lease."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from portfolio_realtime.errors import LeaseLost, StateUnavailable
from portfolio_realtime.model import Publications
from portfolio_realtime.pace import Pace
from portfolio_realtime.portfolio_calculator.idle_marks import IdleMarks
from portfolio_realtime.portfolio_calculator.shard_owner import ShardOwner
from portfolio_realtime.portfolio_calculator.valuation_traces import ValuationTraces
from portfolio_realtime.service import Context
from portfolio_realtime.state import keys
from portfolio_realtime.state.interest import only_server
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.state.valuations import KnownInterest
from portfolio_realtime.telemetry import CalculatorMetrics
from portfolio_realtime.valuation.valuer import NOTHING, Flush, Valuer
from portfolio_realtime.waiting import wait_at_most
from portfolio_realtime.wire.messages import VALKEY

QUIET_S: Final = 0.5  # longest wait without a change, because marks become stale by time alone
DEAF_S_MAX: Final = 2.0  # a lost subscription is made again within this, counted from the last probe
SIGN_S: Final = 1.0  # each shard sends a sign of life to all servers this often
REST_S_MIN: Final = 0.005  # changes within this time of a flush share the next one
REST_S_MAX: Final = 0.05  # the longest pause after a flush
# Timers of the loop are rounded to milliseconds. A turn just before an account is due would be for nothing.
ROUNDED_S: Final = 0.0005
FORGET_STEP: Final = 250  # stored publications removed before other tasks may run


class Publisher:
    """Flushes the valuer when `wake` is set or something becomes due."""

    def __init__(
        self,
        context: Context,
        metrics: CalculatorMetrics,
        valuer: Valuer,
        owner: ShardOwner,
        idle_marks: IdleMarks,
        traces: ValuationTraces | None = None,
    ) -> None:
        self.wake = asyncio.Event()
        self.is_core_session = False  # the exchange is open and its feed is live
        self.stale_hops: tuple[str, ...] = ()  # hops before us from which nothing fresh arrives
        self._spoken_hops: dict[int, tuple[str, ...]] = {}  # shard -> `stale_hops` of its last sign of life
        self._spoken_s: dict[int, float] = {}  # shard -> when it last had a sign of life
        self._state = context.state
        self._clock = context.clock
        self._metrics = metrics
        self._valuer = valuer
        self._owner = owner
        self._idle_marks = idle_marks
        self._traces = traces
        # One lock per shard, so that only watched accounts have a stored publication.
        self._writing = [asyncio.Lock() for _ in range(context.settings.shards)]

    async def run(self, marks_read: asyncio.Event) -> None:
        """Flush at the first change after quiet, and when a delayed change becomes due."""
        clock, pace = self._clock, new_pace()
        await marks_read.wait()
        wait_s = QUIET_S
        while True:
            await wait_at_most(wait_s, self.wake)
            self.wake.clear()
            if self._valuer.watchlist:
                await self._idle_marks.wait()
            began_ns, began_s = clock.now_ns(), clock.monotonic_s()
            with self._metrics.flush.time():
                flush = self._valuer.flush(began_ns, began_s)
            await self._send_traced(flush, began_ns)
            await self._give_signs(began_s)
            self._count(flush)
            pace.took(began_s, clock.monotonic_s(), len(flush.publications), self._owner.calculators)
            await asyncio.sleep(pace.wait_s(clock.monotonic_s()))
            wait_s = QUIET_S
            if flush.next_due_s is not None:
                wait_s = min(QUIET_S, max(0.0, flush.next_due_s - clock.monotonic_s()) + ROUNDED_S)

    async def _send_traced(self, flush: Flush, began_ns: int) -> None:
        if self._traces is None:
            return await self._send(flush)
        await self._send(flush, self._traces.begin(flush.publications.account_ids, began_ns))
        return self._traces.end()

    async def _send(self, flush: Flush, traceparents: Mapping[str, str] | None = None) -> None:
        leases = self._owner.leases
        await self._publish([(shard, leases[shard], part) for shard, part in flush.parts], traceparents)

    async def _publish(
        self,
        batches: Sequence[tuple[int, Lease, Publications]],
        traceparents: Mapping[str, str] | None = None,
    ) -> None:
        """Publish the accounts that are still watched, under the lease under which they were valued.

        A batch without publications is a sign of life.
        """
        if not batches:
            return
        unwatched = self._valuer.watchlist.unwatched
        # A fixed order of locks, against a deadlock.
        locks = [self._writing[shard] for shard in sorted(shard for shard, *_ in batches)]
        held: list[asyncio.Lock] = []
        try:
            for lock in locks:
                await lock.acquire()
                held.append(lock)
            if self._valuer.watchlist.unwatched != unwatched:
                batches = self._still_watched(batches)
            await self._publish_locked(batches, traceparents)
        finally:
            for lock in held:
                lock.release()

    def _still_watched(
        self, batches: Sequence[tuple[int, Lease, Publications]]
    ) -> list[tuple[int, Lease, Publications]]:
        watched = self._valuer.watchlist.account_ids
        left = ((shard, lease, batch, batch.only(watched)) for shard, lease, batch in batches)
        return [(shard, lease, some) for shard, lease, batch, some in left if some or not batch]

    async def _publish_locked(
        self,
        batches: Sequence[tuple[int, Lease, Publications]],
        traceparents: Mapping[str, str] | None,
    ) -> None:
        told: dict[tuple[str, ...], list[tuple[int, Lease, Publications]]] = {}
        for shard, lease, batch in batches:
            if self._owner.leases.get(shard) == lease:
                hops = self._hops(shard)
                if not batch:
                    self._spoken_s[shard], self._spoken_hops[shard] = self._clock.monotonic_s(), hops
                told.setdefault(hops, []).append((shard, lease, batch))
        for hops, part in told.items():
            await self._publish_part(part, hops, traceparents)

    async def _publish_part(
        self,
        batches: Sequence[tuple[int, Lease, Publications]],
        stale_hops: tuple[str, ...],
        traceparents: Mapping[str, str] | None,
    ) -> None:
        known = self._known([shard for shard, *_ in batches])
        refusals = await self._state.valuations.publish_all(batches, stale_hops, traceparents, known)
        for (shard, lease, _), refusal in zip(batches, refusals, strict=True):
            if isinstance(refusal, StateUnavailable):
                self._owner.lose(shard, refusal)
            elif refusal is not None:
                self._owner.refused(shard, lease)

    def _hops(self, shard: int) -> tuple[str, ...]:
        """The hops before us from which nothing fresh of a shard arrives.

        Commands may still be answered while our subscriptions to its records, or to marks, receive nothing.
        """
        connection = self._state.connection
        if (
            connection.has_lost_channels
            and connection.lost_s((keys.accounts(shard), keys.marks())) > DEAF_S_MAX
        ):
            return (*self.stale_hops, VALKEY)
        return self.stale_hops

    def _known(self, shards: Sequence[int]) -> dict[int, KnownInterest]:
        owner = self._owner
        return {
            shard: KnownInterest(
                owner.wanted[shard], owner.read_until[shard], only_server(owner.accounts_of[shard])
            )
            for shard in shards
        }

    async def _give_signs(self, now_s: float) -> None:
        """Send the signs of life that are due, and those of all shards when `stale_hops` change.

        Publications are no sign: only the servers that watch their accounts hear them.
        """
        silent: list[tuple[int, Lease, Publications]] = [
            (shard, lease, NOTHING)
            for shard, lease in self._owner.leases.items()
            if now_s - self._spoken_s.get(shard, -SIGN_S) >= SIGN_S
            or self._spoken_hops.get(shard) != self._hops(shard)
        ]
        await self._publish(silent)

    def _count(self, flush: Flush) -> None:
        metrics = self._metrics
        metrics.publications.inc(len(flush.publications))
        metrics.exact.inc(flush.exact_count)
        metrics.unpriced.set(flush.unpriced_accounts)
        metrics.stale.set(flush.stale_accounts)
        metrics.watched.set(watched := len(self._valuer.watchlist))
        metrics.stale_ratio.set(flush.stale_accounts / watched if watched and self.is_core_session else 0)
        if flush.newest_as_of_ns:
            metrics.lag.observe(max(0.0, (self._clock.now_ns() - flush.newest_as_of_ns) / 1e9))

    async def forget(self, shard: int, account_ids: Sequence[str]) -> None:
        """Remove the stored publications of those of these accounts that are not watched."""
        for at in range(0, len(account_ids), FORGET_STEP):
            await self._forget_step(shard, account_ids[at : at + FORGET_STEP])

    async def _forget_step(self, shard: int, account_ids: Sequence[str]) -> None:
        async with self._writing[shard]:
            lease = self._owner.leases.get(shard)
            unwatched = [key for key in account_ids if key not in self._valuer.watchlist]
            if lease is not None and unwatched:
                try:
                    with self._owner.sparing(shard):
                        await self._state.valuations.forget(lease, shard, unwatched)
                except LeaseLost:
                    self._owner.refused(shard, lease)


def new_pace() -> Pace:
    """The pace of a calculator's loops.

    Without it, ten thousand accounts that become due or are announced one after the other would each cost a
    full turn.
    """
    return Pace(REST_S_MIN, REST_S_MAX)

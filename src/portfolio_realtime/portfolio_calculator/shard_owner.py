"""Which shards this instance owns: a fair share of all, by leases; and which accounts in them are watched."""

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Final

import structlog

from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.service import Context, tell_away
from portfolio_realtime.state import keys
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.telemetry import CalculatorMetrics

GROUP: Final = "portfolio_calculators"

log = structlog.get_logger()


class ShardOwner:
    """The shards of this instance.

    `on_acquired` is awaited with each new shard. `on_shared` is called when a round has acquired all it can.
    `on_released` is called with a shard that is not ours any more, and its watched accounts.
    """

    def __init__(
        self,
        context: Context,
        metrics: CalculatorMetrics,
        on_acquired: Callable[[int], Awaitable[None]],
        on_shared: Callable[[], None],
        on_released: Callable[[int, Sequence[str]], None],
    ) -> None:
        self.leases: dict[int, Lease] = {}
        self.wanted: dict[int, dict[str, bool]] = {}  # shard -> watched account -> with positions
        self._on_acquired = on_acquired
        self._on_shared = on_shared
        self._on_released = on_released
        self._settings = context.settings
        self._state = context.state
        self._metrics = metrics

    async def share(self, ready: Sequence[asyncio.Event]) -> None:
        """Keep a fair share of the shards: acquire free ones, release surplus ones.

        Starts when all events in `ready` are set.
        """
        for followed in ready:
            await followed.wait()
        settings = self._settings
        members = 0
        while True:
            with self.sparing(None, may_fail=members > 0):
                members = await self._state.leases.enlist(GROUP)
            fair = math.ceil(settings.shards / members)
            owned = len(self.leases)
            for shard in range(settings.shards):
                if len(self.leases) < fair and shard not in self.leases:
                    await self._acquire(shard)
            self._on_shared()
            while len(self.leases) > fair:
                await self._give_up(next(iter(self.leases)))
            if len(self.leases) != owned:
                log.info("shards owned", shards=len(self.leases), of=settings.shards, calculators=members)
            self._metrics.shards.set(len(self.leases))
            await asyncio.sleep(settings.lease_renew_ms / 1000)

    async def keep_leases(self) -> None:
        """Renew all leases in time; let go of each shard whose lease is lost.

        Each lease is renewed in a task of its own, so that a renewal without an answer does not delay the
        others.
        """
        renewing: dict[int, asyncio.Task[None]] = {}
        try:
            while True:
                for shard, lease in self.leases.items():
                    if shard not in renewing or renewing[shard].done():
                        renewing[shard] = asyncio.create_task(self._renew(shard, lease))
                await asyncio.sleep(self._settings.lease_renew_ms / 1000)
                for task in renewing.values():
                    if task.done():
                        task.result()
        finally:
            await cancel_until_ended(list(renewing.values()))

    async def _renew(self, shard: int, lease: Lease) -> None:
        with self.sparing(shard):
            if not await self._state.leases.renew(lease) and self.leases.get(shard) == lease:
                log.warning("lease lost", shard=shard)
                self.let_go_of(shard)

    async def _acquire(self, shard: int) -> None:
        with self.sparing(shard):
            lease = await self._state.leases.acquire(keys.shard_lease(shard))
            if lease is not None:
                self.leases[shard], self.wanted[shard] = lease, {}
                log.debug("shard acquired", shard=shard, epoch=lease.fencing_token)
                await self._on_acquired(shard)

    @contextlib.contextmanager
    def sparing(self, shard: int | None, *, may_fail: bool = True) -> Generator[None]:
        """If a part of a cluster is away, let go of `shard` (if not None) and keep the others.

        The shard is acquired again when that part is back. With a single server all shards are away at once,
        and StateUnavailable is raised, so that everything starts again. `may_fail`: False raises it in any
        case.
        """
        try:
            yield
        except StateUnavailable as error:
            if not may_fail:
                raise
            self.lose(shard, error)

    def lose(self, shard: int | None, error: StateUnavailable) -> None:
        """As `sparing`, after `error` has been caught."""
        if not self._state.connection.is_cluster:
            raise error
        tell_away(error)
        if shard in self.leases:
            self.let_go_of(shard)

    async def _give_up(self, shard: int) -> None:
        lease = self.leases[shard]
        self.let_go_of(shard)
        with self.sparing(None):
            await self._state.leases.release(lease)
        log.debug("shard released", shard=shard)

    def let_go_of(self, shard: int) -> None:
        """Stop publishing a shard. The rest of its records is dropped in steps."""
        self.leases.pop(shard, None)
        self._on_released(shard, list(self.wanted.pop(shard, ())))

    async def leave(self) -> None:
        """Leave the group and release all shards."""
        with contextlib.suppress(StateUnavailable):
            await self._state.leases.leave(GROUP)
        for lease in self.leases.values():
            with contextlib.suppress(StateUnavailable):
                await self._state.leases.release(lease)

    def refused(self, shard: int, lease: Lease) -> None:
        """Let go of a shard after a write under this lease was refused: a newer owner has written."""
        log.warning("another calculator owns this shard now", shard=shard)
        if self.leases.get(shard) == lease:
            self.let_go_of(shard)

    def shard_of(self, account_id: str) -> int:
        """The shard of an account."""
        return keys.shard_of(account_id, self._settings.shards)

"""Which shards this instance owns: a fair share of all, by leases; and which accounts in them are watched.

What is fair is decided in `fair_shares.py`.
"""

import asyncio
import contextlib
import math
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Generator, Sequence
from typing import Final

import structlog

from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.portfolio_calculator.fair_shares import fair_shares, weight
from portfolio_realtime.service import LEASE_POLL_S, Context, spare
from portfolio_realtime.state import keys
from portfolio_realtime.state.interest import UNREAD, Servers
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.telemetry import CalculatorMetrics

GROUP: Final = "portfolio_calculators"
MOVES_PER_MINUTE: Final = 60  # shards that this instance gives up; a second one that joins gets at most 49
FREE_RENEWALS_MAX: Final = 3  # times LEASE_RENEW_MS; whoever sees a shard free for longer acquires it
END_S: Final = 0.002  # Valkey counts a member's time in whole milliseconds
KEPT_S: Final = 60.0  # it is kept for so long: whoever should own it may be unable to
MINUTE_S: Final = 60.0

log = structlog.get_logger()


class ShardOwner:
    """The shards of this instance.

    `on_acquired` is awaited with new shards. `on_shared` is called when a round has acquired all it can.
    `on_released` is called with a shard that is not ours any more, and its watched accounts.
    """

    def __init__(
        self,
        context: Context,
        metrics: CalculatorMetrics,
        on_acquired: Callable[[Sequence[int]], Awaitable[None]],
        on_shared: Callable[[], None],
        on_released: Callable[[int, Sequence[str]], None],
    ) -> None:
        self.leases: dict[int, Lease] = {}
        self.calculators = 1  # that run, with this one
        self.wanted: dict[int, dict[str, Servers]] = {}  # shard -> watched account -> its servers
        self.accounts_of: dict[int, Counter[str]] = {}  # shard -> server -> how many of them it watches
        self.read_until: dict[int, str] = {}  # shard -> the newest change of interest that is in `wanted`
        self._free_since_s: dict[int, float] = {}  # free shard -> when it was first seen
        self._has_orphans = False  # whoever holds a shard is no member any more, so that its lease ends soon
        self._kept_until_s: dict[int, float] = {}
        self._given_s: deque[float] = deque()  # when we gave up a shard
        self._clock = context.clock
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
        members = frozenset[str]()
        while True:
            turns = self._state.connection.turns
            next_end_s = math.inf
            with self.sparing(None, may_fail=bool(members)):
                members, next_end_s = await self._state.leases.enlist(GROUP)
            self.calculators, owned = len(members), len(self.leases)
            with self.sparing(None):
                await self._take_share(members)
            if len(self.leases) != owned:
                log.info(
                    "shards owned",
                    shards=len(self.leases),
                    of=self._settings.shards,
                    calculators=self.calculators,
                )
            self._metrics.shards.set(len(self.leases))
            await self._state.connection.wait_turn(self._pause_s(next_end_s), turns)

    def _pause_s(self, next_end_s: float) -> float:
        """Until the next round: at once when a member has ended, and soon while its leases have not."""
        pause_s = self._settings.lease_renew_ms / 1000
        if self._has_orphans:
            pause_s = min(pause_s, LEASE_POLL_S)
        return min(pause_s, next_end_s + END_S)

    async def _take_share(self, members: Collection[str]) -> None:
        """Acquire what is free and ours, and give up what is another's. Raises StateUnavailable."""
        shards = range(self._settings.shards)
        if len(members) == 1:
            free, ours = [shard for shard in shards if shard not in self.leases], set(shards)
            self._has_orphans = False  # until one of these cannot be acquired
        else:
            free, ours = await self._read_share(members)
        wanted = [shard for shard in free if shard in ours or self._has_been_free(shard)]
        has_others = await self._acquire(wanted)
        self._has_orphans |= has_others and len(members) == 1
        for shard in wanted:
            if shard in self.leases and shard not in ours:
                self._kept_until_s[shard] = self._clock.monotonic_s() + KEPT_S
        self._on_shared()
        for shard in self.leases.keys() - ours:
            if self._may_give_up(shard):
                await self._give_up(shard)

    async def _read_share(self, members: Collection[str]) -> tuple[list[int], set[int]]:
        """The free shards, and those that should be ours. Raises StateUnavailable."""
        leases = self._state.leases
        names = {keys.shard_lease(shard): keys.interest(shard) for shard in range(self._settings.shards)}
        held: dict[str, set[int]] = {member: set() for member in members}
        weights, free, has_orphans = dict[int, int](), list[int](), False
        for shard, found in enumerate(await leases.read_held(names)):
            if found is None:  # a part of a cluster is away
                continue
            weights[shard] = weight(found.work)
            if shard in self.leases:
                held[leases.holder].add(shard)
            elif found.holder in (None, leases.holder):
                free.append(shard)
            elif found.holder in held:
                held[found.holder].add(shard)
            else:
                has_orphans = True
        now_s = self._clock.monotonic_s()
        self._free_since_s = {shard: self._free_since_s.get(shard, now_s) for shard in free}
        self._has_orphans = has_orphans
        return free, fair_shares(held, free, weights)[leases.holder] | (self.leases.keys() - weights.keys())

    def _may_give_up(self, shard: int) -> bool:
        now_s = self._clock.monotonic_s()
        while self._given_s and self._given_s[0] <= now_s - MINUTE_S:
            self._given_s.popleft()
        if now_s < self._kept_until_s.get(shard, now_s) or len(self._given_s) == MOVES_PER_MINUTE:
            return False
        self._given_s.append(now_s)
        return True

    async def keep_leases(self) -> None:
        """Renew all leases in time; let go of each shard whose lease is lost.

        Those that one server keeps are renewed together, in a task of their own, so that a server that does
        not answer does not delay the others.
        """
        renewing: dict[tuple[str, int] | None, asyncio.Task[None]] = {}
        try:
            while True:
                for keeper, kept in self._by_keeper().items():
                    if keeper not in renewing:
                        renewing[keeper] = asyncio.create_task(self._renew(kept))
                await asyncio.sleep(self._settings.lease_renew_ms / 1000)
                for keeper, task in list(renewing.items()):
                    if task.done():
                        del renewing[keeper]
                        task.result()
        finally:
            await cancel_until_ended(list(renewing.values()))

    def _by_keeper(self) -> dict[tuple[str, int] | None, list[tuple[int, Lease]]]:
        kept: dict[tuple[str, int] | None, list[tuple[int, Lease]]] = {}
        for shard, lease in self.leases.items():
            keeper = self._state.connection.keeper_of(keys.lease(lease.name))
            kept.setdefault(keeper, []).append((shard, lease))
        return kept

    async def _renew(self, kept: Sequence[tuple[int, Lease]]) -> None:
        answers: Sequence[bool | StateUnavailable]
        try:
            answers = await self._state.leases.renew_all([lease for _, lease in kept])
        except StateUnavailable as error:
            answers = [error] * len(kept)
        for (shard, lease), answer in zip(kept, answers, strict=True):
            if self.leases.get(shard) != lease:
                continue
            if isinstance(answer, StateUnavailable):
                self.lose(shard, answer)
            elif not answer:
                log.warning("lease lost", shard=shard)
                self.let_go_of(shard)

    def _has_been_free(self, shard: int) -> bool:
        free_s = self._clock.monotonic_s() - self._free_since_s[shard]
        return free_s > FREE_RENEWALS_MAX * self._settings.lease_renew_ms / 1000

    async def _acquire(self, shards: Sequence[int]) -> bool:
        """Acquire those of these shards that are free, all together. Whether any is another's."""
        if not shards:
            return False
        answers = await self._state.leases.acquire_all([keys.shard_lease(shard) for shard in shards])
        acquired = list[int]()
        for shard, lease in zip(shards, answers, strict=True):
            if isinstance(lease, StateUnavailable):
                self.lose(shard, lease)
            elif lease is not None:
                self.leases[shard], self.wanted[shard], self.read_until[shard] = lease, {}, UNREAD
                self.accounts_of[shard] = Counter()
                log.debug("shard acquired", shard=shard, epoch=lease.fencing_token)
                acquired.append(shard)
        await self._on_acquired(acquired)
        return None in answers

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
        spare(error, is_cluster=self._state.connection.is_cluster)
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
        self.read_until.pop(shard, None)
        self.accounts_of.pop(shard, None)
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

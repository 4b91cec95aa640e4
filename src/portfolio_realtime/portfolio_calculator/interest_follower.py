"""Which accounts are watched: followed by announcements, and read in full at intervals."""

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from typing import Final

from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.portfolio_calculator.account_loader import AccountLoader
from portfolio_realtime.portfolio_calculator.publisher import Publisher, new_pace
from portfolio_realtime.portfolio_calculator.shard_owner import ShardOwner
from portfolio_realtime.service import Context
from portfolio_realtime.state.connection import Subscribed
from portfolio_realtime.state.interest import ALL_READ_S, UNREAD, InterestChanges, decode_begun
from portfolio_realtime.valuation.valuer import Valuer

SWEEP_S: Final = 5.0  # between two full reads, which notice interest that has ended


class InterestFollower:
    """Makes the valuer value exactly the watched accounts of our shards."""

    def __init__(
        self,
        context: Context,
        valuer: Valuer,
        owner: ShardOwner,
        loader: AccountLoader,
        publisher: Publisher,
    ) -> None:
        self.is_following = asyncio.Event()
        self._state = context.state
        self._clock = context.clock
        self._shard_count = context.settings.shards
        self._valuer = valuer
        self._owner = owner
        self._loader = loader
        self._publisher = publisher
        self._answering = asyncio.Lock()  # keeps an older read of interest from replacing a newer one
        self._announced: set[int] = set()  # shards whose interest has changed
        self._due: set[int] = set()  # shards of which all interest is to be read
        self._wake = asyncio.Event()

    async def follow(self) -> None:
        """Note the shards in which accounts are newly watched."""
        async for message in self._state.interest.announcements(list(range(self._shard_count))):
            if isinstance(message, Subscribed):
                self.is_following.set()
                self._announced.update(self._owner.leases)
            else:
                self._announced.update(map(self._owner.shard_of, decode_begun(message.payload)[:1]))
            self._wake.set()

    async def answer_all(self) -> None:
        """Read the interest of announced shards, and of all shards every SWEEP_S."""
        clock, pace = self._clock, new_pace()
        sweep_s, all_due_s = clock.monotonic_s() + SWEEP_S, clock.monotonic_s() + ALL_READ_S
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(0.0, sweep_s - clock.monotonic_s()))
            self._wake.clear()
            if clock.monotonic_s() >= sweep_s:
                self._announced.update(self._owner.leases)
                sweep_s = clock.monotonic_s() + SWEEP_S
            if clock.monotonic_s() >= all_due_s:
                self._due.update(self._owner.leases)
                all_due_s = clock.monotonic_s() + ALL_READ_S
            shards, self._announced = self._announced, set()
            began_s = clock.monotonic_s()
            await self.answer(shards & self._owner.leases.keys())
            pace.took(began_s, clock.monotonic_s())
            await asyncio.sleep(pace.wait_s(clock.monotonic_s()))

    async def answer(self, shards: Collection[int]) -> None:
        """Publish the accounts of ours that are newly watched; drop those that are not watched any more.

        A shard that is away is let go of. Raises StateUnavailable of a single server.
        """
        if not shards:
            return
        async with self._answering:
            leases, new_of, ended_of = (
                dict(self._owner.leases),
                dict[int, list[str]](),
                dict[int, list[str]](),
            )
            for shard, found in (await self._read(shards)).items():
                lease = leases.get(shard)
                if isinstance(found, StateUnavailable):
                    self._owner.lose(shard, found)
                elif lease is not None and self._owner.leases.get(shard) == lease:
                    self._due.discard(shard)
                    # The two change together: a publication of this moment goes to the servers that are known
                    # in it.
                    self._owner.read_until[shard] = found.until
                    watching = self._owner.wanted[shard], self._owner.accounts_of[shard]
                    new_of[shard], ended_of[shard] = found.apply_to(*watching)
                    for account_id in ended_of[shard]:
                        self._valuer.unwatch(account_id)
            await self._loader.read(new_of)
            for shard, ended in ended_of.items():
                await self._publisher.forget(shard, ended)

    async def _read(self, shards: Collection[int]) -> Mapping[int, InterestChanges | StateUnavailable]:
        until = self._owner.read_until
        since = {shard: UNREAD if shard in self._due else until.get(shard, UNREAD) for shard in shards}
        try:
            return await self._state.interest.read_parts(since)
        except StateUnavailable as error:
            return dict.fromkeys(shards, error)

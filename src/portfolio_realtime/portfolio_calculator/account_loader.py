"""The account records of our shards: read in full, then followed, and dropped with their shard."""

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NoReturn

import structlog

from portfolio_realtime.clock import Clock
from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.model import Account
from portfolio_realtime.portfolio_calculator.publisher import Publisher
from portfolio_realtime.portfolio_calculator.shard_owner import ShardOwner
from portfolio_realtime.service import Context
from portfolio_realtime.state.accounts import readable_changes
from portfolio_realtime.state.connection import Subscribed
from portfolio_realtime.telemetry import CalculatorMetrics
from portfolio_realtime.valuation.valuer import Valuer

READ_STEP: Final = 250  # records added before other tasks may run: a few milliseconds
SORT_STEP: Final = 5000  # ids sorted before other tasks may run
PROGRESS_S: Final = 1.0  # between two log lines about the progress

log = structlog.get_logger()


class AccountLoader:
    """Keeps the valuer's account records equal to those in Valkey."""

    def __init__(
        self,
        context: Context,
        metrics: CalculatorMetrics,
        valuer: Valuer,
        owner: ShardOwner,
        publisher: Publisher,
    ) -> None:
        self.is_following = asyncio.Event()
        self.has_found_records = False  # records were written before we started
        self.numbering = asyncio.Lock()  # held while rows of the book must keep their numbers
        self._state = context.state
        self._clock = context.clock
        self._shard_count = context.settings.shards
        self._metrics = metrics
        self._valuer = valuer
        self._owner = owner
        self._publisher = publisher
        self._taking = asyncio.Lock()  # records are added in the order in which they were read
        self._unread: set[int] = set()  # shards of which all records are to be read
        self._let_go: set[int] = set()  # shards whose records are to be dropped
        self._book_wake = asyncio.Event()
        self._announced: dict[int, dict[str, None]] = {}  # shard -> accounts with a new record, in order
        self._announced_wake = asyncio.Event()

    def load(self, shard: int) -> None:
        """Read all records of a shard at the next `load_all`."""
        self._unread.add(shard)

    def load_all(self) -> None:
        """Start to read all shards that are to be loaded."""
        if self._unread:
            self._book_wake.set()

    def unload(self, shard: int, watched: Sequence[str]) -> None:
        """Drop a shard that we do not own any more: its watched accounts at once, the others in steps."""
        for account_id in watched:
            self._valuer.forget(account_id)
        self._let_go.add(shard)
        self._book_wake.set()

    async def follow(self) -> None:
        """Follow the records that the symbol collector writes; read everything again after a loss."""
        async for message in self._state.accounts.changes(list(range(self._shard_count))):
            if isinstance(message, Subscribed):
                self.is_following.set()
                # Watched accounts come first.
                await self.read(
                    {shard: list(self._owner.wanted.get(shard, ())) for shard in self._owner.leases}
                )
                self._unread.update(self._owner.leases)
                self._book_wake.set()
                continue
            for change in readable_changes(message.payload):
                shard = self._owner.shard_of(change.account_id)
                self._announced.setdefault(shard, {})[change.account_id] = None
            self._announced_wake.set()

    async def read_announced(self) -> NoReturn:
        """Read the records that are announced: what comes while others are read is read together."""
        while True:
            await self._announced_wake.wait()
            self._announced_wake.clear()
            announced, self._announced = self._announced, {}
            await self.read(
                {shard: list(ids) for shard, ids in announced.items() if shard in self._owner.leases}
            )

    async def read(self, wanted: Mapping[int, Sequence[str]]) -> None:
        """Read the records of these accounts; drop the accounts that have none.

        `wanted`: shard -> accounts of it. A shard that is away is let go of. Raises StateUnavailable of a
        single server.
        """
        for step in _steps(wanted):
            gone = dict[int, list[str]]()
            async with self._taking:
                for shard, found in (await self._read_step(step)).items():
                    if isinstance(found, StateUnavailable):
                        self._owner.lose(shard, found)
                        continue
                    for account in found:
                        self._take_in(shard, account)
                    gone[shard] = list(set(step[shard]).difference(one.account_id for one in found))
                    for account_id in gone[shard]:
                        self._valuer.drop(account_id)
            for shard, account_ids in gone.items():
                await self._publisher.forget(shard, account_ids)

    async def _read_step(
        self, step: Mapping[int, Sequence[str]]
    ) -> Mapping[int, list[Account] | StateUnavailable]:
        try:
            return await self._state.accounts.read_parts(step)
        except StateUnavailable as error:
            return dict.fromkeys(step, error)

    def _take_in(self, shard: int, account: Account) -> None:
        """Add a record that was read. Meanwhile the shard or the watched accounts may have changed."""
        if shard not in self._owner.leases:
            return
        servers = self._owner.wanted[shard].get(account.account_id)
        if servers is None:
            self._valuer.put_account(account)
        else:
            epoch = self._owner.leases[shard].fencing_token
            self._valuer.watch(account, epoch, with_positions=any(servers.values()), shard=shard)
            self._publisher.wake.set()

    async def keep_book(self) -> None:
        """Drop the shards that were given up; read those that are new or of which something was missed."""
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
            # We may have acquired the shard again.
            if self._owner.shard_of(account_id) not in self._owner.leases:
                self._valuer.forget(account_id)
            if number % READ_STEP == READ_STEP - 1:
                await asyncio.sleep(0)

    async def _read_shards(self) -> None:
        """Read every record of the shards that need it, and report the progress."""
        shards, self._unread = self._unread & self._owner.leases.keys(), set()
        known = _by_shard(shards)
        if shards:
            await self._sort_book(known)
        count = 0
        for shard in shards:
            with self._owner.sparing(shard):
                count += await self._state.accounts.count([shard])
        self.has_found_records |= count > 0
        self._valuer.book.reserve(len(self._valuer.book) - sum(map(len, known.values())) + count)
        progress = _Progress(self._metrics, count, self._clock)
        for shard in sorted(shards):
            with self._owner.sparing(shard):
                await self._read_shard(shard, known.pop(shard), progress)
        if shards:
            progress.end(len(shards))

    async def _read_shard(self, shard: int, known: set[str], progress: "_Progress") -> None:
        """Read a shard page by page. Accounts in `known` that were not found are then read again."""
        cursor: int | None = 0
        while cursor is not None:
            async with self._taking:
                cursor, records = await self._state.accounts.read_page(shard, cursor)
                for number, account in enumerate(records):
                    self._take_in(shard, account)
                    known.discard(account.account_id)
                    if number % READ_STEP == READ_STEP - 1:
                        await asyncio.sleep(0)
            progress.advance(len(records))
        await self.read({shard: list(known)})
        await self._publisher.forget(shard, await self._state.valuations.read_ids(shard))

    async def _sort_book(self, found: dict[int, set[str]]) -> None:
        """Add the accounts of the book to `found`, by shard."""
        async with self.numbering:
            for account_ids in self._valuer.book.ids():
                await self._sort(account_ids, found)

    async def _sort(self, account_ids: Sequence[str], found: dict[int, set[str]]) -> None:
        for at in range(0, len(account_ids), SORT_STEP):
            for account_id in account_ids[at : at + SORT_STEP]:
                if (shard := self._owner.shard_of(account_id)) in found:
                    found[shard].add(account_id)
            await asyncio.sleep(0)


def _steps(wanted: Mapping[int, Sequence[str]]) -> Iterator[dict[int, Sequence[str]]]:
    """The same accounts in steps of READ_STEP."""
    step, size = dict[int, Sequence[str]](), 0
    for shard, account_ids in wanted.items():
        first = 0
        while first < len(account_ids):
            part = account_ids[first : first + READ_STEP - size]
            first += len(part)
            step[shard], size = part, size + len(part)
            if size == READ_STEP:
                yield step
                step, size = {}, 0
    if step:
        yield step


def _by_shard(shards: Iterable[int]) -> dict[int, set[str]]:
    """An empty set of accounts for each shard."""
    return {shard: set() for shard in shards}


class _Progress:
    """The progress of reading records, for logs and metrics."""

    def __init__(self, metrics: CalculatorMetrics, total: int, clock: Clock) -> None:
        self._metrics = metrics
        self._total = total
        self._clock = clock
        self._read = 0
        self._began_s = self._said_s = clock.monotonic_s()
        metrics.read_ratio.set(0.0 if total else 1.0)

    def advance(self, count: int) -> None:
        """Count more read records; log the progress once per PROGRESS_S."""
        self._read += count
        ratio = min(1.0, self._read / max(1, self._total))
        self._metrics.read_ratio.set(ratio)
        if self._clock.monotonic_s() - self._said_s >= PROGRESS_S:
            self._said_s = self._clock.monotonic_s()
            log.info("reading accounts", read=self._read, of=self._total, percent=int(100 * ratio))

    def end(self, shards: int) -> None:
        """Log that all records have been read."""
        self._metrics.read_ratio.set(1.0)
        seconds = round(self._clock.monotonic_s() - self._began_s, 2)
        log.info("accounts read", accounts=self._read, shards=shards, seconds=seconds)

"""Writes changed records, the universe and pending accounts to the shared state, in batches.

A part of a cluster may be away. Then its shards are left out, and written whole when they are back: what was
written last may be lost with a primary.
"""

import asyncio
import contextlib
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Final, NoReturn

from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.errors import LeaseLost, StateUnavailable
from portfolio_realtime.model import Account
from portfolio_realtime.service import spare
from portfolio_realtime.state.accounts import Accounts
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.symbol_collector.pending_accounts import PendingAccounts
from portfolio_realtime.symbol_collector.records.account_records import AccountRecords
from portfolio_realtime.symbol_collector.sources import parse

WRITE_S: Final = 0.02  # changes within this time are written as one batch
WRITE_ACCOUNTS_MAX: Final = 1_000
HAND_OVER_S_MAX: Final = 0.4  # a service that ends is cancelled again after 0.5 s
SLOW_S: Final = 1.5  # a batch that takes longer holds up what clients should see
UNIVERSE: Final = -1  # in place of a shard
CURSOR_NS_MAX: Final = 3600 * NS_PER_S  # an older cursor of a former owner is not resumed


class RecordWriter:
    """Writes what has changed in `records` and `pending`, on request."""

    def __init__(
        self,
        accounts: Accounts,
        records: AccountRecords,
        pending: PendingAccounts,
        newest_event: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`newest_event`: the id of the newest event that `records` have taken in."""
        self._newest_event = newest_event
        self._written_event: str | None = None  # the newest event up to which all records are written
        self._accounts = accounts
        self._records = records
        self._pending = pending
        self._removed_symbols: set[str] = set()
        self._written_cursor: str | None = None
        self._being_written: list[str] = []  # accounts of a batch; after a batch that was cut off, its own
        self._is_due = asyncio.Event()
        self._began_s: float | None = None  # by the loop's clock; None: no batch is being written
        self.away: set[int] = set()  # shards, or UNIVERSE, that cannot be written
        self.writing = asyncio.Lock()  # held while a batch is being written

    @property
    def has_changes(self) -> bool:
        """Whether anything is to be written."""
        return bool(self._records.has_changes or self._removed_symbols or self._pending.has_changes)

    @property
    def is_slow(self) -> bool:
        """Whether a batch has been on its way to Valkey for so long that stored records are old."""
        return self._began_s is not None and asyncio.get_running_loop().time() - self._began_s > SLOW_S

    def request_write(self) -> None:
        """Write soon: something has changed."""
        self._is_due.set()

    def remove_symbols(self, stored: Iterable[str]) -> None:
        """Remove those of the stored symbols that no account holds from the universe."""
        self._removed_symbols |= set(stored) - self._records.universe.keys()

    @contextlib.contextmanager
    def sparing(self, shard: int) -> Generator[None]:
        """Leave a shard out if its part of a cluster is away. Raises StateUnavailable of a single server."""
        try:
            yield
        except StateUnavailable as error:
            self.spare(error)
            self.away.add(shard)

    def spare(self, error: StateUnavailable) -> None:
        """Go on without a part of a cluster that is away. Raises `error` of a single server."""
        spare(error, is_cluster=self._accounts.is_in_parts)

    def note_back(self, shard: int) -> None:
        """Write everything of a shard that was away."""
        self.away.discard(shard)
        if shard == UNIVERSE:
            self._records.write_universe_again(())
        else:
            self._records.write_again(self._in_shard(shard, self._records.known_ids))
            self._pending.write_again(self._in_shard(shard, self._pending.ids))
        self.request_write()

    async def write(self, lease: Lease) -> NoReturn:
        """Write changes without end. Raises LeaseLost, StateUnavailable."""
        while True:
            await self._is_due.wait()
            await asyncio.sleep(WRITE_S)
            self._is_due.clear()
            while self.has_changes:
                await self._write_some(lease)

    async def hand_over(self, lease: Lease, *, is_whole: bool) -> None:
        """Write what is left; and up to which event, if all that events have moved has a record (`is_whole`).

        At a planned end: the next owner need ask for nobody then. If it fails, it asks for whoever has moved.
        """
        with contextlib.suppress(StateUnavailable, LeaseLost, TimeoutError):
            async with asyncio.timeout(HAND_OVER_S_MAX):
                self._records.write_again(self._being_written)
                while self.has_changes:
                    await self._write_some(lease)
                if is_whole:
                    await self.write_cursor()

    async def _write_some(self, lease: Lease) -> None:
        self._began_s = asyncio.get_running_loop().time()
        try:
            async with self.writing:
                newest = self._newest_event()
                is_whole = self._records.changed_count <= WRITE_ACCOUNTS_MAX
                await self._write_batch(lease)
                if is_whole and not self.away:
                    self._written_event = newest
        finally:
            self._began_s = None

    async def _write_batch(self, lease: Lease) -> None:
        """Write the universe first, so that every symbol of a record is in it.

        All shards are written together: on a busy machine each round trip may take tenths of a second. What
        is left out of a shard that is away comes with `note_back`; what is to be removed from it is found
        later (`find_left_over`).
        """
        added, accounts, gone = self._records.take_changes(WRITE_ACCOUNTS_MAX)
        removed = (
            sorted(self._removed_symbols - self._records.universe.keys()) if self._removed_symbols else []
        )
        self._removed_symbols.clear()
        if (added or removed) and UNIVERSE not in self.away:
            with self.sparing(UNIVERSE):
                await self._accounts.write_universe(lease, added, removed)
        self._being_written = [one.account_id for one in accounts]
        accounts = [one for one in accounts if self._is_here(one.account_id)]
        bookings = self._records.bookings(accounts)
        self._spare_all(
            await self._accounts.write_parts(lease, accounts, bookings, list(filter(self._is_here, gone)))
        )
        self._being_written = []
        # After the records: readers look for a pending reason only if there is no record.
        pending, valued = self._pending.take_changes(WRITE_ACCOUNTS_MAX)
        pending = [one for one in pending if self._is_here(one.account_id)]
        self._spare_all(
            await self._accounts.write_pending(lease, pending, list(filter(self._is_here, valued)))
        )

    def _is_here(self, account_id: str) -> bool:
        """Whether the account's shard is not away."""
        return self._accounts.shard_of(account_id) not in self.away

    def _spare_all(self, failures: Mapping[int, StateUnavailable]) -> None:
        """Leave out shards that have turned out to be away. Raises StateUnavailable of a single server."""
        for shard, error in failures.items():
            self.spare(error)
            self.away.add(shard)

    async def read_stored(self, account_id: str) -> Account | None:
        """The stored record of an account; None also if its shard is away. Raises StateUnavailable."""
        with self.sparing(self._accounts.shard_of(account_id)):
            return await self._accounts.read_one(account_id)
        return None

    async def read_cursor(self, now_ns: int) -> str | None:
        """A former owner's cursor; None also if it is too old or away. Raises StateUnavailable."""
        try:
            cursor = await self._accounts.read_cursor()
        except StateUnavailable as error:
            return self.spare(error)
        published_ns = parse.published_ns(cursor) if cursor else None
        return cursor if published_ns and now_ns - published_ns < CURSOR_NS_MAX else None

    async def write_cursor(self) -> None:
        """Write down, if it has moved, the event up to which all records are written.

        Raises StateUnavailable.
        """
        if not (self.has_changes or self.away or self.writing.locked()):
            self._written_event = self._newest_event()
        cursor = self._written_event
        if cursor is not None and cursor != self._written_cursor:
            await self._accounts.write_cursor(cursor)
            self._written_cursor = cursor

    def _in_shard(self, shard: int, account_ids: Iterable[str]) -> list[str]:
        return [account_id for account_id in account_ids if self._accounts.shard_of(account_id) == shard]

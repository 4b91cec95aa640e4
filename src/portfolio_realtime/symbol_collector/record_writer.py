"""Writes changed records, the universe and pending accounts to the shared state, in batches."""

import asyncio
from collections.abc import Iterable
from typing import Final, NoReturn

from portfolio_realtime.state.accounts import Accounts
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.symbol_collector.pending_accounts import PendingAccounts
from portfolio_realtime.symbol_collector.records.account_records import AccountRecords

WRITE_S: Final = 0.02  # changes within this time are written as one batch
WRITE_ACCOUNTS_MAX: Final = 1_000


class RecordWriter:
    """Writes what has changed in `records` and `pending`, on request."""

    def __init__(self, accounts: Accounts, records: AccountRecords, pending: PendingAccounts) -> None:
        self._accounts = accounts
        self._records = records
        self._pending = pending
        self._removed_symbols: set[str] = set()
        self._is_due = asyncio.Event()
        self.writing = asyncio.Lock()  # held while a batch is being written

    def request_write(self) -> None:
        """Write soon: something has changed."""
        self._is_due.set()

    def remove_symbols(self, stored: Iterable[str]) -> None:
        """Remove those of the stored symbols that no account holds from the universe."""
        self._removed_symbols |= set(stored) - self._records.universe.keys()

    async def write(self, lease: Lease) -> NoReturn:
        """Write changes without end. Raises LeaseLost, StateUnavailable."""
        while True:
            await self._is_due.wait()
            await asyncio.sleep(WRITE_S)
            self._is_due.clear()
            while self._records.has_changes or self._removed_symbols or self._pending.has_changes:
                async with self.writing:
                    await self._write_batch(lease)

    async def _write_batch(self, lease: Lease) -> None:
        """Write the universe first, so that every symbol of a record is in it."""
        added, accounts, gone = self._records.take_changes(WRITE_ACCOUNTS_MAX)
        bookings = self._records.bookings(accounts)
        removed = (
            sorted(self._removed_symbols - self._records.universe.keys()) if self._removed_symbols else []
        )
        self._removed_symbols.clear()
        if added or removed:
            await self._accounts.write_universe(lease, added, removed)
        if accounts:
            await self._accounts.write_bookings(lease, bookings)
            await self._accounts.write(lease, accounts)
        if gone:
            await self._accounts.remove(lease, gone)
        pending, valued = self._pending.take_changes(WRITE_ACCOUNTS_MAX)
        # After the records: readers look for a pending reason only if there is no record.
        if pending or valued:
            await self._accounts.write_pending(lease, pending, valued)

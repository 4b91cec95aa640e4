"""Which accounts clients watch: these are fetched first, and looked up if the broker does not list them."""

import asyncio
from typing import Final, NoReturn

from portfolio_realtime.clock import Clock
from portfolio_realtime.state import State
from portfolio_realtime.state.connection import Message
from portfolio_realtime.state.interest import WatchedAccounts, decode_begun
from portfolio_realtime.symbol_collector.fetch_schedule import FetchSchedule
from portfolio_realtime.symbol_collector.record_writer import RecordWriter
from portfolio_realtime.symbol_collector.records.account_records import AccountRecords
from portfolio_realtime.symbol_collector.unlisted_accounts import UnlistedAccounts

WATCHED_S: Final = 5.0  # interest ends silently, so it is read this often


class WatchedFollower:
    """Keeps `schedule` at what is watched, and `unlisted` at what of that the broker does not list."""

    def __init__(
        self,
        state: State,
        shards: list[int],
        clock: Clock,
        schedule: FetchSchedule,
        records: AccountRecords,
        writer: RecordWriter,
    ) -> None:
        self.unlisted = UnlistedAccounts()
        self.missed = asyncio.Event()  # a watched account is not in the list
        self._interest = state.interest
        self._shards = shards
        self._clock = clock
        self._schedule = schedule
        self._records = records
        self._watched = WatchedAccounts(state.interest, shards, writer.spare)
        self._writer = writer

    async def follow(self) -> None:
        """Hear what begins to be watched. Raises StateUnavailable."""
        async for item in self._interest.announcements(self._shards):
            if isinstance(item, Message):
                for account_id in decode_begun(item.payload):
                    self._begin_to_watch(account_id)
            else:
                await self._read()

    def _begin_to_watch(self, account_id: str) -> None:
        self._schedule.begin_to_watch(account_id)
        if self._records.is_listed(account_id):
            return
        if self.unlisted.is_absent(account_id, self._clock.now_ns()):
            self.deny(account_id)
        else:
            self.unlisted.add(account_id)
            self.missed.set()

    def deny(self, account_id: str) -> None:
        """Tell whoever watches an account that it does not exist."""
        self._records.remove_stale(account_id)
        self._writer.request_write()

    async def poll(self) -> NoReturn:
        """Read all interest every WATCHED_S. Raises StateUnavailable."""
        while True:
            await asyncio.sleep(WATCHED_S)
            await self._read()

    async def _read(self) -> None:
        watched = await self._watched.read(self._clock.monotonic_s())
        self._schedule.watch(watched)
        self.unlisted.watch({account_id for account_id in watched if not self._records.is_listed(account_id)})
        self.missed.set()

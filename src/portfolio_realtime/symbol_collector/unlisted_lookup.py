"""Asks the broker for watched accounts that are not in its list, which may be too old."""

import asyncio
from collections.abc import Callable
from typing import Final, NoReturn

import structlog

from portfolio_realtime.clock import Clock
from portfolio_realtime.errors import BrokerUnavailable
from portfolio_realtime.symbol_collector.model import CLOSED
from portfolio_realtime.symbol_collector.records.account_records import AccountRecords
from portfolio_realtime.symbol_collector.sources.account_source import AccountSource
from portfolio_realtime.symbol_collector.sources.parse import PayloadRefused
from portfolio_realtime.symbol_collector.watched_follower import WatchedFollower

ASKED_AT_ONCE: Final = 8  # accounts per round, one after the other
ASK_AGAIN_S: Final = 0.5  # until an absent account is looked up a second time: one answer is not enough

log = structlog.get_logger()


class UnlistedLookup:
    """Finds accounts that are to be fetched although no list has them, and denies those that do not exist."""

    def __init__(
        self,
        client: AccountSource,
        clock: Clock,
        records: AccountRecords,
        interest: WatchedFollower,
        found: Callable[[str], None],
    ) -> None:
        """`found` is called with an account that exists and is listed from now on."""
        self._client = client
        self._clock = clock
        self._records = records
        self._interest = interest
        self._found = found

    async def ask(self) -> NoReturn:
        """Ask without end. Raises BrokerRefused."""
        while True:
            missed = self._interest.unlisted.next_to_fetch(ASKED_AT_ONCE)
            absent = [account_id for account_id in missed if await self._is_absent(account_id)]
            if absent:
                await asyncio.sleep(ASK_AGAIN_S)
            for account_id in absent:
                if await self._is_absent(account_id):
                    self._interest.unlisted.mark_absent(account_id, self._clock.now_ns())
                    self._interest.deny(account_id)
            if not missed:
                self._interest.missed.clear()
                await self._interest.missed.wait()

    async def _is_absent(self, account_id: str) -> bool:
        """Whether the broker says that the account does not exist. If it exists it is added."""
        if self._records.is_listed(account_id):
            return False
        try:
            found = await self._client.account(account_id)
        except (BrokerUnavailable, PayloadRefused) as error:
            log.warning("account could not be looked up", account_id=account_id, reason=str(error))
            return False
        if found is None or found.status == CLOSED:
            return True
        self._records.list_one(account_id)
        self._found(account_id)
        return False

"""What the collector needs of whoever tells it about accounts, be it a broker's key or one account's."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Protocol, Self

from portfolio_realtime.clock import Clock
from portfolio_realtime.symbol_collector.activities import Activity, Statement
from portfolio_realtime.symbol_collector.sources.asset_names import AssetSource
from portfolio_realtime.symbol_collector.sources.closed_days import HistorySource
from portfolio_realtime.symbol_collector.sources.parse import ListedAccount


class Inbox(Protocol):
    """Who takes in what a follower hears, each booking once."""

    def take_activity(self, activity: Activity, *, is_live: bool) -> None:
        """A booking."""
        ...

    def take_rows(self, rows: list[Activity]) -> None:
        """All of the client's own bookings of a span of time, as another way tells them."""
        ...

    def refuse_activity(self, account_id: str | None, reason: str) -> None:
        """Something that cannot be read, of this account where it says so."""
        ...


class Follower(Protocol):
    """Follows the bookings of all accounts of a source."""

    connected: asyncio.Event
    cursor: str | None  # the newest live event, to resume behind; None where there is none
    lost_since_s: float | None  # None while bookings can come

    @property
    def has_history(self) -> bool:
        """Are the day's bookings known?"""
        ...

    @property
    def parts(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        """What is to be kept running, side by side, with its name."""
        ...

    def is_mute(self) -> bool:
        """Is it open, and silent for longer than its rhythm allows?"""
        ...

    async def fill_gap(self) -> None:
        """Wait until bookings may have been missed; then every account is to be asked for."""
        ...

    async def know_history_since(self, since_ns: int) -> None:
        """Have everything that was booked since then taken in. Raises BrokerUnavailable, PayloadRefused."""
        ...


class AccountSource(HistorySource, AssetSource, Protocol):
    """The accounts of one key. All requests raise BrokerUnavailable, BrokerRefused, PayloadRefused."""

    refused: list[str]  # why elements of the newest list were left out
    interval_s_max: float  # its accounts are reconciled at least this often

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def accounts(self) -> list[ListedAccount]:
        """All accounts."""
        ...

    async def account(self, account_id: str) -> ListedAccount | None:
        """One account, or None when there is none."""
        ...

    async def statement(self, account_id: str, *, is_urgent: bool) -> Statement | None:
        """How one account stands, or None when there is none."""
        ...

    async def prove(self) -> None:
        """Does the broker answer at all?"""
        ...

    def follower(self, clock: Clock, inbox: Inbox) -> Follower:
        """Who follows the bookings of these accounts."""
        ...

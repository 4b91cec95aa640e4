"""The interface of a source of accounts: a broker's key, or the key of one account."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Protocol, Self

from portfolio_realtime.clock import Clock
from portfolio_realtime.symbol_collector.broker_time import BrokerTime
from portfolio_realtime.symbol_collector.model import Activity, Statement
from portfolio_realtime.symbol_collector.sources.asset_names import AssetSource
from portfolio_realtime.symbol_collector.sources.closed_days import HistorySource
from portfolio_realtime.symbol_collector.sources.parse import ListedAccount


class Inbox(Protocol):
    """Receives what a follower reads."""

    def take_activity(self, activity: Activity, *, is_live: bool) -> None:
        """Accept a booking. `is_live`: from the live stream, not from a replay."""
        ...

    def take_rows(self, rows: list[Activity]) -> None:
        """Accept all of the client's own bookings of a span of time, from the REST list."""
        ...

    def refuse_activity(self, account_id: str | None, reason: str) -> None:
        """Note that something could not be read, of this account if it names one."""
        ...


class Follower(Protocol):
    """Follows the bookings of all accounts of a source."""

    connected: asyncio.Event  # set while bookings can arrive
    cursor: str | None  # id of the newest live event, after which to resume; None without one
    lost_since_s: float | None  # monotonic seconds; None while bookings can arrive

    @property
    def has_history(self) -> bool:
        """Whether the day's bookings are known."""
        ...

    @property
    def ahead(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        """Coroutines that may also run while another collector is active, with their names."""
        ...

    @property
    def parts(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        """Coroutines to be run side by side under the lease, with their names."""
        ...

    def is_mute(self) -> bool:
        """Whether it is open, and silent for longer than its rhythm allows."""
        ...

    async def fill_gap(self) -> None:
        """Wait until bookings may have been missed; then every account must be fetched."""
        ...

    async def know_history_since(self, since_ns: int, *, is_whole: bool = False) -> None:
        """Apply everything booked since then. Raises BrokerUnavailable, PayloadRefused.

        `is_whole`: a statement has something that no booking explains, so a late booking is looked for.
        """
        ...


class AccountSource(HistorySource, AssetSource, Protocol):
    """The accounts of one key. All requests raise BrokerUnavailable, BrokerRefused, PayloadRefused."""

    refused: list[str]  # why elements of the newest list were left out
    interval_s_max: float  # the longest interval at which its accounts are reconciled
    broker_time: BrokerTime  # learned from its answers

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def accounts(self) -> list[ListedAccount]:
        """All accounts."""
        ...

    async def account(self, account_id: str) -> ListedAccount | None:
        """One account, or None if it does not exist."""
        ...

    async def statement(self, account_id: str, *, is_urgent: bool) -> Statement | None:
        """The statement of one account, or None if it does not exist."""
        ...

    async def prove(self) -> None:
        """Return if the broker answers at all."""
        ...

    def follower(self, clock: Clock, inbox: Inbox) -> Follower:
        """The follower of these accounts' bookings."""
        ...

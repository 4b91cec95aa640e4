"""What all accounts have booked since the day began, read before any record is made."""

from collections.abc import Callable
from typing import Final

import structlog

from portfolio_realtime.clock import NS_PER_S, Clock
from portfolio_realtime.errors import BrokerUnavailable
from portfolio_realtime.symbol_collector.records import cash_flows
from portfolio_realtime.symbol_collector.records.account_records import AccountRecords
from portfolio_realtime.symbol_collector.sources.account_source import AccountSource, Follower
from portfolio_realtime.symbol_collector.sources.parse import PayloadRefused

PROBES_MAX: Final = 10  # accounts asked for their `balance_asof`
HISTORY_AGAIN_NS: Final = 60 * NS_PER_S  # until a history of the day that failed is tried again

log = structlog.get_logger()


class DayHistory:
    """The day's bookings of all accounts. `changed` is called when records may have changed."""

    def __init__(
        self,
        client: AccountSource,
        follower: Follower,
        records: AccountRecords,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        self._client = client
        self._follower = follower
        self._records = records
        self._clock = clock
        self._changed = changed
        self._failed_ns: int | None = None

    async def begin(self) -> None:
        """Replay the day before any record is made."""
        if not self._follower.has_history:
            since_ns = await self._began_ns(is_urgent=True)
            await self.know_since(self._clock.now_ns() if since_ns is None else since_ns)

    async def keep(self) -> None:
        """The same without the lease, where records get no statement: forget bookings that are too old."""
        since_ns = await self._began_ns(is_urgent=False)
        if since_ns is not None:
            await self.know_since(since_ns)
            self._records.forget_before(since_ns)

    async def _began_ns(self, *, is_urgent: bool) -> int | None:
        """When the day began, as the first readable account says; None if none can be read."""
        for account_id in sorted(self._records.listed)[:PROBES_MAX]:
            try:
                statement = await self._client.statement(account_id, is_urgent=is_urgent)
            except (BrokerUnavailable, PayloadRefused) as error:
                log.warning(
                    "account could not be read: trying the next one", account_id=account_id, reason=str(error)
                )
                continue
            if statement is not None:
                return cash_flows.cut_off_ns(statement.state.balance_asof)
        return None

    async def know_since(self, since_ns: int, account_id: str | None = None) -> None:
        """Replay the day's bookings. Without them accounts are served, and day P&L is null.

        If the former statement of this account was not explained, its late bookings are looked for.
        """
        is_whole = account_id is not None and self._records.is_unexplained(account_id)
        now_ns = self._clock.now_ns()
        if self._failed_ns is not None and now_ns - self._failed_ns < HISTORY_AGAIN_NS:
            return
        try:
            await self._follower.know_history_since(since_ns, is_whole=is_whole)
        except (BrokerUnavailable, PayloadRefused) as error:
            self._failed_ns = self._clock.now_ns()
            log.error("the day's bookings are unknown: day P&L is not published", reason=str(error))
        else:
            self._failed_ns = None
        self._records.know_history(self._failed_ns is None)
        self._changed()

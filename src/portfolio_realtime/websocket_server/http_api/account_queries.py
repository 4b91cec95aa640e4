"""Answers computed on request for one account: the explanation of its value, and its history."""

import asyncio
from typing import Any, Final

import msgspec

from portfolio_realtime.clock import NS_PER_S, Clock
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.model import Account, Bookings, ClosedDays
from portfolio_realtime.state import State
from portfolio_realtime.state.minutes import whole_at_or_before
from portfolio_realtime.valuation.closed_days import Range, joined
from portfolio_realtime.valuation.explain import explain
from portfolio_realtime.valuation.history import history as day_line
from portfolio_realtime.valuation.history import symbols_of
from portfolio_realtime.websocket_server.http_api.newer_points import newer_points
from portfolio_realtime.websocket_server.http_api.responses import HeldAsset, HeldAssets

HISTORY_POINTS_MAX: Final = 1440  # a day of minutes
HISTORIES_MAX: Final = 4  # drawn at the same time
PAIR_READS_MAX: Final = 20
PAIR_PAUSE_S: Final = 0.02
CLOSED_DAYS_S_MAX: Final = 5.0  # how long they are waited for
CLOSED_DAYS_POLL_S: Final = 0.1
CLOSED_DAYS_FRESH_S: Final = 60.0  # days that lack the newest close are not fetched again sooner


class AccountQueries:
    """Encoded answers for one account, or None without a record. Access has been checked before."""

    def __init__(self, state: State, settings: Settings, clock: Clock) -> None:
        self._state = state
        self._settings = settings
        self._clock = clock
        self._drawing = asyncio.Semaphore(HISTORIES_MAX)

    async def explanation(self, account_id: str) -> bytes | None:
        """The arithmetic of an account's value, from its record and marks. Raises StateUnavailable."""
        account = await self._state.accounts.read_one(account_id)
        if account is None:
            return None
        marks, unmarked = await self._state.marks.look_up([one.symbol for one in account.positions])
        return explain(account, marks, self._clock.now_ns(), unmarked)

    async def assets(self, account_id: str) -> bytes | None:
        """What the account holds, with the broker's names. Raises StateUnavailable."""
        account = await self._state.accounts.read_one(account_id)
        if account is None:
            return None
        held = sorted(account.positions, key=lambda position: position.symbol)
        names = await self._state.asset_names.read(position.symbol for position in held)
        assets = [
            HeldAsset(
                position.symbol,
                position.asset_class,
                names.get(position.symbol, msgspec.UNSET),
                f"{position.cost_basis:f}" if position.is_cost_known else msgspec.UNSET,
            )
            for position in held
        ]
        return msgspec.json.encode(HeldAssets(account_id, assets))

    async def history(
        self, account_id: str, span: Range, since: str | None = None, revision: str | None = None
    ) -> bytes | None:
        """The value of an account: each minute since the last close, or each closed day and now.

        With `since` only later points, unless `revision` shows that the caller's earlier ones have changed.
        Raises StateUnavailable, also if record and bookings never match, or if the closed days do not arrive.
        """
        days = None
        if span != "1d":  # not while drawing: it may take seconds, and others draw the day meanwhile
            record = await self._state.accounts.read_one(account_id)
            days = None if record is None else await self._closed_days(record)
        async with self._drawing:
            account, bookings = await self._pair(account_id)
            if account is None:
                return None
            if bookings is None:
                raise StateUnavailable("the record's bookings are not there")
            day = await self._day(account, bookings)
            return await asyncio.to_thread(_answer, account, day, days, span, since, revision)

    async def _day(self, account: Account, bookings: Bookings) -> bytes:
        interval_ns = self._settings.history_interval * NS_PER_S
        written_ns = self._clock.now_ns() - int(2 * self._settings.history_delay_s * NS_PER_S)
        end_ns = written_ns // interval_ns * interval_ns
        since_ns = max(bookings.day_began_ns, end_ns - (HISTORY_POINTS_MAX - 1) * interval_ns)
        times_ns = range(whole_at_or_before(since_ns, interval_ns), end_ns + 1, interval_ns)
        minutes = await self._state.minutes.read(times_ns, symbols_of(account, bookings))
        timeframe = timeframe_of(self._settings.history_interval)
        return await asyncio.to_thread(day_line, account, bookings, minutes, since_ns, timeframe)

    async def _pair(self, account_id: str) -> tuple[Account | None, Bookings | None]:
        """A record and its bookings; they are written one after the other, so it may take a second look."""
        account: Account | None = None
        for _ in range(PAIR_READS_MAX):
            found = await self._state.accounts.read_with_bookings(account_id)
            if found is None:
                return None, None
            account, bookings = found
            if bookings is not None:
                return account, bookings
            await asyncio.sleep(PAIR_PAUSE_S)
        return account, None

    async def _closed_days(self, account: Account) -> ClosedDays:
        """As the symbol collector fetches them: this server has no keys to the broker."""
        store = self._state.closed_days
        days = await store.read(account.account_id)
        if days is not None and self._is_good(days, account):
            return days
        await store.want(account.account_id)
        for _ in range(int(CLOSED_DAYS_S_MAX / CLOSED_DAYS_POLL_S)):
            await asyncio.sleep(CLOSED_DAYS_POLL_S)
            newer = await store.read(account.account_id)
            if newer is not None and (days is None or newer.fetched_ns > days.fetched_ns):
                return newer
        if days is None:
            raise StateUnavailable("the closed days could not be fetched in time")
        return days

    def _is_good(self, days: ClosedDays, account: Account) -> bool:
        if days.days and days.days[-1].date >= account.balance_asof:
            return True
        return self._clock.now_ns() - days.fetched_ns < CLOSED_DAYS_FRESH_S * NS_PER_S


def _answer(
    account: Account,
    day: bytes,
    days: ClosedDays | None,
    span: Range,
    since: str | None,
    revision: str | None,
) -> bytes:
    answer: dict[str, Any] = msgspec.json.decode(day)
    if days is not None:
        answer = joined(account, days.days, answer["points"], span)
    return msgspec.json.encode(newer_points(answer, since, revision))


def timeframe_of(interval_s: int) -> str:
    """The timeframe in Alpaca's spelling: 60 -> `1Min`; other lengths in seconds: `5Sec`."""
    minutes, seconds = divmod(interval_s, 60)
    return f"{interval_s}Sec" if seconds else f"{minutes}Min"

"""Every booking of one account: its activities are polled, and read at once when an order was filled.

The Trading API's stream has no history, so the rows decide. Each row is applied once, by its id. The id of a
cash row is that of its day's midnight and sorts below fills that came earlier. Cash rows and fills are
therefore read separately, newest first, until a page has nothing new. A row may be booked for an older date,
or canceled, behind such a page: when a statement has something unexplained, the day's rows are read whole.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from decimal import Decimal
from typing import Any, Final, NoReturn, Protocol

import structlog

from portfolio_realtime.backoff import Backoff
from portfolio_realtime.clock import NS_PER_S, Clock
from portfolio_realtime.config import Settings
from portfolio_realtime.model import ZERO
from portfolio_realtime.symbol_collector.sources import parse, trade_updates, trading_rows
from portfolio_realtime.symbol_collector.sources.account_source import Inbox
from portfolio_realtime.symbol_collector.sources.parse import ListedAccount, PayloadRefused
from portfolio_realtime.symbol_collector.sources.trade_updates import Update

POLL_S: Final = 5.0  # 24 of 200 requests a minute
LOOKS_S: Final = (0.0, 0.25, 0.5, 1.0, 2.0)  # pauses before reads: the activities may lag the stream
HISTORY_NS_MAX: Final = 7 * 24 * 3600 * NS_PER_S
MARGIN_NS: Final = 24 * 3600 * NS_PER_S  # read before the wanted time, because rows are ordered by date
PAGES_MAX: Final = 200  # per read: 20,000 rows
WHOLE_AGAIN_S: Final = 60.0  # between two readings of the whole day …
WHOLE_PAGE_S: Final = 3.0  # … or this long for each page of the former one: a tenth of the requests
SEEN_MAX: Final = 50_000
LISTEN_PAUSE_S_MIN: Final = 1.0
LISTEN_PAUSE_S_MAX: Final = 60.0  # the longest pause while the stream is refused; polling goes on
REFUSED_MAX: Final = 1_000  # remembered rows that could not be read
PENDING_MAX: Final = 1_000  # remembered rows whose booking has not happened yet
ORDERS_MAX: Final = 1_000  # orders with remembered fills

log = structlog.get_logger()


class ActivityPages(Protocol):
    """A client that reads the account and its rows."""

    async def accounts(self) -> list[ListedAccount]:
        """The one account."""
        ...

    async def activities(self, category: str, page_token: str | None) -> list[Any]:
        """A page of rows, newest first."""
        ...


class TradingFollower:
    """Follows one key's account."""

    def __init__(self, client: ActivityPages, settings: Settings, clock: Clock, inbox: Inbox) -> None:
        self.cursor: str | None = None  # always None: rows are read by id and date
        self.connected = asyncio.Event()
        self.lost_since_s: float | None = clock.monotonic_s()  # monotonic; None while activities can be read
        self._client = client
        self._settings = settings
        self._clock = clock
        self._inbox = inbox
        self._account_id = ""
        self._since_ns: int | None = None
        self._whole_again_s = 0.0  # monotonic; the whole day is not read again before
        self._pages = 0  # read so far
        self._turn = asyncio.Lock()
        self._seen: dict[str, None] = {}
        self._pending: dict[str, None] = {}  # ids of rows whose booking has not happened yet
        self._refused: dict[str, None] = {}
        self._filled: dict[str, Decimal] = {}  # order -> filled quantity according to the rows
        self._expected: dict[str, Decimal] = {}  # order -> filled quantity according to the stream
        self._prompted = asyncio.Event()
        self._has_gap = asyncio.Event()
        self._listen_backoff = Backoff(LISTEN_PAUSE_S_MIN, LISTEN_PAUSE_S_MAX)
        self._listen_pause_s = 0.0

    @property
    def has_history(self) -> bool:
        """Whether the day's activities are known, from the account's cut-off on."""
        return self._since_ns is not None

    @property
    def ahead(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        """Nothing: Alpaca allows one connection to the trade updates of an account."""
        return []

    @property
    def parts(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        """Coroutines to be run side by side under the lease, with their names."""
        return [("activities", self.poll), ("trade updates", self.listen)]

    def is_mute(self) -> bool:
        """Always False: a poll is answered or fails."""
        return False

    async def poll(self) -> NoReturn:
        """Read new activities every POLL_S, and on request. Raises BrokerUnavailable, BrokerRefused."""
        self.connected.set()
        try:
            await self._keep_reading()
        finally:
            self.connected.clear()
            self.lost_since_s = self._clock.monotonic_s()

    async def _keep_reading(self) -> NoReturn:
        looks = 0
        while True:
            if self._expected and looks < len(LOOKS_S):
                await asyncio.sleep(LOOKS_S[looks])
                looks += 1
            elif self._expected:
                log.info(
                    "a fill is missing in the activities: fetching the account", orders=len(self._expected)
                )
                self._expected.clear()
                self._has_gap.set()
            else:
                looks = 0
                await self._wait_prompted()
            if self._since_ns is not None:
                async with self._turn:
                    await self._read(self._since_ns)
            self.lost_since_s = None

    async def _wait_prompted(self) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await self._prompted.wait()
        except TimeoutError:
            pass
        self._prompted.clear()

    async def listen(self) -> None:
        """Follow the trade updates until they are cut. Raises BrokerUnavailable.

        The pause before the next attempt doubles with each failure in a row.
        """
        await asyncio.sleep(self._listen_pause_s)
        self._listen_pause_s = self._listen_backoff.next_s()
        key = self._settings.apca_api_key_id
        secret = self._settings.apca_api_secret_key.get_secret_value()
        url = self._settings.host("trading").replace("http", "ws", 1)
        async with aclosing(trade_updates.updates(url, key, secret, self._connected)) as updates:
            async for update in updates:
                self._expect(update)

    def _connected(self) -> None:
        log.info("trade updates connected")
        self._listen_backoff.reset()
        self._listen_pause_s = 0.0
        self._prompted.set()  # read what happened while the stream was down

    def _expect(self, update: Update) -> None:
        if not update.filled_quantity:
            self._has_gap.set()
        elif self._filled.get(update.order_id, ZERO) < update.filled_quantity:
            self._expected[update.order_id] = update.filled_quantity
            _bound(self._expected, ORDERS_MAX)
        self._prompted.set()

    async def fill_gap(self) -> None:
        """Wait for a change that the activities do not show. The caller must then fetch the account."""
        await self._has_gap.wait()
        self._has_gap.clear()

    async def know_history_since(self, since_ns: int, *, is_whole: bool = False) -> None:
        """Apply what was booked since then, at most HISTORY_NS_MAX ago; read again at each call.

        After a statement this shows what it contains. `is_whole`: read all pages again, if that is due.
        Raises BrokerUnavailable, BrokerRefused, PayloadRefused.
        """
        async with self._turn:
            if not self._account_id:
                self._account_id = (await self._client.accounts())[0].account_id
            since_ns = max(since_ns, self._clock.now_ns() - HISTORY_NS_MAX)
            if self._since_ns is None or since_ns < self._since_ns:
                count = await self._read(since_ns, is_first=True)
                self._since_ns = since_ns
                log.info("activities read", count=count)
            elif is_whole and self._clock.monotonic_s() >= self._whole_again_s:
                await self._read_whole(since_ns)
            else:
                await self._read(since_ns)

    async def _read_whole(self, since_ns: int) -> None:
        before = self._pages
        try:
            count = await self._read(since_ns, is_whole=True)
            log.info("activities read again for an unexplained change", count=count)
        finally:
            pause_s = max(WHOLE_AGAIN_S, WHOLE_PAGE_S * (self._pages - before))
            self._whole_again_s = self._clock.monotonic_s() + pause_s

    async def _read(self, since_ns: int, *, is_first: bool = False, is_whole: bool = False) -> int:
        """Apply the new rows and return their count.

        For the first time, and if whole, back to `since_ns`; otherwise until a page has no new row.
        """
        rows: list[Any] = []
        for category in trading_rows.CATEGORIES:
            rows += await self._new_rows(category, since_ns, is_first or is_whole)
        if not is_first:
            rows = [row for row in rows if self._is_new(row, since_ns - MARGIN_NS)]
        now_ns = self._clock.now_ns()
        seen_ns = None if is_first else now_ns
        for row in reversed(rows):
            try:
                activity = parse.activity(self._event(row, seen_ns, now_ns))
            except PayloadRefused as error:
                self._refuse(row, str(error))
            else:
                self._inbox.take_activity(activity, is_live=False)
                self._note(row)
        return len(rows)

    def _is_new(self, row: Any, read_from_ns: int) -> bool:
        """Whether a row has appeared or changed. One from before what was read first may be an old one."""
        about_ns = trading_rows.about_ns(row)
        is_known = trading_rows.row_id(row).partition("/")[0] in self._seen
        return is_known or about_ns is None or about_ns >= read_from_ns

    def _event(self, row: Any, seen_ns: int | None, now_ns: int) -> dict[str, Any]:
        name = trading_rows.row_id(row)
        was_pending = name.partition("/")[0] in self._pending
        if trading_rows.is_pending(row):
            self._pending[name] = None
            _bound(self._pending, PENDING_MAX)
        return trading_rows.event_of(row, self._account_id, seen_ns, now_ns, was_pending=was_pending)

    def _refuse(self, row: Any, reason: str) -> None:
        """Report an unreadable row once, and try it again at each poll."""
        name = trading_rows.row_name(row)
        if name not in self._refused:
            self._refused[name] = None
            _bound(self._refused, REFUSED_MAX)
            self._inbox.refuse_activity(self._account_id, reason)

    async def _new_rows(self, category: str, since_ns: int, is_deep: bool) -> list[Any]:
        found: dict[str, Any] = {}
        read: set[str] = set()
        token: str | None = None
        for _ in range(PAGES_MAX):
            rows = await self._client.activities(category, token)
            self._pages += 1
            page = {trading_rows.row_name(row): row for row in rows}
            new = {name: row for name, row in page.items() if name not in self._seen}
            found.update(new)
            times_ns = [at_ns for row in rows if (at_ns := trading_rows.about_ns(row)) is not None]
            is_over = bool(times_ns) and sorted(times_ns)[len(times_ns) // 2] < since_ns - MARGIN_NS
            if len(rows) < trading_rows.PAGE_LENGTH or is_over or not (new or is_deep) or page.keys() <= read:
                break
            read.update(page)
            if (token := trading_rows.last_id(rows)) is None:
                raise PayloadRefused(f"{len(rows)} activities in a row, and none has an id")
        return list(found.values())

    def _note(self, row: Any) -> None:
        self._seen[trading_rows.row_name(row)] = None
        _bound(self._seen, SEEN_MAX)
        order_id = row.get("order_id") if isinstance(row, dict) else None
        if isinstance(order_id, str) and order_id:
            try:
                filled = parse.number(row.get("cum_qty"), "cum_qty")
            except PayloadRefused:
                return
            self._filled[order_id] = max(filled, self._filled.pop(order_id, ZERO))
            _bound(self._filled, ORDERS_MAX)
            if self._filled[order_id] >= self._expected.get(order_id, filled):
                self._expected.pop(order_id, None)


def _bound(remembered: dict[str, Any], count_max: int) -> None:
    while len(remembered) > count_max:
        del remembered[next(iter(remembered))]

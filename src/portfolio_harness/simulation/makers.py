"""A simulated collector and a simulated consumer, which write account records and marks.

They use the product's own policies. The broker and the feed are simulated: what `broker_truth` contains is
reported late, and sometimes twice.
"""

import asyncio
import random
from decimal import Decimal
from typing import Final

import msgspec

from portfolio_harness.simulation.broker_truth import (
    BALANCE_ASOF,
    NS,
    SYMBOLS,
    TrueBooking,
    TrueBroker,
    TrueTrade,
    wall_ns,
)
from portfolio_realtime.clock import rfc3339
from portfolio_realtime.market_data_consumer.conditions import stock_effect
from portfolio_realtime.market_data_consumer.mark_book import MarkBook
from portfolio_realtime.market_data_consumer.messages import Snapshot, SnapshotTrade, StreamTrade
from portfolio_realtime.service import Context, keep_running, together, under_lease
from portfolio_realtime.state.connection import Subscribed
from portfolio_realtime.state.feeds import ACCOUNTS
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.symbol_collector.broker_time import BrokerTime, Moment
from portfolio_realtime.symbol_collector.model import AccountState, Activity, Holding, Statement
from portfolio_realtime.symbol_collector.records.account_records import AccountRecords

TURN_S: Final = 0.15  # how often it checks what to fetch and what to write
RECONCILE_S: Final = 4.0  # how often each account is reconciled
REST_LAG_S_MAX: Final = 1.5
KEEP_S: Final = 0.5
FLUSH_S: Final = 0.2
SOURCE: Final = "iex"
REPEAT_RATIO: Final = 0.1


class SimulatedCollector:
    """A symbol collector: the product's account records, with statements and events of a simulated broker."""

    def __init__(self, context: Context, truth: TrueBroker, rng: random.Random) -> None:
        self._context = context
        self._state = context.state
        self._truth = truth
        self._rng = rng
        self._looked_s: dict[str, float] = {}
        self._records: AccountRecords | None = None
        self._broker_time = BrokerTime()
        self.is_heard = True  # whether the broker answers

    async def run(self) -> None:
        """Collect while it holds the lease, forever."""
        await keep_running(
            lambda: under_lease(self._context, "symbol_collector", self._work),
            self._context.clock,
            "collector",
        )

    async def _work(self, lease: Lease) -> None:
        records = self._records = AccountRecords()
        records.begin_versions(lease.fencing_token)
        records.list_accounts(self._truth.accounts)
        self._looked_s.clear()
        for account in self._truth.accounts.values():
            for booking in account.bookings:
                self.take(booking)
        await together(self._look(records), self._write(lease, records), self._keep_live())

    def lose_broker(self) -> None:
        """Let the broker neither answer nor send events."""
        self.is_heard = False

    def find_broker(self) -> None:
        """Let the broker answer again: all events come at once, and every account is reconciled."""
        self.is_heard = True
        self._looked_s.clear()
        for account in self._truth.accounts.values():
            for booking in account.bookings:
                self.take(booking)

    def take(self, booking: TrueBooking) -> None:
        """Receive the event of a booking."""
        if self._records is not None and self.is_heard:
            self._records.apply_activity(_activity(booking), self._context.clock.now_ns())

    async def _look(self, records: AccountRecords) -> None:
        """Fetch statements: of every account every RECONCILE_S, and sooner where a record asks for it."""
        loop, clock = asyncio.get_running_loop(), self._context.clock
        while True:
            for account_id in self._truth.accounts:
                again_ns = records.look_again_ns(account_id)
                is_hurried = again_ns is not None and again_ns <= clock.now_ns()
                is_due = loop.time() - self._looked_s.get(account_id, -RECONCILE_S) >= RECONCILE_S
                if (is_due or is_hurried) and self.is_heard:
                    began = Moment(clock.now_ns(), loop.time())
                    await asyncio.sleep(self._rng.uniform(0.005, 0.05))
                    statement = self._stated(account_id, loop.time())
                    date_s = wall_ns(loop.time()) // NS
                    await asyncio.sleep(self._rng.uniform(0.005, 0.05))
                    self._looked_s[account_id] = loop.time()
                    ended = Moment(clock.now_ns(), loop.time())
                    self._broker_time.learn(date_s, began.monotonic_s, ended.monotonic_s)
                    asked = self._broker_time.span(began, ended)
                    records.observe(statement, began.at_ns, ended.at_ns, asked)
            await asyncio.sleep(TURN_S)

    def _stated(self, account_id: str, now_s: float) -> Statement:
        as_of_s = now_s - self._rng.choice((0.0, 0.0, self._rng.uniform(0, REST_LAG_S_MAX)))
        cash, held = self._truth.stated(account_id, as_of_s, as_of_s)
        state = AccountState(account_id, "ACTIVE", "USD", cash, Decimal(1000), BALANCE_ASOF)
        holdings = {
            symbol: Holding(symbol, "us_equity", quantity, 10 * quantity) for symbol, quantity in held.items()
        }
        return Statement(state, holdings)

    async def _write(self, lease: Lease, records: AccountRecords) -> None:
        while True:
            if records.has_changes:
                added, changed, gone = records.take_changes(100)
                if added:
                    await self._state.accounts.write_universe(lease, added, [])
                await self._state.accounts.write(lease, changed)
                await self._state.accounts.remove(lease, gone)
            await asyncio.sleep(TURN_S)

    async def _keep_live(self) -> None:
        while True:
            if self.is_heard:
                await self._state.feeds.keep(ACCOUNTS)
            await asyncio.sleep(KEEP_S)


class SimulatedConsumer:
    """A market data consumer: marks by the product's `MarkBook`, trades of a simulated feed."""

    def __init__(self, context: Context, truth: TrueBroker) -> None:
        self._context = context
        self._state = context.state
        self._truth = truth
        self._book = MarkBook(SOURCE, stock_effect)
        self._book.follow(SYMBOLS)
        self.is_live = False
        self.connect()

    def connect(self) -> None:
        """Connect to the feed, and read a snapshot of each symbol."""
        self.is_live = True
        now_ns = self._context.clock.now_ns()
        for symbol, trade in self._truth.newest.items():
            snapshot = Snapshot(
                SnapshotTrade(trade.price, rfc3339(wall_ns(trade.at_s)), ("@",), "C", "D", trade.number)
            )
            self._book.add_snapshot(symbol, snapshot, "2025-11-21", now_ns)

    def disconnect(self) -> None:
        """Lose the feed."""
        self.is_live = False

    def take(self, trade: TrueTrade) -> None:
        """Receive a trade, if the feed is connected."""
        if self.is_live:
            conditions = ("@",) if trade.moves else ("@", "I")
            at = msgspec.Raw(msgspec.json.encode(rfc3339(wall_ns(trade.at_s))))
            streamed = StreamTrade(trade.symbol, trade.price, at, conditions, "C", "D", trade.number)
            self._book.add_trade(streamed, self._context.clock.now_ns())

    async def run(self) -> None:
        """Write marks while it holds the lease, forever."""
        await keep_running(
            lambda: under_lease(self._context, "market_data:stocks", self._own),
            self._context.clock,
            "consumer",
        )

    async def _own(self, lease: Lease) -> None:
        self._book.begin_versions(lease.fencing_token)
        await together(self._follow(), self._flush(lease), self._keep_live())

    async def _follow(self) -> None:
        async for message in self._state.accounts.universe_changes():
            if isinstance(message, Subscribed):
                self._book.touch_all()

    async def _flush(self, lease: Lease) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            if changed := self._book.take_changed():
                await self._state.marks.write(lease, [mark for mark, _ in changed])

    async def _keep_live(self) -> None:
        while True:
            if self.is_live:
                await self._state.feeds.keep(SOURCE)
            await asyncio.sleep(KEEP_S)


def _activity(booking: TrueBooking) -> Activity:
    name, at_ns = f"booking-{booking.number:06d}", wall_ns(booking.at_s)
    kind = "TRD" if booking.symbol else "CSD" if booking.amount > 0 else "CSW"
    return Activity(
        account_id=booking.account_id,
        event_id=name,
        ref_id=name,
        previous_id=None,
        activity_type=kind,
        status="executed",
        symbol=booking.symbol,
        quantity=booking.quantity,
        price=booking.price,
        net_amount=booking.amount,
        executed_ns=at_ns,
        published_ns=at_ns,
    )

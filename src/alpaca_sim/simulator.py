"""The simulator as one object: settings, market, ledger, trader, streams, and the loop that drives them."""

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, time
from typing import Protocol

from alpaca_sim.core import accounts
from alpaca_sim.core.agenda import Agenda
from alpaca_sim.core.books import HISTORY_DAYS_MAX, Books
from alpaca_sim.core.clock import SECOND_NS, Clock, MovableClock, new_york
from alpaca_sim.core.corporate import CorporateActions
from alpaca_sim.core.credentials import Credentials, RateLimit
from alpaca_sim.core.faults import Change, Fault, Faults, Plan
from alpaca_sim.core.ledger import Activity, Ledger
from alpaca_sim.core.listings import COIN_PAIR, make_listings
from alpaca_sim.core.market import MINUTE_NS, Market
from alpaca_sim.core.odd_bookings import OddBookings
from alpaca_sim.core.past import invented_days
from alpaca_sim.core.sessions import ALWAYS, Calendar
from alpaca_sim.core.statuses import Statuses
from alpaca_sim.core.switches import Switches
from alpaca_sim.core.trader import Trader
from alpaca_sim.core.ulid import UlidSequence
from alpaca_sim.core.walk import RandomWalk
from alpaca_sim.streams.activity_index import ActivityIndex
from alpaca_sim.streams.event_streams import EventStreams
from alpaca_sim.streams.feeds import Feeds, Subscriber

TICK_S = 0.015
STEP_S_MAX = 1.0  # the longest pause of the process that one step catches up on
FLUSH_S_MAX = 2.0
FLUSH_POLL_S = 0.005
JUMP_STEP_S = 1.0  # simulated seconds per step of a jump in which the market trades


@dataclass(frozen=True, slots=True)
class Settings:
    """The simulator's options; `cli.py` explains each. Times are in seconds."""

    account_count: int = 20
    symbol_count: int = 200
    seed: int = 7
    trades_per_second: float = 200.0
    activities_per_second: float = 0.5
    rate_limit: int = 10_000
    key: str = "sim-key"
    secret: str = "sim-secret"  # noqa: S105 - the documented default of a simulator
    heartbeat_s: float = 5.0
    rest_lag_s: float = 0.0
    market_connection_limit: int = 5
    market_symbol_limit: int = 0
    denied_feeds: frozenset[str] = frozenset()
    delay_s: float = 0.0  # of the delayed feeds
    has_history: bool = True  # some accounts have traded and moved cash since the last close
    past_days: int = 0  # invented days of portfolio history per account; at most HISTORY_DAYS_MAX
    calendar: str = ALWAYS  # or nyse: sessions, weekends, holidays, half days
    roll_at: time | None = None  # New York time of the overnight roll; None: never
    switches: Switches = field(default_factory=Switches)


class TradeSource(Protocol):
    """A source of market trades: the random walk or a tape. `is_done`: no trade follows any more."""

    is_done: bool

    def step(self, elapsed_s: float) -> None:
        """Print the trades of the next `elapsed_s` seconds."""


class Simulator:
    """Everything behind the routes.

    The application sets `abort`, which closes a client's connection at once, `freeze`, which stops reading
    from it, and `on_fault`, which carries out the beginning or the end of a fault.
    """

    def __init__(
        self, settings: Settings, clock: Clock, source: Callable[[Market], TradeSource] | None = None
    ) -> None:
        """Create the market and its accounts.

        `source` lists the symbols and makes the trades. Without it, the market is a random walk.
        """
        self.settings = settings
        self.clock = clock
        self.is_paused = False
        self.abort: Callable[[tuple[str, int]], None] = lambda _client: None
        self.freeze: Callable[[tuple[str, int]], None] = lambda _client: None
        self.on_fault: Callable[[Change], None] = lambda _change: None
        # Tokens and rate limits follow the wall clock: clients wait in real time, however fast the market is.
        self.service_clock = Clock() if isinstance(clock, MovableClock) else clock
        self.faults = Faults()
        self.halted_by: dict[Fault, list[str]] = {}  # the symbols that each fault has halted
        self.agenda = Agenda()
        self.calendar = Calendar(settings.calendar)
        self.sockets: set[Subscriber] = set()
        seed = settings.seed
        now = clock.now_ns()
        has_days = settings.roll_at is not None or not self.calendar.is_always
        self.market = Market(clock, self.calendar if has_days else None)
        self.source = source(self.market) if source else self._random_market(settings)
        self.ledger = Ledger(self.market, UlidSequence(random.Random(f"{seed}/ulid")))
        self.control_rng = random.Random(f"{seed}/control")
        self.trader = Trader(
            self.ledger, self.market, clock, random.Random(f"{seed}/trader"), settings.activities_per_second
        )
        self.books = Books(
            self.ledger,
            self.market,
            self.trader,
            self.calendar,
            self.agenda,
            settings.roll_at,
            settings.switches.crypto_fee == "asset",
        )
        balance_date = self.books.first_balance_date(now)
        rng = random.Random(f"{seed}/accounts")
        accounts.generate(self.ledger, self.market, settings.account_count, rng)
        if settings.has_history:
            accounts.replay_since_close(self.ledger, self.trader, rng, balance_date, now)
        for account in self.ledger.accounts.values() if settings.past_days else ():
            days = min(settings.past_days, HISTORY_DAYS_MAX)
            past_rng = random.Random(f"{seed}/past/{account.account_id}")
            self.books.history[account.account_id] = invented_days(
                account.last_equity,
                balance_date,
                days,
                lambda day: self.calendar.previous_day(day).day,
                past_rng,
            )
        self.books.start(balance_date)
        self.corporate = CorporateActions(self.ledger, self.market, self.trader, self.agenda, clock)
        self.odd_bookings = OddBookings(
            self.ledger,
            self.market,
            self.trader,
            self.agenda,
            clock,
            random.Random(f"{seed}/odd"),
            settings.switches.legs,
        )
        if settings.switches.crypto_fee == "at_fill":
            self.trader.on_trade = self.odd_bookings.take_fee
        self.credentials = Credentials(settings.key, settings.secret, self.service_clock)
        self.rate_limit = RateLimit(settings.rate_limit, self.service_clock)
        self.activity_index = ActivityIndex(self.ledger)
        self.events = EventStreams(clock, settings.heartbeat_s, self.faults, settings.switches)
        self.feeds = Feeds(self.market, self.faults, clock, settings.delay_s)
        self.market.on_trade = self.feeds.publish
        self.market.on_amendment = self.feeds.publish_amendment
        self.market.on_halt = self.feeds.publish_halt
        self.statuses = Statuses(self.ledger, clock)
        self.books.on_event = self.statuses.on_event = self.events.notify
        self.ledger.on_activity = self._notify
        self._minute = now // MINUTE_NS
        self._is_jumping = False

    def _random_market(self, settings: Settings) -> RandomWalk:
        rng = random.Random(f"{settings.seed}/market")
        switches = settings.switches
        has_digits = switches.option_roots == "adjusted"
        today = new_york(self.clock.now_ns()).date()
        for listing in make_listings(settings.symbol_count, rng, today, has_digits):
            self.market.list_symbol(listing)
        if switches.coin_pairs == "yes":
            self.market.list_symbol(COIN_PAIR)
        return RandomWalk(self.market, rng, settings.trades_per_second, self.clock, self.calendar)

    def _notify(self, _activity: Activity) -> None:
        self.events.notify()

    @property
    def balance_date(self) -> date:
        """The New York day of the `last_` figures: Alpaca's `balance_asof`."""
        return self.books.balance_date

    @property
    def reported_now_ns(self) -> int:
        """The time that the server reports, in ns since the epoch: wrong during the fault `clock.skew`."""
        return self.clock.now_ns() + self.market.skew_ns

    @property
    def rest_lag_s(self) -> float:
        """Seconds by which REST is behind the events now: the setting or the fault `rest.lag`."""
        return max(self.settings.rest_lag_s, self.faults.level("rest.lag") or 0.0)

    async def run(self) -> None:
        """Move the market and the accounts with the wall clock until cancelled.

        With speed 0 only `jump` moves them; this loop then only flushes the feeds.
        """
        loop = asyncio.get_running_loop()
        stands_still = isinstance(self.clock, MovableClock) and not self.clock.speed
        last = loop.time()
        while True:
            await asyncio.sleep(TICK_S)
            now = loop.time()
            elapsed_s, last = min(now - last, STEP_S_MAX), now
            if not stands_still and not self._is_jumping:
                self.step_faults(elapsed_s)
                self._move(elapsed_s)
            self.feeds.flush()

    def _move(self, elapsed_s: float) -> None:
        """Run the jobs that are due, then trade for `elapsed_s` seconds."""
        self.agenda.run(self.clock.now_ns())
        if not self.is_paused:
            self.source.step(elapsed_s)
            self.trader.step(elapsed_s)
        if self.clock.now_ns() // MINUTE_NS != self._minute:
            self.feeds.publish_bars(self._minute * MINUTE_NS)
            self._minute = self.clock.now_ns() // MINUTE_NS

    def install(self, plan: Plan) -> None:
        """Start a fault plan now. Raises PlanError when too many faults would wait."""
        self.faults.install(plan)
        self.step_faults(0)

    def end_faults(self) -> None:
        """End all active faults now and drop the waiting ones."""
        for change in self.faults.clear():
            self.on_fault(change)

    def step_faults(self, elapsed_s: float) -> None:
        """Advance the fault plans by `elapsed_s` seconds, and carry out what begins and ends."""
        for change in self.faults.step(elapsed_s, market_stands_still=self.is_paused):
            self.on_fault(change)

    def jump(self, to_ns: int, moves: bool) -> Iterator[None]:
        """Move the clock ahead to `to_ns`, yielding after each piece. Needs a MovableClock.

        Every job runs at its own simulated time. With `moves`, the market and the accounts trade in steps of
        `JUMP_STEP_S`. Faults follow the wall clock, except at speed 0, where they follow the jump.
        """
        clock = self.clock
        assert isinstance(clock, MovableClock) and not self._is_jumping
        self._is_jumping = True
        try:
            while (now_ns := clock.now_ns()) < to_ns:
                due_ns = self.agenda.next_ns
                target_ns = to_ns if due_ns is None else max(now_ns, min(due_ns, to_ns))
                if moves:
                    target_ns = min(target_ns, now_ns + int(JUMP_STEP_S * SECOND_NS))
                clock.move_to(target_ns)
                elapsed_s = (target_ns - now_ns) / SECOND_NS
                if not clock.speed:
                    self.step_faults(elapsed_s)
                if moves:
                    self._move(elapsed_s)
                else:
                    self.agenda.run(clock.now_ns())
                self.feeds.flush()
                yield
        finally:
            self._is_jumping = False

    @property
    def is_jumping(self) -> bool:
        """Whether a jump is in progress."""
        return self._is_jumping

    async def flush(self) -> bool:
        """Send everything published so far; false when a client took longer than `FLUSH_S_MAX` to read."""
        self.feeds.flush()
        deadline = asyncio.get_running_loop().time() + FLUSH_S_MAX
        while not (self.feeds.is_flushed and self.events.is_flushed):
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(FLUSH_POLL_S)
        return True

    def close(self) -> None:
        """End all event streams and abort all market-data connections, for shutdown."""
        self.events.close()
        for subscriber in list(self.sockets):
            self.abort(subscriber.client)

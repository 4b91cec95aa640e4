"""The simulator as one object: settings, market, ledger, traders and streams, and the loop that drives
them.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Protocol

from alpaca_sim import accounts
from alpaca_sim.activities_rest import ActivityIndex
from alpaca_sim.auth import Credentials, RateLimit
from alpaca_sim.clock import Clock, new_york
from alpaca_sim.events import EventStreams
from alpaca_sim.ledger import Activity, Ledger
from alpaca_sim.listings import make_listings
from alpaca_sim.market import MINUTE_NS, Market
from alpaca_sim.stream_feeds import Feeds, Subscriber
from alpaca_sim.trader import Trader
from alpaca_sim.ulid import UlidSequence
from alpaca_sim.walk import RandomWalk

TICK_S = 0.015
STEP_S_MAX = 1.0  # a pause of the process is not made up for beyond this
FLUSH_S_MAX = 2.0
FLUSH_POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line sets."""

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
    has_history: bool = True  # some accounts have already traded and moved cash since the last close


class TradeSource(Protocol):
    """What makes the market's trades."""

    is_done: bool

    def step(self, elapsed_s: float) -> None:
        """Print the trades of this slice of time."""


class Simulator:
    """Everything behind the routes. `abort` cuts the connection of a client address."""

    def __init__(
        self, settings: Settings, clock: Clock, source: Callable[[Market], TradeSource] | None = None
    ) -> None:
        """Build market and accounts. `source` lists the symbols itself; without it the market is random."""
        self.settings = settings
        self.clock = clock
        self.is_paused = False
        self.abort: Callable[[tuple[str, int]], None] = lambda _client: None
        self.sockets: set[Subscriber] = set()
        seed = settings.seed
        now = clock.now_ns()
        self.balance_date: date = new_york(now).date() - timedelta(days=1)
        self.market = Market(clock)
        self.source = source(self.market) if source else self._random_market(settings)
        self.ledger = Ledger(self.market, UlidSequence(random.Random(f"{seed}/ulid")))
        self.control_rng = random.Random(f"{seed}/control")
        self.trader = Trader(
            self.ledger, self.market, clock, random.Random(f"{seed}/trader"), settings.activities_per_second
        )
        rng = random.Random(f"{seed}/accounts")
        accounts.generate(self.ledger, self.market, settings.account_count, rng)
        if settings.has_history:
            accounts.replay_since_close(self.ledger, self.trader, rng, now)
        self.credentials = Credentials(settings.key, settings.secret, clock)
        self.rate_limit = RateLimit(settings.rate_limit, clock)
        self.activity_index = ActivityIndex(self.ledger)
        self.events = EventStreams(self.ledger, clock, settings.heartbeat_s)
        self.feeds = Feeds(self.market)
        self.market.on_trade = self.feeds.publish
        self.ledger.on_activity = self._notify

    def _random_market(self, settings: Settings) -> RandomWalk:
        rng = random.Random(f"{settings.seed}/market")
        for listing in make_listings(settings.symbol_count, rng, new_york(self.clock.now_ns()).date()):
            self.market.list_symbol(listing)
        return RandomWalk(self.market, rng, settings.trades_per_second)

    def _notify(self, _activity: Activity) -> None:
        self.events.notify()

    async def run(self) -> None:
        """Drive market and accounts by the wall clock until cancelled."""
        loop = asyncio.get_running_loop()
        last = loop.time()
        minute = self.clock.now_ns() // MINUTE_NS
        while True:
            await asyncio.sleep(TICK_S)
            now = loop.time()
            elapsed_s, last = min(now - last, STEP_S_MAX), now
            if not self.is_paused:
                self.source.step(elapsed_s)
                self.trader.step(elapsed_s)
            if self.clock.now_ns() // MINUTE_NS != minute:
                self.feeds.publish_bars(minute * MINUTE_NS)
                minute = self.clock.now_ns() // MINUTE_NS
            self.feeds.flush()

    async def flush(self) -> bool:
        """Hand everything emitted to the sockets; false when a reader took longer than `FLUSH_S_MAX`."""
        self.feeds.flush()
        deadline = asyncio.get_running_loop().time() + FLUSH_S_MAX
        while not (self.feeds.is_flushed and self.events.is_flushed):
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(FLUSH_POLL_S)
        return True

    def close(self) -> None:
        """End all streams, for shutdown."""
        self.events.close()
        for subscriber in list(self.sockets):
            self.abort(subscriber.client)

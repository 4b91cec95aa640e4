"""The market: each symbol's last eligible price (the mark), the trade behind it, its bars and a bounded
price history.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple
from uuid import NAMESPACE_URL, UUID, uuid5

from alpaca_sim.clock import SECOND_NS, Clock
from alpaca_sim.conditions import counts_volume, moves_daily_bar, moves_price, regular_condition
from alpaca_sim.decimals import ZERO

HISTORY_MARKS_MAX = 10_000
HISTORY_S_MAX = 300
MINUTE_NS = 60 * SECOND_NS
TEST_SYMBOL = "FAKEPACA"  # the only symbol of the test feed
OPTION_MULTIPLIER = Decimal(100)


class Trade(NamedTuple):
    """One executed print. Price in dollars; size in shares, coins or contracts."""

    symbol: str
    asset_class: str
    price: Decimal
    size: Decimal
    conditions: tuple[str, ...]
    exchange: str
    tape: str
    trade_id: int
    at_ns: int
    taker_side: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What does not change about a symbol. `price_decimals` is the number of decimals of its prices."""

    symbol: str
    name: str
    asset_class: str
    exchange: str
    tape: str
    first_price: Decimal
    previous_close: Decimal
    price_decimals: int

    @property
    def multiplier(self) -> Decimal:
        """Units of the underlying in one unit of quantity: 100 for an option contract, else 1."""
        return OPTION_MULTIPLIER if self.asset_class == "us_option" else Decimal(1)

    @property
    def asset_id(self) -> str:
        """A UUID that depends on the symbol alone."""
        return str(asset_id_of(self.symbol))


def asset_id_of(symbol: str) -> UUID:
    """The asset id of a symbol."""
    return uuid5(NAMESPACE_URL, f"alpaca-sim/asset/{symbol}")


@dataclass(slots=True)
class Bar:
    """Open, high, low and close of eligible trades, volume of all that count."""

    start_ns: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal = ZERO
    trade_count: int = 0
    traded_value: Decimal = ZERO

    def add(self, trade: Trade, moves: bool) -> None:
        """Count one trade; let it set prices only where its conditions allow."""
        if moves:
            self.high = max(self.high, trade.price)
            self.low = min(self.low, trade.price)
            self.close = trade.price
        if counts_volume(trade.conditions):
            self.volume += trade.size
            self.trade_count += 1
            self.traded_value += trade.price * trade.size


def _bar_at(price: Decimal, start_ns: int) -> Bar:
    return Bar(start_ns, price, price, price, price)


@dataclass(slots=True)
class MarketSymbol:
    """One symbol's present state."""

    listing: Listing
    mark_trade: Trade  # the last eligible trade: its price is the mark
    minute_bar: Bar
    daily_bar: Bar
    history: deque[tuple[int, Decimal]] = field(default_factory=lambda: deque(maxlen=HISTORY_MARKS_MAX))

    @property
    def mark(self) -> Decimal:
        """The last eligible price."""
        return self.mark_trade.price

    def take(self, trade: Trade) -> bool:
        """Apply one trade; true if it moved the mark."""
        listing = self.listing
        moves = moves_price(listing.asset_class, trade.tape, trade.conditions, has_price=True)
        minute_start_ns = trade.at_ns - trade.at_ns % MINUTE_NS
        if self.minute_bar.start_ns != minute_start_ns and moves:
            self.minute_bar = _bar_at(trade.price, minute_start_ns)
        if self.minute_bar.start_ns == minute_start_ns:
            self.minute_bar.add(trade, moves)
        self.daily_bar.add(trade, moves and moves_daily_bar(trade.conditions))
        if moves:
            self.mark_trade = trade
            self.remember(trade)
        return moves

    def remember(self, trade: Trade) -> None:
        """Add to the price history and drop what is older than the limit, but for one entry before it."""
        self.history.append((trade.at_ns, trade.price))
        oldest_ns = trade.at_ns - HISTORY_S_MAX * SECOND_NS
        while len(self.history) > 1 and self.history[1][0] <= oldest_ns:
            self.history.popleft()

    def mark_at(self, at_ns: int) -> Decimal:
        """The mark at a past moment. Raises LookupError where the history does not reach."""
        for marked_ns, price in reversed(self.history):
            if marked_ns <= at_ns:
                return price
        raise LookupError(f"no price of {self.listing.symbol} is kept for that time")


class Market:
    """All symbols. Each trade passes through `print_trade`, which tells the listener."""

    def __init__(self, clock: Clock) -> None:
        """An empty market; `on_trade` is called with every trade, eligible or not."""
        self.symbols: dict[str, MarketSymbol] = {}
        self.on_trade: Callable[[Trade], None] = lambda _trade: None
        self.trade_count = 0
        self._clock = clock
        self._trade_id = 0

    def list_symbol(self, listing: Listing) -> Trade:
        """Open a symbol with one real first trade, so that nothing is ever unpriced."""
        tape = listing.tape
        trade = self._trade(listing, listing.first_price, Decimal(100), _first_conditions(listing), tape)
        start_ns = trade.at_ns - trade.at_ns % MINUTE_NS
        bars = _bar_at(trade.price, start_ns), _bar_at(trade.price, start_ns)
        symbol = MarketSymbol(listing, trade, *bars)
        for bar in bars:
            bar.add(trade, moves=True)
        symbol.remember(trade)
        self.symbols[listing.symbol] = symbol
        self.on_trade(trade)
        return trade

    def print_trade(
        self, symbol: str, price: Decimal, size: Decimal, conditions: Sequence[str], exchange: str = ""
    ) -> bool:
        """One market trade, now. Returns whether it moved the mark. Raises KeyError for an unknown symbol."""
        state = self.symbols[symbol]
        trade = self._trade(state.listing, price, size, tuple(conditions), state.listing.tape, exchange)
        moved = state.take(trade)
        self.trade_count += 1
        self.on_trade(trade)
        return moved

    def _trade(
        self,
        listing: Listing,
        price: Decimal,
        size: Decimal,
        conditions: tuple[str, ...],
        tape: str,
        exchange: str = "",
    ) -> Trade:
        self._trade_id += 1
        taker_side = "B" if self._trade_id % 2 else "S"
        at_ns = self._clock.stamp_ns()
        venue = exchange or _first_venue(listing)
        return Trade(
            listing.symbol,
            listing.asset_class,
            price,
            size,
            conditions,
            venue,
            tape,
            self._trade_id,
            at_ns,
            taker_side,
        )

    def mark(self, symbol: str) -> Decimal:
        """The symbol's last eligible price."""
        return self.symbols[symbol].mark_trade.price

    def listing(self, symbol: str) -> Listing:
        """What does not change about the symbol."""
        return self.symbols[symbol].listing


def _first_conditions(listing: Listing) -> tuple[str, ...]:
    if listing.asset_class == "us_option":
        return ("I",)
    return () if listing.asset_class == "crypto" else (regular_condition(listing.tape),)


def _first_venue(listing: Listing) -> str:
    return {"A": "N", "B": "P", "C": "Q"}.get(listing.tape, "")

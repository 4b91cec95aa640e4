"""The market: each symbol's last eligible trade (its price is the mark), its bars and its price history."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from typing import NamedTuple
from uuid import NAMESPACE_URL, UUID, uuid5

from alpaca_sim.core.clock import SECOND_NS, Clock, new_york
from alpaca_sim.core.conditions import (
    counts_volume,
    moves_daily_bar,
    moves_night_price,
    moves_price,
    regular_condition,
)
from alpaca_sim.core.decimals import ZERO
from alpaca_sim.core.sessions import Calendar

HISTORY_MARKS_MAX = 10_000
HISTORY_S_MAX = 300
RECENT_TRADES_MAX = (
    16  # eligible trades kept per symbol: when the last one is cancelled, the one before counts
)
MINUTE_NS = 60 * SECOND_NS
TEST_SYMBOL = "FAKEPACA"  # the only symbol of the test feed
# Trades of the overnight tape never set a mark: whether Alpaca's own figures use them is not known.
OVERNIGHT_TAPE = "N"
OPTION_MULTIPLIER = Decimal(100)


class Trade(NamedTuple):
    """One market trade. `price` is in dollars; `size` is in shares, coins or contracts."""

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
    """The static facts of a symbol. Prices are in dollars and have `price_decimals` decimals."""

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
        """Shares per contract: 100 for an option, else 1."""
        return OPTION_MULTIPLIER if self.asset_class == "us_option" else Decimal(1)

    @property
    def asset_id(self) -> str:
        """The symbol's asset id as text."""
        return str(asset_id_of(self.symbol))


def asset_id_of(symbol: str) -> UUID:
    """A UUID that depends on the name alone: a symbol's asset id, or the id of a corporate action."""
    return uuid5(NAMESPACE_URL, f"alpaca-sim/asset/{symbol}")


@dataclass(slots=True)
class Bar:
    """One bar: prices of the eligible trades, and volume of all trades that count for volume."""

    start_ns: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal = ZERO
    trade_count: int = 0
    traded_value: Decimal = ZERO

    def add(self, trade: Trade, moves: bool) -> None:
        """Add one trade. It sets prices only if `moves`."""
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
    """The present state of one symbol."""

    listing: Listing
    mark_trade: Trade  # the last eligible trade: its price is the mark
    minute_bar: Bar
    daily_bar: Bar
    close: Decimal  # the raw close of `balance_asof`; `listing.previous_close` is adjusted for splits
    day: date | None = None  # the New York day of the daily bar; None without a calendar: always today's
    previous_bar: Bar | None = None
    previous_day: date | None = None
    night_trade: Trade | None = None  # the last eligible trade of the overnight market
    is_unpriced: bool = False  # it has never traded and has no price
    is_halted: bool = False
    recent: deque[Trade] = field(default_factory=lambda: deque(maxlen=RECENT_TRADES_MAX))
    history: deque[tuple[int, Decimal]] = field(default_factory=lambda: deque(maxlen=HISTORY_MARKS_MAX))

    @property
    def mark(self) -> Decimal:
        """The price of the last eligible trade, in dollars."""
        return self.mark_trade.price

    def record_trade(self, trade: Trade, day: date | None = None) -> bool:
        """Apply one trade, and return whether it set the mark.

        `day` is the trade's New York day; None in a market without a calendar.
        """
        if trade.tape == OVERNIGHT_TAPE:
            self._take_by_night(trade)
            return False
        listing = self.listing
        moves = moves_price(listing.asset_class, trade.tape, trade.conditions, has_price=True)
        minute_start_ns = trade.at_ns - trade.at_ns % MINUTE_NS
        if self.minute_bar.start_ns != minute_start_ns and moves:
            self.minute_bar = _bar_at(trade.price, minute_start_ns)
        if self.minute_bar.start_ns == minute_start_ns:
            self.minute_bar.add(trade, moves)
        moves_day = moves and moves_daily_bar(trade.conditions)
        if day is not None and moves_day and self.day != day:
            self._begin_day(trade, day)
        if self.day == day:
            self.daily_bar.add(trade, moves_day)
        if moves:
            self.is_unpriced = False
            self.mark_trade = trade
            self.recent.append(trade)
            self.remember(trade.at_ns, trade.price)
        return moves

    def _take_by_night(self, trade: Trade) -> None:
        if moves_night_price(trade.conditions):
            self.night_trade = trade

    def _begin_day(self, trade: Trade, day: date) -> None:
        """Begin a new daily bar with the day's first trade that sets one; until then the old bar stays."""
        self.previous_bar, self.previous_day = self.daily_bar, self.day
        self.daily_bar, self.day = _bar_at(trade.price, trade.at_ns), day

    def replace_mark(self, trade: Trade, at_ns: int) -> None:
        """Make another trade the last eligible one, after a correction or a cancel at `at_ns`."""
        for bar in (self.minute_bar, self.daily_bar):
            if bar.close == self.mark:
                bar.close = trade.price
        self.mark_trade = trade
        self.remember(at_ns, trade.price)

    def remember(self, at_ns: int, price: Decimal) -> None:
        """Add a price to the history. Drop entries older than `HISTORY_S_MAX`, except the newest of them."""
        self.history.append((at_ns, price))
        oldest_ns = at_ns - HISTORY_S_MAX * SECOND_NS
        while len(self.history) > 1 and self.history[1][0] <= oldest_ns:
            self.history.popleft()

    def mark_at(self, at_ns: int) -> tuple[int, Decimal]:
        """The mark at a past time, and since when. Raises LookupError for a time before the price history."""
        for marked_ns, price in reversed(self.history):
            if marked_ns <= at_ns:
                return marked_ns, price
        raise LookupError(f"no price of {self.listing.symbol} is kept for that time")


class Amendment(NamedTuple):
    """A late correction of a symbol's last trade, or its cancel (`corrected` is None)."""

    original: Trade
    corrected: Trade | None
    at_ns: int


class Market:
    """All symbols. `on_trade` is called with every trade, eligible or not."""

    def __init__(self, clock: Clock, calendar: Calendar | None = None) -> None:
        """Start without symbols. With a `calendar`, each day has a daily bar; without one, it never ends."""
        self.symbols: dict[str, MarketSymbol] = {}
        self.on_trade: Callable[[Trade], None] = lambda _trade: None
        self.on_amendment: Callable[[Amendment], None] = lambda _amendment: None
        self.on_halt: Callable[[MarketSymbol, int], None] = lambda _state, _at_ns: None
        self.calendar = calendar
        self.skew_ns = 0  # the error of trade times during the fault `clock.skew`
        self.trade_count = 0
        self._clock = clock
        self._trade_id = 0

    def list_symbol(self, listing: Listing, is_unpriced: bool = False) -> Trade:
        """List a symbol with a first trade, and return that trade.

        The first trade of an unpriced symbol is not published: the symbol has no price until it trades.
        """
        tape = listing.tape
        trade = self._trade(listing, listing.first_price, Decimal(100), _first_conditions(listing), tape)
        start_ns = trade.at_ns - trade.at_ns % MINUTE_NS
        bars = _bar_at(trade.price, start_ns), _bar_at(trade.price, start_ns)
        symbol = MarketSymbol(listing, trade, *bars, listing.previous_close, is_unpriced=is_unpriced)
        for bar in bars:
            bar.add(trade, moves=True)
        symbol.recent.append(trade)
        symbol.remember(trade.at_ns, trade.price)
        self.symbols[listing.symbol] = symbol
        self._set_days(symbol, trade.at_ns)
        if not is_unpriced:
            self.on_trade(trade)
        return trade

    def _set_days(self, symbol: MarketSymbol, at_ns: int) -> None:
        if self.calendar is None or symbol.listing.asset_class == "test":
            return
        close = symbol.listing.previous_close
        opened = self.calendar.opened_day(at_ns).day
        symbol.day, symbol.previous_day = opened, self.calendar.previous_day(opened).day
        symbol.previous_bar = _bar_at(close, 0)
        if self.calendar.session(at_ns) not in ("core", "post"):
            # No trade has set today's bar yet, so it is the last day's.
            symbol.daily_bar = _bar_at(close, 0)

    def _day_of(self, listing: Listing, at_ns: int) -> date | None:
        return None if self.calendar is None or listing.asset_class == "test" else new_york(at_ns).date()

    def print_trade(
        self,
        symbol: str,
        price: Decimal,
        size: Decimal,
        conditions: Sequence[str],
        exchange: str = "",
        tape: str | None = None,
    ) -> bool:
        """Print one market trade now, by default on the symbol's own tape. Returns whether it set the mark.

        Raises KeyError for an unknown symbol.
        """
        state = self.symbols[symbol]
        own_tape = state.listing.tape if tape is None else tape
        trade = self._trade(state.listing, price, size, tuple(conditions), own_tape, exchange)
        moved = state.record_trade(trade, self._day_of(state.listing, self._clock.now_ns()))
        self.trade_count += 1
        self.on_trade(trade)
        return moved

    def correct(self, symbol: str, price: Decimal) -> bool:
        """Correct the price of the last eligible trade. False: the symbol is no stock or has no price."""
        state = self.symbols[symbol]
        original = state.mark_trade
        if original.asset_class != "us_equity" or state.is_unpriced:
            return False
        self._trade_id += 1
        corrected = original._replace(price=price, trade_id=self._trade_id)
        self._amend(state, Amendment(original, corrected, self._clock.stamp_ns()))
        return True

    def cancel(self, symbol: str) -> bool:
        """Cancel the last eligible trade; the one before it counts again. False: no stock, or none before."""
        state = self.symbols[symbol]
        if state.mark_trade.asset_class != "us_equity" or len(state.recent) < 2:
            return False
        self._amend(state, Amendment(state.mark_trade, None, self._clock.stamp_ns()))
        return True

    def _amend(self, state: MarketSymbol, amendment: Amendment) -> None:
        state.recent.pop()
        if amendment.corrected is not None:
            state.recent.append(amendment.corrected)
        state.replace_mark(state.recent[-1], amendment.at_ns)
        self.on_amendment(amendment)

    def set_halted(self, symbol: str, is_halted: bool) -> None:
        """Halt or resume a symbol and publish it. The random walk does not trade a halted symbol."""
        state = self.symbols[symbol]
        state.is_halted = is_halted
        self.on_halt(state, self._clock.stamp_ns())

    def set_previous_close(self, symbol: str, close: Decimal, raw: Decimal | None = None) -> None:
        """Replace the previous close; `raw` also replaces the close that balances are valued with."""
        state = self.symbols[symbol]
        state.listing = replace(state.listing, previous_close=close)
        if raw is not None:
            state.close = raw

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
        at_ns = self._clock.stamp_ns() + self.skew_ns
        state = self.symbols.get(listing.symbol)
        # Also with a skewed clock, the times of a symbol's trades increase.
        if state is not None:
            at_ns = max(at_ns, state.mark_trade.at_ns + 1)
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
        """The symbol's mark in dollars. Raises KeyError for an unknown symbol."""
        return self.symbols[symbol].mark_trade.price

    def listing(self, symbol: str) -> Listing:
        """The symbol's static facts. Raises KeyError for an unknown symbol."""
        return self.symbols[symbol].listing


def _first_conditions(listing: Listing) -> tuple[str, ...]:
    if listing.asset_class == "us_option":
        return ("I",)
    return () if listing.asset_class == "crypto" else (regular_condition(listing.tape),)


def _first_venue(listing: Listing) -> str:
    return {"A": "N", "B": "P", "C": "Q"}.get(listing.tape, "")

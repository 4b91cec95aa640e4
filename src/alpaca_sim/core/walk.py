"""A seeded random market. Prices follow a random walk; some trades must not set a price.

These trades (odd lots, average prices, late reports) have prices that are clearly off, so that a client that
ignores trade conditions shows wrong values.
"""

import random
from bisect import bisect
from decimal import Decimal
from itertools import accumulate

from alpaca_sim.core.clock import Clock
from alpaca_sim.core.conditions import regular_condition
from alpaca_sim.core.listings import fakepaca
from alpaca_sim.core.market import OVERNIGHT_TAPE, TEST_SYMBOL, Market, MarketSymbol
from alpaca_sim.core.sessions import Calendar

TRADES_PER_STEP_MAX = 20_000
TEST_TRADES_PER_SECOND = 2
OVERNIGHT_VENUE = "B"
SUB_PENNY_SHARE = 0.04
BOUND_RATIO = Decimal("0.3")  # further than this from the first price, the walk only moves back
MOVE_RATIO_MAX = 0.0006

# Weight, condition codes beside the regular one, whether the regular code is there, whether the price is off.
_STOCK_MIX: list[tuple[float, tuple[str, ...], bool, bool]] = [
    (70, (), True, False),
    (7, ("F",), True, False),
    (5, ("T",), True, False),
    (2, ("X",), True, False),
    (8, ("I",), True, True),
    (2, ("F", "I"), True, True),
    (1.5, ("AVERAGE",), False, True),
    (1, ("U",), False, True),
    (1, ("C",), False, True),
    (0.8, ("Z",), False, True),
    (0.6, ("4",), True, True),
    (0.6, ("P",), False, True),
    (0.3, ("M",), False, True),
    (0.2, ("?",), True, True),  # a code that no table lists
]
_STOCK_WEIGHTS = list(accumulate(row[0] for row in _STOCK_MIX))
_OPTION_MIX = "IIIIIIIaafSjjeAG"
_VENUES = {"A": "NDPKZV", "B": "PDKZQV", "C": "QDKZPV"}


class RandomWalk:
    """Trades at a given rate over all symbols of the market."""

    def __init__(
        self, market: Market, rng: random.Random, trades_per_second: float, clock: Clock, calendar: Calendar
    ) -> None:
        """`rng` decides which trades come in which order; the calendar decides what trades in a session."""
        self._clock = clock
        self._calendar = calendar
        self._session = "core"
        self._market = market
        self._rng = rng
        self._trades_per_second = trades_per_second
        self._due = 0.0
        self._test_due = 0.0
        symbols = [state for state in market.symbols.values() if state.listing.asset_class != "test"]
        coins = [state for state in symbols if state.listing.asset_class == "crypto"]
        shares = [state for state in symbols if state.listing.asset_class == "us_equity"]
        extended = shares + coins
        self._tradable = {
            "core": symbols,
            "pre": extended,
            "post": extended,
            "overnight": extended,
            "closed": coins,
        }
        self.is_done = False
        market.list_symbol(fakepaca())

    def step(self, elapsed_s: float) -> None:
        """Print the trades of the next `elapsed_s` seconds."""
        self._due = min(self._due + elapsed_s * self._trades_per_second, TRADES_PER_STEP_MAX)
        self._session = self._calendar.session(self._clock.now_ns())
        symbols = self._tradable[self._session]
        while self._due >= 1:
            self._due -= 1
            state = symbols[int(self._rng.random() * len(symbols))] if symbols else None
            if state is not None and not state.is_halted and not state.is_unpriced:
                self._print_one(state)
        self._test_due = min(self._test_due + elapsed_s * TEST_TRADES_PER_SECOND, 1)
        if self._test_due >= 1 and self._trades_per_second:
            self._test_due = 0.0
            self._print_one(self._market.symbols[TEST_SYMBOL])

    def _print_one(self, state: MarketSymbol) -> None:
        listing, rng = state.listing, self._rng
        if listing.asset_class == "crypto":
            size = Decimal(rng.randint(1, 2_000_000_000)).scaleb(-9)
            self._market.print_trade(listing.symbol, self._next_price(state), size, ())
        elif listing.asset_class == "us_option":
            condition = rng.choice(_OPTION_MIX)
            price = self._off_price(state) if condition in "AG" else self._next_price(state)
            self._market.print_trade(listing.symbol, price, Decimal(rng.randint(1, 40)), (condition,), "N")
        else:
            self._print_stock(state)

    def _print_stock(self, state: MarketSymbol) -> None:
        rng, tape = self._rng, state.listing.tape
        mix = _STOCK_MIX[bisect(_STOCK_WEIGHTS, rng.random() * _STOCK_WEIGHTS[-1])]
        _, letters, has_regular, is_off = mix
        conditions = (regular_condition(tape), *letters) if has_regular else letters
        if letters == ("AVERAGE",):
            conditions = ("W",) if tape == "C" else ("B",)
        if self._session in ("pre", "post") and "T" not in conditions:
            conditions = (*conditions, "T")
        venue = rng.choice(_VENUES[tape])
        if self._session == "overnight":
            tape, venue, conditions = OVERNIGHT_TAPE, OVERNIGHT_VENUE, ("@", "I") if is_off else ("@",)
        size = rng.randint(1, 99) if "I" in letters else 100 * rng.randint(1, 12)
        price = self._off_price(state) if is_off else self._next_price(state)
        self._market.print_trade(state.listing.symbol, price, Decimal(size), conditions, venue, tape)

    def _next_price(self, state: MarketSymbol) -> Decimal:
        listing, rng = state.listing, self._rng
        decimals = listing.price_decimals
        units = int(state.mark.scaleb(decimals))
        reach = max(1, int(units * MOVE_RATIO_MAX))
        move = rng.randint(-reach, reach)
        distance = state.mark - listing.first_price
        if abs(distance) > listing.first_price * BOUND_RATIO:
            move = -abs(move) if distance > 0 else abs(move)
        price = Decimal(max(1, units + move)).scaleb(-decimals)
        if listing.asset_class == "us_equity" and rng.random() < SUB_PENNY_SHARE:
            price += Decimal(rng.randint(1, 99)).scaleb(-4)
        return price

    def _off_price(self, state: MarketSymbol) -> Decimal:
        decimals = state.listing.price_decimals
        units = int(state.mark.scaleb(decimals))
        away = self._rng.choice((-1, 1)) * max(1, int(units * self._rng.uniform(0.01, 0.05)))
        return Decimal(max(1, units + away)).scaleb(-decimals)

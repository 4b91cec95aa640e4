"""The truth of a trial: accounts, bookings and trades, and the equity of each account at any time.

It shares no arithmetic with the product. Late REST answers, late or repeated events, trades out of order and
trades that may set no price do not change the truth.
"""

import itertools
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final, Generic, TypeVar

from portfolio_harness.simulation.virtual_loop import EPOCH_S

NS: Final = 1_000_000_000
CENT: Final = Decimal("0.01")
BEGIN_NS: Final = 1_763_740_800 * NS  # 2025-11-21 16:00:00Z: a Friday, the exchange is open
BALANCE_ASOF: Final = "2025-11-20"
SYMBOLS: Final = ("AAA", "BBB", "CCC")
UNITS: Final = 8  # units per share: the smallest quantity held is an eighth
# The first id begins the second and ends the third.
ACCOUNT_IDS: Final = ("acc", "acc1", "aacc")

T = TypeVar("T")


def wall_ns(loop_s: float) -> int:
    """The true wall-clock time at a time of the loop, in nanoseconds since the epoch."""
    return BEGIN_NS + int((loop_s - EPOCH_S) * NS)


@dataclass(frozen=True)
class TrueBooking:
    """One booking: it moves cash (`amount`, in dollars), and with a symbol a quantity."""

    number: int
    account_id: str
    at_s: float
    amount: Decimal
    symbol: str | None
    quantity: Decimal
    price: Decimal


@dataclass(frozen=True)
class TrueTrade:
    """One market trade. `moves`: its conditions allow it to set a price."""

    number: int
    symbol: str
    price: float
    at_s: float
    moves: bool


class Timeline(Generic[T]):
    """The history of one value."""

    def __init__(self) -> None:
        self._since_s: list[float] = []
        self._values: list[T] = []

    def put(self, since_s: float, value: T) -> None:
        """Set the value from `since_s` on. Times must not go back."""
        self._since_s.append(since_s)
        self._values.append(value)

    @property
    def now(self) -> T:
        """The present value."""
        return self._values[-1]

    def between(self, from_s: float, until_s: float) -> list[T]:
        """All values that it had between two times, both inclusive."""
        first = max(0, bisect_right(self._since_s, from_s) - 1)
        return self._values[first : bisect_right(self._since_s, until_s)]


@dataclass(frozen=True)
class TrueBalances:
    """Cash in cents, and quantities by symbol in units of 1/UNITS share."""

    cash: int
    units: dict[str, int]


@dataclass
class TrueAccount:
    """One account: its present and former balances. Cash is in dollars."""

    account_id: str
    cash: Decimal
    quantities: dict[str, Decimal]
    opening_cash: Decimal
    opening: dict[str, Decimal]
    bookings: list[TrueBooking] = field(default_factory=list[TrueBooking])
    balances: "Timeline[TrueBalances]" = field(default_factory=lambda: Timeline[TrueBalances]())

    def note(self, now_s: float) -> None:
        """Add the present cash and quantities to the history."""
        units = {symbol: int(held * UNITS) for symbol, held in self.quantities.items() if held}
        self.balances.put(now_s, TrueBalances(int(self.cash * 100), units))


class TrueBroker:
    """All accounts and the market. `rng` makes all random choices."""

    def __init__(self, rng: random.Random) -> None:
        self.accounts: dict[str, TrueAccount] = {}
        self.prices: dict[str, float] = {}
        self.traded_s: dict[str, float] = {}  # symbol -> time of the trade that set its price
        self.newest: dict[str, TrueTrade] = {}
        self.cents: dict[str, Timeline[int]] = {}
        self._rng = rng
        self._numbers = 0
        for symbol in SYMBOLS:
            self._print(TrueTrade(self._next(), symbol, round(rng.uniform(5, 500), 2), EPOCH_S - 1, True))
        for number, name in enumerate(ACCOUNT_IDS):
            cash = Decimal(rng.randrange(100_000, 9_000_000) * 10 + number) / 100
            held = {
                symbol: Decimal(rng.choice((1, -1, 1)) * rng.randrange(1, 400)) / rng.choice((1, 1, 8))
                for symbol in rng.sample(SYMBOLS, rng.randrange(1, 3))
            }
            self.accounts[name] = TrueAccount(name, cash, held, cash, dict(held))
        for account in self.accounts.values():
            account.note(EPOCH_S)

    def _next(self) -> int:
        self._numbers += 1
        return self._numbers

    def book(self, account_id: str, now_s: float) -> TrueBooking:
        """Book a random deposit, withdrawal or trade at `now_s`."""
        account = self.accounts[account_id]
        symbol = self._rng.choice(SYMBOLS) if self._rng.random() < 0.5 else None
        quantity, price = Decimal(0), Decimal(0)
        amount = Decimal(self._rng.randrange(-50_000, 90_000)) / 100 or CENT
        if symbol is not None:
            quantity = Decimal(self._rng.choice((-1, 1)) * self._rng.randrange(1, 20))
            price = Decimal(str(self.prices[symbol]))
            amount = -(quantity * price).quantize(CENT, ROUND_HALF_EVEN)
            account.quantities[symbol] = account.quantities.get(symbol, Decimal(0)) + quantity
        account.cash += amount
        booking = TrueBooking(self._next(), account_id, now_s, amount, symbol, quantity, price)
        account.bookings.append(booking)
        account.note(now_s)
        return booking

    def trade(self, now_s: float) -> TrueTrade:
        """Make a random trade at `now_s`; sometimes one of an earlier time, or one that sets no price."""
        rng = self._rng
        symbol = rng.choice(SYMBOLS)
        price = round(self.prices[symbol] * rng.uniform(0.995, 1.005), 2)
        kind = rng.random()
        at_s = now_s if kind > 0.1 else self.traded_s[symbol] - rng.uniform(0.1, 0.8)
        trade = TrueTrade(self._next(), symbol, price, at_s, moves=kind > 0.2 or kind <= 0.1)
        if kind > 0.2:
            self._print(trade)
        return trade

    def _print(self, trade: TrueTrade) -> None:
        self.prices[trade.symbol], self.traded_s[trade.symbol] = trade.price, trade.at_s
        self.newest[trade.symbol] = trade
        self.cents.setdefault(trade.symbol, Timeline()).put(trade.at_s, round(trade.price * 100))

    def equity(self, account_id: str) -> int:
        """The present equity of an account in cents."""
        held = self.accounts[account_id].balances.now
        return rounded(held, [self.cents[symbol].now for symbol in held.units])

    def was_worth(self, account_id: str, cents: int, from_s: float, until_s: float) -> bool:
        """Whether balances and prices, each of some time between the two, give an equity of `cents`."""
        prices = {symbol: set(line.between(from_s, until_s)) for symbol, line in self.cents.items()}
        for held in self.accounts[account_id].balances.between(from_s, until_s):
            for chosen in itertools.product(*(prices[symbol] for symbol in held.units)):
                if rounded(held, chosen) == cents:
                    return True
        return False

    def stated(
        self, account_id: str, cash_at_s: float, held_at_s: float
    ) -> tuple[Decimal, dict[str, Decimal]]:
        """Cash in dollars as of one time, and quantities as of another: a statement of the broker's REST."""
        account = self.accounts[account_id]
        cash, held = account.opening_cash, dict(account.opening)
        for booking in account.bookings:
            if booking.at_s <= cash_at_s:
                cash += booking.amount
            if booking.at_s <= held_at_s and booking.symbol is not None:
                held[booking.symbol] = held.get(booking.symbol, Decimal(0)) + booking.quantity
        return cash, {symbol: quantity for symbol, quantity in held.items() if quantity}


def rounded(held: TrueBalances, cents: Sequence[int]) -> int:
    """Equity in cents, rounded half to even; `cents` are the prices in the order of `held.units`."""
    shares = sum(units * price for units, price in zip(held.units.values(), cents, strict=True))
    whole, rest = divmod(shares, UNITS)
    return held.cash + whole + (2 * rest > UNITS or (2 * rest == UNITS and (held.cash + whole) % 2 == 1))

"""The ledger: the exact record of every account, in `Decimal`. All tests compare the product with it.

An account is an opening state (at the close of `balance_asof`) and a list of activities that never change.
Its present state is the opening state with all activities applied; a past state is the same with fewer of
them. A correction leaves the earlier activity as it is and reverses its effect. The overnight roll
(`books.py`) advances the opening state by one day.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from alpaca_sim.core.activity_types import MEANINGS
from alpaca_sim.core.decimals import ZERO, divide, exact
from alpaca_sim.core.former_records import FormerRecords
from alpaca_sim.core.market import Listing, Market, MarketSymbol, Trade
from alpaca_sim.core.ulid import UlidSequence

ACTIVITIES_MAX = 5_000_000
TRADE = "TRD"
SPLIT = "SPLIT"  # two bookings: the old quantity leaves, the new one arrives at the same cost


@dataclass(frozen=True, slots=True)
class Activity:
    """One booking.

    `quantity` is signed: a sale is negative. `price` and `net_amount`, the change of cash, are in dollars.
    `previous` is the earlier booking that this one replaces, or with `is_void` only reverses.
    """

    event_id: str
    ref_id: str
    account_id: str
    activity_type: str
    subtype: str
    symbol: str
    quantity: Decimal
    price: Decimal
    multiplier: Decimal
    net_amount: Decimal
    at_ns: int
    details: Mapping[str, str]
    status: str = "executed"
    previous: "Activity | None" = None
    is_void: bool = False
    executed_ns: int = 0  # the time of execution, where it is not `at_ns`; 0: it is

    @property
    def external_cash_flow(self) -> Decimal:
        """What the client brings in (+) or takes out (−) by this booking, cash and securities, in dollars."""
        meaning = MEANINGS.get(self.activity_type)
        if meaning is None or not meaning.flow:
            return ZERO
        units = self.quantity * self.price * self.multiplier if meaning.units and self.symbol else ZERO
        return self.net_amount + units


def symbols_of(activity: Activity) -> tuple[str, ...]:
    """The symbols whose quantity a booking moves."""
    if not activity.symbol or not activity.quantity:
        return ()
    return pair_of(activity.symbol) or (activity.symbol,)


def pair_of(symbol: str) -> tuple[str, str] | None:
    """The symbols of the two coins that a pair such as ETH/BTC exchanges; None for any other symbol."""
    base, slash, quote = symbol.partition("/")
    return (f"{base}/USD", f"{quote}/USD") if slash and quote != "USD" else None


@dataclass(slots=True)
class Position:
    """Signed quantity and cost basis (dollars) of one symbol. `is_new`: not held at the last close."""

    quantity: Decimal
    cost_basis: Decimal
    is_new: bool = False


@dataclass(slots=True)
class Holdings:
    """Cash, positions and the day's external cash flow at one moment. Amounts are in dollars."""

    cash: Decimal
    positions: dict[str, Position] = field(default_factory=dict[str, Position])
    external_cash_flow: Decimal = ZERO
    in_transit: dict[str, Decimal] = field(default_factory=dict[str, Decimal])  # cost between two split legs

    def copy(self) -> "Holdings":
        """An independent copy."""
        positions = {s: Position(p.quantity, p.cost_basis, p.is_new) for s, p in self.positions.items()}
        return Holdings(self.cash, positions, self.external_cash_flow, dict(self.in_transit))

    def book_activity(self, activity: Activity) -> None:
        """Apply one activity; reverse the earlier one first, if it replaces one."""
        if activity.previous is not None:
            self._add(activity.previous, -1)
        if not activity.is_void:
            self._add(activity, 1)

    def _add(self, activity: Activity, sign: int) -> None:
        self.cash += sign * activity.net_amount
        self.external_cash_flow += sign * activity.external_cash_flow
        if activity.activity_type == SPLIT:
            self._exchange(activity)
        elif (coins := pair_of(activity.symbol)) is not None:
            base, quote = coins
            self._move(base, sign * activity.quantity, ZERO)
            self._move(quote, -sign * activity.quantity * activity.price, ZERO)
        elif activity.symbol and activity.quantity:
            self._move(activity.symbol, sign * activity.quantity, activity.price * activity.multiplier)

    def _exchange(self, leg: Activity) -> None:
        """Book one leg of a split. Between the two legs, the cost basis is kept in `in_transit`."""
        position = self.positions.pop(leg.symbol, None)
        if position is not None:
            self.in_transit[leg.symbol] = position.cost_basis
        else:
            self.positions[leg.symbol] = Position(leg.quantity, self.in_transit.pop(leg.symbol, ZERO))

    def _move(self, symbol: str, quantity: Decimal, unit_price: Decimal) -> None:
        position = self.positions.get(symbol)
        if position is None:
            self.positions[symbol] = Position(quantity, quantity * unit_price, is_new=True)
            return
        before, after = position.quantity, position.quantity + quantity
        if not after:
            del self.positions[symbol]
        elif (before > 0) == (quantity > 0):
            position.cost_basis += quantity * unit_price
        elif (before > 0) == (after > 0):
            position.cost_basis = divide(position.cost_basis * after, before)
        else:
            position.cost_basis = after * unit_price
        position.quantity = after


@dataclass(slots=True)
class Traded:
    """Quantity and cost (dollars) of the day's bookings of one symbol, purchases positive.

    `is_simple`: all are trades of this day, so that no valuation rule beside arithmetic is needed.
    """

    quantity: Decimal = ZERO
    cost: Decimal = ZERO
    is_simple: bool = True

    def add(self, activity: Activity, sign: int, is_simple: bool) -> None:
        """Add one booking, or with `sign` -1 take it back."""
        self.quantity += sign * activity.quantity
        self.cost += sign * activity.quantity * activity.price * activity.multiplier
        self.is_simple &= is_simple


@dataclass(slots=True)
class Account:
    """One brokerage account with all its activities."""

    account_id: str
    account_number: str
    given_name: str
    family_name: str
    created_ns: int
    last_equity: Decimal
    opening: Holdings
    current: Holdings
    activities: list[Activity] = field(default_factory=list[Activity])
    status: str = "ACTIVE"
    first: int = 0  # index of the first activity that is not in the opening state

    def holdings(self, at_ns: int | None = None) -> Holdings:
        """The holdings now, or after all activities up to and including `at_ns`.

        The caller must not change them.
        """
        if at_ns is None or not self.activities or self.activities[-1].at_ns <= at_ns:
            return self.current
        past = self.opening.copy()
        with exact():
            for activity in self.activities[self.first :]:
                if activity.at_ns > at_ns:
                    break
                past.book_activity(activity)
        return past

    def booked_at_ns(self, until_ns: int | None = None) -> int:
        """The time of the last booking up to and including `until_ns`; 0: there is none."""
        booked = (one.at_ns for one in reversed(self.activities) if until_ns is None or one.at_ns <= until_ns)
        return next(booked, 0)

    def traded(self, until_ns: int | None = None) -> "dict[str, Traded]":
        """What was traded of each symbol since the opening, up to and including `until_ns`."""
        booked = {activity.ref_id for activity in self.activities[self.first :]}
        traded: dict[str, Traded] = {}
        with exact():
            for activity in self.activities[self.first :]:
                if until_ns is not None and activity.at_ns > until_ns:
                    break
                previous = activity.previous
                is_base_known = previous is None or previous.ref_id in booked
                if previous is not None:
                    _count_traded(traded, previous, -1, is_base_known=is_base_known)
                if not activity.is_void:
                    _count_traded(traded, activity, 1, is_base_known=is_base_known)
        return traded

    def roll(self, opening: Holdings, first: int, last_equity: Decimal) -> None:
        """Begin a new day: `opening` is the state after the activities before index `first`."""
        self.opening, self.first, self.last_equity = opening, first, last_equity
        self.current = opening.copy()
        with exact():
            for activity in self.activities[first:]:
                self.current.book_activity(activity)


def _count_traded(traded: "dict[str, Traded]", activity: Activity, sign: int, *, is_base_known: bool) -> None:
    """Add an activity (`sign` 1) or take it back (-1), for each of its symbols.

    `is_base_known`: what it corrects, if it corrects anything, was booked since the opening.
    """
    for symbol in symbols_of(activity):
        is_simple = is_base_known and activity.activity_type == TRADE and symbol == activity.symbol
        traded.setdefault(symbol, Traded()).add(activity, sign, is_simple)


@dataclass(frozen=True, slots=True)
class PositionTruth:
    """One position with its exact figures, in dollars. `mark_at_ns`: when the mark was traded.

    `day_pnl` is None after bookings other than trades: what they cost the day is a matter of rules.
    """

    symbol: str
    asset_class: str
    quantity: Decimal
    multiplier: Decimal
    mark: Decimal
    mark_at_ns: int
    previous_close: Decimal
    market_value: Decimal
    cost_basis: Decimal
    day_pnl: Decimal | None


@dataclass(frozen=True, slots=True)
class Truth:
    """One account's exact figures at one moment, in dollars."""

    account_id: str
    as_of_ns: int
    equity: Decimal
    cash: Decimal
    last_equity: Decimal
    external_cash_flow: Decimal
    day_pnl: Decimal
    positions: tuple[PositionTruth, ...]
    booked_at_ns: int = 0  # time of the last booking; 0: there is none
    unpriced: tuple[str, ...] = ()  # held without any price: counted as zero
    in_transit: tuple[str, ...] = ()  # between the two legs of a split: counted as zero


class Ledger:
    """All accounts and, in order of publication, all activities."""

    def __init__(self, market: Market, ulids: UlidSequence) -> None:
        """Start without accounts. Positions are valued at the marks of `market`."""
        self.accounts: dict[str, Account] = {}
        self.activities: list[Activity] = []
        self.untold: set[str] = set()  # ref ids of bookings that count and that no event has reported yet
        self.superseded: set[str] = set()  # ref ids of bookings that a later one corrects or reverses
        self.former = FormerRecords()
        self.on_activity: Callable[[Activity], None] = lambda _activity: None
        self._market = market
        self._ulids = ulids

    def open(self, account: Account) -> None:
        """Add an account. Its id must be new."""
        assert account.account_id not in self.accounts
        self.accounts[account.account_id] = account

    def next_event_id(self, at_ns: int) -> str:
        """The next event id, a ULID, of something published at `at_ns`."""
        return self._ulids.next(at_ns)

    def book(self, activity: Activity, is_told: bool = True) -> None:
        """Apply one activity to its account, and publish it unless `is_told` is false.

        `tell` publishes it later. Raises KeyError for an unknown account.
        """
        assert len(self.activities) < ACTIVITIES_MAX, "the simulator keeps every activity: restart it"
        account = self.accounts[activity.account_id]
        assert not account.activities or account.activities[-1].at_ns <= activity.at_ns
        self._end_record(account)
        with exact():
            account.current.book_activity(activity)
        account.activities.append(activity)
        if not is_told:
            self.untold.add(activity.ref_id)
            return
        self.activities.append(activity)
        if activity.previous is not None:
            self.superseded.add(activity.previous.ref_id)
        self.on_activity(activity)

    def roll(self, account_id: str, opening: Holdings, first: int, last_equity: Decimal) -> None:
        """Begin a new day of an account; see `Account.roll`. Raises KeyError for an unknown account."""
        account = self.accounts[account_id]
        self._end_record(account)
        account.roll(opening, first, last_equity)

    def _end_record(self, account: Account) -> None:
        now = account.current
        self.former.end(
            account.account_id,
            now.cash,
            account.last_equity,
            now.external_cash_flow,
            {symbol: position.quantity for symbol, position in now.positions.items()},
            is_in_transit=bool(now.in_transit),
        )

    def tell(self, activity: Activity, at_ns: int) -> None:
        """Publish, at `at_ns`, an activity that was booked with `is_told` false."""
        assert activity.ref_id in self.untold, "this booking is published already"
        self.untold.discard(activity.ref_id)
        told = replace(activity, event_id=self.next_event_id(at_ns), at_ns=at_ns, executed_ns=activity.at_ns)
        self.activities.append(told)
        self.on_activity(told)

    def equity_at_closes(self, holdings: Holdings) -> Decimal:
        """Cash plus positions at the closing prices of `balance_asof`, exact, in dollars."""
        with exact():
            return holdings.cash + sum(
                (
                    position.quantity * state.listing.multiplier * state.close
                    for symbol, position in holdings.positions.items()
                    for state in [self._market.symbols[symbol]]
                ),
                ZERO,
            )

    def truth(
        self, account_id: str, as_of_ns: int, past: bool = False, marks: Mapping[str, Trade] | None = None
    ) -> Truth:
        """The account's exact figures, as of now by default.

        With `past`, holdings and marks are those of `as_of_ns`. With `marks`, the holdings are those of
        `as_of_ns` and the marks are the given trades, taken at that time. Raises KeyError for an unknown
        account, and LookupError for a time before the price history.
        """
        account = self.accounts[account_id]
        until_ns = as_of_ns if past or marks is not None else None
        holdings, traded = account.holdings(until_ns), account.traded(until_ns)
        positions: list[PositionTruth] = []
        unpriced: list[str] = []
        with exact():
            equity = holdings.cash
            for symbol, position in holdings.positions.items():
                state = self._market.symbols[symbol]
                if state.is_unpriced:
                    unpriced.append(symbol)
                    continue
                mark_at_ns, mark = _mark(state, as_of_ns, past, marks)
                positions.append(
                    _position(state.listing, position, mark, mark_at_ns, traded.get(symbol, Traded()))
                )
                equity += positions[-1].market_value
            flow = holdings.external_cash_flow
            day_pnl = equity - account.last_equity - flow
        return Truth(
            account_id,
            as_of_ns,
            equity,
            holdings.cash,
            account.last_equity,
            flow,
            day_pnl,
            tuple(positions),
            account.booked_at_ns(until_ns),
            tuple(unpriced),
            tuple(holdings.in_transit),
        )


def _position(
    listing: Listing, position: Position, mark: Decimal, mark_at_ns: int, traded: Traded
) -> PositionTruth:
    """One position at a mark. Must be called inside `exact()`."""
    market_value = position.quantity * listing.multiplier * mark
    carried = (position.quantity - traded.quantity) * listing.multiplier * listing.previous_close
    return PositionTruth(
        symbol=listing.symbol,
        asset_class=listing.asset_class,
        quantity=position.quantity,
        multiplier=listing.multiplier,
        mark=mark,
        mark_at_ns=mark_at_ns,
        previous_close=listing.previous_close,
        market_value=market_value,
        cost_basis=position.cost_basis,
        day_pnl=market_value - carried - traded.cost if traded.is_simple else None,
    )


def _mark(
    state: MarketSymbol, as_of_ns: int, past: bool, marks: Mapping[str, Trade] | None
) -> tuple[int, Decimal]:
    """When the mark was traded, and its price."""
    if past:
        return state.mark_at(as_of_ns)
    trade = state.mark_trade if marks is None else marks[state.listing.symbol]
    return trade.at_ns, trade.price


def compressed_cost(
    position: Position | None, moves: Iterable[tuple[Decimal, Decimal]], after: Decimal
) -> Decimal:
    """The cost basis of a position after the overnight roll, in dollars.

    The position at the last roll is one lot and each purchase of the day is another; the oldest lots are sold
    first. `moves` are the day's (signed quantity, unit price); `after` is the quantity that they lead to.
    Source: Alpaca, "Average entry price calculation".
    """
    lots: deque[tuple[Decimal, Decimal]] = deque()  # quantity of one sign, and its cost
    if position is not None:
        lots.append((position.quantity, position.cost_basis))
    for moved, unit_price in moves:
        quantity = moved
        while quantity and lots and (lots[0][0] > 0) != (quantity > 0):
            held, cost = lots.popleft()
            if abs(held) > abs(quantity):
                left = held + quantity
                lots.appendleft((left, divide(cost * left, held)))
                quantity = ZERO
            else:
                quantity += held
        if quantity:
            lots.append((quantity, quantity * unit_price))
    assert sum((quantity for quantity, _ in lots), ZERO) == after
    return sum((cost for _, cost in lots), ZERO)

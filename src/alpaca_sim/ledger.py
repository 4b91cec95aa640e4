"""The ledger: what every account holds, in exact decimals. It is the oracle that all tests compare with.

An account is an opening state (at the close of `balance_asof`) plus a list of activities that never change;
the present
state is always the opening state with the activities applied, and a past one is the same with fewer of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from alpaca_sim.decimals import ZERO, divide, exact
from alpaca_sim.market import Market
from alpaca_sim.ulid import UlidSequence

ACTIVITIES_MAX = 5_000_000
CASH_FLOW_TYPES = frozenset(
    {"CSD", "CSW", "JNLC"}
)  # external: what the client brings in or takes out, in cash
SECURITY_FLOW_TYPES = frozenset({"JNLS"})  # external: securities, at the activity's price


@dataclass(frozen=True, slots=True)
class Activity:
    """One booking. `quantity` is signed (a sale is negative); `net_amount` is the change of cash in
    dollars.
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

    @property
    def external_cash_flow(self) -> Decimal:
        """What the client brought in (+) or took out (−) by this booking, in dollars."""
        if self.activity_type in CASH_FLOW_TYPES:
            return self.net_amount
        if self.activity_type in SECURITY_FLOW_TYPES:
            return self.quantity * self.price * self.multiplier
        return ZERO


@dataclass(slots=True)
class Position:
    """Signed quantity and cost basis of one symbol. `is_new`: not held at the last session's end."""

    quantity: Decimal
    cost_basis: Decimal
    is_new: bool = False


@dataclass(slots=True)
class Holdings:
    """Cash, positions and the external cash flow so far, at one moment."""

    cash: Decimal
    positions: dict[str, Position] = field(default_factory=dict[str, Position])
    external_cash_flow: Decimal = ZERO

    def copy(self) -> "Holdings":
        """A state of its own with equal numbers."""
        positions = {s: Position(p.quantity, p.cost_basis, p.is_new) for s, p in self.positions.items()}
        return Holdings(self.cash, positions, self.external_cash_flow)

    def apply(self, activity: Activity) -> None:
        """Book one activity."""
        self.cash += activity.net_amount
        self.external_cash_flow += activity.external_cash_flow
        if activity.symbol and activity.quantity:
            self._move(activity)

    def _move(self, activity: Activity) -> None:
        value = activity.quantity * activity.price * activity.multiplier
        position = self.positions.get(activity.symbol)
        if position is None:
            self.positions[activity.symbol] = Position(activity.quantity, value, is_new=True)
            return
        before, after = position.quantity, position.quantity + activity.quantity
        if not after:
            del self.positions[activity.symbol]
        elif (before > 0) == (activity.quantity > 0):
            position.cost_basis += value
        elif (before > 0) == (after > 0):
            position.cost_basis = divide(position.cost_basis * after, before)
        else:
            position.cost_basis = after * activity.price * activity.multiplier
        position.quantity = after


@dataclass(slots=True)
class Account:
    """One brokerage account with its whole record."""

    account_id: str
    account_number: str
    given_name: str
    family_name: str
    created_ns: int
    last_equity: Decimal
    opening: Holdings
    current: Holdings
    activities: list[Activity] = field(default_factory=list[Activity])

    def holdings(self, at_ns: int | None = None) -> Holdings:
        """The state now, or after the activities up to and including `at_ns`. Not to be changed by the
        caller.
        """
        if at_ns is None or not self.activities or self.activities[-1].at_ns <= at_ns:
            return self.current
        past = self.opening.copy()
        with exact():
            for activity in self.activities:
                if activity.at_ns > at_ns:
                    break
                past.apply(activity)
        return past


@dataclass(frozen=True, slots=True)
class PositionTruth:
    """One position, valued."""

    symbol: str
    asset_class: str
    quantity: Decimal
    multiplier: Decimal
    mark: Decimal
    previous_close: Decimal
    market_value: Decimal


@dataclass(frozen=True, slots=True)
class Truth:
    """One account, valued exactly at one moment."""

    account_id: str
    as_of_ns: int
    equity: Decimal
    cash: Decimal
    last_equity: Decimal
    external_cash_flow: Decimal
    day_pnl: Decimal
    positions: tuple[PositionTruth, ...]


class Ledger:
    """All accounts and, in order of publication, all activities."""

    def __init__(self, market: Market, ulids: UlidSequence) -> None:
        """An empty ledger, valued at `market`."""
        self.accounts: dict[str, Account] = {}
        self.activities: list[Activity] = []
        self.on_activity: Callable[[Activity], None] = lambda _activity: None
        self._market = market
        self._ulids = ulids

    def open(self, account: Account) -> None:
        """Add an account."""
        assert account.account_id not in self.accounts
        self.accounts[account.account_id] = account

    def next_event_id(self, at_ns: int) -> str:
        """The publication id of a booking at `at_ns`."""
        return self._ulids.next(at_ns)

    def book(self, activity: Activity) -> None:
        """Apply one activity to its account and publish it. Raises KeyError for an unknown account."""
        assert len(self.activities) < ACTIVITIES_MAX, "the simulator keeps every activity: restart it"
        account = self.accounts[activity.account_id]
        assert not account.activities or account.activities[-1].at_ns <= activity.at_ns
        with exact():
            account.current.apply(activity)
        account.activities.append(activity)
        self.activities.append(activity)
        self.on_activity(activity)

    def equity_at_previous_closes(self, holdings: Holdings) -> Decimal:
        """Cash plus positions at their previous closes, exact."""
        with exact():
            return holdings.cash + sum(
                (
                    position.quantity * listing.multiplier * listing.previous_close
                    for symbol, position in holdings.positions.items()
                    for listing in [self._market.listing(symbol)]
                ),
                ZERO,
            )

    def truth(self, account_id: str, as_of_ns: int, past: bool = False) -> Truth:
        """The account's exact figures, now (`past` false) or as they were at `as_of_ns`.

        Raises KeyError for an unknown account and LookupError where the price history does not reach.
        """
        account = self.accounts[account_id]
        holdings = account.holdings(as_of_ns if past else None)
        positions: list[PositionTruth] = []
        with exact():
            equity = holdings.cash
            for symbol, position in holdings.positions.items():
                state = self._market.symbols[symbol]
                listing = state.listing
                mark = state.mark_at(as_of_ns) if past else state.mark_trade.price
                multiplier = listing.multiplier
                market_value = position.quantity * multiplier * mark
                equity += market_value
                positions.append(
                    PositionTruth(
                        symbol,
                        listing.asset_class,
                        position.quantity,
                        multiplier,
                        mark,
                        listing.previous_close,
                        market_value,
                    )
                )
            flow = holdings.external_cash_flow
            day_pnl = equity - account.last_equity - flow
        last_equity = account.last_equity
        return Truth(
            account_id, as_of_ns, equity, holdings.cash, last_equity, flow, day_pnl, tuple(positions)
        )

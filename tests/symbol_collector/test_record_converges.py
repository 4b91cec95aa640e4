"""Whatever order events and statements come in, the record ends at the truth and never counts one twice.

A made-up broker books deposits and trades. Its stream delivers in order, in batches of any size, late, with
repeats; its REST trails by up to four seconds, balance and positions each on their own. Every booking moves
cash and quantity by another power of four, so that each booking's count can be read off both.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from portfolio_realtime.symbol_collector.model import Activity, Statement
from portfolio_realtime.symbol_collector.records.account_record import AccountRecord, Outcome
from tests.symbol_collector.bookings import CASH, MadeUpBroker, Step, at_s, booking, statement

LOOKS_MAX = 8

steps = st.lists(
    st.tuples(
        st.sampled_from(["deposit", "buy", "correct", "deliver", "deliver all", "repeat", "look", "look"]),
        st.floats(0, 3),  # seconds since the step before
        st.floats(0, 4),  # lag of the balance, or a choice
        st.floats(0, 4),  # lag of the positions
    ),
    max_size=40,
)


def settle(broker: MadeUpBroker) -> int:
    """Let everything arrive, look as often as the record asks; how many looks that took."""
    broker.deliver(len(broker.booked))
    broker.now_s += 10
    for looks in range(1, LOOKS_MAX + 1):
        outcome = broker.look(0, 0)
        broker.check_nothing_counts_twice()
        again_ns = broker.record.look_again_ns
        if again_ns is None and outcome is not Outcome.LATE:
            return looks
        broker.now_s = max(broker.now_s, ((again_ns or 0) - at_s(0)) / 1e9) + 0.001
        broker.now_s += 70 if outcome is Outcome.LATE else 0
    raise AssertionError(f"undecided after {LOOKS_MAX} looks")


@settings(max_examples=400, deadline=None)
@given(steps)
def test_any_story_ends_at_the_truth(story: list[Step]) -> None:
    """Cash, quantities, flow and day sums equal the broker's, after a few looks in quiet."""
    broker = MadeUpBroker(AccountRecord("alice"))
    for step in story:
        broker.take(step)

    settle(broker)

    account = broker.record.account(1, 0)
    deposits = sum(one.net_amount for one in broker.booked if one.activity_type == "CSD")
    bought = sum(one.quantity for one in broker.booked)
    assert CASH + sum(one.net_amount for one in broker.booked) == account.cash
    held = [position.quantity for position in account.positions if position.quantity]
    assert [bought] * bool(bought) == held
    if not broker.told:  # several corrections at once do not say which of them changed what
        assert [bought] * bool(bought) == [position.day_quantity for position in account.positions]
        assert deposits == account.external_cash_flow


EQUAL_ACTIONS = ("deposit", "withdraw", "buy", "sell", "correct", "deliver", "deliver all", "look", "look")


class EqualBookings(MadeUpBroker):
    """Every booking moves a share, or what it costs: several of them explain what a statement shows."""

    def __init__(self, last_equity: int) -> None:
        super().__init__(AccountRecord("alice"))
        self.last_equity = last_equity
        self.shown: dict[str, set[int]] = {"cash": {0}, "held": {0}}  # how many bookings a look had of each

    def move(self, cash: int, held: int) -> None:
        """One more booking."""
        symbol: dict[str, Any] = {"symbol": "AAPL", "quantity": Decimal(held)} if held else {}
        kind = "TRD" if held else "CSD" if cash > 0 else "CSW"
        self.booked.append(booking(kind, cash, at=self.now_s, **symbol))

    def stated(self, balance_lag_s: float, positions_lag_s: float) -> Statement:
        """What REST says now."""
        counts = {"cash": len(self._until(balance_lag_s)), "held": len(self._until(positions_lag_s))}
        for of, count in counts.items():
            self.shown[of].add(count)
        held, cash = self.sums("held", counts["held"]), self.sums("cash", counts["cash"])
        said = statement(cash, {"AAPL": held} if held else {}, last_equity=self.last_equity)
        state = msgspec.structs.replace(said.state, equity=Decimal(cash), market_value=Decimal(0))
        return msgspec.structs.replace(said, state=state, market_value=Decimal(0))  # no order holds cash back

    def sums(self, of: str, count: int) -> int:
        """Cash or shares after so many bookings."""
        first = self.booked[:count]
        if of == "held":
            return sum(int(one.quantity) for one in first)
        return CASH + sum(int(one.net_amount) for one in first)

    def take(self, step: Step) -> None:
        """One step of the story."""
        action, wait_s, first, second = step
        self.now_s += wait_s
        match action:
            case "deposit" | "withdraw":
                self.move(100 if action == "deposit" else -100, 0)
            case "buy" | "sell":
                self.move(*((-100, 1) if action == "buy" else (100, -1)))
            case "correct":
                self.move(-100, 1)
                self.tell_as_correction(self.booked[-1])
            case "deliver":
                self.deliver(1 + int(first))
            case "deliver all":
                self.deliver(len(self.booked))
            case _:
                self.look(first, second)
        self.check_wrong_is_marked()

    def check_wrong_is_marked(self) -> None:
        """Unmarked, the figures are those after all bookings that the events or a statement had told of."""
        if not self.record.is_known:
            return
        account = self.record.account(1, 0)
        if account.unconfirmed is None:
            figures = {"cash": int(account.cash), "held": sum(int(one.quantity) for one in account.positions)}
            for of, figure in figures.items():
                told = {max(self.delivered, count) for count in self.shown[of]}
                assert figure in {self.sums(of, count) for count in told}, f"{of} is wrong, unmarked"


@settings(max_examples=300, deadline=None)
@given(
    last_equity=st.sampled_from([CASH, 1000]),  # all bookings are known, or some are missing
    story=st.lists(
        st.tuples(
            st.sampled_from(EQUAL_ACTIONS),
            st.sampled_from([0, 0.1, 1, 2, 3, 5]),  # seconds since the step before
            st.sampled_from([0, 1, 2, 4]),  # lag of the balance, or how many more are delivered
            st.sampled_from([0, 1, 2, 4]),  # lag of the positions
        ),
        max_size=14,
    ),
)
@example(
    last_equity=CASH,
    story=[
        ("buy", 0, 0, 0),
        ("buy", 1, 0, 0),
        ("look", 0, 0, 1),
        ("deposit", 2, 0, 0),
        ("deposit", 3, 0, 0),
        ("buy", 0, 0, 0),
        ("deliver all", 0, 0, 0),
        ("look", 0, 0, 1),
    ],
)
@example(
    last_equity=CASH,  # two looks in a row that lag behind the one before are no answer to a correction
    story=[("correct", 0, 0, 0), ("deliver", 0, 0, 0), ("look", 0, 0, 0), *[("look", 0, 0, 1)] * 2],
)
def test_equal_bookings_are_never_taken_for_each_other_unmarked(last_equity: int, story: list[Step]) -> None:
    """While more than one of them explains what a statement shows, the account is unconfirmed."""
    broker = EqualBookings(last_equity)
    for step in story:
        broker.take(step)

    broker.deliver(len(broker.booked))
    broker.now_s += 10
    for _ in range(LOOKS_MAX):
        outcome = broker.look(0, 0)
        broker.check_wrong_is_marked()
        again_ns = broker.record.look_again_ns or 0
        broker.now_s = max(broker.now_s, (again_ns - at_s(0)) / 1e9) + 0.001
        broker.now_s += 70 if outcome is Outcome.LATE else 0

    account, count = broker.record.account(1, 0), len(broker.booked)
    held = sum(int(one.quantity) for one in account.positions)
    assert account.unconfirmed is None
    assert (account.cash, held) == (broker.sums("cash", count), broker.sums("held", count))


KINDS = ("flow", "TRD", "OCT", "DIV", "group")
OPTION = "AAPL261218C00100000"
MIXED = st.lists(
    st.tuples(
        st.sampled_from([*KINDS, "tell one", "tell all", "look", "look"]),
        st.floats(0, 6),  # seconds since the step before
        st.integers(-3, 3).filter(bool),  # in or out, or which one is told
        st.floats(0, 1),  # lag of the balance, as a share of the greatest
        st.floats(0, 1),  # lag of the positions
    ),
    max_size=30,
)


@dataclass
class UnorderedBroker:
    """Bookings that move amounts either way, and the ones that no event has told yet."""

    record: AccountRecord
    has_equals: bool = False
    lag_s_max: float = 0.0
    now_s: float = 0.0
    booked: list[Activity] = field(default_factory=list[Activity])
    waiting: list[Activity] = field(default_factory=list[Activity])
    told: set[str] = field(default_factory=set[str])
    shown: set[str] = field(default_factory=set[str])  # by the balance; while REST lags, by the last one
    stated_cash: int = CASH

    def book(self, kind: str, sign: int) -> None:
        """A deposit or withdrawal, a dividend, a trade of coins, an assignment, or coins that come or leave.

        With equals, two in succession move the same.
        """
        number = len(self.booked)
        amount = Decimal(sign * 7**number)
        if self.has_equals:
            number //= 2
            amount = Decimal((1 if number % 2 else -1) * 7**number)
        cash = -100 * amount if kind == "TRD" else amount
        coins: dict[str, Any] = {"symbol": "BTC/USD", "quantity": amount, "price": Decimal(100)}
        match kind:
            case "flow":
                self._book(booking("CSD" if amount > 0 else "CSW", amount, at=self.now_s))
            case "DIV":
                self._book(booking("DIV", amount, at=self.now_s))
            case "group":
                legs: dict[str, Any] = {"at": self.now_s, "group_id": f"group {len(self.booked)}"}
                self._book(booking("OPASN", symbol=OPTION, quantity=amount, **legs))
                shares: dict[str, Any] = {"symbol": "AAPL", "quantity": -amount, "price": Decimal(100)}
                self._book(booking("OPTRD", 100 * amount, **shares, **legs))
            case _:
                self._book(booking(kind, cash if kind == "TRD" else 0, at=self.now_s, **coins))

    def _book(self, one: Activity) -> None:
        self.booked.append(one)
        self.waiting.append(one)

    def tell(self, index: int) -> None:
        """The event of one that waits."""
        if self.waiting:
            one = self.waiting.pop(index % len(self.waiting))
            self.told.add(one.ref_id)
            self.record.apply_activity(one, at_s(self.now_s))

    def look(self, balance_lag_s: float = 0.0, positions_lag_s: float = 0.0) -> Outcome:
        """A fetch of a tenth of a second."""
        began_ns = at_s(self.now_s)
        booked = [one for one in self.booked if one.published_ns <= at_s(self.now_s - balance_lag_s)]
        held: dict[str, int] = {}
        for one in self.booked:
            if one.symbol and one.published_ns <= at_s(self.now_s - positions_lag_s):
                held[one.symbol] = held.get(one.symbol, 0) + int(one.quantity)
        self.now_s += 0.1
        self.stated_cash = CASH + sum(int(one.net_amount) for one in booked)
        self.shown = {one.ref_id for one in booked} | (set() if self.lag_s_max else self.shown)
        held = {symbol: quantity for symbol, quantity in held.items() if quantity}
        stated = statement(self.stated_cash, held, last_equity=CASH)
        return self.record.observe(stated, began_ns, at_s(self.now_s))

    def check_wrong_is_marked(self) -> None:
        """Without a mark, the cash has all that an event or the balance has told."""
        account = self.record.account(1, 0)
        if account.unconfirmed is None and account.cash != self._told_cash(self.told | self.shown):
            # A balance that lags may show another booking of the same amount than the one that was told.
            assert self.lag_s_max
            assert account.cash == self._told_cash(self.told) == self.stated_cash

    def _told_cash(self, names: set[str]) -> int:
        return CASH + sum(int(one.net_amount) for one in self.booked if one.ref_id in names)

    def take(self, action: str, wait_s: float, choice: int, *lags: float) -> None:
        """One step of the story."""
        self.now_s += wait_s
        match action:
            case "tell one":
                self.tell(choice)
            case "tell all":
                for _ in tuple(self.waiting):
                    self.tell(0)
            case "look":
                self.look(*(lag * self.lag_s_max for lag in lags))
            case _:
                self.book(action, choice)
        self.check_wrong_is_marked()

    def settle(self) -> None:
        """Everything is told, and looked at as often as the record asks."""
        self.take("tell all", 0, 1)
        self.now_s += 10
        for _ in range(LOOKS_MAX):
            outcome = self.look()
            self.check_wrong_is_marked()
            again_ns = self.record.look_again_ns
            if again_ns is None and outcome is not Outcome.LATE:
                return
            self.now_s = max(self.now_s, ((again_ns or 0) - at_s(0)) / 1e9)
            self.now_s += 70 if outcome is Outcome.LATE else 0.001
        raise AssertionError(f"undecided after {LOOKS_MAX} looks")


@pytest.mark.parametrize(("has_equals", "lag_s_max"), [(False, 4.0), (True, 0.0)])
@settings(max_examples=300, deadline=None)
@given(story=MIXED)
def test_bookings_in_any_order_explain_what_statements_showed_before(
    has_equals: bool, lag_s_max: float, story: list[tuple[str, float, int, float, float]]
) -> None:
    """In and out, bought and sold, each told much later and in any order: nothing is left unexplained.

    Of two that move the same, the second may be told first. What offsets another to the last digit, or adds
    up to it, is not in the stories: no statement shows it, and day P&L may stay null until the roll.
    """
    broker = UnorderedBroker(AccountRecord("alice"), has_equals, lag_s_max)
    broker.look()
    for step in story:
        broker.take(*step)

    broker.settle()

    account = broker.record.account(1, 0)
    assert account.unconfirmed is None
    assert account.unexplained == {}
    assert account.cash == CASH + sum(int(one.net_amount) for one in broker.booked)
    flows = [int(one.net_amount) for one in broker.booked if one.activity_type in ("CSD", "CSW")]
    coins = [100 * int(one.quantity) for one in broker.booked if one.activity_type == "OCT"]
    assert account.external_cash_flow == sum(flows) + sum(coins)


def told(broker: UnorderedBroker, one: Activity) -> tuple[Decimal, bool, dict[str, Decimal]]:
    """Cash, whether it is marked, and what is unexplained, once the event has come."""
    broker.record.apply_activity(one, at_s(broker.now_s))
    account = broker.record.account(1, 0)
    return account.cash - CASH, account.unconfirmed is not None, account.unexplained


def test_the_second_of_two_equal_deposits_is_not_taken_for_the_first() -> None:
    """The first is in a statement and is told last. The second waits, marked, until a statement tells."""
    broker = UnorderedBroker(AccountRecord("alice"))
    broker.look()
    first, second = booking("CSD", 100, at=1), booking("CSD", 100, at=30)
    broker.booked = [first]
    for wait_s in (10, 2.1):
        broker.take("look", wait_s, 1)
    broker.booked.append(second)
    broker.now_s = 30

    assert told(broker, second) == (100, True, {})
    assert broker.look() is Outcome.CONFIRMED
    account = broker.record.account(1, 0)
    assert (account.cash, account.unexplained) == (CASH + 200, {"cash": 100})
    assert told(broker, first) == (200, False, {})
    assert broker.record.account(1, 0).external_cash_flow == 200


def test_a_late_row_of_the_amount_that_a_statement_had_is_not_applied_again() -> None:
    """It may be a new one: it waits, marked, until REST has had the time to show it."""
    broker = UnorderedBroker(AccountRecord("alice"))
    broker.look()
    broker.booked = [booking("CSD", 100, at=1)]
    for wait_s in (1, 2.1):
        broker.take("look", wait_s, 1)
    broker.now_s = 20

    assert told(broker, booking("CSD", 100, at=20)) == (100, True, {})
    assert broker.look() is Outcome.LATE
    broker.now_s = 25.1
    assert broker.look() is Outcome.CONFIRMED

    account = broker.record.account(1, 0)
    assert (account.cash, account.unexplained, account.unconfirmed) == (CASH + 100, {}, None)
    assert account.external_cash_flow == 100


def test_an_event_that_rest_agreed_without_is_applied_and_marked() -> None:
    """Another that offsets it may be still to come."""
    broker = UnorderedBroker(AccountRecord("alice"))
    broker.look()
    late = booking("CSW", -100, at=1)
    broker.now_s = 30
    broker.look()

    assert told(broker, late) == (-100, True, {})
    assert broker.record.look_again_ns is not None


def test_a_deposit_explains_its_part_of_a_statement_that_also_showed_a_purchase() -> None:
    """Cash of 5,000 − 200 was in the statement; the event of the purchase comes first."""
    broker = UnorderedBroker(AccountRecord("alice"))
    broker.look()
    deposit = booking("CSD", 5000, at=1)
    bought = booking("TRD", -200, at=1, symbol="BTC/USD", quantity=Decimal(2), price=Decimal(100))
    broker.booked = [deposit, bought]
    for wait_s in (1, 2):
        broker.take("look", wait_s, 1)
    assert broker.record.account(1, 0).unexplained == {"cash": Decimal(4800), "BTC/USD": Decimal(2)}

    broker.now_s += 10
    broker.record.apply_activity(bought, at_s(broker.now_s))
    broker.record.apply_activity(deposit, at_s(broker.now_s))
    broker.settle()

    account = broker.record.account(1, 0)
    assert account.unexplained == {}
    assert account.external_cash_flow == 5000

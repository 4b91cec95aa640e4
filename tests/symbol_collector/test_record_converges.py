"""Whatever order events and statements come in, the record ends at the truth and never counts one twice.

A made-up broker books deposits and trades. Its stream delivers in order, in batches of any size, late, with
repeats; its REST trails by up to four seconds, balance and positions each on their own. Every booking moves
cash by another power of four, so that each booking's count can be read off the cash.
"""

from dataclasses import dataclass, field
from decimal import Decimal

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio_realtime.symbol_collector.model import Activity, Statement
from portfolio_realtime.symbol_collector.records.account_record import AccountRecord, Outcome
from tests.symbol_collector.bookings import at_s, booking, statement

CASH = 4**40
LOOKS_MAX = 8

Step = tuple[str, float, float, float]
steps = st.lists(
    st.tuples(
        st.sampled_from(["deposit", "buy", "correct", "deliver", "deliver all", "repeat", "look", "look"]),
        st.floats(0, 3),  # seconds since the step before
        st.floats(0, 4),  # lag of the balance, or a choice
        st.floats(0, 4),  # lag of the positions
    ),
    max_size=40,
)


@dataclass
class MadeUpBroker:
    """Bookings in order, and how many of them the stream has delivered."""

    record: AccountRecord
    now_s: float = 0.0
    booked: list[Activity] = field(default_factory=list[Activity])
    told: dict[str, Activity] = field(
        default_factory=dict[str, Activity]
    )  # where the event is not the booking
    delivered: int = 0

    def book(self, symbol: str | None) -> None:
        """One more booking: a deposit, or a purchase at price 0 that moves cash all the same."""
        quantity = Decimal(1 if symbol else 0)
        amount = 4 ** len(self.booked)
        kind = "TRD" if symbol else "CSD"
        self.booked.append(booking(kind, amount, at=self.now_s, symbol=symbol, quantity=quantity))

    def correct(self, symbol: str | None) -> None:
        """A correction of something that nobody remembers: the event says another amount than it changes."""
        self.book(symbol)
        changed = self.booked[-1]
        told = {"net_amount": 1000 * changed.net_amount, "quantity": 1000 * changed.quantity}
        self.told[changed.ref_id] = msgspec.structs.replace(changed, previous_id="long ago", **told)

    def deliver(self, count: int) -> None:
        """The stream delivers so many more."""
        for activity in self.booked[self.delivered : self.delivered + count]:
            assert self.record.apply_activity(self.told.get(activity.ref_id, activity), at_s(self.now_s))
        self.delivered = min(len(self.booked), self.delivered + count)

    def repeat(self, choice: float) -> None:
        """The stream delivers one again."""
        if self.delivered:
            activity = self.booked[int(choice * 10) % self.delivered]
            assert not self.record.apply_activity(self.told.get(activity.ref_id, activity), at_s(self.now_s))

    def stated(self, balance_lag_s: float, positions_lag_s: float) -> Statement:
        """What REST says now."""
        cash = CASH + sum(int(one.net_amount) for one in self._until(balance_lag_s))
        held = sum(int(one.quantity) for one in self._until(positions_lag_s))
        return statement(cash, {"AAPL": held} if held else {})

    def _until(self, lag_s: float) -> list[Activity]:
        return [one for one in self.booked if one.published_ns <= at_s(self.now_s - lag_s)]

    def look(self, balance_lag_s: float, positions_lag_s: float) -> Outcome:
        """A fetch of a tenth of a second."""
        began_ns = at_s(self.now_s)
        self.now_s += 0.1
        return self.record.observe(self.stated(balance_lag_s, positions_lag_s), began_ns, at_s(self.now_s))

    def check_nothing_counts_twice(self) -> None:
        """Every digit of the cash, to the base of four, is 0 or 1, and nothing else is in it."""
        if not self.record.is_known:
            return
        rest = int(self.record.account(1, 0).cash) - CASH
        assert rest >= 0
        for _ in self.booked:
            rest, digit = divmod(rest, 4)
            assert digit in (0, 1), "a booking was counted twice"
        assert not rest

    def take(self, step: Step) -> None:
        """One step of the story."""
        action, wait_s, first, second = step
        self.now_s += wait_s
        match action:
            case "deposit":
                self.book(None)
            case "buy":
                self.book("AAPL")
            case "correct":
                self.correct("AAPL" if first > 2 else None)
            case "deliver":
                self.deliver(1)
            case "deliver all":
                self.deliver(len(self.booked))
            case "repeat":
                self.repeat(first)
            case _:
                self.look(first, second)
        self.check_nothing_counts_twice()


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


MIXED = st.lists(
    st.tuples(
        st.sampled_from(["flow", "TRD", "OCT", "tell one", "tell all", "look", "look"]),
        st.floats(0, 6),  # seconds since the step before
        st.integers(-3, 3).filter(bool),  # the amount, or which one is delivered
    ),
    max_size=30,
)


@dataclass
class UnorderedBroker:
    """Bookings that move different amounts either way, and the ones that no event has told yet."""

    record: AccountRecord
    now_s: float = 0.0
    booked: list[Activity] = field(default_factory=list[Activity])
    waiting: list[Activity] = field(default_factory=list[Activity])

    def book(self, kind: str, sign: int) -> None:
        """A deposit or withdrawal, a trade of coins, or coins that come or leave without cash."""
        amount = Decimal(sign * 7 ** len(self.booked))
        if kind == "flow":
            one = booking("CSD" if sign > 0 else "CSW", amount, at=self.now_s)
        else:
            cash = -100 * amount if kind == "TRD" else 0
            one = booking(kind, cash, at=self.now_s, symbol="BTC/USD", quantity=amount, price=Decimal(100))
        self.booked.append(one)
        self.waiting.append(one)

    def tell(self, index: int) -> None:
        """The event of one that waits."""
        if self.waiting:
            self.record.apply_activity(self.waiting.pop(index % len(self.waiting)), at_s(self.now_s))

    def look(self) -> Outcome:
        """A fetch of a tenth of a second. REST does not lag."""
        began_ns, self.now_s = at_s(self.now_s), self.now_s + 0.1
        held = sum(int(one.quantity) for one in self.booked)
        cash = 10**40 + sum(int(one.net_amount) for one in self.booked)
        stated = statement(cash, {"BTC/USD": held} if held else {}, last_equity=10**40)
        return self.record.observe(stated, began_ns, at_s(self.now_s))

    def take(self, action: str, wait_s: float, choice: int) -> None:
        """One step of the story."""
        self.now_s += wait_s
        match action:
            case "tell one":
                self.tell(choice)
            case "tell all":
                for _ in tuple(self.waiting):
                    self.tell(0)
            case "look":
                self.look()
            case _:
                self.book(action, choice)

    def settle(self) -> None:
        """Everything is told, and looked at as often as the record asks."""
        self.take("tell all", 0, 1)
        self.now_s += 10
        for _ in range(LOOKS_MAX):
            outcome = self.look()
            again_ns = self.record.look_again_ns
            if again_ns is None and outcome is not Outcome.LATE:
                return
            self.now_s = max(self.now_s, ((again_ns or 0) - at_s(0)) / 1e9)
            self.now_s += 70 if outcome is Outcome.LATE else 0.001
        raise AssertionError(f"undecided after {LOOKS_MAX} looks")


@settings(max_examples=600, deadline=None)
@given(MIXED)
def test_bookings_in_any_order_explain_what_statements_showed_before(
    story: list[tuple[str, float, int]],
) -> None:
    """In and out, bought and sold, each told much later and in any order: nothing is left unexplained.

    No two move the same amount: of two equal ones, the second may be told first and be taken for the first.
    """
    broker = UnorderedBroker(AccountRecord("alice"))
    broker.look()
    for action, wait_s, choice in story:
        broker.take(action, wait_s, choice)

    broker.settle()

    account = broker.record.account(1, 0)
    assert account.unconfirmed is None
    assert account.unexplained == {}
    flows = [one.net_amount for one in broker.booked if one.activity_type in ("CSD", "CSW")]
    coins = [100 * one.quantity for one in broker.booked if one.activity_type == "OCT"]
    assert account.external_cash_flow == sum(flows) + sum(coins)


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

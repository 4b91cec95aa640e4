"""One account's record: what REST states, moved on by events, and never moved back.

Events may run ahead of REST or behind it, they may come twice, and a statement is two requests that need not
belong together. So the record compares a new statement R with its own state S:

| R                                             | outcome   | what happens                                 |
| --------------------------------------------- | --------- | -------------------------------------------- |
| is the first one                              | FIRST     | R is taken                                   |
| = S, or S with some of the uncertain bookings | CONFIRMED | R is S; those bookings are decided           |
| = an earlier state of ours, or may be one     | LATE      | REST trails the events: S stays              |
| ≠ S                                           | DIFFERENT | S stays; look again when it has been quiet   |
| ≠ S, the same twice, quiet in between         | DRIFT     | R is taken: we missed something              |
| ≠ S, the same twice at once, after a booking  | CORRECTED | R is taken: it shows what was corrected;     |
|   that corrects one which we do not know      |           | look again when it has been quiet            |

A booking is uncertain when it was published so close to the moment a statement was taken that nobody can tell
whether it is in there. It waits, unapplied, for the next statement. Times are arguments; there is no I/O.
"""

from collections import deque
from decimal import Decimal
from enum import StrEnum
from typing import Final

import msgspec

from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.model import ZERO, Account, Booking, Bookings, Position
from portfolio_realtime.symbol_collector import cash_flows
from portfolio_realtime.symbol_collector.activities import (
    AccountState,
    Activity,
    Effect,
    Holding,
    Statement,
    asset_class_of,
    effect_of,
    multiplier_of,
)
from portfolio_realtime.symbol_collector.balances import Balances
from portfolio_realtime.symbol_collector.day_sums import Day, Traded

EVENT_SETTLE_NS: Final = 2 * NS_PER_S  # this long without events of the account is quiet
LOOK_NS_MAX: Final = 10 * NS_PER_S  # an account that is never quiet is looked at this often
REST_LAG_NS: Final = 5 * NS_PER_S  # published this long before a request, a booking is in its answer
CLOCK_SKEW_NS: Final = NS_PER_S // 2  # the broker's clock and ours agree within this
LEGS_NS_MAX: Final = 60 * NS_PER_S  # the legs of one corporate action are booked within this
LATE_NS_MAX: Final = 60 * NS_PER_S  # REST that trails for longer than this is right, and we are wrong
REPEAT_NS_MAX: Final = 24 * 3600 * NS_PER_S  # before the cut-off; an older booking does not come again
CASH: Final = "cash"  # names itself among the symbols of what is unvalued
APPLIED_MAX: Final = 1_000  # bookings looked back upon to recognise a late statement
BOOKINGS_TOLD_MAX: Final = 2_000  # of these, the newest are told to others
BOOKINGS_MAX: Final = 20_000  # bookings of one account remembered, to know repeats and the day's sums


class Outcome(StrEnum):
    """What a statement meant for the record."""

    FIRST = "first"
    CONFIRMED = "confirmed"
    LATE = "late"
    DIFFERENT = "different"
    DRIFT = "drift"
    CORRECTED = "corrected"


class AccountRecord:
    """The state machine of one account."""

    def __init__(self, account_id: str) -> None:
        self.account_id = account_id
        self._state: AccountState | None = None
        self._balances: Balances
        self._day: Day
        self._bookings: dict[str, Activity] = {}  # by ref_id, in order of arrival
        self._inferred: dict[str, Activity] = {}  # by ref_id of its correction: what that must have corrected
        self._applied: deque[Effect] = deque(maxlen=APPLIED_MAX)  # since REST last agreed
        self._uncertain: list[Activity] = []
        self._multipliers: dict[str, Decimal] = {}  # of options held since the roll, closed or not
        self._taken_from_ns = 0  # the statement that the balances rest on was requested here …
        self._taken_until_ns = 0  # … and complete here
        self._doubt: tuple[Statement, int] | None = None  # a statement that differs, and since when it does
        self._explained_since_ns = 0  # from here on, the bookings explain every change
        self._is_unsettled = False
        self._is_prompt = False  # to be looked at now, quiet or not
        self._prompted_ns = 0  # when a doubt was last looked at again at once
        self._has_new_bookings = False  # to tell: a booking came, or is no longer doubtful
        self._are_memos_cash = True
        self._event_ns = 0
        self._looked_ns = 0

    @property
    def is_known(self) -> bool:
        """Has there been a statement?"""
        return self._state is not None

    @property
    def look_again_ns(self) -> int | None:
        """When REST should be asked again because something is undecided; None when nothing is."""
        if not self._is_unsettled:
            return None
        if self._is_prompt:
            return max(self._event_ns, self._looked_ns)
        quiet_ns = max(self._event_ns, self._looked_ns) + EVENT_SETTLE_NS
        return min(quiet_ns, self._looked_ns + LOOK_NS_MAX)

    def apply(self, activity: Activity, now_ns: int) -> bool:
        """Take in an event. True when it is new; a repeat changes nothing."""
        if activity.ref_id in self._bookings:
            return False
        is_memo = activity.activity_type == cash_flows.MEMO
        if is_memo and not self._are_memos_cash:
            activity = _void(activity)
        self._bookings[activity.ref_id] = activity
        if len(self._bookings) > BOOKINGS_MAX:
            forgotten = self._bookings.pop(next(iter(self._bookings)))
            self._inferred.pop(forgotten.ref_id, None)
            self._explained_since_ns = max(self._explained_since_ns, forgotten.executed_ns)
        if self._state is None:
            return True
        self._event_ns = now_ns
        is_around_statement = activity.published_ns <= self._taken_until_ns
        self._is_unsettled |= is_around_statement or activity.activity_type not in cash_flows.KNOWN_TYPES
        self._is_unsettled |= activity.previous_id is not None or (is_memo and not activity.is_void)
        self._is_unsettled |= activity.moves_quantity and not activity.price  # REST knows what it cost
        self._is_unsettled |= bool(activity.rounding)  # … and the cash to the last digit
        self._is_prompt |= self._corrects_unknown(activity) and now_ns - self._looked_ns >= EVENT_SETTLE_NS
        self._place(activity)
        self._has_new_bookings = True
        if self._doubt is not None and not self._uncertain:
            doubted, _ = self._doubt
            if self._balances.totals().agrees(doubted):
                self._agree(doubted)
        return True

    def observe(self, statement: Statement, began_ns: int, ended_ns: int) -> Outcome:
        """Take in a statement that was requested at `began_ns` and complete at `ended_ns`."""
        self._looked_ns = ended_ns
        self._is_prompt &= began_ns < self._event_ns
        if self._state is None:
            self._begin(statement, began_ns, ended_ns)
            outcome = Outcome.FIRST
        else:
            outcome = self._compare(statement, began_ns, ended_ns)
            self._take_state(statement.state)
        if not self._uncertain and self._balances.cash == statement.state.cash:
            self._decide_memos(statement.state)
        return outcome

    def account(self, version: int, as_of_ns: int) -> Account:
        """The record as everybody else reads it. Only once it is known."""
        assert self._state is not None
        traded = self._day.traded
        symbols = sorted(self._balances.holdings.keys() | traded.keys())
        return Account(
            account_id=self.account_id,
            version=version,
            status=self._state.status,
            currency=self._state.currency,
            cash=self._balances.cash,
            last_equity=self._state.last_equity,
            balance_asof=self._state.balance_asof,
            external_cash_flow=self._day.external_cash_flow,
            positions=tuple(self._position(symbol, traded.get(symbol, Traded())) for symbol in symbols),
            as_of_ns=as_of_ns,
            unvalued=(*self._day.unvalued, *self._doubtful_flows),
        )

    def take_new_bookings(self) -> bool:
        """Do `bookings` tell something new since this was last asked, be the record the same or not?"""
        has_new, self._has_new_bookings = self._has_new_bookings, False
        return has_new

    @property
    def _doubtful_flows(self) -> tuple[str, ...]:
        """Is there money of the client's of which nobody can tell yet whether it is in the cash?"""
        has_any = any(
            self._taken_from_ns - REST_LAG_NS < one.published_ns and cash_flows.external_cash_flow(one)
            for one in self._uncertain
        )
        return (CASH,) if has_any else ()

    def bookings(self, version: int) -> Bookings:
        """The bookings that are in the record of this version and were executed since `last_equity`.

        Nothing is known before one of which nobody knows yet whether the record contains it.
        """
        assert self._state is not None
        began_ns = cash_flows.cut_off_ns(self._state.balance_asof)
        undecided = {activity.ref_id for activity in self._uncertain}
        told: list[Booking] = []
        for activity in self._bookings.values():
            if activity.ref_id not in undecided:
                told.extend(self._told(self._corrected(activity), -1))
                told.extend(self._told(activity, 1))
        told = sorted((one for one in told if one.at_ns > began_ns), key=lambda one: one.at_ns)
        around = [one for one in self._uncertain if not self._is_surely_new(one)]
        doubtful_ns = max((activity.executed_ns for activity in around), default=0)
        known_since_ns = max(began_ns, self._explained_since_ns, doubtful_ns)
        if len(told) > BOOKINGS_TOLD_MAX:
            known_since_ns = max(known_since_ns, told[-BOOKINGS_TOLD_MAX - 1].at_ns)
        newest = tuple(told[-BOOKINGS_TOLD_MAX:])
        return Bookings(self.account_id, version, began_ns, known_since_ns, newest)

    def _told(self, activity: Activity | None, sign: int) -> list[Booking]:
        if activity is None or activity.is_void:
            return []
        asset_class = activity.asset_class
        return [
            Booking(
                at_ns=activity.executed_ns,
                cash=sign * activity.net_amount,
                external_cash_flow=sign * cash_flows.external_cash_flow(activity),
                symbol=activity.symbol or "",
                asset_class=asset_class,
                quantity=sign * activity.quantity,
                multiplier=self._multipliers.get(activity.symbol or "", multiplier_of(asset_class)),
                is_split=activity.activity_type == cash_flows.SPLIT,
            )
        ]

    def _position(self, symbol: str, traded: Traded) -> Position:
        closed = Holding(symbol, asset_class_of(symbol), ZERO, ZERO)
        holding = self._balances.holdings.get(symbol, closed)
        multiplier = self._multipliers.get(symbol, holding.multiplier)
        return Position(
            symbol=symbol,
            asset_class=holding.asset_class,
            quantity=holding.quantity,
            multiplier=multiplier,
            cost_basis=holding.cost_basis,
            day_quantity=traded.quantity,
            day_cost=traded.cost * multiplier,
            day_asof=self._day.balance_asof if traded.quantity or traded.cost else "",
            is_day_cost_known=not traded.unknown_costs,
            marks_from_ns=self._day.marks_from_ns.get(symbol, 0),
        )

    # Bookings: inside the statement that the balances rest on, after it, or uncertain

    def _place(self, activity: Activity) -> None:
        if activity.published_ns <= self._taken_from_ns - REST_LAG_NS:
            self._day.count(activity, self._corrected(activity))
        elif self._corrects_unknown(activity) or not self._is_surely_new(activity):
            self._uncertain.append(activity)
            self._is_unsettled = True
        elif activity.activity_type in cash_flows.TWO_LEGGED_TYPES and activity.group_id is not None:
            self._place_leg(activity)
        else:
            self._move(activity)

    def _place_leg(self, leg: Activity) -> None:
        """The legs of one corporate action move the balances together; between them the value is nobody's."""
        self._uncertain.append(leg)
        self._is_unsettled = True
        if self._is_whole(leg.group_id):
            ready = [
                one for one in self._uncertain if one.group_id == leg.group_id and self._is_surely_new(one)
            ]
            self._uncertain = [one for one in self._uncertain if one not in ready]
            held = self._balances.holdings.get(leg.symbol or "")
            for one in ready:
                self._move(one)
            if held is not None and leg.activity_type == cash_flows.SPLIT:
                self._balances.restate_cost(held.symbol, held.cost_basis)

    def _is_surely_new(self, activity: Activity) -> bool:
        """Was it published after the statement that the balances rest on?"""
        return activity.published_ns > self._taken_until_ns + CLOCK_SKEW_NS

    def _move(self, activity: Activity) -> None:
        self._day.count(activity, self._corrected(activity))
        self._applied.append(self._balances.apply(activity, self._corrected(activity)))

    def _corrected(self, activity: Activity) -> Activity | None:
        if activity.previous_id is None:
            return None
        return self._bookings.get(activity.previous_id) or self._inferred.get(activity.ref_id)

    def _corrects_unknown(self, activity: Activity) -> bool:
        return activity.previous_id is not None and self._corrected(activity) is None

    # Statements

    def _begin(self, statement: Statement, began_ns: int, ended_ns: int) -> None:
        self._state = statement.state
        self._day = Day(statement.state.balance_asof)
        self._rest_on(statement)
        self._taken_from_ns, self._taken_until_ns = began_ns, ended_ns
        for activity in sorted(self._bookings.values(), key=lambda booking: booking.published_ns):
            self._place(activity)

    def _compare(self, statement: Statement, began_ns: int, ended_ns: int) -> Outcome:
        if self._is_explained(statement):
            if not self._can_decide(statement, began_ns):
                return Outcome.LATE
            self._agree(statement)
            return Outcome.CONFIRMED
        is_late = self._is_late(statement)
        doubt = self._doubt
        since_ns = self._doubted_since(statement, ended_ns)
        is_repeated = doubt is not None and self._doubt is doubt
        is_correction = not is_late and any(map(self._corrects_unknown, self._uncertain))
        if is_correction and is_repeated:
            self._take_correction(statement, began_ns, ended_ns)
            return Outcome.CORRECTED
        if began_ns - since_ns >= (LATE_NS_MAX if is_late else EVENT_SETTLE_NS):
            self._replace(statement, began_ns, ended_ns)
            return Outcome.DRIFT
        self._is_unsettled |= not is_late
        if is_correction and ended_ns - self._prompted_ns >= EVENT_SETTLE_NS:
            self._is_prompt, self._prompted_ns = True, ended_ns
        return Outcome.LATE if is_late else Outcome.DIFFERENT

    def _replace(self, statement: Statement, began_ns: int, ended_ns: int) -> None:
        self._agree(statement)
        self._taken_from_ns, self._taken_until_ns = began_ns, ended_ns
        self._explained_since_ns = ended_ns

    def _take_correction(self, statement: Statement, began_ns: int, ended_ns: int) -> None:
        """REST has changed after a booking that corrects an unknown one: what differs is what that changed.

        Balance and positions may still trail each other, so the record stays unsettled: the next statement,
        taken in quiet, confirms this one.
        """
        if len(self._uncertain) == 1:
            correction = self._uncertain[0]
            self._inferred[correction.ref_id] = self._original_of(correction, statement)
        self._replace(statement, began_ns, ended_ns)
        self._is_unsettled = True

    def _original_of(self, correction: Activity, statement: Statement) -> Activity:
        """What a correction must have corrected, by what the statement changes; as of the correction."""
        totals, symbol = self._balances.totals(), correction.symbol or ""
        totals.add(effect_of(correction))
        net_amount, quantity = totals.excess_over(statement, symbol)
        value = quantity * self._multipliers.get(symbol, multiplier_of(correction.asset_class))
        return msgspec.structs.replace(
            correction,
            net_amount=net_amount,
            quantity=quantity,
            price=abs(net_amount / value) if value else ZERO,
            previous_id=None,
            is_void=False,
        )

    def _is_explained(self, statement: Statement) -> bool:
        """Are cash and quantities, each for itself, ours with some of the uncertain bookings on top?

        Each for itself: the statement that the balances rest on may have been taken in between.
        """
        totals = self._balances.totals()
        has_cash, has_quantities = totals.has_cash_of(statement), totals.has_quantities_of(statement)
        for activity in reversed(self._uncertain):
            totals.add(effect_of(activity, self._corrected(activity)))
            has_cash |= totals.has_cash_of(statement)
            has_quantities |= totals.has_quantities_of(statement)
        return has_cash and has_quantities

    def _can_decide(self, statement: Statement, began_ns: int) -> bool:
        """May an explanation be believed? While REST may trail, only that all uncertain ones are missing.

        A statement from between the legs of a corporate action is nobody's value.
        """
        if self._has_half_an_action(began_ns):
            return False
        youngest_ns = max((activity.published_ns for activity in self._uncertain), default=0)
        if began_ns >= youngest_ns + REST_LAG_NS:
            return True
        totals = self._balances.totals()
        for activity in self._uncertain:
            totals.add(effect_of(activity, self._corrected(activity)))
        return totals.agrees(statement) and not self._balances.totals().agrees(statement)

    def _has_half_an_action(self, at_ns: int) -> bool:
        """Does a leg wait for the other one, and may that still come?"""
        return any(
            leg.activity_type in cash_flows.TWO_LEGGED_TYPES
            and leg.group_id is not None
            and at_ns < leg.published_ns + LEGS_NS_MAX
            and not self._is_whole(leg.group_id)
            for leg in self._uncertain
        )

    def _is_whole(self, group_id: str | None) -> bool:
        """Has one leg of this corporate action taken something out and another one put something in?"""
        group = (one for one in self._bookings.values() if one.group_id == group_id)
        return len({one.quantity < 0 for one in group}) > 1

    def _decide_memos(self, state: AccountState) -> None:
        """Whether instant-funding memos are cash is not documented: the sum of the day's bookings tells.

        Where cash is what it was at the roll and all bookings but the memos, they are no cash and no flow.
        """
        memos = [
            one
            for one in self._bookings.values()
            if one.activity_type == cash_flows.MEMO and not one.is_void and self._day.contains(one)
        ]
        total = sum((one.net_amount for one in memos), ZERO)
        if not total or state.last_cash is None or state.balance_asof != self._day.balance_asof:
            return
        if state.last_cash + self._day.booked_cash - state.cash == total:
            self._are_memos_cash = False
            for memo in memos:
                self._bookings[memo.ref_id] = _void(memo)
                self._day.count(_void(memo), memo)

    def _agree(self, statement: Statement) -> None:
        """REST has caught up with us, or we with it: every booking that we know is in the statement."""
        for activity in self._uncertain:
            self._day.count(activity, self._corrected(activity))
        self._has_new_bookings |= bool(self._uncertain)
        self._uncertain = []
        self._rest_on(statement)
        self._applied.clear()
        self._doubt = None
        self._is_unsettled = False

    def _rest_on(self, statement: Statement) -> None:
        self._balances = Balances(statement)
        for symbol, holding in statement.holdings.items():
            if holding.stated_multiplier is not None:
                self._multipliers[symbol] = holding.stated_multiplier

    def _is_late(self, statement: Statement) -> bool:
        """Are cash and quantities, each for itself, what ours were at some moment since REST last agreed?"""
        totals = self._balances.totals()
        has_cash, has_quantities = totals.has_cash_of(statement), totals.has_quantities_of(statement)
        for effect in reversed(self._applied):
            totals.undo(effect)
            has_cash |= totals.has_cash_of(statement)
            has_quantities |= totals.has_quantities_of(statement)
        return has_cash and has_quantities

    def _doubted_since(self, statement: Statement, ended_ns: int) -> int:
        """Since when REST has stated this without an event of the account in between."""
        if self._doubt is not None:
            doubted, since_ns = self._doubt
            is_same = (
                doubted.state.cash == statement.state.cash and doubted.quantities == statement.quantities
            )
            if is_same and self._event_ns <= since_ns:
                return since_ns
        self._doubt = (statement, ended_ns)
        return ended_ns

    def _take_state(self, state: AccountState) -> None:
        """Take what only REST knows; a new `balance_asof` is the overnight roll and begins a new day."""
        assert self._state is not None
        if state.balance_asof < self._state.balance_asof:
            return
        has_rolled = state.balance_asof > self._state.balance_asof
        self._state = state
        if has_rolled:
            self._begin_day(state.balance_asof)

    def _begin_day(self, balance_asof: str) -> None:
        """Sum anew from the new cut-off, and forget bookings too old to come again."""
        self._day = Day(balance_asof, self._day.marks_from_ns)
        self._multipliers = {
            symbol: multiplier
            for symbol, multiplier in self._multipliers.items()
            if symbol in self._balances.holdings
        }
        oldest_ns = cash_flows.cut_off_ns(balance_asof) - REPEAT_NS_MAX
        uncertain = {activity.ref_id for activity in self._uncertain}
        for activity in tuple(self._bookings.values()):
            if activity.ref_id not in uncertain:
                self._day.count(activity, self._corrected(activity))
        for activity in tuple(self._bookings.values()):
            if max(activity.published_ns, activity.executed_ns) < oldest_ns:
                del self._bookings[activity.ref_id]
                self._inferred.pop(activity.ref_id, None)


def _void(activity: Activity) -> Activity:
    """The same booking without any effect."""
    return msgspec.structs.replace(activity, is_void=True)

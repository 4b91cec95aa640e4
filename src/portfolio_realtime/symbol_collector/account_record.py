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

A booking is uncertain when nobody can tell whether the statement that the balances rest on has it: it was
published close to it, or may be a share of what the statement had too much. It waits, unapplied, for the next
statement. What a statement had too much is a difference (`differences`) until a booking explains it. From the
first contradiction to the next agreement the record is unconfirmed. Times are arguments; there is no I/O.
"""

from collections import deque
from collections.abc import Iterable
from decimal import Context, Decimal, localcontext
from enum import StrEnum
from typing import Final

import msgspec

from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.model import ZERO, Account, Bookings, Position
from portfolio_realtime.symbol_collector import activity_types, cash_flows, differences
from portfolio_realtime.symbol_collector.activities import (
    CASH,
    AccountState,
    Activity,
    Effect,
    Holding,
    Statement,
    effect_of,
    multiplier_of,
)
from portfolio_realtime.symbol_collector.asset_classes import AssetClasses
from portfolio_realtime.symbol_collector.balances import Balances
from portfolio_realtime.symbol_collector.booked import Booked
from portfolio_realtime.symbol_collector.day_sums import Day, Traded
from portfolio_realtime.symbol_collector.differences import Cause, Differences
from portfolio_realtime.symbol_collector.doubts import Doubts, Reason
from portfolio_realtime.symbol_collector.holds import without_hold

EVENT_SETTLE_NS: Final = 2 * NS_PER_S  # this long without events of the account is quiet
LOOK_NS_MAX: Final = 10 * NS_PER_S  # an account that is never quiet is looked at this often
REST_LAG_NS: Final = 5 * NS_PER_S  # published this long before a request, a booking is in its answer
CLOCK_SKEW_NS: Final = NS_PER_S // 2  # the broker's clock and ours agree within this
LEGS_NS_MAX: Final = 60 * NS_PER_S  # the legs of one group are booked within this
LATE_NS_MAX: Final = 60 * NS_PER_S  # REST that trails for longer than this is right, and we are wrong
HOLD_NS_MAX: Final = 24 * 3600 * NS_PER_S  # cash that may be held back for longer than this is gone
REPEAT_NS_MAX: Final = 24 * 3600 * NS_PER_S  # before the cut-off; an older booking does not come again
APPLIED_MAX: Final = 1_000  # bookings looked back upon to recognise a late statement
BOOKINGS_TOLD_MAX: Final = 2_000  # of these, the newest are told to others

_EXACT: Final = Context(prec=60)  # sums of money never round


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

    def __init__(self, account_id: str, classes: AssetClasses | None = None) -> None:
        self.account_id = account_id
        self._classes = classes or AssetClasses()
        self._state: AccountState | None = None
        self._balances: Balances
        self._day: Day
        self._booked = Booked()
        self._applied: deque[tuple[Activity, Effect]] = deque(maxlen=APPLIED_MAX)  # since REST last agreed
        self._uncertain: list[Activity] = []
        self._differences = Differences()
        self._doubts = Doubts()
        self._multipliers: dict[str, Decimal] = {}  # of options held since the roll, closed or not
        self._prices: dict[str, float] = {}  # the broker's own, of the statement that the balances rest on
        self._taken_from_ns = 0  # the statement that the balances rest on was requested here …
        self._taken_until_ns = 0  # … and complete here
        self._confirmed_ns = 0  # the newest statement that agreed, or was taken, was complete here
        self._doubt: tuple[Statement, int] | None = None  # a statement that differs, and since when it does
        self._explained_since_ns = 0  # from here on, the bookings explain every change
        self._is_unsettled = False
        self._is_late = False  # REST trails: it is looked at less and less often
        self._is_prompt = False  # to be looked at now, quiet or not
        self._prompted_ns = 0  # when a doubt was last looked at again at once
        self._has_new_bookings = False  # to tell: a booking came, or is no longer doubtful
        self._are_memos_cash = True
        self._held_back = ZERO
        self._event_ns = 0
        self._looked_ns = 0
        self.as_of_ns = 0  # when the broker last told something readable about the account

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
        quiet_ns = max(self._event_ns, self._looked_ns) + self._patience_ns
        return min(quiet_ns, self._looked_ns + LOOK_NS_MAX)

    @property
    def _patience_ns(self) -> int:
        if not self._is_late or self._doubt is None:
            return EVENT_SETTLE_NS
        return max(EVENT_SETTLE_NS, (self._looked_ns - self._doubt[1]) // 2)

    def apply(self, activity: Activity, now_ns: int) -> bool:
        """Take in an event. True when it is new; a repeat changes nothing."""
        if activity.ref_id in self._booked:
            return False
        if stated := self._classes.stated(activity):
            activity = msgspec.structs.replace(activity, stated_class=stated)
        is_memo = activity.activity_type == activity_types.MEMO
        if is_memo and not self._are_memos_cash:
            activity = _void(activity)
        forgotten = self._booked.add(activity)
        if forgotten is not None:
            self._explained_since_ns = max(self._explained_since_ns, forgotten.executed_ns)
        if self._state is None:
            return True
        self._event_ns = self.as_of_ns = now_ns
        self._ask_for_what_rest_knows(activity)
        self._is_prompt |= (
            self._booked.corrects_unknown(activity) and now_ns - self._looked_ns >= EVENT_SETTLE_NS
        )
        self._place(activity, now_ns)
        self._has_new_bookings = True
        if self._doubt is not None and not self._uncertain:
            doubted, _ = self._doubt
            if self._balances.totals().agrees(doubted):
                self._agree(doubted)
        return True

    def _ask_for_what_rest_knows(self, activity: Activity) -> None:
        """Some bookings do not say everything: REST is asked soon."""
        is_memo = activity.activity_type == activity_types.MEMO
        self._is_unsettled |= activity.published_ns <= self._taken_until_ns  # it is around the statement
        self._is_unsettled |= not activity_types.is_described(activity.activity_type)
        self._is_unsettled |= activity.previous_id is not None or (is_memo and not activity.is_void)
        self._is_unsettled |= activity.moves_quantity and not activity.price  # REST knows what it cost
        self._is_unsettled |= bool(activity.rounding)  # … and the cash to the last digit

    def refuse_activity(self, now_ns: int) -> None:
        """An event of the account could not be read; it may have moved anything: a statement will show it."""
        self._event_ns = now_ns
        self._is_unsettled = True
        self._doubts.raise_(Reason.EVENT_REFUSED, now_ns, {})

    def refuse_statement(self, now_ns: int) -> None:
        """The broker's answer about the account could not be read."""
        self._looked_ns = now_ns
        self._doubts.raise_(Reason.UNREADABLE, now_ns, {})

    def compare_equity(self, difference: Decimal | None, now_ns: int) -> None:
        """By how much the broker's own equity is more than ours at the same cash, quantities and prices."""
        if difference is None:
            self._doubts.settle(Reason.EQUITY)
        else:
            self._doubts.raise_(Reason.EQUITY, now_ns, {"equity": difference})

    def observe(self, statement: Statement, began_ns: int, ended_ns: int) -> Outcome:
        """Take in a statement that was requested at `began_ns` and complete at `ended_ns`."""
        self._looked_ns = self.as_of_ns = ended_ns
        self._is_prompt &= began_ns < self._event_ns
        self._doubts.settle(Reason.UNREADABLE)
        self._classes.learn(statement)
        statement, self._held_back = without_hold(statement, self._known_cash(statement.state))
        if self._state is None:
            self._begin(statement, began_ns, ended_ns)
            outcome = Outcome.FIRST
        else:
            outcome = self._compare(statement, began_ns, ended_ns)
            self._take_state(statement.state)
        self._is_late = outcome is Outcome.LATE
        if not self._uncertain and self._balances.cash == statement.state.cash:
            self._decide_memos(statement.state)
        if outcome is Outcome.FIRST:
            self._check_first(statement.state, ended_ns)
        self._note_doubts(statement, outcome, ended_ns)
        return outcome

    def _known_cash(self, state: AccountState) -> Decimal | None:
        """What the cash should be: ours; before the first statement, that of the last close and all since."""
        if self._state is not None:
            return self._balances.cash
        if state.last_cash is None:
            return None
        day = Day(state.balance_asof)
        self._booked.sum_up(day, ())
        return state.last_cash + day.booked_cash

    def relearn_classes(self) -> None:
        """Another account's statement has named the class of something that is held or was traded here."""
        for one in self._booked:
            if one.stated_class != self._classes.stated(one):
                self._booked.replace(msgspec.structs.replace(one, stated_class=self._classes.stated(one)))
        if self._state is not None:
            self._balances.relearn_classes()
            self._sum_up_day()

    def account(self, version: int, as_of_ns: int) -> Account:
        """The record as everybody else reads it. Only once it is known."""
        assert self._state is not None
        traded, unexplained = self._day.traded, self._differences.unexplained
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
            positions=tuple(
                self._position(symbol, traded.get(symbol, Traded()), is_explained=symbol not in unexplained)
                for symbol in symbols
            ),
            as_of_ns=as_of_ns,
            unvalued=(*self._day.unvalued, *self._doubtful_flows),
            unexplained=unexplained,
            unconfirmed=self._doubts.told,
            is_unreadable=Reason.UNREADABLE in self._doubts,
            confirmed_ns=self._confirmed_ns,
            held_back=self._held_back,
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
        return (CASH,) if has_any and CASH not in self._day.unvalued else ()

    def bookings(self, version: int) -> Bookings:
        """The bookings that are in the record of this version and were executed since `last_equity`.

        Nothing is known before one of which nobody knows yet whether the record contains it.
        """
        assert self._state is not None
        began_ns = cash_flows.cut_off_ns(self._state.balance_asof)
        undecided = {activity.ref_id for activity in self._uncertain}
        told = self._booked.told(undecided, began_ns, self._multipliers.get)
        around = [one for one in self._uncertain if not self._is_surely_new(one)]
        doubtful_ns = max((activity.executed_ns for activity in around), default=0)
        known_since_ns = max(began_ns, self._explained_since_ns, doubtful_ns)
        if len(told) > BOOKINGS_TOLD_MAX:
            known_since_ns = max(known_since_ns, told[-BOOKINGS_TOLD_MAX - 1].at_ns)
        newest = tuple(told[-BOOKINGS_TOLD_MAX:])
        return Bookings(self.account_id, version, began_ns, known_since_ns, newest)

    def _position(self, symbol: str, traded: Traded, *, is_explained: bool) -> Position:
        closed = Holding(symbol, self._classes.of(symbol), ZERO, ZERO)
        holding = self._balances.holdings.get(symbol, closed)
        multiplier = self._multipliers.get(symbol, holding.multiplier)
        return Position(
            symbol=symbol,
            asset_class=holding.asset_class,
            quantity=holding.quantity,
            multiplier=multiplier,
            cost_basis=holding.cost_basis,
            is_cost_known=holding.is_cost_known,
            day_quantity=traded.quantity,
            day_cost=traded.cost * multiplier,
            day_asof=self._day.balance_asof if traded.quantity or traded.cost else "",
            is_day_cost_known=is_explained and not traded.unknown_costs,
            marks_from_ns=self._day.marks_from_ns.get(symbol, 0),
        )

    # Bookings: inside the statement that the balances rest on, after it, or uncertain

    def _place(self, activity: Activity, now_ns: int) -> None:
        if activity.published_ns <= self._taken_from_ns - REST_LAG_NS:
            self._count_contained(activity)
        elif self._booked.corrects_unknown(activity) or not self._is_surely_new(activity):
            self._wait_with(activity, now_ns)
        elif self._booked.is_leg(activity):
            self._wait_with(activity, now_ns)
            self._move_group(activity, now_ns)
        elif self._is_there_already(activity):
            self._count_contained(activity)
            self._is_unsettled = True
        elif activity.is_tentative or self._may_be_there_already(activity):
            self._wait_with(activity, now_ns)
            self._is_prompt |= now_ns - self._looked_ns >= EVENT_SETTLE_NS
        else:
            self._move(activity)
            if not activity_types.is_described(activity.activity_type):
                self._doubts.raise_(Reason.UNPROVED, now_ns, {})

    def _wait_with(self, activity: Activity, now_ns: int) -> None:
        """Nobody can tell whether the balances have it: the next statement does."""
        self._uncertain.append(activity)
        self._is_unsettled = True
        self._tell_uncertain(now_ns)

    def _tell_uncertain(self, now_ns: int) -> None:
        if not self._uncertain:
            self._doubts.settle(Reason.BOOKING)
            return
        by: dict[str, Decimal] = {}
        for one in self._uncertain:
            for name, amount in self._effect(one).parts.items():
                by[name] = by.get(name, ZERO) + amount
        self._doubts.raise_(Reason.BOOKING, now_ns, by)

    def _move_group(self, leg: Activity, now_ns: int) -> None:
        """The legs of one group move the balances together; between them the value is nobody's."""
        if not self._booked.is_whole(leg.group_id):
            return
        ready = [one for one in self._uncertain if one.group_id == leg.group_id and self._is_surely_new(one)]
        self._uncertain = [one for one in self._uncertain if one not in ready]
        self._tell_uncertain(now_ns)
        effect = _sum(self._effect(one) for one in ready)
        if self._differences.since_ns(effect) is not None:
            for one in ready:
                self._count_contained(one)
            return
        held = self._balances.holdings.get(leg.symbol or "")
        for one in ready:
            self._move(one)
        if held is not None and leg.activity_type == activity_types.SPLIT:
            self._balances.restate_cost(held.symbol, held.cost_basis)
        self._doubts.raise_(Reason.UNPROVED, now_ns, {})

    def _is_there_already(self, activity: Activity) -> bool:
        """Has a statement had exactly this too much?"""
        return self._differences.since_ns(self._effect(activity)) is not None

    def _may_be_there_already(self, activity: Activity) -> bool:
        """May a statement have had it, as a share of what it had too much, or a fee before it was booked?"""
        if self._differences.may_contain(self._effect(activity)):
            return True
        is_fee = activity.activity_type == activity_types.CRYPTO_FEE and bool(activity.legs)
        return is_fee and any(
            one.activity_type == activity_types.TRADE
            and one.legs.keys() & activity.legs.keys()
            and one.published_ns <= self._taken_until_ns
            for one in self._booked
        )

    def _is_surely_new(self, activity: Activity) -> bool:
        """Was it published after the statement that the balances rest on?"""
        return activity.published_ns > self._taken_until_ns + CLOCK_SKEW_NS

    def _move(self, activity: Activity) -> None:
        corrected = self._booked.corrected(activity)
        self._day.count(activity, corrected)
        self._applied.append((activity, self._balances.move(activity, corrected)))

    def _effect(self, activity: Activity) -> Effect:
        return effect_of(activity, self._booked.corrected(activity))

    def _count_contained(self, activity: Activity) -> None:
        """The balances have it: it explains what they had too much, and counts from when they did."""
        effect = self._effect(activity)
        since_ns = self._differences.since_ns(effect)
        if since_ns is None and not self._differences.may_contain(effect):
            self._day.count(activity, self._booked.corrected(activity))
            return
        if since_ns is not None:
            self._booked.replace(
                msgspec.structs.replace(
                    activity,
                    executed_ns=min(activity.executed_ns, since_ns),
                    published_ns=min(activity.published_ns, since_ns),
                )
            )
        self._differences.explain(effect.parts, effect.rounding)
        self._sum_up_day()

    # Statements

    def _begin(self, statement: Statement, began_ns: int, ended_ns: int) -> None:
        self._state = statement.state
        self._day = Day(statement.state.balance_asof)
        self._rest_on(statement)
        self._confirmed_ns = ended_ns
        self._taken_from_ns, self._taken_until_ns = began_ns, ended_ns
        for activity in sorted(self._booked, key=lambda booking: booking.published_ns):
            self._place(activity, ended_ns)

    def _check_first(self, state: AccountState, now_ns: int) -> None:
        """Is the first cash what it was at the last close and all bookings since? Else nobody has told all.

        Without the cash of that close it is known for who holds and has traded nothing: all was cash.
        """
        before = state.last_cash
        if before is None and not self._balances.holdings and not self._day.traded:
            before = state.last_equity
        if before is None or self._uncertain:
            return
        with localcontext(_EXACT):
            missing = self._balances.cash - before - self._day.booked_cash
        rounding = sum((one.rounding for one in self._booked if self._day.contains(one)), ZERO)
        if abs(missing) > max(rounding, differences.CENT) and not self._is_fee(CASH, missing):
            self._differences.add(CASH, missing, now_ns, Cause.UNEXPLAINED)

    def _compare(self, statement: Statement, began_ns: int, ended_ns: int) -> Outcome:
        if self._is_explained(statement):
            if not self._can_decide(statement, began_ns):
                return Outcome.LATE
            self._explain_contained(statement)
            self._confirm(statement, ended_ns)
            return Outcome.CONFIRMED
        is_late = self._is_earlier(statement)
        doubt = self._doubt
        since_ns = self._doubted_since(statement, ended_ns)
        is_repeated = doubt is not None and self._doubt is doubt
        is_correction = not is_late and any(map(self._booked.corrects_unknown, self._uncertain))
        if is_correction and is_repeated:
            self._take_correction(statement, began_ns, ended_ns)
            return Outcome.CORRECTED
        may_be_held_back = not is_late and self._may_be_held_back(statement)
        patience_ns = HOLD_NS_MAX if may_be_held_back else LATE_NS_MAX if is_late else EVENT_SETTLE_NS
        if began_ns - since_ns >= patience_ns:
            self._take_drift(statement, began_ns, ended_ns, is_late=is_late)
            return Outcome.DRIFT
        self._is_unsettled |= not may_be_held_back
        if is_correction and ended_ns - self._prompted_ns >= EVENT_SETTLE_NS:
            self._is_prompt, self._prompted_ns = True, ended_ns
        return Outcome.LATE if is_late else Outcome.DIFFERENT

    def _may_be_held_back(self, statement: Statement) -> bool:
        """Is the cash alone less, by more than fees, and does the answer not say what it is without orders?

        Then an open order may hold it back: what is ours stays, unconfirmed.
        """
        totals = self._balances.totals()
        is_known = statement.state.equity is not None and statement.state.market_value is not None
        if is_known or self._uncertain or not totals.has_quantities_of(statement):
            return False
        less = totals.lacks(statement).get(CASH, ZERO)
        return less < 0 and not self._is_fee(CASH, less)

    def _take_drift(self, statement: Statement, began_ns: int, ended_ns: int, *, is_late: bool) -> None:
        """REST is right: what it has and no booking has told is a difference, and what we had is none."""
        undone = self._undone(statement) if is_late else []
        self._void_memos(undone)
        lacking = self._balances.totals().lacks(statement)
        costs = {symbol: held.cost_basis for symbol, held in self._balances.holdings.items()}
        quantities = self._balances.totals().quantities
        since_ns = ended_ns if self._doubt is None else self._doubt[1]
        for one in undone:
            kind = activity_types.of(one.activity_type)
            if not kind.is_external and kind.code != activity_types.TRADE:  # REST had it before it was booked
                for name, amount in self._effect(one).parts.items():
                    lacking[name] = lacking.get(name, ZERO) + amount
        for name, amount in lacking.items():
            if amount and not self._is_immaterial(name, amount, statement):
                cause = self._cause(name, amount, lacking, statement, (costs, quantities))
                self._differences.add(name, amount, since_ns, cause)
        self._replace(statement, began_ns, ended_ns)

    def _undone(self, statement: Statement) -> list[Activity]:
        """The newest applied bookings that a trailing statement does not have."""
        totals, undone = self._balances.totals(), list[Activity]()
        for activity, effect in reversed(self._applied):
            if totals.agrees(statement):
                break
            totals.undo(effect)
            undone.append(activity)
        return undone if totals.agrees(statement) else []

    def _void_memos(self, undone: list[Activity]) -> None:
        """REST has not had a memo for a minute: memos are no cash, and no flow."""
        memos = [one for one in undone if one.activity_type == activity_types.MEMO]
        if memos and len(memos) == len(undone):
            self._are_memos_cash = False
            for memo in memos:
                self._booked.replace(_void(memo))
                self._day.count(_void(memo), memo)
                self._balances.move(_void(memo), memo)

    def _cause(
        self,
        name: str,
        amount: Decimal,
        lacking: dict[str, Decimal],
        statement: Statement,
        before: tuple[dict[str, Decimal], dict[str, Decimal]],
    ) -> Cause:
        if self._is_fee(name, amount):
            return Cause.FEE
        costs, quantities = before
        holding = statement.holdings.get(name)
        if holding is None or name not in costs or lacking.get(CASH):
            return Cause.UNEXPLAINED
        is_split = differences.is_split(
            quantities[name],
            holding.quantity,
            (costs[name], holding.cost_basis),
            (self._prices.get(name), statement.prices.get(name)),
        )
        return Cause.SPLIT if is_split else Cause.UNEXPLAINED

    def _is_fee(self, name: str, amount: Decimal) -> bool:
        """May it be a fee of what was traded, which is still to be booked?"""
        if amount >= 0:
            return False
        bound = differences.fee_bound(name, self._booked) + self._differences.ahead.get(name, ZERO)
        return abs(amount) <= bound

    def _is_immaterial(self, name: str, amount: Decimal, statement: Statement) -> bool:
        price = 1.0 if name == CASH else statement.prices.get(name) or self._prices.get(name)
        return price is not None and abs(float(amount)) * price < differences.IMMATERIAL

    def _replace(self, statement: Statement, began_ns: int, ended_ns: int) -> None:
        self._confirm(statement, ended_ns)
        self._sum_up_day()
        self._taken_from_ns, self._taken_until_ns = began_ns, ended_ns
        self._explained_since_ns = ended_ns

    def _take_correction(self, statement: Statement, began_ns: int, ended_ns: int) -> None:
        """REST has changed after a booking that corrects an unknown one: what differs is what that changed.

        Balance and positions may still trail each other, so the record stays unsettled: the next statement,
        taken in quiet, confirms this one. Of several corrections nobody can tell which has changed what.
        """
        if len(self._uncertain) == 1:
            correction = self._uncertain[0]
            self._booked.infer(correction, self._original_of(correction, statement))
        else:
            for name, amount in self._balances.totals().lacks(statement).items():
                self._differences.add(name, amount, ended_ns, Cause.UNEXPLAINED)
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
            totals.add(self._effect(activity))
            has_cash |= totals.has_cash_of(statement)
            has_quantities |= totals.has_quantities_of(statement)
        return has_cash and has_quantities

    def _can_decide(self, statement: Statement, began_ns: int) -> bool:
        """May an explanation be believed? While REST may trail, only that all uncertain ones are missing.

        A statement from between the legs of a group is nobody's value.
        """
        if any(
            self._booked.is_half(leg) and began_ns < leg.published_ns + LEGS_NS_MAX for leg in self._uncertain
        ):
            return False
        youngest_ns = max((activity.published_ns for activity in self._uncertain), default=0)
        if began_ns >= youngest_ns + REST_LAG_NS:
            return True
        totals = self._balances.totals()
        for activity in self._uncertain:
            totals.add(self._effect(activity))
        return totals.agrees(statement) and not self._balances.totals().agrees(statement)

    def _decide_memos(self, state: AccountState) -> None:
        """Whether instant-funding memos are cash is not documented: the sum of the day's bookings tells.

        Where cash is what it was at the roll and all bookings but the memos, they are no cash and no flow.
        """
        memos = [
            one
            for one in self._booked
            if one.activity_type == activity_types.MEMO and not one.is_void and self._day.contains(one)
        ]
        total = sum((one.net_amount for one in memos), ZERO)
        if not total or state.last_cash is None or state.balance_asof != self._day.balance_asof:
            return
        if state.last_cash + self._day.booked_cash - state.cash == total:
            self._are_memos_cash = False
            for memo in memos:
                self._booked.replace(_void(memo))
                self._day.count(_void(memo), memo)

    def _explain_contained(self, statement: Statement) -> None:
        """What of the uncertain bookings the balances had already is a share of what they had too much."""
        contained = _sum(self._effect(one) for one in self._uncertain).parts
        for name, amount in self._balances.totals().lacks(statement).items():
            contained[name] = contained.get(name, ZERO) - amount
        self._differences.explain(contained)

    def _confirm(self, statement: Statement, ended_ns: int) -> None:
        self._agree(statement)
        self._confirmed_ns = ended_ns
        if self._differences.ahead:
            self._sum_up_day()

    def _agree(self, statement: Statement) -> None:
        """REST has caught up with us, or we with it: every booking that we know is in the statement."""
        decided, self._uncertain = self._uncertain, []
        self._has_new_bookings |= bool(decided)
        for activity in decided:
            self._day.count(activity, self._booked.corrected(activity))
        self._rest_on(statement)
        self._applied.clear()
        self._doubt = None
        self._is_unsettled = False
        self._doubts.settle(
            Reason.DIFFERENT, Reason.BOOKING, Reason.EVENT_REFUSED, Reason.UNPROVED, Reason.HOLD
        )

    def _rest_on(self, statement: Statement) -> None:
        self._balances = Balances(statement, self._classes.of)
        self._prices = statement.prices
        for symbol, holding in statement.holdings.items():
            if holding.stated_multiplier is not None:
                self._multipliers[symbol] = holding.stated_multiplier

    def _is_earlier(self, statement: Statement) -> bool:
        """Are cash and quantities, each for itself, what ours were at some moment since REST last agreed?"""
        totals = self._balances.totals()
        has_cash, has_quantities = totals.has_cash_of(statement), totals.has_quantities_of(statement)
        for _, effect in reversed(self._applied):
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

    def _note_doubts(self, statement: Statement, outcome: Outcome, now_ns: int) -> None:
        """What this statement leaves open is told by its amount."""
        self._tell_uncertain(now_ns)
        if outcome not in (Outcome.LATE, Outcome.DIFFERENT):
            return
        lacking = self._balances.totals().lacks(statement)
        is_hold = outcome is Outcome.DIFFERENT and self._may_be_held_back(statement)
        if lacking:
            self._doubts.raise_(Reason.HOLD if is_hold else Reason.DIFFERENT, now_ns, lacking)

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
        """Sum anew from the new cut-off, and forget bookings too old to come again.

        What was unexplained is in the new base, and its bookings, should they come, are of the day before.
        """
        self._day = Day(balance_asof, self._day.marks_from_ns)
        self._multipliers = {
            symbol: multiplier
            for symbol, multiplier in self._multipliers.items()
            if symbol in self._balances.holdings
        }
        oldest_ns = cash_flows.cut_off_ns(balance_asof) - REPEAT_NS_MAX
        self._differences.age(cash_flows.cut_off_ns(balance_asof), oldest_ns)
        self._sum_up_day()
        self._booked.forget_before(oldest_ns)

    def _sum_up_day(self) -> None:
        """The day's sums from its bookings, and from what stands in for those that are still to come."""
        self._day = Day(self._day.balance_asof, self._day.marks_from_ns)
        self._booked.sum_up(self._day, {activity.ref_id for activity in self._uncertain})
        for stand_in in self._differences.stand_ins(self.account_id):
            self._day.count(stand_in, None)


def _void(activity: Activity) -> Activity:
    """The same booking without any effect."""
    return msgspec.structs.replace(activity, is_void=True)


def _sum(effects: Iterable[Effect]) -> Effect:
    """What several bookings change together."""
    cash = rounding = ZERO
    quantities: dict[str, Decimal] = {}
    with localcontext(_EXACT):
        for effect in effects:
            cash += effect.cash
            rounding += effect.rounding
            for symbol, quantity in effect.quantities.items():
                quantities[symbol] = quantities.get(symbol, ZERO) + quantity
    return Effect(cash, {symbol: quantity for symbol, quantity in quantities.items() if quantity}, rounding)

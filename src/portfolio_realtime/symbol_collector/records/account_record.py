"""One account's record: REST states it, events change it, and it never goes back.

Events may be ahead of REST or behind it, they may come twice, and a statement is two requests that need not
match. The record therefore compares a new statement R with its own state S:

| R                                             | outcome   | what happens                                 |
| --------------------------------------------- | --------- | -------------------------------------------- |
| is the first one                              | FIRST     | R is taken                                   |
| = S, or S with some of the uncertain bookings | CONFIRMED | R is S; those bookings are decided           |
| = an earlier state of ours, or may be one     | LATE      | REST lags the events: S stays                |
| ≠ S                                           | DIFFERENT | S stays; ask again when it has been quiet    |
| ≠ S, the same twice, quiet in between         | DRIFT     | R is taken: we missed something              |
| ≠ S, the same twice at once, after a booking  | CORRECTED | R is taken: it shows what was corrected;     |
|   that corrects one which we do not know      |           | ask again when it has been quiet             |

A booking is uncertain while it is unknown whether the statement that the balances rest on contains it: it
was published close to the statement, or may be a part of the statement's excess. It waits, unapplied, for the
next statement. An excess is a difference (`differences`) until a booking explains it. From the first
contradiction to the next agreement the record is unconfirmed. Times are arguments; there is no I/O.
"""

from decimal import Decimal
from enum import StrEnum
from typing import Final

import msgspec

from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.model import CRYPTO
from portfolio_realtime.symbol_collector import activity_types
from portfolio_realtime.symbol_collector.activity_types import Legs
from portfolio_realtime.symbol_collector.broker_time import Span
from portfolio_realtime.symbol_collector.model import (
    CANCELED,
    AccountState,
    Activity,
    Statement,
    of_short_position,
    sum_of,
    void,
)
from portfolio_realtime.symbol_collector.records import cash_flows, differences
from portfolio_realtime.symbol_collector.records.day_sums import Day
from portfolio_realtime.symbol_collector.records.holds import without_hold
from portfolio_realtime.symbol_collector.records.open_reasons import Reason
from portfolio_realtime.symbol_collector.records.record_drift import DriftingRecord
from portfolio_realtime.symbol_collector.records.record_state import REST_LAG_NS, Contradiction, confirmation

EVENT_SETTLE_NS: Final = 2 * NS_PER_S  # this long without events of the account is quiet
LOOK_NS_MAX: Final = 10 * NS_PER_S  # an account that is never quiet is fetched this often
LEGS_NS_MAX: Final = 60 * NS_PER_S  # the legs of one group are booked within this
LATE_NS_MAX: Final = 60 * NS_PER_S  # if REST seems to lag for longer than this, it is right and we are wrong
HOLD_NS_MAX: Final = 24 * 3600 * NS_PER_S  # if cash seems to be held back for longer than this, it is gone
REPEAT_NS_MAX: Final = 24 * 3600 * NS_PER_S  # before the cut-off; an older booking is not repeated


class Outcome(StrEnum):
    """What a statement meant for the record."""

    FIRST = "first"
    CONFIRMED = "confirmed"
    LATE = "late"
    DIFFERENT = "different"
    DRIFT = "drift"
    CORRECTED = "corrected"


class AccountRecord(DriftingRecord):
    """The state machine of one account."""

    @property
    def look_again_ns(self) -> int | None:
        """When REST should be asked again because something is undecided, or None."""
        if not self._is_unsettled:
            return None
        if self._is_prompt:
            return max(self._event_ns, self._looked_ns)
        quiet_ns = max(self._event_ns, self._looked_ns) + self._patience_ns
        return min(quiet_ns, self._looked_ns + min(self._until_decidable_ns, LOOK_NS_MAX))

    @property
    def _until_decidable_ns(self) -> int:
        """From the newest statement until one that decides all uncertain bookings, if it was too early."""
        too_early_ns = self._youngest_uncertain_ns + REST_LAG_NS - self._asked.from_ns
        is_decidable = not any(map(self._booked.corrects_unknown, self._uncertain))
        return too_early_ns if is_decidable and too_early_ns > 0 else LOOK_NS_MAX

    @property
    def _youngest_uncertain_ns(self) -> int:
        return max((activity.published_ns for activity in self._uncertain), default=0)

    @property
    def _patience_ns(self) -> int:
        if not self._is_late or self._contradiction is None:
            return EVENT_SETTLE_NS
        return max(EVENT_SETTLE_NS, (self._looked_ns - self._contradiction.since_ns) // 2)

    def apply_activity(self, activity: Activity, now_ns: int) -> bool:
        """Apply an event. True if it is new; a repeat changes nothing."""
        if (known := self._booked.get(activity.ref_id)) is not None:
            if known.status == activity.status:
                return False
            if known.is_executed and activity.is_executed and activity.status != CANCELED:
                self.refuse_activity(now_ns)
                return True
            activity = self._after(known, activity, now_ns)
        if activity.ref_id in self._booked or self._booked.is_told_by_row(activity):
            return False
        activity = self._in_stated_units(self._in_its_direction(self._as_reversal(activity)))
        is_memo = activity.activity_type == activity_types.MEMO
        if is_memo and not self._are_memos_cash:
            activity = void(activity)
        forgotten = self._booked.add(activity)
        if forgotten is not None:
            self._explained_since_ns = max(self._explained_since_ns, forgotten.executed_ns)
        if self._state is None:
            return True
        self._event_ns = self.as_of_ns = now_ns
        self._ask_for_what_rest_knows(activity)
        if self._booked.corrects_unknown(activity) and now_ns - self._looked_ns >= EVENT_SETTLE_NS:
            self._is_prompt = True
        self._place(activity, now_ns)
        self._has_new_bookings = True
        self._settle_contradiction()
        return True

    def _in_its_direction(self, activity: Activity) -> Activity:
        """A leg that names two symbols moves the other one where a short position is exchanged.

        What leaves is held short, or what comes if the exchange is in the balances already.
        """
        if self._state is None or activity.opposite is None:
            return activity
        named = activity.symbol or "", activity.opposite
        leaves, comes = named if activity.quantity < 0 else reversed(named)
        held = self._balances.holdings.get(leaves) or self._balances.holdings.get(comes)
        return of_short_position(activity) if held is not None and held.quantity < 0 else activity

    def _after(self, known: Activity, activity: Activity, now_ns: int) -> Activity:
        """A booking that is told again under its own id, with another status.

        One that was executed is taken back: by a statement only, unless it is said to be canceled.
        """
        if known.is_executed:
            ref_id = f"{known.ref_id}/{CANCELED}"
            before = self._booked.get(ref_id)
            if before is not None and not before.is_executed and before.status != activity.status:
                self._forget(before, now_ns)
            return msgspec.structs.replace(activity, ref_id=ref_id, previous_id=known.ref_id, is_void=True)
        self._forget(known, now_ns)
        return activity

    def _settle_contradiction(self) -> None:
        """The statement that differed may be explained by now, if nothing newer than it has been applied."""
        if self._contradiction is None or self._uncertain:
            return
        statement, began_ns, _ = self._contradiction
        if self._balances.totals().agrees(statement) and all(
            one.published_ns <= began_ns for one, _ in self._applied
        ):
            self._agree(statement)

    def untold(self, rows: list[Activity], now_ns: int) -> list[Activity]:
        """Which of these rows, all of a span of time, no event has reported. The caller applies them."""
        return self._booked.untold(rows, now_ns)

    def _ask_for_what_rest_knows(self, activity: Activity) -> None:
        """Ask REST soon after a booking that does not state everything."""
        is_memo = activity.activity_type == activity_types.MEMO
        is_correction = activity.previous_id is not None
        if (
            activity.published_ns <= self._taken.until_ns  # close to the statement
            or not activity_types.is_described(activity.activity_type)
            or is_correction
            or (is_memo and not activity.is_void)
            or _may_have_cost_a_fee(activity)
            or (activity.moves_quantity and not activity.price)  # REST knows what it cost
            or activity.rounding  # REST knows the cash to the last digit
        ):
            self._is_unsettled = True

    def refuse_activity(self, now_ns: int) -> None:
        """Note that an event could not be read. It may have moved anything, so a statement is needed."""
        self._event_ns = now_ns
        self._is_unsettled = True
        self._reasons.note(Reason.EVENT_REFUSED, now_ns, {})

    def refuse_statement(self, now_ns: int) -> None:
        """Note that the broker's answer about the account could not be read."""
        self._looked_ns = now_ns
        self._reasons.note(Reason.UNREADABLE, now_ns, {})

    def compare_equity(self, difference: Decimal | None, now_ns: int) -> None:
        """Note by how much the broker's equity exceeds ours, in dollars; None: not at all.

        Cash, quantities and prices are equal.
        """
        if difference is None:
            self._reasons.settle(Reason.EQUITY)
        else:
            self._reasons.note(Reason.EQUITY, now_ns, {"equity": difference})

    def observe(
        self, statement: Statement, began_ns: int, ended_ns: int, asked: Span | None = None
    ) -> Outcome:
        """Apply a statement that was requested at `began_ns` and complete at `ended_ns`, by our clock.

        `asked` is the same by the broker's clock; None: the two clocks agree.
        """
        self._asked = asked or Span(began_ns, ended_ns, ended_ns)
        self._looked_ns = self.as_of_ns = ended_ns
        self._is_prompt &= began_ns < self._event_ns
        self._reasons.settle(Reason.UNREADABLE)
        self._classes.learn(statement)
        self._learn_multipliers(statement)
        statement, self._held_back = without_hold(statement, self._known_cash(statement.state))
        if self._state is None:
            self._begin(statement, ended_ns)
            outcome = Outcome.FIRST
        else:
            outcome = self._compare(statement, began_ns, ended_ns)
            self._take_state(statement.state)
        self._is_late = outcome is Outcome.LATE
        if not self._uncertain and self._balances.cash == statement.state.cash:
            self._decide_memos(statement.state)
        if outcome is Outcome.FIRST:
            self._check_first(statement.state, ended_ns)
        self._note_reasons(statement, outcome, ended_ns)
        self._note_units(statement, ended_ns)
        return outcome

    # Bookings: inside the statement that the balances rest on, after it, or uncertain

    def _place(self, activity: Activity, now_ns: int) -> None:
        if activity.published_ns <= self._taken.from_ns - REST_LAG_NS:
            if activity.is_executed:
                self._count_contained(activity)
            else:
                self._booked.replace(void(activity))
        elif self._booked.corrects_unknown(activity) or not self._is_surely_new(activity):
            self._wait_with(activity, now_ns)
        elif self._booked.is_leg(activity):
            self._wait_with(activity, now_ns)
            self._move_group(activity, now_ns)
        elif self._differences.recognises(self._effect(activity)):
            self._count_contained(activity)
            self._is_unsettled = True
        elif activity.is_undecided or self._may_be_there_already(activity):
            self._wait_with(activity, now_ns)
            self._presume_contained([activity], self._effect(activity))
            if now_ns - self._looked_ns >= EVENT_SETTLE_NS:
                self._is_prompt = True
        else:
            self._move(activity)
            is_late = self._is_confirmed_without(activity)
            is_lone_leg = activity_types.of(activity.activity_type).legs is Legs.SEVERAL  # of no group
            is_guess = (
                is_lone_leg
                or self._is_kind_guessed(activity)
                or self._booked.is_corrected_again(activity)
                or differences.is_of_another_unit(activity)
            )
            if is_late or is_guess:
                self._is_unsettled = True
            if (
                is_late
                or is_guess
                or not activity_types.is_described(activity.activity_type)
                or _may_have_cost_a_fee(activity)
            ):
                self._reasons.note(Reason.UNPROVED, now_ns, {})

    def _wait_with(self, activity: Activity, now_ns: int) -> None:
        """Keep a booking for the next statement: it is unknown whether the balances contain it."""
        self._uncertain.append(activity)
        self._is_unsettled = True
        self._reasons.add(Reason.BOOKING, now_ns, self._effect(activity).parts)

    def _move_group(self, leg: Activity, now_ns: int) -> None:
        """The legs of a group change the balances together, because no value in between is real."""
        if not self._booked.is_whole(leg.group_id):
            return
        ready = [one for one in self._uncertain if one.group_id == leg.group_id and self._is_surely_new(one)]
        effect = sum_of(self._effect(one) for one in ready)
        if self._differences.may_contain(effect):
            self._presume_contained(ready, effect)
            return
        self._uncertain = [one for one in self._uncertain if one not in ready]
        self._tell_uncertain(now_ns)
        held = self._balances.holdings.get(leg.symbol or "")
        for one in ready:
            self._move(one)
        if held is not None and leg.activity_type == activity_types.SPLIT:
            self._balances.restate_cost(held.symbol, held.cost_basis)
        self._reasons.note(Reason.UNPROVED, now_ns, {})

    def _is_confirmed_without(self, activity: Activity) -> bool:
        """Whether REST has agreed since, as it does too if an untold booking offsets this one."""
        return activity.published_ns <= self._confirmed_in.until_ns

    def _may_be_there_already(self, activity: Activity) -> bool:
        """Whether a statement may contain it: in its excess, or as an unbooked fee."""
        if self._differences.may_contain(self._effect(activity)):
            return True
        is_fee = activity.activity_type == activity_types.CRYPTO_FEE and bool(activity.legs)
        return is_fee and any(
            one.activity_type == activity_types.TRADE
            and one.legs.keys() & activity.legs.keys()
            and one.published_ns <= self._taken.until_ns
            for one in self._booked
        )

    # Statements

    def _begin(self, statement: Statement, ended_ns: int) -> None:
        self._state = statement.state
        self._day = Day(statement.state.balance_asof)
        self._rest_on(statement)
        self._confirmed, self._confirmed_in = confirmation(statement, ended_ns), self._asked
        self._taken = self._asked
        for activity in self._booked:
            self._booked.replace(self._in_its_direction(activity))
        self._decide_coins(statement, self._booked)
        for activity in sorted(self._booked, key=lambda booking: booking.published_ns):
            self._place(activity, ended_ns)

    def _compare(self, statement: Statement, began_ns: int, ended_ns: int) -> Outcome:
        if self._decide_coins(statement, [*(one for one, _ in self._applied), *self._uncertain]):
            self._sum_up_day()
        self._decide_values(statement)
        if self._is_explained(statement):
            if not self._can_decide(statement):
                return Outcome.LATE
            self._explain_contained(statement)
            self._confirm(statement, ended_ns)
            return Outcome.CONFIRMED
        is_late = self._is_earlier(statement)
        contradiction = self._contradiction
        since_ns = self._contradicted_since(statement, ended_ns)
        is_repeated = contradiction is not None and self._contradiction is contradiction
        corrects_unknown = any(map(self._booked.corrects_unknown, self._uncertain))
        shows_correction = corrects_unknown and not is_late and self._is_all_in_rest()
        if shows_correction and is_repeated:
            self._take_correction(statement, ended_ns)
            return Outcome.CORRECTED
        may_be_held_back = not is_late and self._may_be_held_back(statement)
        if may_be_held_back:
            wait_ns = HOLD_NS_MAX
        elif is_late:
            wait_ns = LATE_NS_MAX
        else:
            wait_ns = EVENT_SETTLE_NS
        if began_ns - since_ns >= wait_ns and (is_late or self._must_be_in_rest()):
            self._take_drift(statement, ended_ns, is_late=is_late)
            return Outcome.DRIFT
        if not may_be_held_back:
            self._is_unsettled = True
        if shows_correction and ended_ns - self._prompted_ns >= EVENT_SETTLE_NS:  # one more decides
            self._is_prompt, self._prompted_ns = True, ended_ns
        return Outcome.LATE if is_late else Outcome.DIFFERENT

    def _is_explained(self, statement: Statement) -> bool:
        """Whether cash and quantities are each ours plus the newest of the uncertain bookings, or plus none.

        They are checked separately, because the statement that the balances rest on may be from in between.
        """
        totals = self._balances.totals()
        has_cash, has_quantities = totals.has_cash_of(statement), totals.has_quantities_of(statement)
        for activity in reversed(self._by_publication()):
            totals.add(self._effect(activity))
            has_cash |= totals.has_cash_of(statement)
            has_quantities |= totals.has_quantities_of(statement)
        return has_cash and has_quantities

    def _can_decide(self, statement: Statement) -> bool:
        """Whether to accept an explanation: not if the statement may also be an earlier one.

        A statement from between the legs of a group is never accepted.
        """
        began_ns = self._asked.from_ns
        if any(
            self._booked.is_half(leg) and began_ns < leg.published_ns + LEGS_NS_MAX for leg in self._uncertain
        ):
            return False
        return not self._uncertain or not self._may_be_earlier(statement)

    def _may_be_earlier(self, statement: Statement) -> bool:
        """Whether the statement may lack the newest bookings although it looks complete.

        The balances contain an unknown number of the uncertain bookings, the oldest first. If they contain
        fewer than it seems, the statement may have one of these in place of a newer one that moves as much.
        """
        uncertain = self._by_publication()
        since_ns = self._asked.from_ns - REST_LAG_NS
        booked = [*self._applied, *((one, self._effect(one)) for one in uncertain)]
        may_lack = [(one, effect) for one, effect in booked if one.published_ns > since_ns]
        may_lack.sort(key=lambda each: each[0].published_ns, reverse=True)
        if may_lack and any(map(self._booked.corrects_unknown, uncertain)):
            return True  # it moves an unknown amount
        for contained_count in range(len(uncertain) + 1 if may_lack else 0):
            contained = {one.ref_id for one in uncertain[:contained_count]}
            complete = self._balances.totals()
            for one in uncertain[contained_count:]:
                complete.add(self._effect(one))
            earlier = complete.copy()
            for effect in (effect for one, effect in may_lack if one.ref_id not in contained):
                earlier.undo(effect)
                if earlier.cash != complete.cash and earlier.has_cash_of(statement):
                    return True
                if earlier.quantities != complete.quantities and earlier.has_quantities_of(statement):
                    return True
        return False

    def _newest_booked_ns(self) -> int:
        """When the newest booking since REST last agreed was told, by the broker's clock; 0: none was."""
        booked = [one for one, _ in self._applied] + self._uncertain
        return max((one.published_ns for one in booked), default=0)

    def _must_be_in_rest(self) -> bool:
        """Whether what was booked since REST last agreed is so old that a request of then shows it."""
        return self._asked.from_ns >= min(self._newest_booked_ns(), self._event_ns) + REST_LAG_NS

    def _is_all_in_rest(self) -> bool:
        """As `_must_be_in_rest`, also for what was told before the first statement."""
        return self._asked.from_ns >= self._newest_booked_ns() + REST_LAG_NS

    def _is_earlier(self, statement: Statement) -> bool:
        """Whether cash and quantities each equal ours at some moment since REST last agreed."""
        totals = self._balances.totals()
        has_cash, has_quantities = totals.has_cash_of(statement), totals.has_quantities_of(statement)
        for _, effect in reversed(self._applied):
            totals.undo(effect)
            has_cash |= totals.has_cash_of(statement)
            has_quantities |= totals.has_quantities_of(statement)
        return has_cash and has_quantities

    def _contradicted_since(self, statement: Statement, ended_ns: int) -> int:
        """Since when REST has stated this without an event of the account in between."""
        if self._contradiction is not None:
            former = self._contradiction.statement
            is_same = former.state.cash == statement.state.cash and former.quantities == statement.quantities
            if is_same and self._event_ns <= self._contradiction.since_ns:
                return self._contradiction.since_ns
        self._contradiction = Contradiction(statement, self._asked.from_ns, ended_ns)
        return ended_ns

    def _note_reasons(self, statement: Statement, outcome: Outcome, now_ns: int) -> None:
        """Record by how much this statement differs."""
        self._tell_uncertain(now_ns)
        if outcome not in (Outcome.LATE, Outcome.DIFFERENT):
            return
        lacking = self._balances.totals().lacks(statement)
        is_hold = outcome is Outcome.DIFFERENT and self._may_be_held_back(statement)
        if lacking:
            self._reasons.note(Reason.HOLD if is_hold else Reason.DIFFERENT, now_ns, lacking)

    def _take_state(self, state: AccountState) -> None:
        """Take what only REST states. A new `balance_asof` is the overnight roll and begins a new day."""
        assert self._state is not None
        if state.balance_asof < self._state.balance_asof:
            return
        has_rolled = state.balance_asof > self._state.balance_asof
        self._state = state
        if has_rolled:
            self._begin_day(state.balance_asof)

    def _begin_day(self, balance_asof: str) -> None:
        """Sum again from the new cut-off, and forget bookings that are too old to be repeated.

        What was unexplained is in the new base. If its bookings still come, they belong to the day before.
        """
        self._day = Day(balance_asof, self._day.marks_from_ns)
        self._multipliers = {
            symbol: multiplier
            for symbol, multiplier in self._multipliers.items()
            if symbol in self._balances.holdings
        }
        began_ns = cash_flows.cut_off_ns(balance_asof)
        self._differences.age(began_ns, began_ns - REPEAT_NS_MAX)
        self._sum_up_day()
        self.forget_before(began_ns)

    def forget_before(self, began_ns: int) -> None:
        """Forget bookings that are too old for the day that began then to be repeated."""
        self._booked.forget_before(began_ns - REPEAT_NS_MAX)


def _may_have_cost_a_fee(activity: Activity) -> bool:
    """Whether it was a crypto trade. Its fee is already deducted and is booked hours later."""
    return activity.activity_type == activity_types.TRADE and activity.asset_class == CRYPTO

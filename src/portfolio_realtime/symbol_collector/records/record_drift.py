"""How a record treats a statement that no booking explains: a fee, split, hold, correction, or drift."""

from collections.abc import Iterable
from decimal import Decimal, localcontext

import msgspec

from portfolio_realtime.model import EXACT, ZERO
from portfolio_realtime.symbol_collector import activity_types
from portfolio_realtime.symbol_collector.model import (
    CASH,
    AccountState,
    Activity,
    Effect,
    Statement,
    coin,
    effect_of,
    sum_of,
    void,
)
from portfolio_realtime.symbol_collector.records import cash_flows, differences
from portfolio_realtime.symbol_collector.records.day_sums import Day
from portfolio_realtime.symbol_collector.records.differences import Cause
from portfolio_realtime.symbol_collector.records.record_state import REST_LAG_NS, RecordState


class DriftingRecord(RecordState):
    """Adds to the record's state what happens with a statement that it cannot explain."""

    def _check_first(self, state: AccountState, now_ns: int) -> None:
        """Whether the first cash equals that of the last close plus all bookings since.

        Otherwise a booking is missing. If the broker does not state the cash of that close, it is still known
        for an account that holds and has traded nothing: all of last equity was cash.
        """
        before = state.last_cash
        if before is None and not self._balances.holdings and not self._day.traded:
            before = state.last_equity
        if before is None or self._uncertain:
            return
        with localcontext(EXACT):
            missing = self._balances.cash - before - self._day.booked_cash
        booked = [one for one in self._booked if self._day.contains(one)]
        missing = differences.without_rounding(missing, booked)
        rounding = sum((one.rounding for one in booked), ZERO)
        values = [one for one in booked if _states_value(one)]
        if missing and missing == -sum((one.net_amount for one in values), ZERO):
            self._take_for_values(values)
            return
        if abs(missing) > max(rounding, differences.CENT) and not self._is_fee(CASH, missing):
            self._differences.add(CASH, missing, now_ns, Cause.UNEXPLAINED)
            self._differences.open_gap(cash_flows.cut_off_ns(state.balance_asof), CASH)

    def _may_be_held_back(self, statement: Statement) -> bool:
        """Whether only cash is lower, by more than fees, and the cash that orders hold back is not stated.

        Then an open order may hold it back: our figure stays, unconfirmed.
        """
        totals = self._balances.totals()
        is_known = statement.state.equity is not None and statement.state.market_value is not None
        if is_known or self._uncertain or not totals.has_quantities_of(statement):
            return False
        less = totals.lacks(statement).get(CASH, ZERO)
        return less < 0 and not self._is_fee(CASH, less)

    def _take_drift(self, statement: Statement, ended_ns: int, *, is_late: bool) -> None:
        """Adopt REST's balances.

        What REST has without a booking becomes a difference; what only our record had is removed.
        """
        undone = self._undone(statement) if is_late else []
        self._void_memos(undone)
        lacking = self._balances.totals().lacks(statement)
        costs = {symbol: held.cost_basis for symbol, held in self._balances.holdings.items()}
        quantities = self._balances.totals().quantities
        since_ns = ended_ns if self._contradiction is None else self._contradiction.since_ns
        for one in undone:
            kind = activity_types.of(one.activity_type)
            if not kind.is_external and kind.code != activity_types.TRADE:  # REST had it before its booking
                for name, amount in self._effect(one).parts.items():
                    lacking[name] = lacking.get(name, ZERO) + amount
        if lacking.get(CASH):
            lacking[CASH] = differences.without_rounding(lacking[CASH], [one for one, _ in self._applied])
        for name, amount in lacking.items():
            if amount and not self._is_immaterial(name, amount, statement):
                cause = self._cause(name, amount, lacking, statement, (costs, quantities))
                self._differences.add(name, amount, since_ns, cause)
        if self._confirmed is not None:
            known = [one for one in self._by_publication() if not self._booked.corrects_unknown(one)]
            undecided = [self._effect(one) for one in known]
            self._differences.open_gap(self._confirmed_in.complete_ns - REST_LAG_NS, undecided=undecided)
        self._void_undecided(self._by_publication())
        self._replace(statement, ended_ns)

    def _undone(self, statement: Statement) -> list[Activity]:
        """The newest applied bookings that a lagging statement does not contain."""
        totals, undone = self._balances.totals(), list[Activity]()
        for activity, effect in reversed(self._applied):
            if totals.agrees(statement):
                break
            totals.undo(effect)
            undone.append(activity)
        return undone if totals.agrees(statement) else []

    def _void_memos(self, undone: list[Activity]) -> None:
        """REST has not shown a memo for a minute: memos are not cash, and not a flow."""
        memos = [one for one in undone if one.activity_type == activity_types.MEMO]
        if memos and len(memos) == len(undone):
            self._are_memos_cash = False
            for memo in memos:
                self._booked.replace(void(memo))
                self._day.count(void(memo), memo)
                self._balances.move(void(memo), memo)

    def _cause(
        self,
        name: str,
        amount: Decimal,
        lacking: dict[str, Decimal],
        statement: Statement,
        before: tuple[dict[str, Decimal], dict[str, Decimal]],
    ) -> Cause:
        is_undecided = any(name in self._effect(one).parts for one in self._uncertain)
        if not is_undecided and self._is_fee(name, amount):
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

    def _is_immaterial(self, name: str, amount: Decimal, statement: Statement) -> bool:
        price = 1.0 if name == CASH else statement.prices.get(name) or self._prices.get(name)
        return price is not None and abs(float(amount)) * price < differences.IMMATERIAL

    def _replace(self, statement: Statement, ended_ns: int) -> None:
        self._confirm(statement, ended_ns)
        self._sum_up_day()
        self._taken = self._asked
        self._explained_since_ns = ended_ns

    def _take_correction(self, statement: Statement, ended_ns: int) -> None:
        """REST has changed after a booking that corrects an unknown one: the difference is the correction.

        Balance and positions may still lag behind each other, so the record stays unsettled, and the next
        statement in quiet confirms it. With several corrections it is unknown which one has changed what.
        """
        if len(self._uncertain) == 1:
            correction = self._uncertain[0]
            self._booked.infer(correction, self._original_of(correction, statement))
        else:
            for name, amount in self._balances.totals().lacks(statement).items():
                self._differences.add(name, amount, ended_ns, Cause.UNEXPLAINED)
        self._replace(statement, ended_ns)
        self._is_unsettled = True

    def _original_of(self, correction: Activity, statement: Statement) -> Activity:
        """What a correction must have corrected, by what the statement changes; as of the correction."""
        totals, symbol = self._balances.totals(), correction.symbol or ""
        totals.add(effect_of(correction))
        net_amount, quantity = totals.excess_over(statement, symbol)
        value = quantity * self._multipliers.get(symbol, correction.multiplier)
        return msgspec.structs.replace(
            correction,
            net_amount=net_amount,
            quantity=quantity,
            price=abs(net_amount / value) if value else ZERO,
            previous_id=None,
            is_void=False,
        )

    def _decide_memos(self, state: AccountState) -> None:
        """Decide whether instant-funding memos are cash, which is not documented.

        If the cash equals that of the roll plus all bookings but the memos, they are not cash and not a flow.
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
                self._booked.replace(void(memo))
                self._day.count(void(memo), memo)

    def _decide_coins(self, statement: Statement, bookings: Iterable[Activity]) -> bool:
        """Take what came or went in kind for a coin where a statement shows the coin, and not the share.

        `BTC` is a coin and the ticker of a share, and a journal does not say which it moves. Bookings of one
        name are tried each alone, then all together. Returns whether one has changed.
        """
        guessed = [one for one in bookings if may_be_coin(one)]
        applied = {one.ref_id for one, _ in self._applied}
        together: dict[tuple[str | None, bool], list[Activity]] = {}
        for one in guessed:
            together.setdefault((one.symbol, one.ref_id in applied), []).append(one)
        taken = set[str]()
        for some in [*([one] for one in guessed), *together.values()]:
            left = [one for one in some if one.ref_id not in taken]
            if left and self._are_of_coin(statement, left, are_applied=left[0].ref_id in applied):
                for one in left:
                    self._take_for_coin(msgspec.structs.replace(one, symbol=coin(one.symbol or "")))
                taken.update(one.ref_id for one in left)
        return bool(taken)

    def _are_of_coin(self, statement: Statement, bookings: list[Activity], *, are_applied: bool) -> bool:
        """Whether the statement shows that these bookings of one name have moved the coin."""
        share, name = bookings[0].symbol or "", coin(bookings[0].symbol or "")
        moved = sum((one.quantity for one in bookings), ZERO)
        lacking = self._balances.totals().lacks(statement)
        beyond = lacking.get(name, ZERO) - moved
        if are_applied:
            is_coin = not beyond or self._is_fee(name, beyond)  # of a trade of the same coin
            return bool(moved) and is_coin and lacking.get(share) == -moved
        others = (one for one in self._booked if one not in bookings)
        if share in statement.quantities or any(share in one.legs for one in others):
            return False
        before_ns = self._asked.from_ns - REST_LAG_NS
        is_stated = all(one.published_ns <= before_ns for one in bookings)
        return not beyond or (is_stated and name in statement.quantities)

    def _is_kind_guessed(self, activity: Activity) -> bool:
        """Whether it may be of a coin that is known, or is a journal of a name that no position has shown."""
        share = activity.symbol or ""
        is_new = activity.activity_type in activity_types.JOURNALS and not self._classes.knows(share)
        return may_be_coin(activity) and (is_new or self._classes.knows(coin(share)))

    def _take_for_coin(self, booking: Activity) -> None:
        """The booking moved this coin, not the share of its name."""
        self._booked.replace(booking)
        self._uncertain = [booking if one.ref_id == booking.ref_id else one for one in self._uncertain]
        for place, (one, _) in enumerate(self._applied):
            if one.ref_id == booking.ref_id:
                self._balances.move(msgspec.structs.replace(one, quantity=-one.quantity), None)
                self._applied[place] = booking, self._balances.move(booking, None)
        self._has_new_bookings = True

    def _decide_values(self, statement: Statement) -> None:
        """Decide whether the amounts of adjusted options are cash: not if a statement has all but these.

        They are values, which cancel within a group. Of what is left otherwise nothing is documented.
        """
        before_ns = self._asked.from_ns - REST_LAG_NS
        values = [one for one, _ in self._applied if _states_value(one) and one.published_ns <= before_ns]
        total = sum((one.net_amount for one in values), ZERO)
        totals = self._balances.totals()
        if not total or not totals.has_quantities_of(statement) or totals.has_cash_of(statement):
            return
        totals.undo(Effect(total, {}))
        if totals.has_cash_of(statement):
            self._balances.add_cash(-total)
            self._take_for_values(values)

    def _take_for_values(self, bookings: list[Activity]) -> None:
        """The amounts of these bookings are no cash."""
        decided = {one.ref_id: msgspec.structs.replace(one, net_amount=ZERO) for one in bookings}
        for one in decided.values():
            self._booked.replace(one)
        for place, (one, _) in enumerate(self._applied):
            if one.ref_id in decided:
                self._applied[place] = decided[one.ref_id], self._effect(decided[one.ref_id])
        self._has_new_bookings = True
        self._sum_up_day()

    def _explain_contained(self, statement: Statement) -> None:
        """Explain differences by those uncertain bookings that the balances already contained."""
        totals, contained_ones = self._balances.totals(), self._by_publication()
        while not totals.agrees(statement) and contained_ones:
            totals.add(self._effect(contained_ones.pop()))
        if totals.agrees(statement):
            self._void_undecided(contained_ones)
            if self._presumed:
                self._presumed.clear()
                self._sum_up_day()
            for one in contained_ones:
                if one not in self._uncertain:
                    continue
                self._uncertain.remove(one)
                self._count_contained(one)
            return
        contained = sum_of(self._effect(one) for one in self._uncertain).parts
        for name, amount in self._balances.totals().lacks(statement).items():
            contained[name] = contained.get(name, ZERO) - amount
        from_gap = set[str]().union(*map(self._from_gap, self._uncertain))
        self._differences.explain(contained, from_gap=from_gap)

    def _known_cash(self, state: AccountState) -> Decimal | None:
        """The expected cash: ours; before the first statement, that of the last close plus all since."""
        if self._state is not None:
            return self._balances.cash
        if state.last_cash is None:
            return None
        day = Day(state.balance_asof)
        self._booked.sum_up(day, ())
        return state.last_cash + day.booked_cash


def _states_value(activity: Activity) -> bool:
    """Whether its amount may be what it moves is worth, and no cash."""
    is_adjustment = activity.activity_type == activity_types.ADJUSTMENT and activity.moves_quantity
    return is_adjustment and bool(activity.net_amount) and not activity.is_void


def may_be_coin(activity: Activity) -> bool:
    """Whether it moved in kind what is named like a share, and may be a coin."""
    kind = activity_types.of(activity.activity_type)
    is_named_alone = activity.symbol is not None and activity.symbol.isalpha()
    return kind.is_in_kind and is_named_alone and activity.moves_quantity and not activity.is_void

"""The state of one account's record: newest statement, day, bookings, and why it is not confirmed."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.model import US_OPTION, ZERO, Account, Bookings, Confirmation, Position
from portfolio_realtime.symbol_collector.broker_time import Span
from portfolio_realtime.symbol_collector.model import (
    CASH,
    EXECUTED,
    AccountState,
    Activity,
    Effect,
    Holding,
    Statement,
    dropped,
    effect_of,
    takes_back,
    with_units,
)
from portfolio_realtime.symbol_collector.records import cash_flows, differences
from portfolio_realtime.symbol_collector.records.asset_classes import AssetClasses
from portfolio_realtime.symbol_collector.records.balances import Balances
from portfolio_realtime.symbol_collector.records.booked import Booked
from portfolio_realtime.symbol_collector.records.day_sums import UNTRADED, Day, Traded
from portfolio_realtime.symbol_collector.records.differences import Differences
from portfolio_realtime.symbol_collector.records.open_reasons import OpenReasons, Reason

REST_LAG_NS: Final = 5 * NS_PER_S  # a booking published this long before a request is in its answer
CLOCK_SKEW_NS: Final = NS_PER_S // 2  # a difference of the clocks that a `Date` may not show
APPLIED_MAX: Final = 1_000  # applied bookings kept to recognise a late statement
BOOKINGS_TOLD_MAX: Final = 2_000  # the newest bookings that other services get


class Contradiction(NamedTuple):
    """A statement that differs, when it was requested by the broker's clock, and since when REST says so."""

    statement: Statement
    began_ns: int
    since_ns: int


class RecordState:
    """Statement, day and bookings of one account, why it is unconfirmed, and how other services see them."""

    def __init__(self, account_id: str, classes: AssetClasses | None = None) -> None:
        self.account_id = account_id
        self._classes = classes or AssetClasses()
        self._state: AccountState | None = None
        self._balances: Balances
        self._day: Day
        self._booked = Booked()
        self._applied: list[tuple[Activity, Effect]] = []  # since REST last agreed; few, so no deque
        self._uncertain: list[Activity] = []
        self._presumed: dict[
            str, Activity
        ] = {}  # uncertain ones that equal a difference, as of when it was seen
        self._differences = Differences()
        self._reasons = OpenReasons()
        self._multipliers: dict[str, Decimal] = {}  # of options held since the roll, even if closed
        self._prices: dict[str, float] = {}  # the broker's own, of the statement that the balances rest on
        # By the broker's clock: the statement that is being compared, …
        self._asked = Span(0, 0, 0)
        self._taken = Span(0, 0, 0)  # … that which the balances rest on, …
        self._confirmed_in = Span(0, 0, 0)  # … and the newest that agreed
        self._confirmed: Confirmation | None = None
        self._contradiction: Contradiction | None = None
        self._explained_since_ns = 0  # from here on, the bookings explain every change
        self._is_unsettled = False
        self._is_late = False  # REST lags: it is asked less and less often
        self._is_prompt = False  # to be fetched now, quiet or not
        self._prompted_ns = 0  # when a contradiction last led to a fetch at once
        self._has_new_bookings = False  # a booking arrived, or is no longer uncertain
        self._are_memos_cash = True
        self._held_back = ZERO
        self._event_ns = 0
        self._looked_ns = 0
        self.as_of_ns = 0  # when the broker last stated something readable about the account

    @property
    def is_known(self) -> bool:
        """Whether there has been a statement."""
        return self._state is not None

    @property
    def differs_in_equity(self) -> bool:
        """Whether the broker's equity was not ours, all else being equal, when they were last compared."""
        return Reason.EQUITY in self._reasons

    @property
    def is_unexplained(self) -> bool:
        """Whether a statement has something that no booking explains."""
        return self._contradiction is not None or bool(self._unexplained)

    def relearn_classes(self) -> None:
        """Apply the asset classes that positions have stated for symbols held or traded here."""
        for one in self._booked:
            if one.stated_class != self._classes.stated(one):
                self._booked.replace(self._in_stated_units(one))
        if self._state is not None:
            self._balances.relearn_classes()
            self._sum_up_day()

    def _in_stated_units(self, activity: Activity) -> Activity:
        return with_units(
            activity, self._classes.stated(activity), self._multipliers.get(activity.symbol or "")
        )

    def _learn_multipliers(self, statement: Statement) -> None:
        """Take the multipliers that a statement shows, and what follows from them for bookings."""
        shown = {
            symbol: holding.stated_multiplier
            for symbol, holding in statement.holdings.items()
            if holding.stated_multiplier is not None
            and holding.stated_multiplier != self._multipliers.get(symbol)
        }
        if not shown:
            return
        self._multipliers.update(shown)
        for one in self._booked:
            if one.symbol in shown:
                self._booked.replace(self._in_stated_units(one))
        self._uncertain = [self._in_stated_units(one) for one in self._uncertain]
        if self._state is None:
            return
        for place, (one, effect) in enumerate(self._applied):
            restated = self._in_stated_units(one)
            if more := restated.net_amount - one.net_amount:
                self._balances.add_cash(more)
                self._applied[place] = restated, msgspec.structs.replace(effect, cash=effect.cash + more)
        self._sum_up_day()

    def _note_units(self, statement: Statement, now_ns: int) -> None:
        """Mark the account while nothing shows how many shares a contract has that may not have 100."""
        held = self._balances.holdings
        if any(self._is_unit_unknown(statement.holdings.get(symbol, held[symbol])) for symbol in held):
            self._reasons.note(Reason.UNIT, now_ns, {})
        else:
            self._reasons.settle(Reason.UNIT)

    def _is_unit_unknown(self, holding: Holding) -> bool:
        if holding.asset_class != US_OPTION:
            return False
        if holding.is_multiplier_disputed or holding.symbol in self._multipliers:
            return holding.is_multiplier_disputed
        return holding.is_adjusted or any(
            one.symbol == holding.symbol and differences.is_of_another_unit(one) for one in self._booked
        )

    def account(self, version: int, as_of_ns: int) -> Account:
        """The record for other services. Only after the first statement."""
        assert self._state is not None
        traded, unexplained = self._day.traded, self._unexplained
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
                self._position(symbol, traded.get(symbol, UNTRADED), is_explained=symbol not in unexplained)
                for symbol in symbols
            ),
            as_of_ns=as_of_ns,
            unvalued=(*self._day.unvalued, *self._uncertain_flows),
            unexplained=unexplained,
            unconfirmed=self._reasons.unconfirmed,
            is_unreadable=Reason.UNREADABLE in self._reasons,
            confirmed=self._confirmed,
            held_back=self._held_back,
        )

    def take_new_bookings(self) -> bool:
        """Whether `bookings` have changed since the last call, even if the record has not."""
        has_new, self._has_new_bookings = self._has_new_bookings, False
        return has_new

    @property
    def _uncertain_flows(self) -> tuple[str, ...]:
        """CASH if it is unknown whether an external cash flow is in the cash, or in a last equity to come."""
        has_any = self._asked.from_ns < self._day.cut_off_ns or any(
            self._taken.from_ns - REST_LAG_NS < one.published_ns and cash_flows.external_cash_flow(one)
            for one in self._uncertain
            if one.ref_id not in self._presumed
        )
        return (CASH,) if has_any and CASH not in self._day.unvalued else ()

    @property
    def _unexplained(self) -> dict[str, Decimal]:
        """Symbol or CASH -> amount that no booking explains."""
        presumed = {name for one in self._presumed.values() for name in self._effect(one).parts}
        unexplained = self._differences.unexplained
        return {name: amount for name, amount in unexplained.items() if name not in presumed}

    def bookings(self, version: int) -> Bookings:
        """The bookings in the record of this version that were executed since `last_equity`.

        Nothing is known before a booking that the record may or may not contain.
        """
        assert self._state is not None
        began_ns = cash_flows.cut_off_ns(self._state.balance_asof)
        undecided = {activity.ref_id for activity in self._uncertain}
        told = self._booked.told(undecided, began_ns, self._multipliers.get)
        around = [one for one in self._uncertain if not self._is_surely_new(one)]
        uncertain_ns = max((activity.executed_ns for activity in around), default=0)
        known_since_ns = max(began_ns, self._explained_since_ns, uncertain_ns)
        if len(told) > BOOKINGS_TOLD_MAX:
            known_since_ns = max(known_since_ns, told[-BOOKINGS_TOLD_MAX - 1].at_ns)
        newest = tuple(told[-BOOKINGS_TOLD_MAX:])
        return Bookings(self.account_id, version, began_ns, known_since_ns, newest)

    def _position(self, symbol: str, traded: Traded, *, is_explained: bool) -> Position:
        holding = self._balances.holdings.get(symbol)
        if holding is None:
            holding = Holding(symbol, self._classes.of(symbol), ZERO, ZERO)
        multiplier = self._multipliers.get(symbol, holding.multiplier)
        return Position(
            symbol=symbol,
            asset_class=holding.asset_class,
            quantity=holding.quantity,
            multiplier=multiplier,
            cost_basis=holding.cost_basis,
            is_cost_known=holding.is_cost_known,
            day_quantity=traded.quantity,
            day_cost=traded.cost * multiplier if traded.cost else ZERO,  # one zero for all
            day_asof=self._day.balance_asof if traded.quantity or traded.cost else "",
            is_day_cost_known=is_explained and not traded.unknown_costs,
            marks_from_ns=self._day.marks_from_ns.get(symbol, 0),
        )

    def _is_surely_new(self, activity: Activity) -> bool:
        """Whether it was published after the statement that the balances rest on."""
        return activity.published_ns > self._taken.until_ns + CLOCK_SKEW_NS

    def _move(self, activity: Activity) -> None:
        corrected = self._booked.corrected(activity)
        self._day.count(activity, corrected)
        self._applied.append((activity, self._balances.move(activity, corrected)))
        del self._applied[:-APPLIED_MAX]

    def _effect(self, activity: Activity) -> Effect:
        return effect_of(activity, self._booked.corrected(activity))

    def _count_contained(self, activity: Activity) -> None:
        """The balances contain the booking: it explains a difference, and counts from when that was seen."""
        effect = self._effect(activity)
        from_gap = self._from_gap(activity)
        since_ns = self._differences.since_ns(effect)
        if since_ns is None and not from_gap and not self._differences.may_contain(effect):
            self._day.count(activity, self._booked.corrected(activity))
            return
        if since_ns is not None:
            self._booked.replace(_seen(activity, since_ns))
        self._differences.explain(effect.parts, effect.rounding, from_gap)
        self._sum_up_day()

    def _presume_contained(self, bookings: list[Activity], effect: Effect) -> None:
        """Count bookings that equal a difference as what explains it, until a statement decides."""
        since_ns = self._differences.since_ns(effect)
        if since_ns is None or effect.parts.keys() & {
            name for one in self._presumed.values() for name in self._effect(one).parts
        }:
            return
        self._presumed.update((one.ref_id, _seen(one, since_ns)) for one in bookings)
        self._sum_up_day()

    def _void_undecided(self, uncertain: Iterable[Activity]) -> None:
        """Drop bookings of which only a statement can tell what they move, when it shows nothing of them."""
        for one in uncertain:
            if (
                (one.is_tentative or not one.is_executed)
                and self._is_surely_new(one)
                and one.ref_id not in self._presumed
            ):
                self._uncertain.remove(one)
                self._booked.replace(dropped(one))
                self._has_new_bookings = True

    def _forget(self, known: Activity, now_ns: int) -> None:
        """Forget a booking that no statement has decided."""
        self._uncertain = [one for one in self._uncertain if one.ref_id != known.ref_id]
        self._presumed.pop(known.ref_id, None)
        self._booked.remove(known.ref_id)
        self._tell_uncertain(now_ns)

    def _as_reversal(self, activity: Activity) -> Activity:
        """A correction by the opposite amount only takes back what it corrects, if a statement agrees."""
        corrected = self._booked.corrected(activity)
        if corrected is None or not takes_back(activity, corrected):
            return activity
        return msgspec.structs.replace(activity, is_void=True, is_tentative=True)

    def _by_publication(self) -> list[Activity]:
        """The uncertain bookings, oldest first."""
        return sorted(self._uncertain, key=lambda one: one.published_ns)

    def _from_gap(self, activity: Activity) -> set[str]:
        """The names, symbol or CASH, of what a contained booking must have left in a statement's excess."""
        if self._booked.corrects_unknown(activity):
            return set()
        return self._differences.from_gap(self._effect(activity), activity.published_ns)

    def _rest_on(self, statement: Statement) -> None:
        self._balances = Balances(statement, self._classes.of)
        self._prices = statement.prices

    def _confirm(self, statement: Statement, ended_ns: int) -> None:
        self._agree(statement)
        self._confirmed, self._confirmed_in = confirmation(statement, ended_ns), self._asked
        if self._differences.ahead:
            self._sum_up_day()

    def _agree(self, statement: Statement) -> None:
        """REST and our record agree: every booking that we know is in the statement."""
        decided, self._uncertain = self._uncertain, []
        if decided:
            self._has_new_bookings = True
        for one in decided:
            activity = one
            if one.is_tentative or not one.is_executed:  # the statement shows that it has happened so
                activity = msgspec.structs.replace(one, is_tentative=False, status=EXECUTED)
                self._booked.replace(activity)
            self._day.count(activity, self._booked.corrected(activity))
        if self._presumed:
            self._presumed.clear()
            self._sum_up_day()
        self._rest_on(statement)
        self._applied.clear()
        self._contradiction = None
        self._is_unsettled = False
        self._reasons.settle(
            Reason.DIFFERENT, Reason.BOOKING, Reason.EVENT_REFUSED, Reason.UNPROVED, Reason.HOLD
        )

    def _sum_up_day(self) -> None:
        """The day's sums from its bookings, and from stand-ins for those that are still to come."""
        self._day = Day(self._day.balance_asof, self._day.marks_from_ns)
        self._booked.sum_up(self._day, {activity.ref_id for activity in self._uncertain})
        for stand_in in self._differences.stand_ins(self.account_id):
            self._day.count(stand_in, None)
        for one in self._presumed.values():
            self._day.count(one, self._booked.corrected(one))

    def _is_fee(self, name: str, amount: Decimal) -> bool:
        """Whether it may be a fee of a trade that is not booked yet."""
        if amount >= 0:
            return False
        bound = differences.fee_bound(name, self._booked) + self._differences.ahead.get(name, ZERO)
        return abs(amount) <= bound

    def _tell_uncertain(self, now_ns: int) -> None:
        if not self._uncertain:
            self._reasons.settle(Reason.BOOKING)
            return
        by: dict[str, Decimal] = {}
        for one in self._uncertain:
            for name, amount in self._effect(one).parts.items():
                by[name] = by.get(name, ZERO) + amount
        self._reasons.note(Reason.BOOKING, now_ns, by)


def _seen(activity: Activity, since_ns: int) -> Activity:
    """The booking as of when a statement first had it."""
    return msgspec.structs.replace(
        activity,
        executed_ns=min(activity.executed_ns, since_ns),
        published_ns=min(activity.published_ns, since_ns),
    )


def confirmation(statement: Statement, ended_ns: int) -> Confirmation:
    """What a statement that was complete at `ended_ns` confirms."""
    state = statement.state
    return Confirmation(ended_ns, state.cash, state.equity, state.balance_asof, len(statement.quantities))

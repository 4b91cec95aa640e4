"""All remembered bookings of one account: what each corrects, which form a group, and their sum."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from decimal import Decimal
from typing import Final

import msgspec

from portfolio_realtime.model import ZERO, Booking
from portfolio_realtime.symbol_collector import activity_types
from portfolio_realtime.symbol_collector.activity_types import Legs
from portfolio_realtime.symbol_collector.model import Activity, void
from portfolio_realtime.symbol_collector.records import cash_flows
from portfolio_realtime.symbol_collector.records.day_sums import Day

BOOKINGS_MAX: Final = 20_000  # remembered per account, for repeats and the day's sums


class Booked:
    """Bookings by `ref_id`, in order of arrival."""

    def __init__(self) -> None:
        self._all: dict[str, Activity] = {}
        self._only_rows: dict[str, int] = {}  # row that no event has reported -> when it was compared
        self._inferred: dict[str, Activity] = {}  # ref_id of a correction -> what it must have corrected
        self._corrections: dict[str, list[str]] = {}  # ref_id -> of those that correct it

    def __contains__(self, ref_id: str) -> bool:
        return ref_id in self._all

    def get(self, ref_id: str) -> Activity | None:
        """The booking with this id."""
        return self._all.get(ref_id)

    def __iter__(self) -> Iterator[Activity]:
        return iter(tuple(self._all.values()))

    def add(self, activity: Activity) -> Activity | None:
        """Remember a booking. Returns the one that was forgotten for it, if any."""
        self._all[activity.ref_id] = activity
        if activity.previous_id is not None:
            self._corrections.setdefault(activity.previous_id, []).append(activity.ref_id)
        return self.remove(next(iter(self._all))) if len(self._all) > BOOKINGS_MAX else None

    def untold(self, rows: list[Activity], now_ns: int) -> list[Activity]:
        """Which of these rows no event has reported, by `ref_id` or otherwise by what they move.

        That a row's id ends in the event's `ref_id` is not documented. Two bookings that move the same
        amounts are two rows.
        """
        rows_by_id = {row.ref_id: row for row in rows}
        told = Counter(_content(one) for one in self if one.ref_id not in rows_by_id and not one.is_void)
        found: list[Activity] = []
        for row in rows_by_id.values():
            if row.is_void or row.ref_id in self._all:
                continue
            if told[_content(row)]:
                told[_content(row)] -= 1
                continue
            self._only_rows[row.ref_id] = now_ns
            found.append(row)
        return found

    def is_told_by_row(self, activity: Activity) -> bool:
        """Whether the event is a row with another id that was already applied for lack of an event."""
        if activity.ref_id in self._only_rows or activity.is_void:
            return False
        for ref_id, compared_ns in self._only_rows.items():
            row = self._all.get(ref_id)
            if row and _content(row) == _content(activity) and activity.executed_ns <= compared_ns:
                del self._only_rows[ref_id]
                self.add(void(activity))  # in case it comes again
                return True
        return False

    def replace(self, activity: Activity) -> None:
        """Replace a booking by a more exact version of it."""
        self._all[activity.ref_id] = activity

    def remove(self, ref_id: str) -> Activity | None:
        """Forget one booking, and return it."""
        self._inferred.pop(ref_id, None)
        self._only_rows.pop(ref_id, None)
        removed = self._all.pop(ref_id, None)
        if removed is not None and ref_id in (others := self._corrections.get(removed.previous_id or "", [])):
            others.remove(ref_id)
        return removed

    def infer(self, correction: Activity, original: Activity) -> None:
        """Remember this as the booking that the correction corrects."""
        self._inferred[correction.ref_id] = original

    def corrected(self, activity: Activity) -> Activity | None:
        """The earlier booking that this one corrects, if it is known.

        Of several that name the same one, each corrects the one before it.
        """
        if activity.previous_id is None:
            return None
        known = self._all.get(activity.previous_id)
        if known is None:
            return self._inferred.get(activity.ref_id)
        for ref_id in self._corrections.get(activity.previous_id, ()):
            if ref_id == activity.ref_id:
                break
            one = self._all.get(ref_id)
            if one is not None and one.previous_id == activity.previous_id:
                known = one
        return known

    def is_corrected_again(self, activity: Activity) -> bool:
        """Whether it corrects what another booking has corrected already."""
        corrected = self.corrected(activity)
        return corrected is not None and corrected.previous_id == activity.previous_id

    def corrects_unknown(self, activity: Activity) -> bool:
        """Whether it corrects a booking that we do not have."""
        return activity.previous_id is not None and self.corrected(activity) is None

    def forget_before(self, oldest_ns: int) -> None:
        """Forget bookings that are too old to be repeated."""
        for one in self:
            if max(one.published_ns, one.executed_ns) < oldest_ns:
                self.remove(one.ref_id)

    def sum_up(self, day: Day, without: Collection[str]) -> None:
        """Count all bookings except these, given by ref_id."""
        for one in self:
            if one.ref_id not in without:
                day.count(one, self.corrected(one))

    # Groups

    def is_leg(self, activity: Activity) -> bool:
        """Whether it changes the account together with others of its group."""
        kind = activity_types.of(activity.activity_type)
        return activity.group_id is not None and kind.legs is not Legs.ALONE and not activity.is_void

    def is_half(self, activity: Activity) -> bool:
        """Whether it belongs to a group of at least two legs of which some are missing."""
        kind = activity_types.of(activity.activity_type)
        return self.is_leg(activity) and kind.legs is Legs.SEVERAL and not self.is_whole(activity.group_id)

    def is_whole(self, group_id: str | None) -> bool:
        """Whether the group has enough legs, with amounts of both signs."""
        group = [one for one in self._all.values() if one.group_id == group_id and self.is_leg(one)]
        legs_min = max((activity_types.legs_min(one.subtype) for one in group), default=0)
        amounts = [amount for one in group for amount in (one.quantity, one.net_amount)]
        has_both = any(amount < 0 for amount in amounts) and any(amount > 0 for amount in amounts)
        return has_both and len(group) >= legs_min

    # For others

    def told(
        self, without: Collection[str], began_ns: int, multiplier_by_symbol: Callable[[str], Decimal | None]
    ) -> list[Booking]:
        """The changes by all other bookings since then, in order of time; corrected ones are reversed."""
        told: list[Booking] = []
        for one in self:
            if one.ref_id not in without:
                told.extend(_told(self.corrected(one), -1, multiplier_by_symbol))
                told.extend(_told(one, 1, multiplier_by_symbol))
        return sorted((one for one in told if one.at_ns > began_ns), key=lambda one: one.at_ns)


def _content(activity: Activity) -> tuple[str, str | None, Decimal, Decimal]:
    return activity.activity_type, activity.symbol, activity.quantity, activity.net_amount


def _told(
    activity: Activity | None, sign: int, multiplier_by_symbol: Callable[[str], Decimal | None]
) -> list[Booking]:
    if activity is None or activity.is_void:
        return []
    multiplier = multiplier_by_symbol(activity.symbol or "") or activity.multiplier
    booking = Booking(
        at_ns=activity.executed_ns,
        cash=sign * activity.net_amount,
        external_cash_flow=sign * cash_flows.external_cash_flow(activity),
        symbol=activity.symbol or "",
        asset_class=activity.asset_class,
        quantity=sign * activity.quantity,
        multiplier=multiplier,
        is_split=activity.activity_type == activity_types.SPLIT,
    )
    if activity.counter is None:
        return [booking]
    symbol, quantity = activity.counter
    paid = msgspec.structs.replace(
        booking, cash=ZERO, external_cash_flow=ZERO, symbol=symbol, quantity=sign * quantity
    )
    return [booking, paid]

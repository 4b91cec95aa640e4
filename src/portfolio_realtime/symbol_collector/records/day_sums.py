"""One account since the previous close: external cash flow, and what was traded of each symbol.

A booking belongs to the day if it was executed after the cut-off, or published after the books were closed.
In both cases `last_equity` does not contain it.
"""

from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Final

from portfolio_realtime.model import EXACT, ZERO
from portfolio_realtime.symbol_collector import activity_types
from portfolio_realtime.symbol_collector.activity_types import Cost
from portfolio_realtime.symbol_collector.model import Activity, effect_of
from portfolio_realtime.symbol_collector.records import cash_flows


@dataclass
class Traded:
    """The sum of one symbol: signed quantity (bought is positive) and its cost per unit of the multiplier."""

    quantity: Decimal = ZERO
    cost: Decimal = ZERO  # sum of quantity × price
    unknown_costs: int = 0  # bookings that do not state the value of the quantity
    unvalued_flows: int = 0  # of these, transfers by the client, which the external cash flow lacks


UNTRADED: Final = Traded()


class Day:
    """Sums over the bookings that the `last_equity` of `balance_asof` (YYYY-MM-DD) does not contain."""

    def __init__(self, balance_asof: str, marks_from_ns: dict[str, int] | None = None) -> None:
        self.balance_asof = balance_asof
        # Of split symbols. It is kept after the day, because a mark may be old.
        self.marks_from_ns = marks_from_ns or {}
        self.external_cash_flow = ZERO
        self.booked_cash = ZERO  # by all bookings of the day
        self.cut_off_ns = cash_flows.cut_off_ns(balance_asof)
        self._books_closed_ns = cash_flows.books_closed_ns(balance_asof)
        self._traded: dict[str, Traded] = {}
        self._undescribed: dict[str, int] = {}  # symbol or CASH -> bookings of an undocumented type

    @property
    def traded(self) -> dict[str, Traded]:
        """By symbol, what was traded and still counts: a quantity, or a realised gain or loss."""
        return {symbol: sums for symbol, sums in self._traded.items() if sums.quantity or sums.cost}

    @property
    def unvalued(self) -> tuple[str, ...]:
        """Symbols, or cash, that the client may have moved at a value that no booking states."""
        flows = {symbol for symbol, sums in self._traded.items() if sums.unvalued_flows}
        return tuple(sorted(flows.union(name for name, count in self._undescribed.items() if count)))

    def count(self, activity: Activity, corrected: Activity | None) -> None:
        """Add a booking and remove the earlier one that it corrects."""
        is_booked_late = activity.published_ns > self._books_closed_ns
        with localcontext(EXACT):
            if corrected is not None and (is_booked_late or self.contains(corrected)):
                self._add(corrected, -1)
            if is_booked_late or self.contains(activity):
                self._add(activity, 1)

    def contains(self, activity: Activity) -> bool:
        """Whether the booking belongs to the day, because `last_equity` does not contain it."""
        return activity.executed_ns > self.cut_off_ns or activity.published_ns > self._books_closed_ns

    def _add(self, activity: Activity, sign: int) -> None:
        if activity.is_void:
            return
        self.external_cash_flow += sign * cash_flows.external_cash_flow(activity)
        self.booked_cash += sign * activity.net_amount
        if activity.is_tentative or not activity_types.is_described(activity.activity_type):
            for name in effect_of(activity).parts:
                self._undescribed[name] = self._undescribed.get(name, 0) + sign
        for symbol, quantity in activity.legs.items():
            self._add_leg(activity, symbol, sign * quantity, sign)

    def _add_leg(self, activity: Activity, symbol: str, quantity: Decimal, sign: int) -> None:
        kind = activity_types.of(activity.activity_type)
        sums = self._traded.setdefault(symbol, Traded())
        sums.quantity += quantity
        if activity.activity_type == activity_types.SPLIT:
            self.marks_from_ns[symbol] = cash_flows.new_prices_ns(activity)
        is_priced = bool(activity.price) and activity.is_unit_known and symbol == activity.symbol
        if kind.cost is Cost.PRICE and is_priced:
            sums.cost += quantity * activity.price
        elif kind.cost is not Cost.NOTHING:
            sums.unknown_costs += sign
            sums.unvalued_flows += sign * kind.is_external

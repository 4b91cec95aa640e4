"""One account since the previous close: its external cash flow, and what was traded of each symbol."""

from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from typing import Final

from portfolio_realtime.broker import flows
from portfolio_realtime.broker.terms import Activity
from portfolio_realtime.model import ZERO

_EXACT: Final = Context(prec=60)  # sums and products of money never round


@dataclass
class Traded:
    """The sum of one symbol: signed quantity (bought positive) and its cost in dollars."""

    quantity: Decimal = ZERO
    cost: Decimal = ZERO


class Day:
    """Sums over the bookings executed after the cut-off of `balance_asof` (YYYY-MM-DD)."""

    def __init__(self, balance_asof: str) -> None:
        self.external_cash_flow = ZERO
        self._cut_off_ns = flows.cut_off_ns(balance_asof)
        self._traded: dict[str, Traded] = {}

    @property
    def traded(self) -> dict[str, Traded]:
        """By symbol, what was traded and leaves a trace: a quantity or a realised gain or loss."""
        return {symbol: sums for symbol, sums in self._traded.items() if sums.quantity or sums.cost}

    def count(self, activity: Activity, corrected: Activity | None) -> None:
        """Add a booking and take out the earlier one that it corrects."""
        with localcontext(_EXACT):
            if corrected is not None:
                self._add(corrected, -1)
            self._add(activity, 1)

    def _add(self, activity: Activity, sign: int) -> None:
        if activity.is_void or activity.executed_ns <= self._cut_off_ns:
            return
        self.external_cash_flow += sign * flows.external_cash_flow(activity)
        if activity.symbol is not None and activity.quantity and activity.activity_type in flows.DAY_TYPES:
            sums = self._traded.setdefault(activity.symbol, Traded())
            sums.quantity += sign * activity.quantity
            sums.cost += sign * activity.value

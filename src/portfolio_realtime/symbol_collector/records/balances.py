"""Cash and holdings of one account, changed by effects, in exact arithmetic.

The cost basis follows the weighted average. A quantity that is added costs its price. One that is removed
takes its share of the cost. When a position turns from long to short (or back), the rest costs the price.
"""

from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Final

import msgspec

from portfolio_realtime.model import EXACT, ZERO
from portfolio_realtime.symbol_collector import activity_types
from portfolio_realtime.symbol_collector.activity_types import Cost
from portfolio_realtime.symbol_collector.model import (
    CASH,
    Activity,
    Effect,
    Holding,
    Statement,
    asset_class_of,
    effect_of,
)

COST_DIGITS: Final = Decimal("0.000000000001")


class Balances:
    """What an account has: cash in dollars, and holdings by symbol without those of quantity 0."""

    def __init__(self, statement: Statement, class_of: Callable[[str], str] = asset_class_of) -> None:
        self._class_of = class_of
        self.cash = statement.state.cash
        self._rounding = ZERO  # of bookings since then without a stated amount
        self.holdings = {symbol: one for symbol, one in statement.holdings.items() if one.quantity}

    def move(self, activity: Activity, corrected: Activity | None) -> Effect:
        """Apply an activity, net of the earlier booking that it corrects. Returns the change."""
        with localcontext(EXACT):
            effect = effect_of(activity, corrected)
            self.cash += effect.cash
            self._rounding += effect.rounding
            for symbol, quantity in effect.quantities.items():
                held = self.holdings.get(symbol) or Holding(symbol, self._class_of(symbol), ZERO, ZERO)
                cost = activity_types.of(activity.activity_type).cost
                is_priced = symbol == activity.symbol and cost is not Cost.UNKNOWN
                price = activity.price if is_priced else ZERO  # legs of an exchange state a market price
                is_known = bool(price) or cost is Cost.NOTHING
                self._hold(_moved(held, quantity, price, is_cost_known=is_known))
        return effect

    def add_cash(self, amount: Decimal) -> None:
        """Add dollars to the cash: an amount that was worked out is known better now."""
        with localcontext(EXACT):
            self.cash += amount

    def restate_cost(self, symbol: str, cost_basis: Decimal) -> None:
        """Set the cost of a holding: a split changes the quantity and not the cost."""
        if symbol in self.holdings:
            self._hold(msgspec.structs.replace(self.holdings[symbol], cost_basis=cost_basis))

    def _hold(self, holding: Holding) -> None:
        if holding.quantity:
            self.holdings[holding.symbol] = holding
        else:
            self.holdings.pop(holding.symbol, None)

    def relearn_classes(self) -> None:
        """Apply the asset classes that the broker has stated since."""
        for symbol, holding in tuple(self.holdings.items()):
            if holding.asset_class != self._class_of(symbol):
                self._hold(msgspec.structs.replace(holding, asset_class=self._class_of(symbol)))

    def totals(self) -> "Totals":
        """A copy of cash and quantities, to compare with a statement."""
        quantities = {symbol: holding.quantity for symbol, holding in self.holdings.items()}
        return Totals(self.cash, quantities, self._rounding)


class Totals:
    """Copies of cash and quantities, to try changes without applying them."""

    def __init__(self, cash: Decimal, quantities: dict[str, Decimal], rounding: Decimal = ZERO) -> None:
        self.cash = cash
        self.quantities = quantities
        self._rounding = rounding

    def copy(self) -> "Totals":
        """Another copy, to be changed by itself."""
        return Totals(self.cash, dict(self.quantities), self._rounding)

    def add(self, effect: Effect) -> None:
        """Apply an effect."""
        self._move(effect, 1)

    def undo(self, effect: Effect) -> None:
        """Reverse an effect."""
        self._move(effect, -1)

    def agrees(self, statement: Statement) -> bool:
        """Whether cash and every quantity equal the statement's."""
        return self.has_cash_of(statement) and self.has_quantities_of(statement)

    def has_cash_of(self, statement: Statement) -> bool:
        """Whether the cash equals the statement's; exactly, if the broker stated every amount."""
        return abs(self.cash - statement.state.cash) <= self._rounding

    def has_quantities_of(self, statement: Statement) -> bool:
        """Whether every quantity equals the statement's exactly."""
        return self.quantities == statement.quantities

    def lacks(self, statement: Statement) -> dict[str, Decimal]:
        """What the statement has more (+) or less (−): symbol or CASH -> amount, without zeros."""
        with localcontext(EXACT):
            lacking = {
                symbol: statement.quantities.get(symbol, ZERO) - self.quantities.get(symbol, ZERO)
                for symbol in statement.quantities.keys() | self.quantities.keys()
            }
            if not self.has_cash_of(statement):
                lacking[CASH] = statement.state.cash - self.cash
        return {name: amount for name, amount in sorted(lacking.items()) if amount}

    def excess_over(self, statement: Statement, symbol: str) -> tuple[Decimal, Decimal]:
        """By how much cash, and the quantity of a symbol, exceed those of the statement."""
        with localcontext(EXACT):
            cash = self.cash - statement.state.cash
            return cash, self.quantities.get(symbol, ZERO) - statement.quantities.get(symbol, ZERO)

    def _move(self, effect: Effect, sign: int) -> None:
        with localcontext(EXACT):
            self.cash += sign * effect.cash
            self._rounding += sign * effect.rounding
            for symbol, quantity in effect.quantities.items():
                total = self.quantities.get(symbol, ZERO) + sign * quantity
                if total:
                    self.quantities[symbol] = total
                else:
                    self.quantities.pop(symbol, None)


def _moved(held: Holding, quantity: Decimal, price: Decimal, *, is_cost_known: bool) -> Holding:
    """A holding after a quantity was added (+) or removed (−) at a price."""
    before, after = held.quantity, held.quantity + quantity
    if before * quantity < 0 <= before * after:
        is_cost_known = True  # a removed quantity takes its share of the cost
    if before * quantity >= 0:
        cost_basis = held.cost_basis + quantity * price * held.multiplier
    elif before * after >= 0:
        cost_basis = (held.cost_basis * after / before).quantize(COST_DIGITS)
    else:
        cost_basis = after * price * held.multiplier
    return msgspec.structs.replace(
        held, quantity=after, cost_basis=cost_basis, is_cost_known=held.is_cost_known and is_cost_known
    )

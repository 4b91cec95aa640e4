"""How many shares a contract has: a position does not state it, but its figures show it."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from portfolio_realtime.model import US_OPTION, ZERO
from portfolio_realtime.symbol_collector.model import CENT, ONE

_BOND_STEP: Final = Decimal("0.0001")


def shown_multiplier(
    asset_class: str, quantity: Decimal, figures: Iterable[tuple[Decimal | None, Decimal | None]]
) -> tuple[Decimal | None, bool]:
    """Shares per contract by a position's figures, None if unknown, and whether these contradict each other.

    `figures`: pairs of an amount in dollars and its price. An adjusted contract may have another number than
    100. Classes other than equities and coins may be priced per 100 of the face value: a bond counts 0.01.
    One pair has to show it; the other one may differ as far as its price is rounded.
    """
    step = ONE if asset_class == US_OPTION else _BOND_STEP
    stated = list[tuple[Decimal, Decimal, Decimal]]()
    shown = set[Decimal]()
    for amount, price in figures:
        total, units = abs(amount or ZERO), abs(quantity * (price or ZERO))
        if not (price and total and units):
            continue
        last_digit = ONE.scaleb(int(price.as_tuple().exponent))
        stated.append((total, units, abs(quantity) * min(last_digit, CENT) / 2))
        multiplier = (total / units).quantize(step)
        rounding = abs(quantity) * last_digit / 2 if last_digit < CENT else ZERO
        if multiplier and abs(multiplier * units - total) <= CENT + multiplier * rounding:
            shown.add(multiplier)
    agreed = {
        one
        for one in shown
        if all(abs(one * units - total) <= CENT + one * rounding for total, units, rounding in stated)
    }
    return (agreed.pop(), False) if len(agreed) == 1 else (None, bool(stated))

"""Explanations of a value, computed again by hand."""

import re
from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from typing import Any

import msgspec

from portfolio_realtime.model import Account, Mark
from portfolio_realtime.valuation.explain import explain
from portfolio_realtime.websocket_server.http_api.responses import Explanation
from tests.valuation.records import NOW_NS

CALCULATOR = Context(prec=120, rounding=ROUND_HALF_EVEN)
OPERATIONS = {"×": CALCULATOR.multiply, "+": CALCULATOR.add, "−": CALCULATOR.subtract}


def typed(operands: str) -> Decimal:
    """What a pocket calculator without precedence shows; it must not need any."""
    words = operands.split(" ")
    assert "×" not in words[1::2] or set(words[1::2]) == {"×"}, f"needs precedence: {operands}"
    result = Decimal(words[0])
    for operator, number in zip(words[1::2], words[2::2], strict=True):
        result = OPERATIONS[operator](result, Decimal(number))
    return result


def follow(steps: Iterable[str]) -> dict[str, Decimal]:
    """Type in every step, check its result, and return the results by what they are called."""
    results: dict[str, Decimal] = {}
    for step in steps:
        what, _, arithmetic = step.partition(": ")
        if "unknown" in arithmetic:
            continue
        operands, sign, result = re.split(" ([=≈]) ", arithmetic)
        value = typed(operands)
        if sign == "≈":
            value = value.quantize(Decimal("0.01"), ROUND_HALF_EVEN, context=CALCULATOR)
        assert value == Decimal(result), step
        results[what] = value
    return results


def by_hand(explained: dict[str, Any]) -> tuple[Decimal, Decimal]:
    """Equity and day P&L from the legs alone, without looking at the steps."""
    with localcontext(CALCULATOR):
        equity = Decimal(explained["cash"])
        for leg in explained["positions"]:
            if leg["mark"] is not None:
                equity += Decimal(leg["quantity"]) * Decimal(leg["multiplier"]) * Decimal(leg["mark"])
        gained = equity - Decimal(explained["last_equity"]) - Decimal(explained["external_cash_flow"])
        cent = Decimal("0.01")
        return equity.quantize(cent, ROUND_HALF_EVEN), gained.quantize(cent, ROUND_HALF_EVEN)


def explained(held: Account, *marks: Mark) -> dict[str, Any]:
    """The explanation, which must be as its type says."""
    encoded = explain(held, {one.symbol: one for one in marks}, NOW_NS)
    msgspec.json.decode(encoded, type=Explanation)
    return msgspec.json.decode(encoded)

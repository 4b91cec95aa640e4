"""Shows the work: every leg of an account's sum, and the arithmetic as a person would type it.

A step is `what: operands = result`. Its operands are joined either by × only or by + and − only, so that any
pocket calculator, with or without operator precedence, gets the result. No rounded number is used again.
"""

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from portfolio_realtime.clock import rfc3339
from portfolio_realtime.model import PRICED_CLASSES, Account, Confirmation, Mark, Position, exact, plain
from portfolio_realtime.valuation.position import position_day_pnl
from portfolio_realtime.valuation.rounding import (
    CENT,
    EXACT,
    cents,
    exact_day_pnl,
    exact_equity,
    money,
)

ROUNDING: Final = "half-even to cents, once, at the end"
UNKNOWN: Final = "unknown"

_encode = msgspec.json.Encoder().encode


def explain(
    account: Account, marks: Mapping[str, Mark], now_ns: int, unmarked: Collection[str] | None = None
) -> bytes:
    """The explanation of an account at these marks, made at `now_ns` (ns since 1970), as JSON.

    Money is text in dollars, unrounded except `equity`, `day_pnl` and `known_equity`. Unknown values are
    null. Lists name the symbols that cause this: `unpriced`, `unvalued` (moved by the client at a value that
    no booking states) and `without_day_pnl`. `awaited` lists symbols whose price has not been read yet.
    `unmarked`: symbols for which no price was found; None: all symbols without a mark.
    """
    awaited = [
        p.symbol
        for p in account.positions
        if p.quantity
        and unmarked is not None
        and p.asset_class in PRICED_CLASSES
        and p.symbol not in marks
        and p.symbol not in unmarked
    ]
    marks = _usable(account, marks)
    known = exact_equity(account, {symbol: mark.price for symbol, mark in marks.items()})
    unpriced = [p.symbol for p in account.positions if p.quantity and p.symbol not in marks]
    equity = None if unpriced else known
    day_pnl = None if equity is None or not account.is_day_pnl_known else exact_day_pnl(account, equity)
    return _encode(
        {
            "account_id": account.account_id,
            "currency": account.currency,
            "timestamp": rfc3339(now_ns),
            "record_version": account.version,
            "record_as_of": rfc3339(account.as_of_ns),
            "positions": [_leg(position, marks.get(position.symbol)) for position in account.positions],
            "cash": _dollars(account.cash),
            "last_equity": _dollars(account.last_equity),
            "balance_asof": account.balance_asof,
            "external_cash_flow": _dollars(account.external_cash_flow),
            "unrounded_equity": _dollars(equity),
            "unrounded_day_pnl": _dollars(day_pnl),
            "rounding": ROUNDING,
            "equity": _rounded(equity),
            "day_pnl": _rounded(day_pnl),
            "known_equity": _rounded(known),
            "unpriced": [symbol for symbol in unpriced if symbol not in awaited],
            "awaited": awaited,
            "unvalued": account.unvalued,
            "unexplained": {name: plain(amount) for name, amount in account.unexplained.items()},
            "unconfirmed": _unconfirmed(account),
            **_confirmed(account.confirmed),
            "held_back": _dollars(account.held_back),
            "without_day_pnl": [
                p.symbol for p in account.positions if position_day_pnl(p, marks.get(p.symbol)) is None
            ],
            "steps": [
                *(
                    step
                    for position in account.positions
                    for step in _position_steps(position, marks.get(position.symbol))
                ),
                *_account_steps(account, marks, known, unpriced),
            ],
        }
    )


def _unconfirmed(account: Account) -> dict[str, Any] | None:
    unconfirmed = account.unconfirmed
    if unconfirmed is None:
        return None
    by = {name: plain(amount) for name, amount in unconfirmed.by.items()}
    return {"since": rfc3339(unconfirmed.since_ns), "reason": unconfirmed.reason, "by": by}


def _usable(account: Account, marks: Mapping[str, Mark]) -> dict[str, Mark]:
    """The marks of held symbols. A mark from before a split is a price of other shares and is left out."""
    return {
        p.symbol: marks[p.price_name]
        for p in account.positions
        if p.price_name in marks and marks[p.price_name].as_of_ns >= p.marks_from_ns
    }


def _leg(position: Position, mark: Mark | None) -> dict[str, Any]:
    return {
        "symbol": position.symbol,
        "asset_class": position.asset_class,
        "quantity": plain(position.quantity),
        "multiplier": plain(position.multiplier),
        "mark": _price(mark.price if mark else None),
        "mark_source": mark.source if mark else None,
        "mark_as_of": rfc3339(mark.as_of_ns) if mark else None,
        "mark_quality": mark.quality or None if mark else None,
        "previous_close": _price(mark.previous_close if mark else None),
        "previous_close_date": mark.previous_close_date if mark else None,
        "market_value": _dollars(_market_value(position, mark)),
        "day_quantity": plain(position.day_quantity),
        "day_cost": _dollars(position.day_cost) if position.is_day_cost_known else None,
        "day_asof": position.day_asof or None,
        "day_pnl": _dollars(position_day_pnl(position, mark)),
    }


def _market_value(position: Position, mark: Mark | None) -> Decimal | None:
    if not position.quantity:
        return Decimal(0)
    return _product(position.quantity, position.multiplier, exact(mark.price)) if mark else None


def _previous_value(position: Position, mark: Mark | None) -> Decimal | None:
    carried = _carried(position)
    if not carried:
        return Decimal(0)
    if mark is None or mark.previous_close is None:
        return None
    return _product(carried, position.multiplier, exact(mark.previous_close))


def _carried(position: Position) -> Decimal:
    """The quantity that has been held since the previous close."""
    return EXACT.subtract(position.quantity, position.day_quantity)


def _position_steps(position: Position, mark: Mark | None) -> list[str]:
    """The steps of one position: to its market value and to its day P&L."""
    symbol, multiplier, carried = position.symbol, plain(position.multiplier), _carried(position)
    now, then = _market_value(position, mark), _previous_value(position, mark)
    price = _price(mark.price if mark else None) or UNKNOWN
    close = _price(mark.previous_close if mark else None) or UNKNOWN
    held = _sum(position.quantity, _less(position.day_quantity))
    gained, day_pnl = UNKNOWN, position_day_pnl(position, mark)
    if day_pnl is not None:
        assert now is not None and then is not None  # otherwise the day P&L would not be known
        gained = f"{_dollar_sum(now, _less(then), _less(position.day_cost))} = {_dollars(day_pnl)}"
    return [
        f"market value of {symbol}: {plain(position.quantity)} × {multiplier} × {price} = {_known(now)}",
        f"{symbol} held since the previous close: {held} = {plain(carried)}",
        f"{symbol} at the previous close: {plain(carried)} × {multiplier} × {close} = {_known(then)}",
        f"day P&L of {symbol}: {gained}",
    ]


def _confirmed(by: Confirmation | None) -> dict[str, Any]:
    """When the broker last confirmed the record, and its figures."""
    if by is None:
        return {"confirmed_at": None, "confirmed_by": None}
    told = {
        "cash": _dollars(by.cash),
        "equity": _dollars(by.equity),
        "balance_asof": by.balance_asof,
        "positions": by.position_count,
    }
    return {"confirmed_at": rfc3339(by.complete_ns), "confirmed_by": told}


def _account_steps(
    account: Account, marks: Mapping[str, Mark], known: Decimal, unpriced: list[str]
) -> list[str]:
    """The steps of the account: from market values and cash to the published cents."""
    values = [_market_value(position, marks.get(position.symbol)) for position in account.positions]
    total = f"{_dollar_sum(account.cash, *(value for value in values if value))} = {_dollars(known)}"
    if unpriced:
        return [
            f"known equity: {total}",
            f"rounded known equity: {_dollars(known)} ≈ {_rounded(known)}",
            f"equity: {UNKNOWN}, because these have no mark: {', '.join(unpriced)}",
            f"day P&L: {UNKNOWN}",
        ]
    steps = [f"equity: {total}", f"rounded equity: {_dollars(known)} ≈ {_rounded(known)}"]
    if account.unvalued:
        unvalued = ", ".join(account.unvalued)
        return [*steps, f"day P&L: {UNKNOWN}, because no booking states the value of: {unvalued}"]
    if account.unexplained:
        unexplained = ", ".join(f"{name} {plain(amount)}" for name, amount in account.unexplained.items())
        return [*steps, f"day P&L: {UNKNOWN}, because no booking explains these changes: {unexplained}"]
    day_pnl = exact_day_pnl(account, known)
    gained = _dollar_sum(known, _less(account.last_equity), _less(account.external_cash_flow))
    return [
        *steps,
        f"day P&L: {gained} = {_dollars(day_pnl)}",
        f"rounded day P&L: {_dollars(day_pnl)} ≈ {_rounded(day_pnl)}",
    ]


def _product(*factors: Decimal) -> Decimal:
    result = Decimal(1)
    for factor in factors:
        result = EXACT.multiply(result, factor)
    return result


def _less(number: Decimal) -> Decimal:
    """The number with its sign reversed. Unlike `-number`, this never rounds."""
    return number.copy_negate()


def _sum(*terms: Decimal) -> str:
    """The terms as text: the first with its sign, each other one after a plus or a minus."""
    return _joined([(term, plain(term.copy_abs())) for term in terms])


def _dollar_sum(*terms: Decimal) -> str:
    return _joined([(term, _exact_dollars(term.copy_abs())) for term in terms])


def _joined(terms: list[tuple[Decimal, str]]) -> str:
    (first, text), *rest = terms
    return (
        ("-" if first < 0 else "")
        + text
        + "".join(f" {'−' if term.is_signed() else '+'} {size}" for term, size in rest)
    )


def _price(price: float | None) -> str | None:
    return None if price is None else plain(exact(price))


def _dollars(amount: Decimal | None) -> str | None:
    return None if amount is None else _exact_dollars(amount)


def _known(amount: Decimal | None) -> str:
    return UNKNOWN if amount is None else _exact_dollars(amount)


def _exact_dollars(amount: Decimal) -> str:
    """All digits except trailing zeros, with at least two decimals."""
    trimmed = EXACT.normalize(EXACT.plus(amount))
    exponent = trimmed.as_tuple().exponent
    assert isinstance(exponent, int)  # money is finite
    return plain(trimmed if exponent < -2 else EXACT.quantize(trimmed, CENT))


def _rounded(amount: Decimal | None) -> str | None:
    return None if amount is None else money(cents(amount))

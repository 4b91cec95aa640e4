"""Accounts, positions and marks for the tests of valuation, and an oracle with arithmetic of its own."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Any

import msgspec
import numpy as np

from portfolio_realtime.model import US_EQUITY, Account, Mark, Position, Publication
from portfolio_realtime.valuation.book import Book, Selection
from portfolio_realtime.valuation.portfolio_message import Figures

ORACLE_DIGITS = 120
NS_PER_S = 1_000_000_000
NOW_NS = 1_763_650_800 * NS_PER_S  # 2025-11-20T15:00:00Z

_versions = itertools.count(NOW_NS)


def position(symbol: str, quantity: Any, **changes: Any) -> Position:
    """A position in shares, unless `changes` says otherwise; numbers may be given as text."""
    fields: dict[str, Any] = {"multiplier": 1, "cost_basis": 0, "day_quantity": 0, "day_cost": 0, **changes}
    asset_class = fields.pop("asset_class", US_EQUITY)
    numbers: dict[str, Any] = {name: Decimal(number) for name, number in fields.items()}
    return Position(symbol=symbol, asset_class=asset_class, quantity=Decimal(quantity), **numbers)


def account(account_id: str = "alice", positions: Iterable[Position] = (), **changes: Any) -> Account:
    """An account with 1000.00 in cash; numbers may be given as text."""
    fields: dict[str, Any] = {"cash": 1000, "last_equity": 1000, "external_cash_flow": 0}
    fields |= {name: changes.pop(name) for name in list(changes) if name in fields}
    numbers = {name: Decimal(number) for name, number in fields.items()}
    rest: dict[str, Any] = {"version": 1, "as_of_ns": NOW_NS, "balance_asof": "2025-11-19", **changes}
    return Account(
        account_id=account_id, status="ACTIVE", currency="USD", positions=tuple(positions), **numbers, **rest
    )


def mark(symbol: str, price: float, **changes: Any) -> Mark:
    """A mark traded now and of a higher version than every earlier one."""
    fields: dict[str, Any] = {
        "as_of_ns": NOW_NS,
        "version": next(_versions),
        "source": "iex",
        **changes,
    }
    return Mark(symbol=symbol, price=price, **fields)


@dataclass(frozen=True)
class OracleFigures:
    """What the oracle expects, as the wire says it; None where a position is unpriced."""

    equity: str | None
    day_pnl: str | None
    known_equity: str


def oracle_figures(held: Account, prices: Mapping[str, float]) -> OracleFigures:
    """The account's figures, summed in Decimal with ORACLE_DIGITS digits and rounded once, half-even."""
    with localcontext() as context:
        context.prec = ORACLE_DIGITS
        known = held.cash
        is_known = True
        for p in held.positions:
            if p.symbol in prices:
                known += p.quantity * p.multiplier * Decimal(str(prices[p.symbol]))
            elif p.quantity != 0:
                is_known = False
        day_pnl = known - held.last_equity - held.external_cash_flow
        return OracleFigures(
            equity=oracle_cents(known) if is_known else None,
            day_pnl=oracle_cents(day_pnl) if is_known else None,
            known_equity=oracle_cents(known),
        )


def oracle_cents(dollars: Decimal) -> str:
    """Dollars rounded half-even to two decimals, as text; never a negative zero."""
    with localcontext() as context:
        context.prec = ORACLE_DIGITS
        rounded = dollars.quantize(Decimal("0.01"), rounding=ROUND_HALF_EVEN)
        return format(abs(rounded) if rounded == 0 else rounded, "f")


def message_of(publication: Publication) -> dict[str, Any]:
    """The publication's JSON object."""
    return msgspec.json.decode(publication.value)


def figures(
    equity: int,
    day_pnl: int,
    as_of_ns: int = NOW_NS,
    unpriced: Sequence[str] = (),
    stale_ages_s: Mapping[str, int] | None = None,
) -> Figures:
    """The figures of one account; money in cents."""
    columns = (np.array([number], np.int64) for number in (equity, day_pnl, as_of_ns))
    return Figures(
        *columns,
        unpriced={0: unpriced} if unpriced else {},
        stale_ages_s={0: stale_ages_s} if stale_ages_s else {},
    )


def selected(book: Book, account_ids: Sequence[str]) -> Selection:
    """The rows of these accounts."""
    return book.select(np.array([book.row(account_id) for account_id in account_ids], np.int64))

"""A valuation as the JSON object that clients get. Numbers become text here and nowhere else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import msgspec

from portfolio_realtime.clock import rfc3339
from portfolio_realtime.model import ZERO, Account, Mark, Position, exact, plain
from portfolio_realtime.valuation.rounding import EXACT, cents, money

RATIO_DIGITS: Final = 7

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Figures:
    """One account's published numbers, in cents; None where a position is unpriced."""

    equity: int | None
    day_pnl: int | None
    known_equity: int
    unpriced: Sequence[str]
    stale_ages_s: Mapping[str, int]  # symbol -> whole seconds since its mark was traded
    as_of_ns: int


def encode_value(account: Account, epoch: int, sequence: int, figures: Figures, published_ns: int) -> bytes:
    """The portfolio message without positions, fields in the order of the protocol."""
    ratio = day_pnl_ratio(account, figures.day_pnl)
    message: dict[str, object] = {
        "type": "portfolio",
        "account_id": account.account_id,
        "epoch": epoch,
        "sequence": sequence,
        "equity": _money(figures.equity),
        "cash": money(cents(account.cash)),
        "last_equity": money(cents(account.last_equity)),
        "external_cash_flow": money(cents(account.external_cash_flow)),
        "day_pnl": _money(figures.day_pnl),
        "day_pnl_ratio": ratio,
        "as_of": rfc3339(max(figures.as_of_ns, 0)),
        "stale": list(figures.stale_ages_s),
        "unpriced": list(figures.unpriced),
        "total_value": _dollars(figures.equity),
        "today_return": _signed_return(figures.day_pnl, ratio),
        "timestamp": rfc3339(published_ns),
    }
    if figures.equity is None:
        message["known_equity"] = money(figures.known_equity)
    if figures.stale_ages_s:
        message["stale_ages_s"] = figures.stale_ages_s
    return _encode(message)


def encode_row(position: Position, mark: Mark | None) -> bytes:
    """One position's row; what an unpriced position is worth is null."""
    price = exact(mark.price) if mark else None
    units = EXACT.multiply(position.quantity, position.multiplier)
    market_value = None if price is None else EXACT.multiply(units, price)
    return _encode(
        {
            "symbol": position.symbol,
            "quantity": plain(position.quantity),
            "mark": None if price is None else plain(price),
            "mark_source": mark.source if mark else None,
            "mark_as_of": rfc3339(mark.as_of_ns) if mark else None,
            "previous_close": None
            if not mark or mark.previous_close is None
            else plain(exact(mark.previous_close)),
            "market_value": _rounded(market_value),
            "day_pnl": _rounded(position_day_pnl(position, mark)),
            "unrealized_pnl": None
            if market_value is None
            else _rounded(EXACT.subtract(market_value, position.cost_basis)),
        }
    )


def position_day_pnl(position: Position, mark: Mark | None) -> Decimal | None:
    """What the position has gained since the previous close, in dollars, or None when a price is missing.

    Worth now, less worth at the previous close of what was held then, less what was paid since. The
    same formula serves carried, opened, reduced and closed positions. What the day cost must be known, and be
    counted from the day of the previous close or a later one.
    """
    is_close_later = bool(mark and position.day_asof and (mark.previous_close_date or "") > position.day_asof)
    carried = EXACT.subtract(position.quantity, position.day_quantity)
    if not position.is_day_cost_known or (position.quantity and mark is None):
        return None
    if carried and (mark is None or mark.previous_close is None or is_close_later):
        return None
    now = EXACT.multiply(position.quantity, exact(mark.price)) if mark else ZERO
    then = EXACT.multiply(carried, exact(mark.previous_close)) if mark and mark.previous_close else ZERO
    gained = EXACT.multiply(EXACT.subtract(now, then), position.multiplier)
    return EXACT.subtract(gained, position.day_cost)


def day_pnl_ratio(account: Account, day_pnl: int | None) -> float | None:
    """Day P&L divided by last equity plus external cash flow; None when that base is not positive."""
    base = EXACT.add(account.last_equity, account.external_cash_flow)
    if day_pnl is None or base <= 0:
        return None
    return round(day_pnl / 100 / float(base), RATIO_DIGITS)


def _rounded(dollars: Decimal | None) -> str | None:
    return None if dollars is None else money(cents(dollars))


def _money(amount_cents: int | None) -> str | None:
    return None if amount_cents is None else money(amount_cents)


def _dollars(amount_cents: int | None) -> str | None:
    if amount_cents is None:
        return None
    dollars, remainder = divmod(abs(amount_cents), 100)
    return f"{'-' if amount_cents < 0 else ''}${dollars:,}.{remainder:02d}"


def _signed_return(day_pnl: int | None, ratio: float | None) -> str | None:
    if day_pnl is None:
        return None
    sign = "" if day_pnl < 0 else "+"
    percent = "" if ratio is None else f" ({ratio:+.2%})"
    return f"{sign}{_dollars(day_pnl)}{percent}"

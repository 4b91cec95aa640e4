"""A valuation as the JSON object that clients get. Numbers become text here and nowhere else."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from portfolio_realtime.clock import rfc3339
from portfolio_realtime.model import ZERO, Account, Mark, Position, exact, plain
from portfolio_realtime.valuation.book import day_base
from portfolio_realtime.valuation.rounding import EXACT, cents, money

RATIO_DIGITS: Final = 7

_encode = msgspec.json.Encoder().encode


class Figures(msgspec.Struct, frozen=True):
    """One account's published numbers, in cents; None where a position is unpriced."""

    equity: int | None
    day_pnl: int | None
    known_equity: int
    unpriced: Sequence[str]
    stale_ages_s: Mapping[str, int]  # symbol -> whole seconds since its mark was traded
    as_of_ns: int


class Constant(msgspec.Struct, frozen=True):
    """What of an account's messages stays until its record changes, as text that is ready to be sent."""

    account: str  # type and account id, the head of the JSON object
    balances: str  # cash, last equity, external cash flow
    ratio_base: float  # dollars; 0 where there is no ratio
    unvalued: str = ""  # the field of that name, where there is any


def constant(account: Account) -> Constant:
    """The constant part of an account's messages."""
    base = day_base(account)
    return Constant(
        account=f'{{"type":"portfolio","account_id":{_text(account.account_id)}',
        balances=(
            f'"cash":"{money(cents(account.cash))}","last_equity":"{money(cents(account.last_equity))}",'
            f'"external_cash_flow":"{money(cents(account.external_cash_flow))}"'
        ),
        ratio_base=float(base) if base > 0 else 0.0,
        unvalued=f',"unvalued":{_text(account.unvalued)}' if account.unvalued else "",
    )


def encode_value(always: Constant, epoch: int, sequence: int, figures: Figures, published_ns: int) -> bytes:
    """The portfolio message without positions, fields in the order of the protocol.

    Written as one text because this is done for every publication; money and times need no escaping.
    """
    equity, day_pnl = figures.equity, figures.day_pnl
    ratio = day_pnl_ratio(always, day_pnl)
    rest = ""
    if equity is None:
        rest += f',"known_equity":"{money(figures.known_equity)}"'
    if figures.stale_ages_s:
        rest += f',"stale_ages_s":{_text(figures.stale_ages_s)}'
    return (
        f'{always.account},"epoch":{epoch},"sequence":{sequence},'
        f'"equity":{_quoted(equity, money)},{always.balances},'
        f'"day_pnl":{_quoted(day_pnl, money)},"day_pnl_ratio":{"null" if ratio is None else repr(ratio)},'
        f'"as_of":"{rfc3339(max(figures.as_of_ns, 0))}",'
        f'"stale":{_text(list(figures.stale_ages_s)) if figures.stale_ages_s else "[]"},'
        f'"unpriced":{_text(figures.unpriced) if figures.unpriced else "[]"},'
        f'"total_value":{_quoted(equity, _dollars)},'
        f'"today_return":{"null" if day_pnl is None else _signed_return(day_pnl, ratio)},'
        f'"timestamp":"{rfc3339(published_ns)}"{rest}{always.unvalued}}}'
    ).encode()


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
            "mark_quality": mark.quality or None if mark else None,
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


def day_pnl_ratio(always: Constant, day_pnl: int | None) -> float | None:
    """Day P&L divided by last equity plus external cash flow; None when that base is not positive."""
    if day_pnl is None or not always.ratio_base:
        return None
    return round(day_pnl / 100 / always.ratio_base, RATIO_DIGITS)


def _text(value: object) -> str:
    return _encode(value).decode()


def _rounded(dollars: Decimal | None) -> str | None:
    return None if dollars is None else money(cents(dollars))


def _quoted(amount_cents: int | None, written: Callable[[int], str]) -> str:
    return "null" if amount_cents is None else f'"{written(amount_cents)}"'


def _dollars(amount_cents: int) -> str:
    dollars, remainder = divmod(abs(amount_cents), 100)
    return f"{'-' if amount_cents < 0 else ''}${dollars:,}.{remainder:02d}"


def _signed_return(day_pnl: int, ratio: float | None) -> str:
    sign = "" if day_pnl < 0 else "+"
    percent = "" if ratio is None else f" ({ratio:+.2%})"
    return f'"{sign}{_dollars(day_pnl)}{percent}"'

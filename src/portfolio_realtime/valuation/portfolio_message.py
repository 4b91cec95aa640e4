"""A valuation as the JSON object that clients get. Numbers become text here and nowhere else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import starmap
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from portfolio_realtime.clock import rfc3339
from portfolio_realtime.model import EXACT, PRICED_CLASSES, Account, Mark, Position, exact, plain
from portfolio_realtime.valuation import number_text
from portfolio_realtime.valuation.arrays import Floats, Ints
from portfolio_realtime.valuation.position import position_day_pnl
from portfolio_realtime.valuation.rounding import cents, day_base, money

RATIO_DIGITS: Final = 7
UNKNOWN_TEXT: Final = "—"  # in a text for people; a number that is not known is null
HUNDREDTHS_MAX: Final = 10**12  # of a percent; above, a percentage tells nobody anything

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Figures:
    """The published numbers of some accounts, one entry each. Money is in cents."""

    equity: Ints  # without unpriced positions
    day_pnl: Ints  # means nothing where a position is unpriced
    as_of_ns: Ints
    unpriced: Mapping[int, Sequence[str]]  # index -> symbols without a mark, of accounts that have any
    stale_ages_s: Mapping[int, Mapping[str, int]]  # the same -> whole seconds since the mark was traded
    awaited: Mapping[int, Sequence[str]] = field(default_factory=dict[int, Sequence[str]])  # not read yet


class Constant(msgspec.Struct, frozen=True, gc=False):
    """What of an account's messages stays until its record changes, as text that is ready to be sent."""

    head: str  # of the JSON object, as far as the sequence
    balances: str  # cash, last equity, external cash flow
    ratio_base: float  # dollars; 0 where there is no ratio
    record_as_of: str
    doubts: str  # what cannot be known or is not confirmed, as fields
    is_day_pnl_known: bool


def constant(account: Account, epoch: int) -> Constant:
    """The constant part of an account's messages under an epoch."""
    base = day_base(account)
    return Constant(
        head=f'{{"type":"portfolio","account_id":{_text(account.account_id)},"epoch":{epoch},"sequence":',
        balances=(
            f'"cash":"{money(cents(account.cash))}","last_equity":"{money(cents(account.last_equity))}",'
            f'"external_cash_flow":"{money(cents(account.external_cash_flow))}"'
        ),
        ratio_base=float(base) if base > 0 else 0.0,
        record_as_of=rfc3339(account.as_of_ns),
        doubts=_doubts(account),
        is_day_pnl_known=account.is_day_pnl_known,
    )


def _doubts(account: Account) -> str:
    """What of the record is not known or not confirmed."""
    fields: list[str] = []
    if account.unvalued:
        fields.append(f'"unvalued":{_text(account.unvalued)}')
    if classes := _without_feed(account):
        fields.append(f'"without_feed":{_text(classes)}')
    if account.unexplained:
        fields.append(f'"unexplained":{_text(_plain(account.unexplained))}')
    if (doubt := account.unconfirmed) is not None:
        told = {"since": rfc3339(doubt.since_ns), "reason": doubt.reason, "by": _plain(doubt.by)}
        fields.append(f'"unconfirmed":{_text(told)}')
    return "".join(f",{field}" for field in fields)


def _without_feed(account: Account) -> dict[str, str]:
    """Symbol -> asset class of what is held and no feed brings prices of."""
    return {
        one.symbol: one.asset_class
        for one in account.positions
        if one.quantity and one.asset_class not in PRICED_CLASSES
    }


def _plain(amounts: Mapping[str, Decimal]) -> dict[str, str]:
    return {name: plain(amount) for name, amount in amounts.items()}


def encode_values(
    always: Sequence[Constant], sequences: Sequence[int], figures: Figures, published_ns: int
) -> list[bytes]:
    """The portfolio messages of some accounts, without positions, fields in the order of the protocol.

    Column by column the numbers become text, which is then put together account by account; money and times
    need no escaping.
    """
    unknown_equity = list(figures.unpriced)
    unknown_pnl = unknown_equity + [index for index, one in enumerate(always) if not one.is_day_pnl_known]
    equity, total_value = _equity(figures, unknown_equity)
    day_pnl, ratio, today_return = _day_pnl(figures, always, unknown_pnl)
    as_of = number_text.times(np.maximum(figures.as_of_ns, 0))
    stale, unpriced, rest = _rare(figures, always)
    timestamp = [rfc3339(published_ns)] * len(always)
    columns = (always, sequences, equity, day_pnl, ratio, as_of, stale, unpriced)
    return list(starmap(_message, zip(*columns, total_value, today_return, timestamp, rest, strict=True)))


def _message(
    always: Constant,
    sequence: int,
    equity: str,
    day_pnl: str,
    ratio: str,
    as_of: str,
    stale: str,
    unpriced: str,
    total_value: str,
    today_return: str,
    timestamp: str,
    rest: str,
) -> bytes:
    return (
        f'{always.head}{sequence},"equity":{equity},{always.balances},"day_pnl":{day_pnl},'
        f'"day_pnl_ratio":{ratio},"as_of":"{as_of}","stale":{stale},"unpriced":{unpriced},'
        f'"total_value":{total_value},"today_return":{today_return},"timestamp":"{timestamp}",'
        f'"record_as_of":"{always.record_as_of}"{rest}}}'
    ).encode()


def _equity(figures: Figures, unknown: Sequence[int]) -> tuple[list[str], list[str]]:
    """The fields `equity` and `total_value`."""
    signs = number_text.signs(figures.equity)
    plain_amounts, amounts = number_text.amounts(figures.equity), number_text.amounts(figures.equity, ",")
    equity = [f'"{sign}{amount}"' for sign, amount in zip(signs, plain_amounts, strict=True)]
    total_value = [f'"{sign}${amount}"' for sign, amount in zip(signs, amounts, strict=True)]
    for index in unknown:
        equity[index], total_value[index] = "null", f'"{UNKNOWN_TEXT}"'
    return equity, total_value


def _day_pnl(
    figures: Figures, always: Sequence[Constant], unknown: Sequence[int]
) -> tuple[list[str], list[str], list[str]]:
    """The fields `day_pnl`, `day_pnl_ratio` and `today_return`, with a percentage where there is a ratio."""
    signs = number_text.signs(figures.day_pnl)
    amounts = number_text.amounts(figures.day_pnl)
    day_pnl = [f'"{sign}{amount}"' for sign, amount in zip(signs, amounts, strict=True)]
    ratio = day_pnl_ratio(np.array([one.ratio_base for one in always]), figures.day_pnl)
    ratio[unknown] = np.nan
    signs = number_text.signs(figures.day_pnl, plus="+")
    amounts = number_text.amounts(figures.day_pnl, ",")
    percent, is_percent = _hundredths_of_percent(ratio)
    percents = number_text.amounts(percent)
    today_return = [
        f'"{sign}${amount} ({sign}{percent}%)"'
        for sign, amount, percent in zip(signs, amounts, percents, strict=True)
    ]
    for index in np.flatnonzero(~is_percent).tolist():
        today_return[index] = f'"{signs[index]}${amounts[index]}"'
    for index in unknown:
        day_pnl[index], today_return[index] = "null", f'"{UNKNOWN_TEXT}"'
    ratio = np.round(ratio, RATIO_DIGITS) + 0.0  # a loss that rounds to nothing is 0.0, not -0.0
    return day_pnl, number_text.numbers(ratio), today_return


def _hundredths_of_percent(ratio: Floats) -> tuple[Ints, NDArray[np.bool_]]:
    """Ratios rounded for people, and where there is one that they can read."""
    hundredths = np.rint(ratio * 100 * 100)
    is_readable = np.abs(hundredths) < HUNDREDTHS_MAX  # false for NaN
    return np.where(is_readable, hundredths, 0).astype(np.int64), is_readable


def _rare(figures: Figures, always: Sequence[Constant]) -> tuple[list[str], list[str], list[str]]:
    """The fields `stale` and `unpriced`, and what only some messages have at their end."""
    stale, unpriced = ["[]"] * len(always), ["[]"] * len(always)
    rest = [one.doubts for one in always]
    for index, ages_s in figures.stale_ages_s.items():
        stale[index] = _text(list(ages_s))
        rest[index] = f',"stale_ages_s":{_text(ages_s)}{rest[index]}'
    for index, symbols in figures.unpriced.items():
        if awaited := figures.awaited.get(index):
            symbols = [symbol for symbol in symbols if symbol not in awaited]
            rest[index] = f',"awaited":{_text(awaited)}{rest[index]}'
        unpriced[index] = _text(symbols)
        rest[index] = f',"known_equity":"{money(int(figures.equity[index]))}"{rest[index]}'
    return stale, unpriced, rest


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
            if market_value is None or not position.is_cost_known
            else _rounded(EXACT.subtract(market_value, position.cost_basis)),
        }
    )


def day_pnl_ratio(base: Floats, day_pnl: Ints) -> Floats:
    """Day P&L (cents) divided by last equity plus external cash flow (dollars); NaN where that is 0."""
    ratio = np.full(len(base), np.nan)
    return np.divide(day_pnl / 100, base, out=ratio, where=base > 0)


def _text(value: object) -> str:
    return _encode(value).decode()


def _rounded(dollars: Decimal | None) -> str | None:
    return None if dollars is None else money(cents(dollars))

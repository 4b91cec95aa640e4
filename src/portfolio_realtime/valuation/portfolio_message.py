"""A valuation as the JSON object that clients get. Numbers become text only here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from portfolio_realtime.clock import rfc3339
from portfolio_realtime.model import EXACT, PRICED_CLASSES, Account, Mark, Position, exact, plain
from portfolio_realtime.valuation.arrays import Ints
from portfolio_realtime.valuation.position import position_day_pnl
from portfolio_realtime.valuation.rounding import cents, day_base, money

RATIO_DIGITS: Final = 7
UNKNOWN_TEXT: Final = '"—"'  # in text for people; an unknown number is null
CENTS: Final = tuple(f".{cent:02d}" for cent in range(100))
HUNDREDTHS_MAX: Final = 10**12  # of a percent; a larger percentage is left out

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Figures:
    """The published numbers of some accounts, one entry per account. Money is in cents."""

    equity: Ints  # without unpriced positions
    day_pnl: Ints  # has no meaning if a position is unpriced
    as_of_ns: Ints
    unpriced: Mapping[int, Sequence[str]]  # index -> symbols without a mark, of accounts that have any
    stale_ages_s: Mapping[int, Mapping[str, int]]  # index -> symbol -> whole seconds since the mark's trade
    awaited: Mapping[int, Sequence[str]] = field(default_factory=dict[int, Sequence[str]])  # not read yet


class Constant(msgspec.Struct, frozen=True, gc=False):
    """The parts of an account's messages that stay until its record changes, as finished text."""

    head: str  # the JSON object up to the sequence
    balances: str  # cash, last equity, external cash flow, and the name of the next field: day P&L
    ratio_base: float  # dollars; 0 if there is no ratio
    record_as_of: str  # as a field
    doubts: str  # fields for what is unknown or unconfirmed
    is_day_pnl_known: bool


class _Oddity(NamedTuple):
    """What only some messages have: JSON of `stale` and `unpriced`, and more fields."""

    stale: str
    unpriced: str
    rest: str
    is_known: bool  # whether every position is priced


_NO_ODDITY: Final = _Oddity("[]", "[]", "", is_known=True)


def constant(account: Account, epoch: int) -> Constant:
    """The constant part of an account's messages under an epoch."""
    base = day_base(account)
    return Constant(
        head=f'{{"type":"portfolio","account_id":{_text(account.account_id)},"epoch":{epoch},"sequence":',
        balances=(
            f'"cash":"{money(cents(account.cash))}","last_equity":"{money(cents(account.last_equity))}",'
            f'"external_cash_flow":"{money(cents(account.external_cash_flow))}","day_pnl":'
        ),
        ratio_base=float(base) if base > 0 else 0.0,
        record_as_of=f',"record_as_of":"{rfc3339(account.as_of_ns)}"',
        doubts=_doubts(account),
        is_day_pnl_known=account.is_day_pnl_known,
    )


def _doubts(account: Account) -> str:
    """The fields for what is unknown or unconfirmed in the record."""
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
    """Symbol -> asset class, of held symbols for which no feed has prices."""
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
    """The portfolio messages of some accounts, without positions, with fields in the order of the protocol.

    `published_ns`: ns since 1970. Money and times need no escaping. Accounts with the same newest time share
    its text.
    """
    odd = _oddities(figures)
    timestamp = rfc3339(published_ns)
    moments_ns = figures.as_of_ns.tolist()
    times = {moment_ns: rfc3339(max(moment_ns, 0)) for moment_ns in set(moments_ns)}
    columns = (always, sequences, figures.equity.tolist(), figures.day_pnl.tolist(), moments_ns)
    return [
        _message(one, sequence, equity, day_pnl, times[as_of_ns], timestamp, odd.get(index, _NO_ODDITY))
        for index, (one, sequence, equity, day_pnl, as_of_ns) in enumerate(zip(*columns, strict=True))
    ]


def _message(
    always: Constant, sequence: int, equity: int, day_pnl: int, as_of: str, timestamp: str, odd: _Oddity
) -> bytes:
    """One message. It is mostly one f-string, because thousands are made per second."""
    stale, unpriced, rest, is_known = odd
    amount, total = abs(equity), UNKNOWN_TEXT
    sign, equity_text = ("-" if equity < 0 else ""), "null"
    if is_known:
        dollars, cent = amount // 100, CENTS[amount % 100]
        equity_text, total = f'"{sign}{dollars}{cent}"', f'"{sign}${dollars:,}{cent}"'
    day_pnl_text: str = "null"
    ratio: float | str = "null"
    gain = UNKNOWN_TEXT
    if is_known and always.is_day_pnl_known:
        amount, sign = abs(day_pnl), ("-" if day_pnl < 0 else "")
        dollars, cent = amount // 100, CENTS[amount % 100]
        day_pnl_text, gain = f'"{sign}{dollars}{cent}"', f'"{sign or "+"}${dollars:,}{cent}"'
        if always.ratio_base:
            exact_ratio = day_pnl / 100 / always.ratio_base
            ratio = round(exact_ratio, RATIO_DIGITS) + 0.0  # a loss that rounds to 0 is 0.0, not -0.0
            percent = abs(round(exact_ratio * 100 * 100))
            if percent < HUNDREDTHS_MAX:
                gain = f'{gain[:-1]} ({sign or "+"}{percent // 100}{CENTS[percent % 100]}%)"'
    return (
        f'{always.head}{sequence},"equity":{equity_text},{always.balances}{day_pnl_text},"day_pnl_ratio":{ratio},'
        f'"as_of":"{as_of}","stale":{stale},"unpriced":{unpriced},"total_value":{total},'
        f'"today_return":{gain},"timestamp":"{timestamp}"{always.record_as_of}{rest}{always.doubts}}}'
    ).encode()


def _oddities(figures: Figures) -> dict[int, _Oddity]:
    """Index -> the parts of its message that most messages do not have."""
    odd: dict[int, _Oddity] = {}
    for index in {*figures.stale_ages_s, *figures.unpriced}:
        ages_s, symbols = figures.stale_ages_s.get(index), figures.unpriced.get(index)
        rest = "" if ages_s is None else f',"stale_ages_s":{_text(ages_s)}'
        if symbols is not None:
            if awaited := figures.awaited.get(index):
                symbols = [symbol for symbol in symbols if symbol not in awaited]
                rest = f',"awaited":{_text(awaited)}{rest}'
            rest = f',"known_equity":"{money(int(figures.equity[index]))}"{rest}'
        stale = _text(list(ages_s or ()))
        odd[index] = _Oddity(stale, _text(symbols or []), rest, is_known=index not in figures.unpriced)
    return odd


def encode_row(position: Position, mark: Mark | None) -> bytes:
    """The JSON of one position; the values of an unpriced position are null."""
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


def _text(value: object) -> str:
    return _encode(value).decode()


def _rounded(dollars: Decimal | None) -> str | None:
    return None if dollars is None else money(cents(dollars))

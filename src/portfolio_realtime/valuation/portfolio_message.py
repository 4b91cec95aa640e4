"""A valuation as the JSON object that clients get. Numbers become text only here."""

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec
import numpy as np

from portfolio_realtime.clock import rfc3339
from portfolio_realtime.model import EXACT, PRICED_CLASSES, Account, Mark, Position, exact, plain
from portfolio_realtime.valuation.arrays import Ints
from portfolio_realtime.valuation.position import position_day_pnl
from portfolio_realtime.valuation.rounding import cents, day_base, money

RATIO_DIGITS: Final = 7
UNKNOWN_TEXT: Final = '"—"'  # in text for people; an unknown number is null
RATIO_SCALE: Final = 10.0**RATIO_DIGITS
RATIO_ERROR: Final = 2.0**-50  # more than the relative error of a scaled ratio
RATIO_PLAIN_MIN: Final = 1000.5  # scaled; a smaller ratio may have an exponent in its text
HUNDREDTHS_MAX: Final = 10**12  # of a percent; a larger percentage is left out
THOUSANDS_KEPT_MAX: Final = 1000  # few enough to stay in the processor's cache


class _Thousands(dict[int, str]):
    """The text of an amount as far as its thousands of dollars, so that the last three digits follow."""

    def __init__(self, start: str, separator: str) -> None:
        super().__init__({0: start})
        self._start = start
        self._separator = separator

    def __missing__(self, thousands: int) -> str:
        text = f"{self._start}{thousands:{self._separator}}{self._separator}"
        if thousands < THOUSANDS_KEPT_MAX:
            self[thousands] = text
        return text


HIGH: Final = _Thousands('"', "")
MINUS_HIGH: Final = _Thousands('"-', "")
TOTAL: Final = _Thousands('"$', ",")
GAIN: Final = _Thousands('"+$', ",")
LOSS: Final = _Thousands('"-$', ",")
LOW: Final = tuple(f"{dollars:03d}" for dollars in range(1000))  # after thousands
LOW_GROUPED: Final = tuple(f"{low}," for low in LOW)
ALONE: Final = tuple(f"{dollars}" for dollars in range(1000))
CENTS: Final = tuple(f".{cent:02d}" for cent in range(100))
CENTS_END: Final = tuple(f'{cent}"' for cent in CENTS)
CENTS_PERCENT: Final = tuple(f'{cent}%)"' for cent in CENTS)

_ratio_base = operator.attrgetter("ratio_base")
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
    ratio_base: float  # dollars; NaN if there is no ratio
    record_as_of: str  # as a field
    unknown_fields: str  # for what is unknown or unconfirmed
    end: str  # both, and the end of the object
    is_day_pnl_known: bool


class _Oddity(NamedTuple):
    """What only some messages have: JSON of `stale` and `unpriced`, and more fields."""

    stale: str
    unpriced: str
    rest: str


def constant(account: Account, epoch: int) -> Constant:
    """The constant part of an account's messages under an epoch."""
    base = day_base(account)
    record_as_of, unknown_fields = f',"record_as_of":"{rfc3339(account.as_of_ns)}"', _unknown_fields(account)
    return Constant(
        head=f'{{"type":"portfolio","account_id":{_text(account.account_id)},"epoch":{epoch},"sequence":',
        balances=(
            f'"cash":"{money(cents(account.cash))}","last_equity":"{money(cents(account.last_equity))}",'
            f'"external_cash_flow":"{money(cents(account.external_cash_flow))}","day_pnl":'
        ),
        ratio_base=float(base) if base > 0 and account.is_day_pnl_known else math.nan,
        record_as_of=record_as_of,
        unknown_fields=unknown_fields,
        end=f"{record_as_of}{unknown_fields}}}",
        is_day_pnl_known=account.is_day_pnl_known,
    )


def _unknown_fields(account: Account) -> str:
    """The fields for what is unknown or unconfirmed in the record."""
    fields: list[str] = []
    if account.unvalued:
        fields.append(f'"unvalued":{_text(account.unvalued)}')
    if classes := _without_feed(account):
        fields.append(f'"without_feed":{_text(classes)}')
    if account.unexplained:
        fields.append(f'"unexplained":{_text(_plain(account.unexplained))}')
    unconfirmed = account.unconfirmed
    if unconfirmed is not None:
        since, by = rfc3339(unconfirmed.since_ns), _plain(unconfirmed.by)
        fields.append(f'"unconfirmed":{_text({"since": since, "reason": unconfirmed.reason, "by": by})}')
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

    `published_ns`: ns since 1970. Money and times need no escaping. Thousands of messages are made per
    second, so their numbers are put together from texts that are kept.
    """
    if not always:
        return []
    equities, gains = figures.equity.tolist(), figures.day_pnl.tolist()
    ratios, percents, without_percent = _ratios(always, figures)
    middles, ends = _middles_and_ends(always, figures)
    published = f',"timestamp":"{rfc3339(published_ns)}"'
    columns = (always, sequences, equities, gains, ratios, percents, middles, ends)
    messages: list[bytes] = []
    # The lines of both amounts are alike: a function for them takes 3 % longer for a message.
    for one, sequence, equity, day_pnl, ratio, percent, middle, end in zip(*columns, strict=True):
        if equity >= 0:
            cents, high, grouped = equity, HIGH, TOTAL
        else:
            cents, high, grouped = -equity, MINUS_HIGH, LOSS
        thousands, cent = cents // 100_000, CENTS_END[cents % 100]
        low = LOW[cents // 100 % 1000] if thousands else ALONE[cents // 100]
        if thousands < 1000:
            equity_high, total_high = high[thousands], grouped[thousands]
        else:
            millions, middle_digits = divmod(thousands, 1000)
            equity_high = high[millions] + LOW[middle_digits]
            total_high = grouped[millions] + LOW_GROUPED[middle_digits]
        if day_pnl >= 0:
            cents, high, grouped, percent_sign = day_pnl, HIGH, GAIN, " (+"
        else:
            cents, high, grouped, percent_sign = -day_pnl, MINUS_HIGH, LOSS, " (-"
        thousands, gain_cent = cents // 100_000, cents % 100
        gain_low = LOW[cents // 100 % 1000] if thousands else ALONE[cents // 100]
        if thousands < 1000:
            day_pnl_high, gain_high = high[thousands], grouped[thousands]
        else:
            millions, middle_digits = divmod(thousands, 1000)
            day_pnl_high = high[millions] + LOW[middle_digits]
            gain_high = grouped[millions] + LOW_GROUPED[middle_digits]
        text = (
            f'{one.head}{sequence},"equity":{equity_high}{low}{cent},'
            f'{one.balances}{day_pnl_high}{gain_low}{CENTS_END[gain_cent]},"day_pnl_ratio":{ratio}'
            f'{middle}{total_high}{low}{cent},"today_return":{gain_high}{gain_low}{CENTS[gain_cent]}'
            f"{percent_sign}{percent // 100}{CENTS_PERCENT[percent % 100]}{published}{end}"
        )
        messages.append(text.encode())
    for index in without_percent:
        one, equity, day_pnl = always[index], equities[index], gains[index]
        is_priced = index not in figures.unpriced
        messages[index] = (
            f'{one.head}{sequences[index]},"equity":{_quoted(equity, is_known=is_priced)},'
            f"{one.balances}{_quoted(day_pnl, is_known=is_priced and one.is_day_pnl_known)},"
            f'"day_pnl_ratio":{ratios[index]}{middles[index]}{_for_people(equity, is_known=is_priced)},'
            f'"today_return":{_for_people(day_pnl, "+", is_known=is_priced and one.is_day_pnl_known)}'
            f"{published}{ends[index]}"
        ).encode()
    return messages


def _ratios(always: Sequence[Constant], figures: Figures) -> tuple[list[str], list[int], list[int]]:
    """Day P&L ratios as JSON; absolute hundredths of a percent; where there is no percentage for people.

    A ratio is rounded as `round` does it: half-even, by its exact value. Where float64 cannot decide, `round`
    decides. `round` and `repr` for each ratio take as long as all the rest of its message.
    """
    bases = np.fromiter(map(_ratio_base, always), np.float64, len(always))
    ratios = figures.day_pnl / 100 / bases
    if figures.unpriced:
        ratios[list(figures.unpriced)] = np.nan
    scaled = ratios * RATIO_SCALE
    nearest, size = np.rint(scaled), np.abs(scaled)
    texts = _encode((nearest / RATIO_SCALE + 0.0).tolist())[1:-1].decode().split(",")  # 0.0, not -0.0
    is_unsure = 0.5 - np.abs(scaled - nearest) <= size * RATIO_ERROR
    for index in (is_unsure | (size < RATIO_PLAIN_MIN)).nonzero()[0].tolist():
        exact_ratio = int(figures.day_pnl[index]) / 100 / always[index].ratio_base
        texts[index] = f"{round(exact_ratio, RATIO_DIGITS) + 0.0}"
    hundredths = np.abs(np.rint(ratios * 100 * 100))
    is_readable = hundredths < HUNDREDTHS_MAX  # False for NaN
    return (
        texts,
        np.where(is_readable, hundredths, 0).astype(np.int64).tolist(),
        (~is_readable).nonzero()[0].tolist(),
    )


def _middles_and_ends(always: Sequence[Constant], figures: Figures) -> tuple[list[str], list[str]]:
    """The fields from `as_of` to the name of `total_value`, and those from `record_as_of`."""
    moments_ns = figures.as_of_ns.tolist()
    times = {moment_ns: rfc3339(max(moment_ns, 0)) for moment_ns in set(moments_ns)}
    usual = {moment_ns: _middle(time, "[]", "[]") for moment_ns, time in times.items()}
    middles, ends = [usual[moment_ns] for moment_ns in moments_ns], [one.end for one in always]
    for index, odd in _oddities(figures).items():
        middles[index] = _middle(times[moments_ns[index]], odd.stale, odd.unpriced)
        ends[index] = f"{always[index].record_as_of}{odd.rest}{always[index].unknown_fields}}}"
    return middles, ends


def _middle(as_of: str, stale: str, unpriced: str) -> str:
    return f',"as_of":"{as_of}","stale":{stale},"unpriced":{unpriced},"total_value":'


def _quoted(amount_cents: int, *, is_known: bool) -> str:
    return f'"{money(amount_cents)}"' if is_known else "null"


def _for_people(amount_cents: int, plus: str = "", *, is_known: bool) -> str:
    if not is_known:
        return UNKNOWN_TEXT
    dollars, cent = divmod(abs(amount_cents), 100)
    return f'"{"-" if amount_cents < 0 else plus}${dollars:,}{CENTS[cent]}"'


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
        odd[index] = _Oddity(stale, _text(symbols or []), rest)
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

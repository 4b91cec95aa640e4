"""The course of a day: what an account held at each minute, valued at the marks of that minute.

The holdings at a minute are the present holdings less the later bookings. They are constant between two
bookings, so each such span is one product of a price matrix (minutes × symbols) and a vector of units. Where
a price or a booking is unknown, the point is null; nothing is carried over a gap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import msgspec
import numpy as np

from portfolio_realtime.clock import rfc3339
from portfolio_realtime.model import EXACT, ZERO, Account, Booking, Bookings, MinuteMark, MinuteMarks, exact
from portfolio_realtime.valuation.arrays import Floats
from portfolio_realtime.valuation.float_rounding import round_to_cents
from portfolio_realtime.valuation.rounding import cents, exact_day_pnl, money

EPSILON: Final = float(np.finfo(np.float64).eps)

_encode = msgspec.json.Encoder().encode


@dataclass
class _Holdings:
    """What the account held during one span; cash and flow in dollars."""

    cash: Decimal
    external_cash_flow: Decimal
    units: dict[str, Decimal]  # contracts times multiplier

    def undo(self, booking: Booking) -> None:
        self.cash = EXACT.subtract(self.cash, booking.cash)
        self.external_cash_flow = EXACT.subtract(self.external_cash_flow, booking.external_cash_flow)
        if booking.symbol:
            units = EXACT.multiply(booking.quantity, booking.multiplier)
            self.units[booking.symbol] = EXACT.subtract(self.units.get(booking.symbol, ZERO), units)


def symbols_of(account: Account, bookings: Bookings) -> list[str]:
    """Every symbol that the account holds, or has held since the last close; sorted."""
    booked = {booking.symbol for booking in bookings.bookings if booking.symbol}
    return sorted({position.symbol for position in account.positions} | booked)


def history(
    account: Account, bookings: Bookings, minutes: Sequence[MinuteMarks], since_ns: int, timeframe: str
) -> bytes:
    """The `History` answer as JSON: a point for each of `minutes` from `since_ns` on, in order of time.

    Earlier minutes only provide the prices before that.
    """
    classes = {booking.symbol: booking.asset_class for booking in bookings.bookings}
    classes |= {position.symbol: position.asset_class for position in account.positions}
    splits = _splits(account, bookings)
    prices = {
        symbol: _prices(minutes, symbol, classes[symbol], splits.get(symbol))
        for symbol in symbols_of(account, bookings)
    }
    points: list[dict[str, str | None]] = []
    holdings = _Holdings(
        account.cash,
        account.external_cash_flow,
        {p.symbol: EXACT.multiply(p.quantity, p.multiplier) for p in account.positions},
    )
    later = sorted(bookings.bookings, key=lambda booking: booking.at_ns)
    end = len(minutes)
    while end:
        while later and later[-1].at_ns > minutes[end - 1].at_ns:
            holdings.undo(later.pop())
        start = end - 1
        while start and not (later and later[-1].at_ns > minutes[start - 1].at_ns):
            start -= 1
        points[:0] = _span(account, holdings, minutes[start:end], prices, slice(start, end), bookings)
        end = start
    return _encode(
        {
            "account_id": account.account_id,
            "range": "1d",
            "timeframe": timeframe,
            "base": money(cents(account.last_equity)),
            "points": [
                point for point, minute in zip(points, minutes, strict=True) if minute.at_ns >= since_ns
            ],
        }
    )


def _prices(minutes: Sequence[MinuteMarks], symbol: str, asset_class: str, split: "_Split | None") -> Floats:
    """A symbol's price at each minute, carried forward while it is unchanged; NaN: unknown."""
    prices = np.full(len(minutes), np.nan)
    mark: MinuteMark | None = None
    for index, minute in enumerate(minutes):
        is_whole = minute.complete.get(asset_class)
        before = mark if is_whole is False else None
        mark = None if is_whole is None else minute.marks.get(symbol, before)
        if mark is not None and (split is None or split.fits(minute.at_ns, mark)):
            prices[index] = mark.price
    return prices


@dataclass
class _Split:
    """A symbol's newest split. The booking and the first new prices may come at different times."""

    booked_ns: int  # the account holds new shares from here on
    marks_from_ns: int | None  # trades from here on are of new shares; None: unknown

    def fits(self, at_ns: int, mark: MinuteMark) -> bool:
        """Whether the shares held and the shares traded are from the same side of the split."""
        if self.marks_from_ns is None:
            return False
        return (at_ns >= self.booked_ns) == (mark.as_of_ns >= self.marks_from_ns)


def _splits(account: Account, bookings: Bookings) -> dict[str, _Split]:
    splits = {p.symbol: _Split(0, p.marks_from_ns) for p in account.positions if p.marks_from_ns}
    for booking in bookings.bookings:
        if booking.is_split:
            split = splits.setdefault(booking.symbol, _Split(0, None))
            split.booked_ns = max(split.booked_ns, booking.at_ns)
    return splits


def _span(
    account: Account,
    holdings: _Holdings,
    minutes: Sequence[MinuteMarks],
    prices: dict[str, Floats],
    part: slice,
    bookings: Bookings,
) -> list[dict[str, str | None]]:
    held = {symbol: units for symbol, units in holdings.units.items() if units}
    units = np.array([float(one) for one in held.values()])
    columns = [prices[symbol][part] for symbol in held]
    matrix = np.column_stack(columns) if columns else np.zeros((len(minutes), 0))
    equity = matrix @ units + float(holdings.cash)
    at_most = np.abs(matrix) @ np.abs(units) + abs(float(holdings.cash))
    base = abs(float(account.last_equity)) + abs(float(holdings.external_cash_flow))
    gained = equity - float(account.last_equity) - float(holdings.external_cash_flow)
    bound = (len(held) + 8) * EPSILON * (at_most + base)
    equity_cents, is_unsure = round_to_cents(equity, bound)
    gained_cents, is_gain_unsure = round_to_cents(gained, bound)
    flow = money(cents(holdings.external_cash_flow))
    points: list[dict[str, str | None]] = []
    for index, minute in enumerate(minutes):
        value: int | None = int(equity_cents[index])
        gain: int | None = int(gained_cents[index])
        if np.isnan(equity[index]) or minute.at_ns < bookings.known_since_ns:
            value = gain = None
        elif is_unsure[index] or is_gain_unsure[index]:
            value, gain = _exact(account, holdings, held, [float(column[index]) for column in columns])
        points.append(
            {
                "timestamp": rfc3339(minute.at_ns),
                "equity": None if value is None else money(value),
                "external_cash_flow": None if minute.at_ns < bookings.known_since_ns else flow,
                "day_pnl": None if gain is None or not account.is_day_pnl_known else money(gain),
            }
        )
    return points


def _exact(
    account: Account, holdings: _Holdings, held: dict[str, Decimal], prices: Sequence[float]
) -> tuple[int, int]:
    equity = holdings.cash
    for units, price in zip(held.values(), prices, strict=True):
        equity = EXACT.add(equity, EXACT.multiply(units, exact(price)))
    then = msgspec.structs.replace(account, external_cash_flow=holdings.external_cash_flow)
    return cents(equity), cents(exact_day_pnl(then, equity))

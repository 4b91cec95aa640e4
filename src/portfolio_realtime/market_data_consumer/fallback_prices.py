"""Prices for a symbol without a known trade: the middle of a quote, or the previous close."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from portfolio_realtime.clock import new_york_date_of, new_york_midnight_ns, parse_rfc3339
from portfolio_realtime.market_data_consumer.messages import DailyBar, Quote, as_of_ns
from portfolio_realtime.market_data_consumer.trade_eligibility import is_price
from portfolio_realtime.market_data_consumer.trade_sources import END_OF_DAY, INDICATIVE
from portfolio_realtime.market_data_consumer.trading_sessions import close_ns
from portfolio_realtime.model import exact

SPREAD_RATIO_MAX: Final = 0.5  # spread as a share of the middle


@dataclass(frozen=True, slots=True)
class FallbackPrice:
    """A price in dollars that is not from a trade, its time, and its mark quality."""

    price: float
    as_of_ns: int
    quality: str


def middle_of(quote: Quote | None) -> FallbackPrice | None:
    """The middle of a quote, in its shortest decimal form.

    None if there is no quote with a time, if a side is missing, or if the spread is negative or above
    SPREAD_RATIO_MAX.
    """
    at_ns = None if quote is None else as_of_ns(quote.at)
    if quote is None or at_ns is None or not is_price(quote.bid) or not is_price(quote.ask):
        return None
    middle = float((exact(quote.bid) + exact(quote.ask)) / 2)
    if not 0 <= quote.ask - quote.bid <= SPREAD_RATIO_MAX * middle:
        return None
    return FallbackPrice(middle, at_ns, INDICATIVE)


def closing_price(new_york_date: str | None, close: float | None) -> FallbackPrice | None:
    """The close of a day (YYYY-MM-DD, New York), as of the end of its session; None if either is None."""
    if new_york_date is None or close is None:
        return None
    day = date.fromisoformat(new_york_date)
    at_ns = close_ns(day)
    # Crypto also trades on days without a session.
    if at_ns is None:
        at_ns = new_york_midnight_ns(day + timedelta(days=1))
    return FallbackPrice(close, at_ns, END_OF_DAY)


def previous_close(bars: Iterable[DailyBar | None], new_york_date: str) -> tuple[str, float] | None:
    """Date and close of the newest readable daily bar before `new_york_date`, or None."""
    closes: list[tuple[str, float]] = []
    for bar in bars:
        if bar is None or bar.at is None or not is_price(bar.close):
            continue
        try:
            day = new_york_date_of(parse_rfc3339(bar.at))
        except ValueError:
            continue
        if day < new_york_date:
            closes.append((day, bar.close))
    return max(closes, default=None)

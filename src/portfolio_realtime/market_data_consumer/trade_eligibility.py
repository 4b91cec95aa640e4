"""Whether a trade may move the mark, and the reason if not. No other file decides this.

A trade may move the mark if its conditions let it (`conditions`), its price is positive and finite, it has a
time, and that time is at most AHEAD_S_MAX in the future. A streamed trade must also lie within the band of
its symbol: between the last price divided by PRICE_RATIO_MAX and the last price times PRICE_RATIO_MAX.

`is_ordinary` is the same rule for the trades that need no other check. It works on columns of trades as on a
single one. Every trade that it accepts, `refusal_of` accepts too.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, TypeGuard, TypeVar

import numpy as np

from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.market_data_consumer.conditions import TradeEffect

AHEAD_S_MAX: Final = 60  # a smaller error of our clock does no harm
PRICE_MAX: Final = 1e9  # dollars; a higher price is an error of the sender
PRICE_RATIO_MAX: Final = 25.0  # greater than all but the rarest stock splits

MOVES: Final = int(TradeEffect.MOVES)  # reading an enum's attribute is slow
NEVER: Final = int(TradeEffect.NEVER)

Prices = TypeVar("Prices", bound=Any)  # one price, or a column of them


class TradeRefusal(Enum):
    """Why a trade may not move the mark."""

    UNUSABLE = auto()  # no price, or no time
    CONDITIONS = auto()
    UNKNOWN_CONDITION = auto()
    AHEAD = auto()  # from the future
    ABSURD = auto()  # outside the band


@dataclass
class TradeCounts:
    """How many trades did not move a mark, since the start."""

    ignored: int = 0  # ineligible by their conditions
    refused: int = 0  # without a usable price or time
    unknown: int = 0  # of the ignored: with a condition that is not in the table
    ahead: int = 0  # of the refused: from the future
    set_aside: int = 0  # absurdly far from the mark

    def count(self, refusal: TradeRefusal) -> None:
        """Count one more trade that may not move the mark."""
        self.ignored += refusal in (TradeRefusal.CONDITIONS, TradeRefusal.UNKNOWN_CONDITION)
        self.unknown += refusal is TradeRefusal.UNKNOWN_CONDITION
        self.refused += refusal in (TradeRefusal.UNUSABLE, TradeRefusal.AHEAD)
        self.ahead += refusal is TradeRefusal.AHEAD
        self.set_aside += refusal is TradeRefusal.ABSURD


def latest_eligible_ns(received_ns: int) -> int:
    """The latest time, in ns since 1970, that a trade received at `received_ns` may have."""
    return received_ns + AHEAD_S_MAX * NS_PER_S


def is_price(price: float | None) -> TypeGuard[float]:
    """Whether it is a price that can value a position: a number above 0 and below PRICE_MAX."""
    return price is not None and 0 < price < PRICE_MAX


def band_around(price: Prices) -> tuple[Prices, Prices]:
    """The bounds of the band around the last price: a streamed trade between them is accepted at once."""
    return price / PRICE_RATIO_MAX, np.minimum(price * PRICE_RATIO_MAX, PRICE_MAX)


def refusal_of(
    price: float | None, traded_ns: int | None, effect: int, latest_ns: int
) -> TradeRefusal | None:
    """Why a trade may not move the mark, whatever the present mark is; None if it may."""
    if traded_ns is None or traded_ns < 0 or not is_price(price):
        return TradeRefusal.UNUSABLE
    if effect >= NEVER:
        return TradeRefusal.UNKNOWN_CONDITION if effect == TradeEffect.UNKNOWN else TradeRefusal.CONDITIONS
    return TradeRefusal.AHEAD if traded_ns > latest_ns else None


def is_ordinary(effect: Any, before_ns: Any, traded_ns: Any, latest_ns: int, price: Any, band: Any) -> Any:
    """Which trades may move the mark, are not older than the trade before, and lie within their band.

    Each argument but `latest_ns` is one value or a column of them; `band` is a low and a high price.
    """
    low, high = band
    is_timely = (before_ns <= traded_ns) & (traded_ns <= latest_ns)
    return (effect == MOVES) & is_timely & (low < price) & (price < high)

"""One symbol: its recent trades, the price used without them, and the resulting mark."""

import math
from dataclasses import dataclass
from typing import Final

from portfolio_realtime.market_data_consumer.fallback_prices import FallbackPrice, closing_price, middle_of
from portfolio_realtime.market_data_consumer.messages import Quote, TradingStatus, as_of_ns
from portfolio_realtime.market_data_consumer.symbol_trades import KnownTrade, RecentTrades
from portfolio_realtime.market_data_consumer.trade_columns import NO_ID, RECENT_MAX
from portfolio_realtime.market_data_consumer.trade_eligibility import PRICE_MAX, band_around
from portfolio_realtime.market_data_consumer.trade_sources import (
    END_OF_DAY,
    HALTED,
    INDICATIVE,
    QUALITIES,
    is_of_snapshot,
    source_of,
)
from portfolio_realtime.model import Mark

WITHDRAWN_MAX: Final = 8  # withdrawn trades kept, so that a repetition does not restore one
# (tape, status code): CTA's codes on tapes A and B, UTP's on C and O.
HALTS: Final = {("A", "2"), ("B", "2"), ("C", "H"), ("C", "P"), ("O", "H"), ("O", "P")}
RESUMPTIONS: Final = {("A", "3"), ("B", "3"), ("C", "T"), ("O", "T")}


@dataclass(slots=True, eq=False)
class MarkedSymbol(RecentTrades):
    """A followed symbol. `is_sane`: its prices do not jump; false for options."""

    symbol: str = ""
    is_sane: bool = True
    first_only: KnownTrade | None = None
    withdrawn: tuple[KnownTrade, ...] = ()
    fallback: FallbackPrice | None = None
    previous_close: float | None = None
    previous_close_date: str | None = None
    halted_ns: int | None = None  # when the halt began; None: not halted
    mark: Mark | None = None
    was_asked_again: bool = False  # once more, after a snapshot without a trade
    at_boundary: KnownTrade | None = None  # the last trade before the first one after the boundary

    def last(self) -> KnownTrade | None:
        """The trade that values the symbol, or None."""
        return self.newest() or self.first_only

    def last_at(self, at_ns: int) -> KnownTrade | Mark | None:
        """The trade that valued the symbol at that time, or its mark if all are withdrawn; else None."""
        # All trades are withdrawn: the mark stays until there is another one.
        if self.last() is None:
            return self.mark if self.mark is not None and self.mark.as_of_ns <= at_ns else None
        newest: KnownTrade | None = None
        for trade in (self.at_boundary, *self.trades()):
            # Of two at the same time, the later arrival wins.
            if trade is not None and trade.as_of_ns <= at_ns:
                newest = trade if newest is None or trade.as_of_ns >= newest.as_of_ns else newest
        first = self.first_only
        if newest is None and first is not None and first.as_of_ns <= at_ns:
            return first
        return newest

    def has_streamed(self, at_ns: int) -> bool:
        """Whether the stream has delivered a trade of that time or a newer one."""
        return any(
            trade.as_of_ns >= at_ns and not is_of_snapshot(trade.origin)
            for trade in (*self.trades(), self.first_only)
            if trade is not None
        )

    def is_absurd(self, trade: KnownTrade) -> bool:
        """Whether a price is too far from the last one to be used at once.

        A snapshot's price never is: it confirms what the stream has reported.
        """
        last = self.last()
        if not self.is_sane or last is None or is_of_snapshot(trade.origin):
            return False
        low, high = band_around(last.price)
        return trade.as_of_ns >= last.as_of_ns and not low < trade.price < high

    def is_withdrawn(self, trade: KnownTrade) -> bool:
        """Whether this trade has been cancelled, or corrected into another one."""
        return any(trade.is_same(other) for other in self.withdrawn)

    def insert(self, trade: KnownTrade, boundary_ns: int | None) -> bool:
        """Insert an eligible trade by its time; return whether it has become the newest."""
        newest_ns = self.columns.newest_ns.item(self.slot)
        if boundary_ns is not None and newest_ns <= boundary_ns < trade.as_of_ns:
            self.at_boundary = self.newest() or self.at_boundary
        self.columns.newest_ns[self.slot] = max(newest_ns, trade.as_of_ns)
        return self._insert_in_order(trade)

    def insert_first_only(self, trade: KnownTrade) -> bool:
        """Keep the oldest "first only" trade; return whether this one now values the symbol."""
        if self.first_only is not None and self.first_only.as_of_ns <= trade.as_of_ns:
            return False
        self.first_only = trade
        return self.newest() is None

    def withdraw(self, trade_id: int, exchange: int) -> KnownTrade | None:
        """Remove and return the newest trade with this id and exchange; None if it is not known."""
        if trade_id == NO_ID:
            return None
        trades = self.trades()
        for trade in reversed(trades):
            if (trade.trade_id, trade.exchange) == (trade_id, exchange):
                if self.at_boundary is not None and self.at_boundary.is_same(trade):
                    self.at_boundary = None
                trades.remove(trade)
                self.replace(trades)
                return trade
        first = self.first_only
        if first is not None and (first.trade_id, first.exchange) == (trade_id, exchange):
            self.first_only = None
            return first
        return None

    def remember_withdrawn(self, trade: KnownTrade) -> None:
        """Remember a withdrawn trade, so that a repetition of it is ignored."""
        self.columns.has_withdrawn[self.slot] = True
        self.withdrawn = (*self.withdrawn, trade)[-WITHDRAWN_MAX:]

    def set_status(self, status: TradingStatus) -> bool:
        """Halt or resume trading; return False for a status that changes nothing."""
        at_ns = as_of_ns(status.at)
        if at_ns is None:
            return False
        code = (status.tape or "", status.code or "")
        if code in HALTS:
            self.halted_ns = at_ns
        elif code in RESUMPTIONS and self.halted_ns is not None and at_ns >= self.halted_ns:
            self.halted_ns = None
        else:
            return False
        self.set_band()
        return True

    def set_band(self) -> None:
        """Set the band of prices that are ordinary in the stream; empty during a halt."""
        low, high = 0.0, PRICE_MAX
        last = self.last()
        if self.halted_ns is not None:
            low = math.inf
        elif self.is_sane and last is not None:
            low, high = band_around(last.price)
        self.columns.low[self.slot], self.columns.high[self.slot] = low, high

    def set_close(self, day: str, close: float) -> bool:
        """Set the close of a day, unless a later day's is known; return whether it has changed."""
        if (day, close) == (self.previous_close_date, self.previous_close):
            return False
        if self.previous_close_date is not None and day < self.previous_close_date:
            return False
        self.previous_close, self.previous_close_date = close, day
        return True

    def set_fallback(self, quote: Quote | None) -> bool:
        """Set the quote's middle, else the previous close, as fallback; return whether it has changed."""
        before = self.fallback
        self.fallback = middle_of(quote) or closing_price(self.previous_close_date, self.previous_close)
        return self.fallback != before

    def traded_mark(self, price: float, at_ns: int, origin: int, version: int) -> Mark:
        """The mark for a trade, with the quality HALTED during a halt."""
        source = source_of(origin)
        quality = QUALITIES[source] if self.halted_ns is None else HALTED
        return self._renewed(price, at_ns, source, quality, version)

    def untraded_mark(self, source: str, version: int) -> Mark | None:
        """The mark of a symbol without a trade that moves it; None if nothing is known."""
        known, fallback, first = self.mark, self.fallback, self.first_only
        if first is not None:
            return self.traded_mark(first.price, first.as_of_ns, first.origin, version)
        if fallback is None or (known is not None and known.quality not in (INDICATIVE, END_OF_DAY)):
            return known
        return self._renewed(fallback.price, fallback.as_of_ns, source, fallback.quality, version)

    def _insert_in_order(self, trade: KnownTrade) -> bool:
        trades = self.trades()
        before = trades[-1] if trades else None
        twin = next((known for known in trades if trade.is_same(known)), None)
        if twin is not None:
            if is_of_snapshot(trade.origin) or not is_of_snapshot(twin.origin):
                return False
            trades.remove(twin)
        at = len(trades)
        while at and _is_before(trade, trades[at - 1]):
            at -= 1
        trades.insert(at, trade)
        self.replace(trades[-RECENT_MAX:])
        return trades[-1] is trade and (before is None or not trade.is_same(before))

    def _renewed(self, price: float, at_ns: int, source: str, quality: str, version: int) -> Mark:
        known, close, close_date = self.mark, self.previous_close, self.previous_close_date
        if (
            known is not None
            and at_ns == known.as_of_ns
            and (price, source, quality, close, close_date)
            == (known.price, known.source, known.quality, known.previous_close, known.previous_close_date)
        ):
            return known
        self.mark = Mark(self.symbol, price, at_ns, version, source, close, close_date, quality)
        return self.mark


def _is_before(trade: KnownTrade, known: KnownTrade) -> bool:
    if trade.as_of_ns == known.as_of_ns:
        return is_of_snapshot(trade.origin) and not is_of_snapshot(known.origin)
    return trade.as_of_ns < known.as_of_ns

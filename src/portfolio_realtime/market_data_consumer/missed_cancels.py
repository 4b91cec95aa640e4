"""Cancels that were missed while the connection was away: the snapshots after it show them.

The latest trade of such a snapshot is older than the newest trade from before the connection. An answer that
lags behind the stream looks the same. So a second snapshot decides, and it is requested when no answer should
lack a trade from before the connection any more. This happens once per symbol and connection: if Alpaca's
latest trade should follow another rule than ours, marks would otherwise change to and fro.
"""

from collections.abc import Iterable
from typing import Final

from portfolio_realtime.market_data_consumer.marked_symbol import MarkedSymbol
from portfolio_realtime.market_data_consumer.symbol_trades import KnownTrade
from portfolio_realtime.market_data_consumer.trade_columns import NO_ID
from portfolio_realtime.market_data_consumer.trade_sources import is_of_snapshot, source_of

SNAPSHOT_LAG_S_MAX: Final = 5.0  # for so long a trade that was streamed may be missing in snapshots


class MissedCancels:
    """The newest trades from before the present connection, and which of them may be cancelled."""

    def __init__(self) -> None:
        self._decides_s = 0.0  # from when on a requested snapshot decides, in monotonic seconds
        self._newest_ns: dict[str, int] = {}  # symbol -> time of its newest trade from before
        self._suspect: dict[str, bool] = {}  # symbol -> whether its second snapshot was requested

    def begin(self, source: str, followed: Iterable[MarkedSymbol], began_s: float) -> None:
        """Begin a connection to this source, with the symbols as they were before it."""
        self._decides_s = began_s + SNAPSHOT_LAG_S_MAX
        newest = ((marked.symbol, marked.newest()) for marked in followed)
        self._newest_ns = {
            symbol: trade.as_of_ns
            for symbol, trade in newest
            if trade is not None and source_of(trade.origin) == source
        }
        self._suspect = {}

    def forget(self, symbol: str) -> None:
        """Judge the symbol no more on this connection."""
        self._newest_ns.pop(symbol, None)
        self._suspect.pop(symbol, None)

    def judge(self, marked: MarkedSymbol, shown: KnownTrade, requested_s: float) -> list[KnownTrade]:
        """The known trades that are cancelled, now that the streamed feed's snapshot shows this trade.

        Only trades of that feed, from before the connection and with an id.
        """
        symbol, newest = marked.symbol, marked.newest()
        if newest is None or newest.as_of_ns > self._newest_ns.get(symbol, -1):
            return []
        is_late = requested_s >= self._decides_s
        if shown.as_of_ns >= newest.as_of_ns:
            self._suspect.pop(symbol, None)
            if is_late:
                self.forget(symbol)
            return []
        newer = [trade for trade in marked.trades() if trade.as_of_ns > shown.as_of_ns]
        # What the stream has brought since, or a cancel of the shown trade, proves that the answer lags.
        if marked.is_withdrawn(shown) or not all(is_of_snapshot(trade.origin) for trade in newer):
            return []
        if not is_late or symbol not in self._suspect:
            self._suspect.setdefault(symbol, False)
            return []
        self.forget(symbol)
        return [trade for trade in newer if trade.origin == shown.origin and trade.trade_id != NO_ID]

    def take_due(self, now_s: float) -> list[str]:
        """The symbols whose second snapshot is due, each once."""
        if now_s < self._decides_s:
            return []
        due = [symbol for symbol, is_requested in self._suspect.items() if not is_requested]
        self._suspect.update(dict.fromkeys(due, True))
        return due

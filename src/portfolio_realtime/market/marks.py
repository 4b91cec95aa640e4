"""Mark price policy: which price values a symbol now. Pure: times and messages come in, marks go out.

1. The last eligible trade. Conditions decide which trades are eligible (`conditions`): the strictest wins; an
   unknown condition makes a trade ineligible and is counted. The newest by trade time is the last; an older
   trade that arrives late does not move the mark; of two at the same time the one that arrived later wins.
   A trade that counts "first only" is the mark only while there is no other eligible trade; of several, the
   oldest.
2. A snapshot's latest trade is a trade like any other, by its own time and conditions; at the same time as
   one from the stream it is the older one, for the stream delivers it again if it is not.
3. Nothing: the symbol is unpriced. It has no mark; it is not worth 0.

A trade that is cancelled, or corrected into an ineligible one, gives its place to the eligible trade before
it, out of the RING_MAX newest; where none is left, the symbol asks for a fresh snapshot and keeps its mark
until then. A corrected trade keeps its time. A price that is missing, not finite or not positive, and a trade
without a time, are refused and counted.

The previous close is the close of the newest daily bar whose date lies before the current date in New York:
by date, never by name, for a snapshot's `dailyBar` is an earlier day's until the session's first trade.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from portfolio_realtime.clock import NS_PER_S, parse_rfc3339
from portfolio_realtime.market.conditions import Conditions, Effect
from portfolio_realtime.market.messages import (
    Cancel,
    Correction,
    DailyBar,
    Snapshot,
    SnapshotTrade,
    StreamTrade,
    TradeId,
    as_of_ns,
)
from portfolio_realtime.model import Mark, MinuteMark

RING_MAX: Final = 8  # eligible trades kept per symbol, to fall back on
WITHDRAWN_MAX: Final = (
    8  # withdrawn trades remembered per symbol, so that a repetition does not bring one back
)
REFRESHES_MAX: Final = 30  # snapshots asked for after all trades of a symbol have been withdrawn
NEW_YORK: Final = ZoneInfo("America/New_York")

_MOVES: Final = Effect.MOVES  # an enum's attribute is slow to read
_NEVER: Final = Effect.NEVER

EffectOf = Callable[[Conditions, str], Effect]


class EligibleTrade(msgspec.Struct, frozen=True, gc=False):
    """A trade that may be the mark."""

    as_of_ns: int
    price: float
    trade_id: TradeId
    exchange: str | None
    is_snapshot: bool

    def is_same(self, other: "EligibleTrade") -> bool:
        """Is this the same execution, reported once more?"""
        return (
            self.as_of_ns == other.as_of_ns
            and self.trade_id == other.trade_id
            and self.exchange == other.exchange
            and self.trade_id is not None
        )


@dataclass
class Counts:
    """What the policy has let pass by, since the start."""

    ignored: int = 0  # ineligible by their conditions
    refused: int = 0  # without a usable price or time
    unknown: int = 0  # of the ignored: with a condition that is not in the table


@dataclass(slots=True)
class _Entry:
    """One followed symbol. `ring` is in order of time, the newest last."""

    ring: list[EligibleTrade] = field(default_factory=list[EligibleTrade])
    first_only: EligibleTrade | None = None
    withdrawn: list[EligibleTrade] = field(default_factory=list[EligibleTrade])
    previous_close: float | None = None
    previous_close_date: str | None = None
    received_ns: int = 0
    floor_ns: int = 0  # the next mark's received_ns lies above this one
    mark: Mark | None = None
    at_boundary: EligibleTrade | None = None  # the last before the trade that passed the boundary

    def last(self) -> EligibleTrade | None:
        return self.ring[-1] if self.ring else self.first_only

    def last_at(self, at_ns: int) -> "EligibleTrade | Mark | None":
        if self.last() is None:  # all are withdrawn: the mark stays until there is another
            return self.mark if self.mark is not None and self.mark.as_of_ns <= at_ns else None
        newest: EligibleTrade | None = None
        for trade in (self.at_boundary, *self.ring):  # of two at the same time, the later arrival
            if trade is not None and trade.as_of_ns <= at_ns:
                newest = trade if newest is None or trade.as_of_ns >= newest.as_of_ns else newest
        first = self.first_only
        if newest is None and first is not None and first.as_of_ns <= at_ns:
            return first
        return newest


class MarkBook:
    """The marks of one feed's symbols, and which of them have changed since they were last taken."""

    def __init__(self, source: str, effect_of: EffectOf) -> None:
        self.counts = Counts()
        self._source = source
        self._effect_of = effect_of
        self._entries: dict[str, _Entry] = {}
        self._to_refresh: dict[str, int] = {}  # symbol without a trade -> how often it may ask for a snapshot
        self._boundary_ns = 0
        self._changed: dict[str, bool] = {}  # symbol -> was it a trade from the stream?

    def follow(self, symbols: Iterable[str]) -> None:
        """Keep marks for these symbols too."""
        for symbol in symbols:
            self._entries.setdefault(symbol, _Entry())

    def forget(self, symbols: Iterable[str]) -> None:
        """Keep no marks for these symbols any more."""
        for symbol in symbols:
            self._entries.pop(symbol, None)
            self._changed.pop(symbol, None)
            self._to_refresh.pop(symbol, None)

    def is_marked(self, symbol: str) -> bool:
        """Has the symbol a mark?"""
        entry = self._entries.get(symbol)
        return entry is not None and entry.last() is not None

    def offer(self, trade: StreamTrade, received_ns: int) -> bool:
        """A trade from the stream; True when it has moved the mark."""
        entry = self._entries.get(trade.symbol)
        if entry is None or not self._place(entry, trade, received_ns):
            return False
        self._changed[trade.symbol] = True
        return True

    def offer_snapshot(self, symbol: str, snapshot: Snapshot, new_york_date: str, received_ns: int) -> bool:
        """A snapshot taken at that date; True when its trade has moved the mark."""
        entry = self._entries.get(symbol)
        if entry is None:
            return False
        trade = snapshot.latest_trade
        is_moved = trade is not None and self._place(entry, trade, received_ns)
        close = previous_close([snapshot.daily_bar, snapshot.previous_daily_bar], new_york_date)
        is_new_close = close is not None and self._set_close(entry, *close)
        if is_moved or is_new_close:
            entry.received_ns = received_ns
            self._changed.setdefault(symbol, False)
        return is_moved

    def cancel(self, message: Cancel, received_ns: int) -> None:
        """Withdraw a trade that did not happen."""
        entry = self._entries.get(message.symbol)
        if entry is None:
            return
        trade = _take_out(entry, message.trade_id, message.exchange)
        if trade is not None:
            _remember(entry.withdrawn, trade)
            self._withdrawn(message.symbol, entry, received_ns)

    def correct(self, message: Correction, received_ns: int) -> None:
        """Replace a trade by what it should have been; it keeps its time."""
        entry = self._entries.get(message.symbol)
        if entry is None:
            return
        original = _take_out(entry, message.original_id, message.exchange)
        if original is None:
            return
        if message.corrected_id != message.original_id:
            _remember(entry.withdrawn, original)
        if message.price is not None and 0 < message.price < math.inf:
            effect = self._effect_of(message.conditions, message.tape or "")
            if effect >= _NEVER:
                self._ignore(effect)
            else:
                corrected = EligibleTrade(
                    original.as_of_ns,
                    message.price,
                    message.corrected_id,
                    original.exchange,
                    original.is_snapshot,
                )
                self._put(entry, corrected, effect)
        else:
            self.counts.refused += 1
        self._withdrawn(message.symbol, entry, received_ns)

    def take_changed(self) -> list[tuple[Mark, bool]]:
        """The marks that have changed since the last call, each with: did a trade of the stream move it?"""
        changed, self._changed = self._changed, {}
        marks: list[tuple[Mark, bool]] = []
        for symbol, is_live in changed.items():
            mark = self._mark(symbol, self._entries[symbol])
            if mark is not None:
                marks.append((mark, is_live))
        return marks

    def take_to_refresh(self) -> list[str]:
        """The symbols that ask for a fresh snapshot, for all their trades have been withdrawn."""
        asking = [symbol for symbol in self._to_refresh if self._entries[symbol].last() is None]
        self._to_refresh = {
            symbol: self._to_refresh[symbol] - 1 for symbol in asking if self._to_refresh[symbol] > 1
        }
        return asking

    def touch_all(self) -> None:
        """Count every mark as changed: whoever reads them may have lost them."""
        for symbol in self._entries:
            self._changed.setdefault(symbol, False)

    def set_boundary(self, at_ns: int) -> None:
        """`marks_at` will be asked for this moment, which is still to come: keep what it takes."""
        self._boundary_ns = at_ns

    def marks_at(self, at_ns: int) -> dict[str, MinuteMark]:
        """What the mark of each symbol was at the boundary; without those that had none."""
        found = ((symbol, entry.last_at(at_ns)) for symbol, entry in self._entries.items())
        return {symbol: MinuteMark(last.price, last.as_of_ns) for symbol, last in found if last is not None}

    def raise_floor(self, marks: Iterable[Mark]) -> None:
        """Let no mark be received before these, which an earlier owner has written."""
        for written in marks:
            entry = self._entries.get(written.symbol)
            if entry is not None and written != entry.mark:
                entry.floor_ns = max(entry.floor_ns, written.received_ns)
                entry.mark = None

    def _place(self, entry: _Entry, trade: StreamTrade | SnapshotTrade, received_ns: int) -> bool:
        price = trade.price
        traded_ns = as_of_ns(trade.at)
        if traded_ns is None or price is None or not 0 < price < math.inf:
            self.counts.refused += 1
            return False
        effect = self._effect_of(trade.conditions, trade.tape or "")
        if effect >= _NEVER:
            self._ignore(effect)
            return False
        is_snapshot = type(trade) is SnapshotTrade
        candidate = EligibleTrade(traded_ns, price, trade.trade_id, trade.exchange, is_snapshot)
        if not self._put(entry, candidate, effect):
            return False
        entry.received_ns = received_ns
        return True

    def _ignore(self, effect: Effect) -> None:
        self.counts.ignored += 1
        self.counts.unknown += effect is Effect.UNKNOWN

    def _put(self, entry: _Entry, trade: EligibleTrade, effect: Effect) -> bool:
        if entry.withdrawn and any(trade.is_same(other) for other in entry.withdrawn):
            return False
        if effect is _MOVES:
            if entry.ring and entry.ring[-1].as_of_ns <= self._boundary_ns < trade.as_of_ns:
                entry.at_boundary = entry.ring[-1]
            return _put_in_order(entry.ring, trade)
        self.counts.ignored += bool(entry.ring)
        if entry.first_only is not None and entry.first_only.as_of_ns <= trade.as_of_ns:
            return False
        entry.first_only = trade
        return not entry.ring

    def _set_close(self, entry: _Entry, date: str, close: float) -> bool:
        if (date, close) == (entry.previous_close_date, entry.previous_close):
            return False
        if entry.previous_close_date is not None and date < entry.previous_close_date:
            return False
        entry.previous_close, entry.previous_close_date = close, date
        return True

    def _withdrawn(self, symbol: str, entry: _Entry, received_ns: int) -> None:
        if entry.last() is None:
            self._to_refresh[symbol] = REFRESHES_MAX
        entry.received_ns = received_ns
        self._changed.setdefault(symbol, False)

    def _mark(self, symbol: str, entry: _Entry) -> Mark | None:
        trade = entry.last()
        if trade is None:
            return entry.mark
        known = entry.mark
        if (
            known is not None
            and (known.price, known.as_of_ns) == (trade.price, trade.as_of_ns)
            and (known.previous_close, known.previous_close_date)
            == (entry.previous_close, entry.previous_close_date)
        ):
            return known
        entry.floor_ns = max(entry.received_ns, entry.floor_ns + 1)
        entry.mark = Mark(
            symbol,
            trade.price,
            trade.as_of_ns,
            entry.floor_ns,
            self._source,
            entry.previous_close,
            entry.previous_close_date,
        )
        return entry.mark


def previous_close(bars: Iterable[DailyBar | None], new_york_date: str) -> tuple[str, float] | None:
    """Date and close of the newest daily bar before that date, or None."""
    closes: list[tuple[str, float]] = []
    for bar in bars:
        if bar is None or bar.at is None or bar.close is None or not 0 < bar.close < math.inf:
            continue
        try:
            date = new_york_date_of(parse_rfc3339(bar.at))
        except ValueError:
            continue
        if date < new_york_date:
            closes.append((date, bar.close))
    return max(closes, default=None)


def new_york_date_of(ns: int) -> str:
    """The date in New York at a moment: YYYY-MM-DD."""
    return datetime.fromtimestamp(ns // NS_PER_S, NEW_YORK).date().isoformat()


def _put_in_order(ring: list[EligibleTrade], trade: EligibleTrade) -> bool:
    """Put a trade where its time says; True when it has become the newest."""
    if not ring or trade.as_of_ns > ring[-1].as_of_ns:
        ring.append(trade)
        if len(ring) > RING_MAX:
            del ring[0]
        return True
    if len(ring) == RING_MAX and trade.as_of_ns < ring[0].as_of_ns:
        return False
    before = ring[-1]
    for index, known in enumerate(ring):
        if trade.is_same(known):
            if trade.is_snapshot or not known.is_snapshot:
                return False
            del ring[index]
            break
    at = len(ring)
    while at and _is_before(trade, ring[at - 1]):
        at -= 1
    ring.insert(at, trade)
    if len(ring) > RING_MAX:
        del ring[0]
    return ring[-1] is trade and not trade.is_same(before)


def _is_before(trade: EligibleTrade, known: EligibleTrade) -> bool:
    if trade.as_of_ns == known.as_of_ns:
        return trade.is_snapshot and not known.is_snapshot
    return trade.as_of_ns < known.as_of_ns


def _take_out(entry: _Entry, trade_id: TradeId, exchange: str | None) -> EligibleTrade | None:
    if trade_id is None:
        return None
    for index in range(len(entry.ring) - 1, -1, -1):
        trade = entry.ring[index]
        if trade.trade_id == trade_id and trade.exchange == exchange:
            if entry.at_boundary is trade:
                entry.at_boundary = None
            return entry.ring.pop(index)
    trade = entry.first_only
    if trade is not None and trade.trade_id == trade_id and trade.exchange == exchange:
        entry.first_only = None
        return trade
    return None


def _remember(withdrawn: list[EligibleTrade], trade: EligibleTrade) -> None:
    withdrawn.append(trade)
    if len(withdrawn) > WITHDRAWN_MAX:
        del withdrawn[0]

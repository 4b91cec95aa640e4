"""Mark price policy: which price values a symbol now. Pure: times and messages come in, marks go out.

1. The last eligible trade. Conditions decide which trades are eligible (`conditions`): the strictest wins; an
   unknown condition makes a trade ineligible and is counted. The newest by trade time is the last; an older
   trade that arrives late does not move the mark; of two at the same time the one that arrived later wins.
   A trade that counts "first only" is the mark only while there is no other eligible trade; of several, the
   oldest.
2. A snapshot's latest trade is a trade like any other, by its own time and conditions; at the same time as
   one from the stream it is the older one, for the stream delivers it again if it is not.
3. Where no trade is known: of options the middle of the latest quote, if both sides are there and the spread
   is at most SPREAD_RATIO_MAX of it; else the previous close. Both say so in the mark's quality.
4. Nothing: the symbol is unpriced. It has no mark; it is not worth 0.

A trade that is cancelled, or corrected into an ineligible one, gives its place to the eligible trade before
it, out of the RECENT_MAX newest; where none is left, the symbol asks for a fresh snapshot and keeps
its mark until then. A corrected trade keeps its time. A price that is missing, not finite or not positive, a
trade without a time, and one from more than AHEAD_S_MAX in the future are refused and counted. A trade of the
stream whose price and the mark are more than PRICE_RATIO_MAX times each other is set aside and counted, and a
snapshot asked for: what the venue then still calls its latest trade counts.

While trading in a symbol is halted its mark stays, of the quality HALTED, until trading resumes or a newer
eligible trade shows that it has. Price bands (limit up, limit down) need no rule: a pause comes as a halt.

The previous close is the close of the newest daily bar whose date lies before the current date in New York:
by date, never by name, for a snapshot's `dailyBar` is an earlier day's until the session's first trade.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, TypeGuard

import numpy as np

from portfolio_realtime.clock import NS_PER_S, new_york_date_of, new_york_midnight_ns, parse_rfc3339
from portfolio_realtime.market_data_consumer.conditions import CONDITION_SETS_MAX, Conditions, TradeEffect
from portfolio_realtime.market_data_consumer.messages import (
    NO_TIME,
    Cancel,
    Correction,
    DailyBar,
    PackedTrades,
    Quote,
    Snapshot,
    SnapshotTrade,
    StreamTrade,
    TradingStatus,
    as_of_ns,
    times_ns,
)
from portfolio_realtime.market_data_consumer.msgpack_columns import (
    conditions_number,
    is_letter,
    symbol_number,
)
from portfolio_realtime.market_data_consumer.symbol_trades import (
    EXCHANGES_MAX,
    KnownTrade,
    RecentTrades,
    id_number,
)
from portfolio_realtime.market_data_consumer.trade_columns import (
    CHANGED,
    KEY,
    NO_ID,
    NOBODY,
    RECENT_MAX,
    TRADED,
    Columns,
    Lookup,
    Trades,
)
from portfolio_realtime.market_data_consumer.trading_sessions import (
    close_ns,
)
from portfolio_realtime.model import Mark, MinuteMark, exact

WITHDRAWN_MAX: Final = (
    8  # withdrawn trades remembered per symbol, so that a repetition does not bring one back
)
REFRESHES_MAX: Final = 30  # snapshots asked for while a symbol that had trades has none left
AHEAD_S_MAX: Final = 60  # a clock of ours that is wrong by less does no harm
PRICE_RATIO_MAX: Final = 25.0  # above all but the rarest splits
SYMBOL_BITS: Final = 16  # of tables in which symbols, and conditions with a tape, are looked up
CONDITIONS_BITS: Final = 12
SPREAD_RATIO_MAX: Final = 0.5  # of the middle

INDICATIVE: Final = "indicative"
END_OF_DAY: Final = "end_of_day"
HALTED: Final = "halted"
QUALITIES: Final = {
    # source -> what its trades are worth
    "sip": "real_time_sip",
    "iex": "iex",
    "delayed_sip": "delayed",
    "boats": "real_time_boats",
    "overnight": INDICATIVE,
    "crypto": "real_time_crypto",
    "opra": "real_time_opra",
    "indicative": INDICATIVE,
    "test": "test",
}
HALTS: Final = {("A", "2"), ("B", "2"), ("C", "H"), ("C", "P"), ("O", "H"), ("O", "P")}
RESUMPTIONS: Final = {("A", "3"), ("B", "3"), ("C", "T"), ("O", "T")}

_MOVES: Final = int(TradeEffect.MOVES)  # an enum's attribute is slow to read
_NEVER: Final = int(TradeEffect.NEVER)
_NO_EXCHANGE: Final = EXCHANGES_MAX
_SOURCES: Final = tuple(QUALITIES)

EffectOf = Callable[[Conditions, str], TradeEffect]


@dataclass
class Counts:
    """What the policy has let pass by, since the start."""

    ignored: int = 0  # ineligible by their conditions
    refused: int = 0  # without a usable price or time
    unknown: int = 0  # of the ignored: with a condition that is not in the table
    ahead: int = 0  # of the refused: from the future
    set_aside: int = 0  # absurdly far from the mark


@dataclass(frozen=True, slots=True)
class _Fallback:
    """What values a symbol of which no trade is known."""

    price: float
    as_of_ns: int
    quality: str


@dataclass(slots=True, eq=False)
class _Entry(RecentTrades):
    """One followed symbol, with its recent trades."""

    symbol: str = ""
    first_only: KnownTrade | None = None
    withdrawn: tuple[KnownTrade, ...] = ()
    fallback: _Fallback | None = None
    previous_close: float | None = None
    previous_close_date: str | None = None
    halted_ns: int | None = None  # since when
    floor_ns: int = 0  # the next mark's received_ns lies above this one
    mark: Mark | None = None
    was_asked_again: bool = False  # after a snapshot without a trade
    at_boundary: KnownTrade | None = None  # the last before the trade that passed the boundary

    def last(self) -> KnownTrade | None:
        return self.newest() or self.first_only

    def last_at(self, at_ns: int) -> KnownTrade | Mark | None:
        if self.last() is None:  # all are withdrawn: the mark stays until there is another
            return self.mark if self.mark is not None and self.mark.as_of_ns <= at_ns else None
        newest: KnownTrade | None = None
        for trade in (self.at_boundary, *self.trades()):  # of two at the same time, the later arrival
            if trade is not None and trade.as_of_ns <= at_ns:
                newest = trade if newest is None or trade.as_of_ns >= newest.as_of_ns else newest
        first = self.first_only
        if newest is None and first is not None and first.as_of_ns <= at_ns:
            return first
        return newest


class MarkBook:
    """The marks of one feed's symbols, and which of them have changed since they were last taken.

    `is_sane` says of a feed's prices that they do not jump: options' do.
    """

    def __init__(
        self, source: str, effect_of: EffectOf, *, is_sane: bool = True, is_quoted: bool = False
    ) -> None:
        self.counts = Counts()
        self._source = source
        self._exchanges: dict[str | None, int] = {}  # a number for each
        self._is_sane = is_sane
        self._is_quoted = is_quoted
        self._effect_of = effect_of
        self._effects: dict[str | None, dict[Conditions, int]] = {}  # by tape and conditions
        self._effect_count = 0
        self._columns = Columns()
        self._slots: dict[str, int] = {}
        self._slot_of = Lookup(SYMBOL_BITS, NOBODY)  # by the number of a symbol
        self._effect_of_number = Lookup(
            CONDITIONS_BITS, TradeEffect.UNKNOWN
        )  # by that of conditions and tape
        self._exchange_of_letter = np.full(256, _NO_EXCHANGE, np.uint16)
        self._by_slot: dict[int, _Entry] = {}
        self._entries: dict[str, _Entry] = {}
        self._to_refresh: dict[str, int] = {}  # symbol -> how often it may yet ask for a snapshot
        self._boundary_ns: int | None = None
        self._received_ns = 0  # when the newest message came

    def follow(self, symbols: Iterable[str]) -> None:
        """Keep marks for these symbols too."""
        for symbol in symbols:
            if symbol not in self._entries:
                slot = self._slots[symbol] = self._columns.take()
                self._slot_of.put(symbol_number(symbol), slot)
                self._entries[symbol] = self._by_slot[slot] = _Entry(self._columns, slot, symbol)

    def forget(self, symbols: Iterable[str]) -> None:
        """Keep no marks for these symbols any more."""
        for symbol in symbols:
            entry = self._entries.pop(symbol, None)
            if entry is not None:
                del self._slots[symbol], self._by_slot[entry.slot]
                self._slot_of.remove(symbol_number(symbol))
                self._columns.give_back(entry.slot)
            self._to_refresh.pop(symbol, None)

    def is_followed(self, symbol: str) -> bool:
        """Are marks kept for it?"""
        return symbol in self._entries

    def is_marked(self, symbol: str) -> bool:
        """Is a trade of the symbol known?"""
        entry = self._entries.get(symbol)
        return entry is not None and entry.last() is not None

    def has_streamed(self, symbol: str, at_ns: int) -> bool:
        """Has the stream brought a trade of that time, or a newer one?"""
        entry = self._entries.get(symbol)
        trades = () if entry is None else (*entry.trades(), entry.first_only)
        return any(
            trade.as_of_ns >= at_ns and not _is_snapshot(trade) for trade in trades if trade is not None
        )

    def stream_from(self, source: str) -> None:
        """The trades offered from now on are of this feed."""
        self._source = source

    def offer(self, trade: StreamTrade, received_ns: int) -> bool:
        """A trade from the stream; True when it has moved the mark."""
        entry = self._entries.get(trade.symbol)
        before = None if entry is None else entry.last()
        self.offer_all((trade,), received_ns)
        after = None if entry is None else entry.last()
        if after is None or (before is not None and after.is_same(before)):
            return False
        return KEY.pack(*after[:3]) == self._key(trade, as_of_ns(trade.at) or 0)

    def offer_all(self, trades: Sequence[StreamTrade], received_ns: int) -> None:
        """Trades from the stream, in the order of their arrival.

        This is the hot path: many are dealt with in columns, few one by one. Whatever is not ordinary goes to
        `_place`, which knows every rule.
        """
        self._received_ns = received_ns
        latest_ns = received_ns + AHEAD_S_MAX * NS_PER_S
        if self._boundary_ns is not None:
            latest_ns = min(latest_ns, self._boundary_ns)
        if isinstance(trades, PackedTrades):
            trades = self._offer_packed(trades, latest_ns)
        if trades:
            self._offer_each(trades, latest_ns, received_ns)

    def _offer_packed(self, trades: PackedTrades, latest_ns: int) -> Sequence[StreamTrade]:
        """Place what is ordinary; the rest is returned."""
        packed = trades.packed
        slot = self._slot_of.find(packed.symbol)
        effect = self._effect_of_number.find(packed.conditions)
        exchange = self._exchange_of_letter[packed.exchange]
        is_followed, is_never = slot != NOBODY, effect == _NEVER
        self.counts.ignored += int(np.count_nonzero(is_followed & is_never))
        wanted = np.flatnonzero(is_followed & ~is_never)
        arrived = Trades(slot, packed.as_of_ns, packed.trade_id, exchange, packed.price)
        is_known = (effect == _MOVES) & (exchange != _NO_EXCHANGE)
        left = self._columns.place(arrived, wanted, is_known, _origin(self._source), latest_ns)
        return [trades[index] for index in left.tolist()]

    def _offer_each(self, trades: Sequence[StreamTrade], latest_ns: int, received_ns: int) -> None:
        columns, origin = self._columns, _origin(self._source)
        slots, effects, exchanges = self._slots.get, self._effects, self._exchanges
        newest, low, high = columns.newest_ns.data, columns.low.data, columns.high.data
        ignored_count = 0
        for trade, traded_ns in zip(trades, times_ns(trades), strict=True):
            slot = slots(trade.symbol)
            if slot is None:
                continue
            try:
                effect, price = effects[trade.tape][trade.conditions], trade.price
                if effect == _NEVER:
                    ignored_count += 1
                    continue
                if (
                    effect == _MOVES
                    and newest[slot] <= traded_ns <= latest_ns
                    and price is not None
                    and low[slot] < price < high[slot]
                ):
                    exchange = exchanges[trade.exchange]
                    trade_id = NO_ID if trade.trade_id is None else trade.trade_id
                    if (
                        isinstance(trade_id, int)
                        and trade_id >= 0
                        and (newest[slot] < traded_ns or columns.is_new(slot, traded_ns, trade_id, exchange))
                    ):
                        columns.put(slot, traded_ns, trade_id, exchange, origin, price)
                        continue
            except KeyError:  # conditions or an exchange like none before
                pass
            entry = self._by_slot[slot]
            if self._place(entry, trade, origin, received_ns):
                self._note(entry, TRADED)
        self.counts.ignored += ignored_count

    def offer_snapshot(
        self,
        symbol: str,
        snapshot: Snapshot,
        new_york_date: str,
        received_ns: int,
        source: str | None = None,
        *,
        has_close: bool = True,
    ) -> bool:
        """A snapshot of a feed, taken at that date; True when its trade has moved the mark."""
        entry = self._entries.get(symbol)
        if entry is None:
            return False
        self._received_ns = received_ns
        trade = snapshot.latest_trade
        origin = _origin(source or self._source, is_snapshot=True)
        is_moved = trade is not None and self._place(entry, trade, origin, received_ns)
        if trade is None and entry.last() is None and not entry.was_asked_again:
            entry.was_asked_again = True  # a part may have been missing; but many options are never traded
            self._to_refresh.setdefault(symbol, 1 if self._is_quoted else REFRESHES_MAX)
        close = previous_close([snapshot.daily_bar, snapshot.previous_daily_bar], new_york_date)
        is_new_close = has_close and close is not None and self._set_close(entry, *close)
        is_new_fallback = entry.last() is None and self._set_fallback(entry, snapshot.latest_quote)
        if is_moved or is_new_close or is_new_fallback:
            self._note(entry, CHANGED)
        return is_moved

    def cancel(self, message: Cancel, received_ns: int) -> None:
        """Withdraw a trade that did not happen."""
        entry = self._entries.get(message.symbol)
        if entry is None:
            return
        trade = _take_out(entry, id_number(message.trade_id), self._exchange(message.exchange))
        if trade is not None:
            _remember(entry, trade)
            self._withdrawn(entry, received_ns)

    def correct(self, message: Correction, received_ns: int) -> None:
        """Replace a trade by what it should have been; it keeps its time."""
        entry = self._entries.get(message.symbol)
        if entry is None:
            return
        exchange, corrected_id = self._exchange(message.exchange), id_number(message.corrected_id)
        original = _take_out(entry, id_number(message.original_id), exchange)
        if original is None:
            return
        if corrected_id != original.trade_id:
            _remember(entry, original)
        if _is_price(message.price):
            effect = self._effect(message.conditions, message.tape)
            if effect >= _NEVER:
                self._ignore(effect)
            else:
                corrected = original._replace(price=message.price, trade_id=corrected_id)
                self._put(entry, corrected, effect)
        else:
            self.counts.refused += 1
        self._withdrawn(entry, received_ns)

    def set_status(self, message: TradingStatus, received_ns: int) -> None:
        """Trading halts or resumes; any other status changes nothing."""
        entry = self._entries.get(message.symbol)
        at_ns = as_of_ns(message.at)
        if entry is None or at_ns is None:
            return
        code = (message.tape or "", message.code or "")
        if code in HALTS:
            entry.halted_ns = at_ns
        elif code in RESUMPTIONS and entry.halted_ns is not None and at_ns >= entry.halted_ns:
            entry.halted_ns = None
        else:
            return
        self._received_ns = received_ns
        _set_band(entry, entry.last(), self._is_sane)
        self._note(entry, CHANGED)

    def take_changed(self) -> list[tuple[Mark, bool]]:
        """The marks that have changed since the last call, each with: did a trade of the stream move it?"""
        slots, is_live = self._columns.take_changed()
        newest = self._columns.newest(slots)
        if self._is_sane:
            self._columns.set_bands(slots, newest.price, PRICE_RATIO_MAX)
        marks: list[tuple[Mark, bool]] = []
        columns = (slots, *newest, is_live)
        for slot, at_ns, origin, price, live in zip(*(each.tolist() for each in columns), strict=True):
            entry = self._by_slot[slot]
            is_traded = at_ns != NO_TIME
            mark = self._traded_mark(entry, price, at_ns, origin) if is_traded else self._other_mark(entry)
            if mark is not None:
                marks.append((mark, live))
        return marks

    def take_to_refresh(self) -> list[str]:
        """The symbols that ask for a snapshot: all their trades have been withdrawn, or one set aside."""
        asking = [
            symbol
            for symbol, left in self._to_refresh.items()
            if left == 1 or self._entries[symbol].last() is None
        ]
        self._to_refresh = {
            symbol: self._to_refresh[symbol] - 1 for symbol in asking if self._to_refresh[symbol] > 1
        }
        return asking

    def touch_all(self) -> None:
        """Count every mark as changed: whoever reads them may have lost them."""
        for entry in self._entries.values():
            self._note(entry, CHANGED)

    def set_boundary(self, at_ns: int | None) -> None:
        """`marks_at` will be asked for this moment, which is still to come: keep what it takes. None: for no
        moment."""
        self._boundary_ns = at_ns

    def marks_at(self, at_ns: int) -> dict[str, MinuteMark]:
        """What the mark of each symbol was at the boundary; without those that had none."""
        marks: dict[str, MinuteMark] = {}
        for symbol, entry in self._entries.items():
            last = entry.last_at(at_ns)
            if last is not None:
                marks[symbol] = MinuteMark(last.price, last.as_of_ns)
        return marks

    def raise_floor(self, marks: Iterable[Mark]) -> None:
        """Let no mark be received before these, which an earlier owner has written."""
        for written in marks:
            entry = self._entries.get(written.symbol)
            if entry is not None and written != entry.mark:
                entry.floor_ns = max(entry.floor_ns, written.received_ns)
                entry.mark = None

    def _key(self, trade: StreamTrade | SnapshotTrade, traded_ns: int) -> bytes:
        return KEY.pack(traded_ns, id_number(trade.trade_id), self._exchange(trade.exchange))

    def _place(
        self, entry: _Entry, trade: StreamTrade | SnapshotTrade, origin: int, received_ns: int
    ) -> bool:
        """A trade that may break any rule; True when it has moved the mark."""
        traded_ns = as_of_ns(trade.at)
        if traded_ns is None or traded_ns < 0 or not _is_price(trade.price):
            self.counts.refused += 1
            return False
        effect = self._effect(trade.conditions, trade.tape)
        if effect >= _NEVER:
            self._ignore(effect)
            return False
        if traded_ns > received_ns + AHEAD_S_MAX * NS_PER_S:
            self.counts.refused += 1
            self.counts.ahead += 1
            return False
        exchange = self._exchange(trade.exchange)
        known = KnownTrade(traded_ns, id_number(trade.trade_id), exchange, origin, trade.price)
        if _is_withdrawn(entry, known):
            return False
        if self._is_absurd(entry, known):
            self.counts.set_aside += 1
            self._to_refresh.setdefault(entry.symbol, 1)
            return False
        if not self._put(entry, known, effect):
            return False
        if entry.halted_ns is not None and traded_ns > entry.halted_ns:
            entry.halted_ns = None
        _set_band(entry, entry.last(), self._is_sane)
        return True

    def _is_absurd(self, entry: _Entry, trade: KnownTrade) -> bool:
        """May its price not be believed at once? A snapshot's may: it is the venue's second word."""
        last = entry.last()
        if not self._is_sane or last is None or _is_snapshot(trade) or trade.as_of_ns < last.as_of_ns:
            return False
        low, high = _band(last.price)
        return not low < trade.price < high

    def _effect(self, conditions: Conditions, tape: str | None) -> int:
        effect = self._effects.get(tape, {}).get(conditions)
        if effect is None:
            effect = int(self._effect_of(conditions, tape or ""))
            if self._effect_count < CONDITION_SETS_MAX:
                self._effect_count += 1
                self._effects.setdefault(tape, {})[conditions] = effect
                self._effect_of_number.put(conditions_number(conditions, tape), effect)
        return effect

    def _exchange(self, exchange: str | None) -> int:
        """Beyond EXCHANGES_MAX all share one number; then the id alone tells their trades apart."""
        number = self._exchanges.get(exchange, len(self._exchanges))
        if number < EXCHANGES_MAX:
            self._exchanges[exchange] = number
            if is_letter(exchange):
                self._exchange_of_letter[ord(exchange)] = number
        return number

    def _ignore(self, effect: int) -> None:
        self.counts.ignored += 1
        self.counts.unknown += effect == TradeEffect.UNKNOWN

    def _put(self, entry: _Entry, trade: KnownTrade, effect: int) -> bool:
        if _is_withdrawn(entry, trade):
            return False
        newest = entry.newest()
        if effect == _MOVES:
            boundary_ns, newest_ns = self._boundary_ns, self._columns.newest_ns.item(entry.slot)
            if boundary_ns is not None and newest_ns <= boundary_ns < trade.as_of_ns:
                entry.at_boundary = newest or entry.at_boundary
            self._columns.newest_ns[entry.slot] = max(newest_ns, trade.as_of_ns)
            return _put_in_order(entry, trade)
        self.counts.ignored += newest is not None
        if entry.first_only is not None and entry.first_only.as_of_ns <= trade.as_of_ns:
            return False
        entry.first_only = trade
        return newest is None

    def _set_close(self, entry: _Entry, day: str, close: float) -> bool:
        if (day, close) == (entry.previous_close_date, entry.previous_close):
            return False
        if entry.previous_close_date is not None and day < entry.previous_close_date:
            return False
        entry.previous_close, entry.previous_close_date = close, day
        return True

    def _set_fallback(self, entry: _Entry, quote: Quote | None) -> bool:
        before = entry.fallback
        entry.fallback = (_middle(quote) if self._is_quoted else None) or _close_of(entry)
        return entry.fallback != before

    def _withdrawn(self, entry: _Entry, received_ns: int) -> None:
        if entry.last() is None:
            self._to_refresh[entry.symbol] = REFRESHES_MAX
        self._received_ns = received_ns
        _set_band(entry, entry.last(), self._is_sane)
        self._note(entry, CHANGED)

    def _note(self, entry: _Entry, change: int) -> None:
        changes = self._columns.change
        changes[entry.slot] = max(changes.item(entry.slot), change)

    def _traded_mark(self, entry: _Entry, price: float, at_ns: int, origin: int) -> Mark:
        source = _SOURCES[origin >> 1]
        quality = QUALITIES[source] if entry.halted_ns is None else HALTED
        return self._renewed(entry, price, at_ns, source, quality)

    def _other_mark(self, entry: _Entry) -> Mark | None:
        """Of a symbol without a trade that moves it."""
        known, fallback, first = entry.mark, entry.fallback, entry.first_only
        if first is not None:
            return self._traded_mark(entry, first.price, first.as_of_ns, first.origin)
        if fallback is None or (known is not None and known.quality not in (INDICATIVE, END_OF_DAY)):
            return known
        return self._renewed(entry, fallback.price, fallback.as_of_ns, self._source, fallback.quality)

    def _renewed(self, entry: _Entry, price: float, at_ns: int, source: str, quality: str) -> Mark:
        known, close, close_date = entry.mark, entry.previous_close, entry.previous_close_date
        if (
            known is not None
            and at_ns == known.as_of_ns
            and (price, source, quality, close, close_date)
            == (known.price, known.source, known.quality, known.previous_close, known.previous_close_date)
        ):
            return known
        entry.floor_ns = max(self._received_ns, entry.floor_ns + 1)
        entry.mark = Mark(entry.symbol, price, at_ns, entry.floor_ns, source, close, close_date, quality)
        return entry.mark


def previous_close(bars: Iterable[DailyBar | None], new_york_date: str) -> tuple[str, float] | None:
    """Date and close of the newest daily bar before that date, or None."""
    closes: list[tuple[str, float]] = []
    for bar in bars:
        if bar is None or bar.at is None or not _is_price(bar.close):
            continue
        try:
            day = new_york_date_of(parse_rfc3339(bar.at))
        except ValueError:
            continue
        if day < new_york_date:
            closes.append((day, bar.close))
    return max(closes, default=None)


def _is_price(price: float | None) -> TypeGuard[float]:
    return price is not None and 0 < price < math.inf


def _band(price: float) -> tuple[float, float]:
    return price / PRICE_RATIO_MAX, price * PRICE_RATIO_MAX


def _set_band(entry: _Entry, last: KnownTrade | None, is_sane: bool) -> None:
    """Which prices of the stream need no second look; while halted all do."""
    low, high = 0.0, math.inf
    if entry.halted_ns is not None:
        low = math.inf
    elif is_sane and last is not None:
        low, high = _band(last.price)
    entry.columns.low[entry.slot], entry.columns.high[entry.slot] = low, high


def _middle(quote: Quote | None) -> _Fallback | None:
    """The middle of a quote with both sides, in its shortest form; None where the spread says nothing."""
    at_ns = None if quote is None else as_of_ns(quote.at)
    if quote is None or at_ns is None or not _is_price(quote.bid) or not _is_price(quote.ask):
        return None
    middle = float((exact(quote.bid) + exact(quote.ask)) / 2)
    if not 0 <= quote.ask - quote.bid <= SPREAD_RATIO_MAX * middle:
        return None
    return _Fallback(middle, at_ns, INDICATIVE)


def _close_of(entry: _Entry) -> _Fallback | None:
    """The previous close, as of the end of its day."""
    if entry.previous_close is None or entry.previous_close_date is None:
        return None
    day = date.fromisoformat(entry.previous_close_date)
    at_ns = close_ns(day)
    if at_ns is None:  # crypto on a day off
        at_ns = new_york_midnight_ns(day + timedelta(days=1))
    return _Fallback(entry.previous_close, at_ns, END_OF_DAY)


def _origin(source: str, *, is_snapshot: bool = False) -> int:
    return _SOURCES.index(source) << 1 | is_snapshot


def _is_snapshot(trade: KnownTrade) -> bool:
    return bool(trade.origin & 1)


def _put_in_order(recent: RecentTrades, trade: KnownTrade) -> bool:
    """Put a trade where its time says; True when it has become the newest."""
    trades = recent.trades()
    before = trades[-1] if trades else None
    twin = next((known for known in trades if trade.is_same(known)), None)
    if twin is not None:
        if _is_snapshot(trade) or not _is_snapshot(twin):
            return False
        trades.remove(twin)
    at = len(trades)
    while at and _is_before(trade, trades[at - 1]):
        at -= 1
    trades.insert(at, trade)
    recent.replace(trades[-RECENT_MAX:])
    return trades[-1] is trade and (before is None or not trade.is_same(before))


def _is_before(trade: KnownTrade, known: KnownTrade) -> bool:
    if trade.as_of_ns == known.as_of_ns:
        return _is_snapshot(trade) and not _is_snapshot(known)
    return trade.as_of_ns < known.as_of_ns


def _take_out(entry: _Entry, trade_id: int, exchange: int) -> KnownTrade | None:
    """The newest trade of that id, which is forgotten; None where none is known."""
    if trade_id == NO_ID:
        return None
    trades = entry.trades()
    for trade in reversed(trades):
        if (trade.trade_id, trade.exchange) == (trade_id, exchange):
            if entry.at_boundary == trade:
                entry.at_boundary = None
            trades.remove(trade)
            entry.replace(trades)
            return trade
    first = entry.first_only
    if first is not None and (first.trade_id, first.exchange) == (trade_id, exchange):
        entry.first_only = None
        return first
    return None


def _is_withdrawn(entry: _Entry, trade: KnownTrade) -> bool:
    return any(trade.is_same(other) for other in entry.withdrawn)


def _remember(entry: _Entry, trade: KnownTrade) -> None:
    entry.columns.has_withdrawn[entry.slot] = True
    entry.withdrawn = (*entry.withdrawn, trade)[-WITHDRAWN_MAX:]

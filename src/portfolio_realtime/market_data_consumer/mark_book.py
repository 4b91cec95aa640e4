"""Mark price policy: which price values a symbol now. Pure: times and messages come in, marks go out.

1. The last eligible trade. Conditions decide which trades are eligible (`conditions`): the strictest wins; an
   unknown condition makes a trade ineligible and is counted. The last trade is the newest by trade time. An
   older trade that arrives late does not move the mark. Of two at the same time, the later arrival wins.
   A "first only" trade is the mark only while no other eligible trade is known; of several, the oldest.
2. A snapshot's latest trade is treated like any other trade, by its own time and conditions. At the same time
   as a streamed trade it counts as the older one: if it is newer, the stream delivers it too. As one that
   was streamed before the present connection it counts as the newer one: it may be a correction.
3. Without a known trade: for options the middle of the latest quote, if both sides are present and the spread
   is at most SPREAD_RATIO_MAX of the middle; otherwise the previous close. The mark's quality names either.
4. Otherwise the symbol is unpriced. It has no mark, which is different from a mark of 0.

When a trade is cancelled, or corrected into an ineligible one, the eligible trade before it values the symbol
again, out of the RECENT_MAX newest. If none is left, a fresh snapshot is requested and the mark stays until
then. A corrected trade keeps its time. A cancel that was missed shows in the snapshots of the next connection
(`missed_cancels`). These are refused and counted: a price that is missing, not finite or not positive, a
trade without a time, and a trade more than AHEAD_S_MAX in the future. A streamed trade whose price differs
from the mark by more than the factor PRICE_RATIO_MAX is set aside and counted, and a snapshot is requested.
The trade counts if that snapshot has it as the latest trade.

While trading in a symbol is halted its mark stays, with the quality HALTED, until trading resumes or a newer
eligible trade shows that it has. Price bands (limit up, limit down) need no rule: a pause arrives as a halt.

The previous close is the close of the newest daily bar dated before the current date in New York. The date
decides, not the field: until the session's first trade, a snapshot's `dailyBar` is that of an earlier day.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec
import numpy as np

from portfolio_realtime.market_data_consumer.conditions import CONDITION_SETS_MAX, Conditions, TradeEffect
from portfolio_realtime.market_data_consumer.fallback_prices import previous_close
from portfolio_realtime.market_data_consumer.marked_symbol import MarkedSymbol
from portfolio_realtime.market_data_consumer.messages import (
    NO_TIME,
    VECTOR_MIN,
    Cancel,
    Correction,
    PackedTrades,
    Snapshot,
    SnapshotTrade,
    StreamTrade,
    TradingStatus,
    as_of_ns,
    times_ns,
)
from portfolio_realtime.market_data_consumer.missed_cancels import MissedCancels
from portfolio_realtime.market_data_consumer.msgpack_columns import (
    conditions_number,
    is_letter,
    symbol_number,
)
from portfolio_realtime.market_data_consumer.symbol_trades import NO_TRADE, KnownTrade, id_number
from portfolio_realtime.market_data_consumer.trade_columns import (
    CHANGED,
    EXCHANGES_MAX,
    KEY,
    NO_ID,
    NOBODY,
    TRADED,
    UNKNOWN_EXCHANGE,
    Columns,
    Lookup,
    Slots,
    Trades,
)
from portfolio_realtime.market_data_consumer.trade_eligibility import (
    MOVES,
    NEVER,
    TradeCounts,
    TradeRefusal,
    is_ordinary,
    latest_eligible_ns,
    refusal_of,
)
from portfolio_realtime.market_data_consumer.trade_sources import origin_of
from portfolio_realtime.model import Mark, MinuteMark, versions_from

REFRESHES_MAX: Final = 30  # snapshots requested while a symbol that had trades has none left
SYMBOL_BITS: Final = 16  # lookup tables have 2 ** bits entries
CONDITIONS_BITS: Final = 12

EffectOf = Callable[[Conditions, str], TradeEffect]


class MarkBook:
    """The marks of one feed's symbols, and which of them have changed since they were last taken.

    `is_sane`: prices do not jump, so a price far from the mark is set aside; false for options. `is_quoted`:
    a quote may value a symbol without trades.
    """

    def __init__(
        self, source: str, effect_of: EffectOf, *, is_sane: bool = True, is_quoted: bool = False
    ) -> None:
        self.counts = TradeCounts()
        self._source = source
        self._exchanges: dict[str | None, int] = {}  # exchange -> its number
        self._is_sane = is_sane
        self._is_quoted = is_quoted
        self._effect_of = effect_of
        self._effects: dict[str | None, dict[Conditions, int]] = {}  # by tape and conditions
        self._effect_count = 0
        self._columns = Columns()
        self._slots: dict[str, int] = {}
        self._slot_of = Lookup(SYMBOL_BITS, NOBODY)  # by the number of a symbol
        # By the number of conditions and tape.
        self._effect_of_number = Lookup(CONDITIONS_BITS, TradeEffect.UNKNOWN)
        self._exchange_of_letter = np.full(256, UNKNOWN_EXCHANGE, np.uint16)
        self._by_slot: dict[int, MarkedSymbol] = {}
        self._marked: dict[str, MarkedSymbol] = {}
        self._to_refresh: dict[str, int] = {}  # symbol -> how many more snapshots may be requested
        self._missed_cancels = MissedCancels()
        self._boundary_ns: int | None = None
        self.received_ns = 0  # when the newest message arrived
        self._version = 0  # of the newest marks

    def follow(self, symbols: Iterable[str]) -> None:
        """Start to keep marks for these symbols."""
        for symbol in symbols:
            if symbol not in self._marked:
                slot = self._slots[symbol] = self._columns.allocate()
                self._slot_of.assign(symbol_number(symbol), slot)
                marked = MarkedSymbol(self._columns, slot, symbol, self._is_sane)
                self._marked[symbol] = self._by_slot[slot] = marked

    def forget(self, symbols: Iterable[str]) -> None:
        """Stop keeping marks for these symbols, and drop the marks they have."""
        for symbol in symbols:
            marked = self._marked.pop(symbol, None)
            if marked is not None:
                del self._slots[symbol], self._by_slot[marked.slot]
                self._slot_of.remove(symbol_number(symbol))
                self._columns.release(marked.slot)
            self._to_refresh.pop(symbol, None)
            self._missed_cancels.forget(symbol)

    def is_followed(self, symbol: str) -> bool:
        """Whether marks are kept for the symbol."""
        return symbol in self._marked

    def is_marked(self, symbol: str) -> bool:
        """Whether a trade of the symbol is known."""
        marked = self._marked.get(symbol)
        return marked is not None and marked.last() is not None

    def has_mark(self, symbol: str) -> bool:
        """Whether the symbol had a price (trade, quote or previous close) at the last `take_changed`."""
        marked = self._marked.get(symbol)
        return marked is not None and marked.mark is not None

    def has_streamed(self, symbol: str, at_ns: int) -> bool:
        """Whether the stream has delivered a trade of that time or a newer one."""
        marked = self._marked.get(symbol)
        return marked is not None and marked.has_streamed(at_ns)

    def stream_from(self, source: str, began_s: float | None = None) -> None:
        """Begin a new connection, whose trades have this source.

        A correction may have been missed meanwhile. So a snapshot's trade replaces one of the same time that
        was streamed before. `began_s`: now, in monotonic seconds; None: the feed reports no cancels that its
        snapshots show.
        """
        self._source = source
        self._columns.count_as_snapshots()
        self._missed_cancels.begin(source, () if began_s is None else self._marked.values(), began_s or 0.0)

    def add_trade(self, trade: StreamTrade, received_ns: int) -> bool:
        """Add one trade from the stream; return whether it has moved the mark."""
        marked = self._marked.get(trade.symbol)
        before = None if marked is None else marked.last()
        self.add_trades((trade,), received_ns)
        after = None if marked is None else marked.last()
        if after is None or (before is not None and after.is_same(before)):
            return False
        return KEY.pack(*after[:3]) == self._key(trade, as_of_ns(trade.at) or 0)

    def add_trades(self, trades: Sequence[StreamTrade], received_ns: int) -> None:
        """Add trades from the stream, in the order of their arrival.

        This is the hot path: many trades are added in columns, few are added one by one. Trades that are not
        ordinary go to `_place`, which applies every rule.
        """
        self.received_ns = received_ns
        latest_ns = latest_eligible_ns(received_ns)
        if self._boundary_ns is not None:
            latest_ns = min(latest_ns, self._boundary_ns)
        if isinstance(trades, PackedTrades):
            trades = self._add_packed(trades, latest_ns)
        if trades:
            self._add_each(trades, latest_ns, received_ns)

    def _add_packed(self, trades: PackedTrades, latest_ns: int) -> Sequence[StreamTrade]:
        """Add the ordinary trades; return the others."""
        packed = trades.packed
        slot = self._slot_of.find(packed.symbol)
        effect = self._effect_of_number.find(packed.conditions)
        exchange = self._exchange_of_letter[packed.exchange]
        is_followed, is_never = slot != NOBODY, effect == NEVER
        self.counts.ignored += int(np.count_nonzero(is_followed & is_never))
        wanted = np.flatnonzero(is_followed & ~is_never)
        arrived = Trades(slot, packed.as_of_ns, packed.trade_id, exchange, packed.price)
        left = self._columns.append_ordinary(arrived, wanted, effect, origin_of(self._source), latest_ns)
        return [trades[index] for index in left.tolist()]

    def _add_each(self, trades: Sequence[StreamTrade], latest_ns: int, received_ns: int) -> None:
        columns, origin = self._columns, origin_of(self._source)
        slots, effects, exchanges = self._slots.get, self._effects, self._exchanges
        newest, low, high = columns.newest_ns.data, columns.low.data, columns.high.data
        ignored_count = 0
        for trade, traded_ns in zip(trades, times_ns(trades), strict=True):
            slot = slots(trade.symbol)
            if slot is None:
                continue
            try:
                effect, price = effects[trade.tape][trade.conditions], trade.price
                if effect == NEVER:
                    ignored_count += 1
                    continue
                before_ns = newest[slot]
                if price is not None and is_ordinary(
                    effect, before_ns, traded_ns, latest_ns, price, (low[slot], high[slot])
                ):
                    exchange = exchanges[trade.exchange]
                    trade_id = NO_ID if trade.trade_id is None else trade.trade_id
                    if (
                        isinstance(trade_id, int)
                        and trade_id >= 0
                        and (before_ns < traded_ns or columns.is_new(slot, traded_ns, trade_id, exchange))
                    ):
                        columns.append(slot, traded_ns, trade_id, exchange, origin, price)
                        continue
            except KeyError:
                pass  # the first trade with these conditions or from this exchange
            marked = self._by_slot[slot]
            if self._place(marked, trade, origin, received_ns):
                self._note(marked, TRADED)
        self.counts.ignored += ignored_count

    def add_snapshot(
        self,
        symbol: str,
        snapshot: Snapshot,
        new_york_date: str,
        received_ns: int,
        source: str | None = None,
        *,
        has_close: bool = True,
    ) -> bool:
        """Add a snapshot taken on `new_york_date` (YYYY-MM-DD); return whether its trade has moved the mark.

        `source`: the feed of the snapshot, by default the streamed one. `has_close`: its daily bars hold the
        previous close.
        """
        marked = self._marked.get(symbol)
        if marked is None:
            return False
        self.received_ns = received_ns
        trade = snapshot.latest_trade
        origin = origin_of(source or self._source, is_snapshot=True)
        is_moved = trade is not None and self._place(marked, trade, origin, received_ns)
        if trade is None and marked.last() is None and not marked.was_asked_again:
            # A part may have been missing. Many options are never traded, so they get one repetition only.
            marked.was_asked_again = True
            self._to_refresh.setdefault(symbol, 1 if self._is_quoted else REFRESHES_MAX)
        close = previous_close([snapshot.daily_bar, snapshot.previous_daily_bar], new_york_date)
        is_new_close = has_close and close is not None and marked.set_close(*close)
        is_new_fallback = marked.last() is None and marked.set_fallback(
            snapshot.latest_quote if self._is_quoted else None
        )
        if is_moved or is_new_close or is_new_fallback:
            self._note(marked, CHANGED)
        return is_moved

    def take_back(
        self, symbol: str, trade: SnapshotTrade | None, requested_s: float, received_ns: int
    ) -> bool:
        """Withdraw the trades that a snapshot of the streamed feed shows to be cancelled; return whether.

        `trade`: its latest trade; the snapshot is to be added afterwards. `requested_s`: in monotonic
        seconds. Trades of the present connection stay, so do those of another feed and those without ids.
        """
        marked = self._marked.get(symbol)
        if marked is None or trade is None:
            return False
        traded_ns = as_of_ns(trade.at)
        effect = self._effect(trade.conditions, trade.tape)
        refusal = refusal_of(trade.price, traded_ns, effect, latest_eligible_ns(received_ns))
        if refusal is not None or effect != MOVES or traded_ns is None or trade.price is None:
            return False
        key = traded_ns, id_number(trade.trade_id), self._exchange(trade.exchange)
        shown = KnownTrade(*key, origin_of(self._source, is_snapshot=True), trade.price)
        cancelled = self._missed_cancels.judge(marked, shown, requested_s)
        for known in cancelled:
            marked.withdraw(known.trade_id, known.exchange)
        if cancelled:
            self._withdrawn(marked, received_ns)
        return bool(cancelled)

    def cancel(self, message: Cancel, received_ns: int) -> None:
        """Withdraw a cancelled trade."""
        marked = self._marked.get(message.symbol)
        if marked is None:
            return
        trade = marked.withdraw(id_number(message.trade_id), self._exchange(message.exchange))
        if trade is not None:
            marked.remember_withdrawn(trade)
            self._withdrawn(marked, received_ns)

    def correct(self, message: Correction, received_ns: int) -> None:
        """Replace a trade with its correction, which keeps the trade's time."""
        marked = self._marked.get(message.symbol)
        if marked is None:
            return
        exchange, corrected_id = self._exchange(message.exchange), id_number(message.corrected_id)
        original = marked.withdraw(id_number(message.original_id), exchange)
        if original is None:
            return
        if corrected_id != original.trade_id:
            marked.remember_withdrawn(original)
        effect = self._effect(message.conditions, message.tape)
        refusal = refusal_of(message.price, original.as_of_ns, effect, original.as_of_ns)
        if refusal is not None or message.price is None:
            self.counts.count(refusal or TradeRefusal.UNUSABLE)
        else:
            corrected = original._replace(price=message.price, trade_id=corrected_id)
            self._insert(marked, corrected, effect)
        self._withdrawn(marked, received_ns)

    def set_status(self, message: TradingStatus, received_ns: int) -> None:
        """Halt or resume trading; any other status changes nothing."""
        marked = self._marked.get(message.symbol)
        if marked is not None and marked.set_status(message):
            self.received_ns = received_ns
            self._note(marked, CHANGED)

    def take_changed(self) -> list[tuple[Mark, bool]]:
        """The marks changed since the last call, each with whether a streamed trade has moved it."""
        slots, is_live = self._columns.take_changed()
        newest = self._newest_each(slots.tolist()) if len(slots) < VECTOR_MIN else self._newest_all(slots)
        marks: list[tuple[Mark, bool]] = []
        self._version += 1
        for (slot, at_ns, origin, price), live in zip(newest, is_live.tolist(), strict=True):
            marked = self._by_slot[slot]
            if at_ns != NO_TIME:
                mark = marked.traded_mark(price, at_ns, origin, self._version)
            else:
                mark = marked.untraded_mark(self._source, self._version)
            if mark is not None:
                marks.append((mark, live))
        return marks

    def _newest_all(self, slots: Slots) -> Iterable[tuple[int, int, int, float]]:
        """Slot, time, origin and price of each newest trade; sets the band of ordinary prices around it."""
        newest = self._columns.newest(slots)
        if self._is_sane:
            self._columns.set_bands(slots, newest.price)
        return zip(slots.tolist(), *(each.tolist() for each in newest), strict=True)

    def _newest_each(self, slots: list[int]) -> list[tuple[int, int, int, float]]:
        """As `_newest_all`: few are faster one by one."""
        rows: list[tuple[int, int, int, float]] = []
        for slot in slots:
            marked = self._by_slot[slot]
            trade = marked.newest() or NO_TRADE
            if trade is not NO_TRADE:
                marked.set_band()
            rows.append((slot, trade.as_of_ns, trade.origin, trade.price))
        return rows

    def take_to_refresh(self) -> list[str]:
        """The symbols that need a snapshot: they have no trade (any more), or one was set aside."""
        asking = [
            symbol
            for symbol, left in self._to_refresh.items()
            if left == 1 or self._marked[symbol].last() is None
        ]
        self._to_refresh = {
            symbol: self._to_refresh[symbol] - 1 for symbol in asking if self._to_refresh[symbol] > 1
        }
        return asking

    def take_suspect(self, now_s: float) -> list[str]:
        """The symbols that need a second snapshot, because a cancel may have been missed."""
        return self._missed_cancels.take_due(now_s)

    def touch_all(self) -> None:
        """Count every mark as changed, because readers may have lost the marks."""
        for marked in self._marked.values():
            self._note(marked, CHANGED)

    def begin_versions(self, fencing_token: int) -> None:
        """Give all marks, which count as changed, higher versions than those of every earlier owner."""
        self._version = max(self._version + 1, versions_from(fencing_token))
        for marked in self._marked.values():
            if marked.mark is not None:
                marked.mark = msgspec.structs.replace(marked.mark, version=self._version)
        self.touch_all()

    def set_boundary(self, at_ns: int | None) -> None:
        """Keep what `marks_at` needs for this future moment; None: it will be called for no moment."""
        self._boundary_ns = at_ns

    def marks_at(self, at_ns: int) -> dict[str, MinuteMark]:
        """The mark of each symbol at the boundary, without symbols that had none."""
        marks: dict[str, MinuteMark] = {}
        for symbol, marked in self._marked.items():
            last = marked.last_at(at_ns)
            if last is not None:
                marks[symbol] = MinuteMark(last.price, last.as_of_ns)
        return marks

    def _key(self, trade: StreamTrade | SnapshotTrade, traded_ns: int) -> bytes:
        return KEY.pack(traded_ns, id_number(trade.trade_id), self._exchange(trade.exchange))

    def _place(
        self, marked: MarkedSymbol, trade: StreamTrade | SnapshotTrade, origin: int, received_ns: int
    ) -> bool:
        """Add a trade under all rules; return whether it has moved the mark."""
        traded_ns = as_of_ns(trade.at)
        effect = self._effect(trade.conditions, trade.tape)
        refusal = refusal_of(trade.price, traded_ns, effect, latest_eligible_ns(received_ns))
        if refusal is not None or traded_ns is None or trade.price is None:
            self.counts.count(refusal or TradeRefusal.UNUSABLE)
            return False
        known = KnownTrade(
            traded_ns, id_number(trade.trade_id), self._exchange(trade.exchange), origin, trade.price
        )
        if marked.is_withdrawn(known):
            return False
        if marked.is_absurd(known):
            self.counts.count(TradeRefusal.ABSURD)
            self._to_refresh.setdefault(marked.symbol, 1)
            return False
        if not self._insert(marked, known, effect):
            return False
        if marked.halted_ns is not None and traded_ns > marked.halted_ns:
            marked.halted_ns = None
        marked.set_band()
        return True

    def _effect(self, conditions: Conditions, tape: str | None) -> int:
        effect = self._effects.get(tape, {}).get(conditions)
        if effect is None:
            effect = int(self._effect_of(conditions, tape or ""))
            if self._effect_count < CONDITION_SETS_MAX:
                self._effect_count += 1
                self._effects.setdefault(tape, {})[conditions] = effect
                self._effect_of_number.assign(conditions_number(conditions, tape), effect)
        return effect

    def _exchange(self, exchange: str | None) -> int:
        """The number of an exchange.

        Beyond EXCHANGES_MAX all exchanges share one number; then only the id tells their trades apart.
        """
        number = self._exchanges.get(exchange, len(self._exchanges))
        if number < EXCHANGES_MAX:
            self._exchanges[exchange] = number
            if is_letter(exchange):
                self._exchange_of_letter[ord(exchange)] = number
        return number

    def _insert(self, marked: MarkedSymbol, trade: KnownTrade, effect: int) -> bool:
        if marked.is_withdrawn(trade):
            return False
        if effect == MOVES:
            return marked.insert(trade, self._boundary_ns)
        self.counts.ignored += marked.newest() is not None
        return marked.insert_first_only(trade)

    def _withdrawn(self, marked: MarkedSymbol, received_ns: int) -> None:
        if marked.last() is None:
            self._to_refresh[marked.symbol] = REFRESHES_MAX
        self.received_ns = received_ns
        marked.set_band()
        self._note(marked, CHANGED)

    def _note(self, marked: MarkedSymbol, change: int) -> None:
        changes = self._columns.change
        changes[marked.slot] = max(changes.item(marked.slot), change)

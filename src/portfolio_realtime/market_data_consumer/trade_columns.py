"""What the mark price policy reads and writes for nearly every trade, in columns over all symbols.

As objects, the trades of thousands of symbols do not fit into a processor's cache, and each new trade waits
for memory. Every symbol therefore has a slot: a few numbers and the packed rows of its recent trades. A frame
of many trades is added in a few NumPy steps, a single trade by `append`.
"""

from struct import Struct
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from portfolio_realtime.market_data_consumer.messages import NO_TIME
from portfolio_realtime.market_data_consumer.trade_eligibility import PRICE_MAX, band_around, is_ordinary

NOBODY: Final = 0  # the slot of no symbol
INITIAL: Final = 1024  # slots; their number doubles when all are in use
RECENT_MAX: Final = 8  # eligible trades kept per symbol; a power of two
NO_ID: Final = 2**64 - 1
EXCHANGES_MAX: Final = 1024  # exchanges that are told apart; the tape has a letter for each
UNKNOWN_EXCHANGE: Final = EXCHANGES_MAX
UNCHANGED, CHANGED, TRADED = 0, 1, 2  # why a symbol's mark is to be taken

KEY: Final = Struct("<qQH")  # the start of a row: time, id, exchange
ROW: Final = Struct("<qQHB5xd")  # a row: time, id, exchange, origin, price
RING_BYTES: Final = ROW.size * RECENT_MAX

_EMPTY: Final = ROW.pack(NO_TIME, 0, 0, 0, 0.0)
_WORDS: Final = ROW.size // 8  # time; id; exchange and origin; price
_ORIGIN_SHIFT: Final = 16  # in the third word
_SPREAD: Final = 0x9E37_79B9_7F4A_7C15  # 2**64 divided by the golden ratio

Slots = NDArray[np.intp]
Flags = NDArray[np.bool_]


class Trades(NamedTuple):
    """Trades of followed symbols as columns, in the order of their arrival."""

    slot: Slots
    as_of_ns: NDArray[np.int64]
    trade_id: NDArray[np.uint64]
    exchange: NDArray[np.uint16]
    price: NDArray[np.float64]

    def select(self, which: Slots | Flags) -> "Trades":
        """The trades at these indices, or with these flags, in that order."""
        return Trades(
            self.slot[which],
            self.as_of_ns[which],
            self.trade_id[which],
            self.exchange[which],
            self.price[which],
        )


class Newest(NamedTuple):
    """The last trades of some symbols: the fields that a mark needs."""

    as_of_ns: NDArray[np.int64]
    origin: NDArray[np.int64]
    price: NDArray[np.float64]


class Lookup:
    """A map from 64-bit numbers to small ones that finds many at once, with one table entry per hash.

    A number whose entry is used by another number is looked up one by one.
    """

    def __init__(self, bits: int, unknown: int) -> None:
        self._shift = 64 - bits
        self._unknown = unknown
        self._known: dict[int, int] = {}
        self._numbers = np.zeros(1 << bits, np.uint64)
        self._meanings = np.full(1 << bits, unknown, np.intp)

    def assign(self, number: int | None, meaning: int) -> None:
        """Map a number to a meaning; None is ignored."""
        if number is not None:
            at = self._place(number)
            self._known[number] = meaning
            self._numbers[at], self._meanings[at] = number, meaning

    def remove(self, number: int | None) -> None:
        """Remove a number; None is ignored."""
        if number is not None:
            del self._known[number]
            at = self._place(number)
            if self._numbers[at] == number:
                self._meanings[at] = self._unknown

    def find(self, numbers: NDArray[np.uint64]) -> Slots:
        """The meaning of each number, `unknown` for one without."""
        at = (numbers * _SPREAD >> self._shift).view(np.intp)
        meanings = self._meanings[at]
        for index in np.flatnonzero(self._numbers[at] != numbers).tolist():
            meanings[index] = self._known.get(numbers.item(index), self._unknown)
        return meanings

    def _place(self, number: int) -> int:
        return (number * _SPREAD & 2**64 - 1) >> self._shift


class Columns:
    """The most used numbers of all followed symbols, by slot."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self.row_bytes = bytearray()
        self.newest_ns = np.zeros(0, np.int64)  # of all trades ever added, also of those not kept
        self.low = np.zeros(0, np.float64)  # a price between low and high is ordinary
        self.high = np.zeros(0, np.float64)
        self.at = np.zeros(0, np.int64)  # the row for the next trade, which replaces the oldest
        self.change = np.zeros(0, np.uint8)
        self.has_withdrawn = np.zeros(0, np.bool_)
        self._grow(INITIAL)
        self._free.remove(NOBODY)

    def allocate(self) -> int:
        """A free slot, now in use."""
        if not self._free:
            self._grow(len(self.at))
        return self._free.pop()

    def release(self, slot: int) -> None:
        """Clear a slot and make it free."""
        self.row_bytes[slot * RING_BYTES : (slot + 1) * RING_BYTES] = _EMPTY * RECENT_MAX
        self.newest_ns[slot] = self.at[slot] = self.change[slot] = 0
        self.low[slot], self.high[slot], self.has_withdrawn[slot] = 0.0, PRICE_MAX, False
        self._free.append(slot)

    def newest(self, slots: Slots) -> Newest:
        """The last trade of each slot; its time is NO_TIME if there is none."""
        rows = self._rows[slots * RECENT_MAX + (self.at[slots] - 1) % RECENT_MAX]
        origins = rows[:, 2] >> _ORIGIN_SHIFT
        return Newest(rows[:, 0], origins, rows[:, 3].view(np.float64))

    def take_changed(self) -> tuple[Slots, Flags]:
        """The changed slots, each with whether a streamed trade has moved it; none is changed afterwards."""
        slots = np.flatnonzero(self.change)
        is_traded = self.change[slots] == TRADED
        self.change[slots] = UNCHANGED
        return slots, is_traded

    def count_as_snapshots(self) -> None:
        """Let all known trades count as taken from snapshots."""
        self._rows[:, 2] |= 1 << _ORIGIN_SHIFT

    def set_bands(self, slots: Slots, prices: NDArray[np.float64]) -> None:
        """Set the band of ordinary prices around each positive price, except for halted symbols."""
        is_open = (prices > 0) & np.isfinite(self.low[slots])
        slots, prices = slots[is_open], prices[is_open]
        self.low[slots], self.high[slots] = band_around(prices)

    def is_new(self, slot: int, as_of_ns: int, trade_id: int, exchange: int) -> bool:
        """Whether a trade at the newest known time is certainly not one of the known trades."""
        begin = slot * RING_BYTES
        key = KEY.pack(as_of_ns, trade_id, exchange)
        return not self.has_withdrawn[slot] and self.row_bytes.find(key, begin, begin + RING_BYTES) < 0

    def append(
        self, slot: int, as_of_ns: int, trade_id: int, exchange: int, origin: int, price: float
    ) -> None:
        """Add one ordinary trade."""
        at = self.at.item(slot)
        ROW.pack_into(
            self.row_bytes, slot * RING_BYTES + at * ROW.size, as_of_ns, trade_id, exchange, origin, price
        )
        self.newest_ns[slot], self.at[slot], self.change[slot] = as_of_ns, (at + 1) % RECENT_MAX, TRADED

    def append_ordinary(
        self, arrived: Trades, wanted: Slots, effect: Slots, origin: int, latest_ns: int
    ) -> Slots:
        """Add the ordinary ones of the wanted trades, up to `latest_ns`; return the others, as they arrived.

        Of each symbol only the trades before its first trade that is not ordinary are added, so that all are
        processed in the order of their arrival. A trade is ordinary if `is_ordinary` says so, if its exchange
        is known and, at the same time as another trade, if it is certainly new.
        """
        if not len(wanted):
            return wanted
        order = wanted[np.argsort(arrived.slot[wanted], kind="stable")]
        trades = arrived.select(order)
        first = _firsts(trades.slot)
        before_ns = self._before_ns(trades, first)
        band = self.low[trades.slot], self.high[trades.slot]
        ordinary = is_ordinary(effect[order], before_ns, trades.as_of_ns, latest_ns, trades.price, band)
        ordinary &= trades.exchange != UNKNOWN_EXCHANGE
        is_tied = before_ns == trades.as_of_ns
        if is_tied.any():
            ordinary &= ~is_tied | self._are_new(trades, is_tied)
        if ordinary.all():
            self._append(trades, first, origin)
            return order[:0]
        is_placed = _until_first(ordinary, first)
        placed = trades.select(is_placed)
        if len(placed.slot):
            self._append(placed, _firsts(placed.slot), origin)
        return np.sort(order[~is_placed])

    def _before_ns(self, trades: Trades, first: Slots) -> NDArray[np.int64]:
        before_ns = np.empty_like(trades.as_of_ns)
        before_ns[1:] = trades.as_of_ns[:-1]
        before_ns[first] = self.newest_ns[trades.slot[first]]
        return before_ns

    def _are_new(self, trades: Trades, is_tied: Flags) -> Flags:
        """Which of the tied trades are certainly not known yet."""
        is_new = is_tied & ~self.has_withdrawn[trades.slot]
        is_known = np.flatnonzero(is_tied & (self.newest_ns[trades.slot] == trades.as_of_ns))
        known_ids = self._rows[:, 1].reshape(-1, RECENT_MAX)[trades.slot[is_known]].view(np.uint64)
        is_new[is_known] &= (known_ids != trades.trade_id[is_known, None]).all(axis=1)
        ids = np.sort(trades.trade_id)
        repeated = ids[1:][ids[1:] == ids[:-1]]
        return is_new & ~np.isin(trades.trade_id, repeated) if len(repeated) else is_new

    def _append(self, trades: Trades, first: Slots, origin: int) -> None:
        """Add ordinary trades, sorted by slot."""
        count = len(trades.slot)
        counts = np.diff(first, append=count)
        slots = trades.slot[first]
        at = self.at[slots]
        number = np.arange(count)
        rows = (np.repeat(at - first, counts) + number & RECENT_MAX - 1) + trades.slot * RECENT_MAX
        packed = np.empty((count, _WORDS), np.int64)
        packed[:, 0] = trades.as_of_ns
        packed[:, 1] = trades.trade_id.view(np.int64)
        packed[:, 2] = trades.exchange
        packed[:, 2] += origin << _ORIGIN_SHIFT
        packed[:, 3] = trades.price.view(np.int64)
        if counts.max() > RECENT_MAX:
            is_kept = number >= np.repeat(first + counts - RECENT_MAX, counts)
            rows, packed = rows[is_kept], packed[is_kept]
        self._rows[rows] = packed
        self.at[slots] = at + counts & RECENT_MAX - 1
        self.newest_ns[slots] = trades.as_of_ns[first + counts - 1]
        self.change[slots] = TRADED

    def _grow(self, count: int) -> None:
        before = len(self.at)
        self._free = list(range(before + count - 1, before - 1, -1))
        self.row_bytes = self.row_bytes + _EMPTY * RECENT_MAX * count
        self._rows = np.frombuffer(self.row_bytes, np.int64).reshape(-1, _WORDS)
        self.newest_ns = np.append(self.newest_ns, np.zeros(count, np.int64))
        self.low = np.append(self.low, np.zeros(count))
        self.high = np.append(self.high, np.full(count, PRICE_MAX))
        self.at = np.append(self.at, np.zeros(count, np.int64))
        self.change = np.append(self.change, np.zeros(count, np.uint8))
        self.has_withdrawn = np.append(self.has_withdrawn, np.zeros(count, np.bool_))


def _firsts(slots: Slots) -> Slots:
    """The index of the first item of each slot, in sorted slots."""
    begins = np.empty(len(slots), np.bool_)
    begins[0] = True
    np.not_equal(slots[1:], slots[:-1], out=begins[1:])
    return np.flatnonzero(begins)


def _until_first(is_ordinary: Flags, first: Slots) -> Flags:
    """Which items come before the first that is not ordinary, in each group that begins at `first`."""
    odd_count = np.cumsum(~is_ordinary)
    before_group = odd_count[first] - ~is_ordinary[first]
    return odd_count == np.repeat(before_group, np.diff(first, append=len(is_ordinary)))

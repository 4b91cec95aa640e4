"""The newest eligible trades of a symbol: what a withdrawn trade gives its place to.

Every trade that moves a mark is kept, and hardly one is ever looked at again: they are packed rows in
`columns`. Whatever happens seldom takes the rows out as a list, changes the list and puts it back.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NamedTuple

from portfolio_realtime.market_data_consumer.messages import NO_TIME, TradeId
from portfolio_realtime.market_data_consumer.trade_columns import NO_ID, RECENT_MAX, RING_BYTES, ROW, Columns


class KnownTrade(NamedTuple):
    """An eligible trade: when, which, what. `trade_id`, `exchange` and `origin` are numbers for them."""

    as_of_ns: int
    trade_id: int
    exchange: int
    origin: int  # which feed, and whether a snapshot of it
    price: float

    def is_same(self, other: "KnownTrade") -> bool:
        """Is this the same execution, reported once more?"""
        return self[:3] == other[:3] and self.trade_id != NO_ID


NO_TRADE: Final = KnownTrade(NO_TIME, 0, 0, 0, 0.0)  # in a row that is still empty


@dataclass(slots=True, eq=False)
class RecentTrades:
    """At most RECENT_MAX trades of the symbol in this slot, in order of time."""

    columns: Columns
    slot: int

    def newest(self) -> KnownTrade | None:
        """The last one, or None."""
        row = ROW.unpack_from(self.columns.row_bytes, self._begin + (self._at - 1) % RECENT_MAX * ROW.size)
        return None if row[0] == NO_TIME else KnownTrade(*row)

    def trades(self) -> list[KnownTrade]:
        """All of them, the newest last."""
        rows = self.columns.row_bytes[self._begin : self._begin + RING_BYTES]
        at = self._at * ROW.size
        return [KnownTrade(*row) for row in ROW.iter_unpack(rows[at:] + rows[:at]) if row[0] != NO_TIME]

    def replace(self, trades: list[KnownTrade]) -> None:
        """Keep exactly these, at most RECENT_MAX in order of time."""
        rows = [*trades, *[NO_TRADE] * (RECENT_MAX - len(trades))]
        packed = b"".join(ROW.pack(*trade) for trade in rows)
        self.columns.row_bytes[self._begin : self._begin + RING_BYTES] = packed
        self.columns.at[self.slot] = len(trades) % RECENT_MAX

    @property
    def _begin(self) -> int:
        return self.slot * RING_BYTES

    @property
    def _at(self) -> int:
        return self.columns.at.item(self.slot)


def id_number(trade_id: TradeId) -> int:
    """A trade's id as 64 bits: Alpaca's are such numbers; of any other, a digest."""
    if trade_id is None:
        return NO_ID
    if isinstance(trade_id, int) and 0 <= trade_id < NO_ID:
        return trade_id
    return int.from_bytes(blake2b(str(trade_id).encode(), digest_size=8).digest()) % NO_ID

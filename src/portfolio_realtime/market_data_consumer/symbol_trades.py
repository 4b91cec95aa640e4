"""The newest eligible trades of a symbol: if one is withdrawn, the one before it values the symbol again.

Every trade that moves a mark is kept, and few are ever read again. They are packed rows in `columns`. Rare
operations unpack the rows into a list, change the list and pack it again.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NamedTuple

from portfolio_realtime.market_data_consumer.messages import NO_TIME, TradeId
from portfolio_realtime.market_data_consumer.trade_columns import NO_ID, RECENT_MAX, RING_BYTES, ROW, Columns


class KnownTrade(NamedTuple):
    """An eligible trade, in dollars. `trade_id`, `exchange` and `origin` are the feed's values as numbers."""

    as_of_ns: int
    trade_id: int
    exchange: int
    origin: int  # which feed, and whether a snapshot of it
    price: float

    def is_same(self, other: "KnownTrade") -> bool:
        """Whether both are the same execution, reported twice."""
        return self[:3] == other[:3] and self.trade_id != NO_ID


NO_TRADE: Final = KnownTrade(NO_TIME, 0, 0, 0, 0.0)  # fills an empty row


@dataclass(slots=True, eq=False)
class RecentTrades:
    """At most RECENT_MAX trades of the symbol in this slot, in order of time."""

    columns: Columns
    slot: int

    def newest(self) -> KnownTrade | None:
        """The newest trade, or None."""
        row = ROW.unpack_from(self.columns.row_bytes, self._begin + (self._at - 1) % RECENT_MAX * ROW.size)
        return None if row[0] == NO_TIME else KnownTrade(*row)

    def trades(self) -> list[KnownTrade]:
        """All trades, the newest last."""
        rows = self.columns.row_bytes[self._begin : self._begin + RING_BYTES]
        at = self._at * ROW.size
        return [KnownTrade(*row) for row in ROW.iter_unpack(rows[at:] + rows[:at]) if row[0] != NO_TIME]

    def replace(self, trades: list[KnownTrade]) -> None:
        """Keep exactly these trades: at most RECENT_MAX, in order of time."""
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
    """A trade's id as a 64-bit number: Alpaca's own number, or a digest of any other id."""
    if trade_id is None:
        return NO_ID
    if isinstance(trade_id, int) and 0 <= trade_id < NO_ID:
        return trade_id
    return int.from_bytes(blake2b(str(trade_id).encode(), digest_size=8).digest()) % NO_ID

"""The newest eligible trades of a symbol, packed: what a withdrawn trade gives its place to.

Every trade that moves a mark is kept here, and hardly one is ever looked at again. As objects, the trades of
thousands of symbols do not fit into a processor's cache, and each new trade waits for the memory of the one
that it drives out. So they are rows of bytes: a trade is added by one `ROW.pack_into`, which the mark price
policy writes out in its loop. Whatever happens seldom takes the rows out as a list, changes the list and
puts it back.
"""

from dataclasses import dataclass, field
from hashlib import blake2b
from struct import Struct
from typing import Final, NamedTuple

from portfolio_realtime.market.messages import NO_TIME, TradeId

RECENT_MAX: Final = 8  # eligible trades kept per symbol
EXCHANGES_MAX: Final = 1024  # that are told apart; the tape has a letter for each
NO_ID: Final = 2**64 - 1

KEY: Final = Struct("<qQH")  # the beginning of a row: time, id, exchange
ROW: Final = Struct("<qQHdB")
ROW_BYTES: Final = ROW.size
LAST_ROW: Final = ROW_BYTES * (RECENT_MAX - 1)

_EMPTY: Final = ROW.pack(NO_TIME, 0, 0, 0.0, 0) * RECENT_MAX


class KnownTrade(NamedTuple):
    """An eligible trade: when, which, what. `trade_id`, `exchange` and `origin` are numbers for them."""

    as_of_ns: int
    trade_id: int
    exchange: int
    price: float
    origin: int  # which feed, and whether a snapshot of it

    def is_same(self, other: "KnownTrade") -> bool:
        """Is this the same execution, reported once more?"""
        return self[:3] == other[:3] and self.trade_id != NO_ID


@dataclass(slots=True, eq=False)
class RecentTrades:
    """At most RECENT_MAX trades in order of time. `at` is where the next row goes, over the oldest."""

    rows: bytearray = field(default_factory=lambda: bytearray(_EMPTY))
    at: int = 0

    def newest(self) -> KnownTrade | None:
        """The last one, or None."""
        row = ROW.unpack_from(self.rows, self.at - ROW_BYTES if self.at else LAST_ROW)
        return None if row[0] == NO_TIME else KnownTrade(*row)

    def trades(self) -> list[KnownTrade]:
        """All of them, the newest last."""
        in_order = self.rows[self.at :] + self.rows[: self.at]
        return [KnownTrade(*row) for row in ROW.iter_unpack(in_order) if row[0] != NO_TIME]

    def replace(self, trades: list[KnownTrade]) -> None:
        """Keep exactly these, at most RECENT_MAX in order of time."""
        packed = b"".join(ROW.pack(*trade) for trade in trades)
        self.rows[:] = packed + _EMPTY[len(packed) :]
        self.at = len(packed) % len(_EMPTY)


def id_number(trade_id: TradeId) -> int:
    """A trade's id as 64 bits: Alpaca's are such numbers; of any other, a digest."""
    if trade_id is None:
        return NO_ID
    if isinstance(trade_id, int) and 0 <= trade_id < NO_ID:
        return trade_id
    return int.from_bytes(blake2b(str(trade_id).encode(), digest_size=8).digest()) % NO_ID

"""Alpaca's market-data messages, decoded to types. One odd item never costs the rest of its frame.

A frame is an array of messages. Nearly all frames hold only trades. `decode_trades` reads those: many trades
in columns (`msgpack_columns`), few in one typed pass. `decode_frame` reads all frames. Where typed decoding
fails (an unknown type, a field of another type), the items are decoded one by one, so that only the bad item
is lost. Only control messages and messages that can change a mark have a type here; the caller counts all
others. Field names on the wire are Alpaca's single letters. Sizes, quotes, bars and price bands of the stream
are not read.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, overload

import msgspec
import numpy as np

from portfolio_realtime.clock import NS_PER_S, parse_rfc3339
from portfolio_realtime.market_data_consumer.conditions import Conditions
from portfolio_realtime.market_data_consumer.msgpack_columns import (
    SECONDS_BITS,
    SECONDS_MASK,
    Packed,
    read_packed,
    timestamps_ns,
)

Moment = msgspec.msgpack.Ext | str | None  # MessagePack timestamp extension, or RFC 3339
RawMoment = msgspec.Raw  # the same, still encoded: it is decoded only where it is needed
TradeId = int | str | None

_NO_MOMENT: Final = msgspec.Raw()

MALFORMED: Final = "malformed"
TYPE_LENGTH_MAX: Final = 32  # of a type's name; Alpaca's longest has 12 characters
NO_TIME: Final = -1
VECTOR_MIN: Final = 24  # trades; fewer are faster one by one

_TIMESTAMP_CODE: Final = -1
_TIMESTAMP_64: Final = b"\xd7\xff"  # the first bytes of a 64-bit timestamp
_TIMESTAMP_64_TYPE: Final = np.dtype([("head", "S2"), ("packed", ">u8")])
_TIMESTAMP_32_BYTES: Final = 4
_TIMESTAMP_64_BYTES: Final = 8
_TIMESTAMP_96_BYTES: Final = 12


class StreamTrade(msgspec.Struct, tag_field="T", tag="t", gc=False):
    """One executed trade, in dollars. `trade_id` is unique per exchange, symbol and day; none for options."""

    symbol: str = msgspec.field(name="S")
    price: float | None = msgspec.field(name="p", default=None)
    at: RawMoment = msgspec.field(name="t", default=_NO_MOMENT)
    conditions: Conditions = msgspec.field(name="c", default=None)
    tape: str | None = msgspec.field(name="z", default=None)
    exchange: str | None = msgspec.field(name="x", default=None)
    trade_id: TradeId = msgspec.field(name="i", default=None)


class Correction(msgspec.Struct, tag_field="T", tag="c"):
    """The correction of an earlier trade: its id, and its right id, price and conditions."""

    symbol: str = msgspec.field(name="S")
    exchange: str | None = msgspec.field(name="x", default=None)
    original_id: TradeId = msgspec.field(name="oi", default=None)
    corrected_id: TradeId = msgspec.field(name="ci", default=None)
    price: float | None = msgspec.field(name="cp", default=None)
    conditions: Conditions = msgspec.field(name="cc", default=None)
    tape: str | None = msgspec.field(name="z", default=None)


class Cancel(msgspec.Struct, tag_field="T", tag="x"):
    """An earlier trade is cancelled, or was reported by mistake (error)."""

    symbol: str = msgspec.field(name="S")
    exchange: str | None = msgspec.field(name="x", default=None)
    trade_id: TradeId = msgspec.field(name="i", default=None)


class TradingStatus(msgspec.Struct, tag_field="T", tag="s"):
    """A halt or resumption of trading. Codes depend on the tape: CTA's on A and B, UTP's on C and O."""

    symbol: str = msgspec.field(name="S")
    code: str | None = msgspec.field(name="sc", default=None)
    at: Moment = msgspec.field(name="t", default=None)
    tape: str | None = msgspec.field(name="z", default=None)


class Success(msgspec.Struct, tag_field="T", tag="success"):
    """A control message: `connected` or `authenticated`."""

    text: str = msgspec.field(name="msg", default="")


class Refusal(msgspec.Struct, tag_field="T", tag="error"):
    """An error message of the feed. The codes are in `stream`."""

    code: int = 0
    text: str = msgspec.field(name="msg", default="")


class SubscriptionMessage(msgspec.Struct, tag_field="T", tag="subscription"):
    """All present subscriptions of this connection."""

    trades: list[Any] | None = None

    @property
    def symbols(self) -> frozenset[str] | None:
        """The symbols with subscribed trades, without items that are not text; None if it lists no trades."""
        return None if self.trades is None else frozenset(one for one in self.trades if isinstance(one, str))


Message = StreamTrade | Correction | Cancel | TradingStatus | Success | Refusal | SubscriptionMessage


class SnapshotTrade(msgspec.Struct):
    """The latest trade in a REST snapshot: a StreamTrade without its symbol."""

    price: float | None = msgspec.field(name="p", default=None)
    at: Moment = msgspec.field(name="t", default=None)
    conditions: Conditions = msgspec.field(name="c", default=None)
    tape: str | None = msgspec.field(name="z", default=None)
    exchange: str | None = msgspec.field(name="x", default=None)
    trade_id: TradeId = msgspec.field(name="i", default=None)


class DailyBar(msgspec.Struct):
    """A daily bar: the start of its day, and its last eligible price, in dollars."""

    at: str | None = msgspec.field(name="t", default=None)
    close: float | None = msgspec.field(name="c", default=None)


class Quote(msgspec.Struct):
    """The latest quote in a REST snapshot, in dollars. A side with price 0 is empty."""

    bid: float | None = msgspec.field(name="bp", default=None)
    ask: float | None = msgspec.field(name="ap", default=None)
    at: Moment = msgspec.field(name="t", default=None)


class Snapshot(msgspec.Struct):
    """A REST snapshot of one symbol. Every part may be missing."""

    latest_trade: SnapshotTrade | None = msgspec.field(name="latestTrade", default=None)
    daily_bar: DailyBar | None = msgspec.field(name="dailyBar", default=None)
    previous_daily_bar: DailyBar | None = msgspec.field(name="prevDailyBar", default=None)
    latest_quote: Quote | None = msgspec.field(name="latestQuote", default=None)


class _Tagged(msgspec.Struct):
    type: str = msgspec.field(name="T", default=MALFORMED)


class _Encoding(NamedTuple):
    trades: Callable[[bytes], list[StreamTrade]]
    frame: Callable[[bytes], list[Message]]
    items: Callable[[bytes], list[msgspec.Raw]]
    item: Callable[[msgspec.Raw], Message]
    tagged: Callable[[msgspec.Raw], _Tagged]


_TYPES: Final = ("t", "c", "x", "s", "success", "error", "subscription")
_PACKED: Final = _Encoding(
    msgspec.msgpack.Decoder(list[StreamTrade]).decode,
    msgspec.msgpack.Decoder(list[Message]).decode,
    msgspec.msgpack.Decoder(list[msgspec.Raw]).decode,
    msgspec.msgpack.Decoder[Message](Message).decode,
    msgspec.msgpack.Decoder(_Tagged).decode,
)
_JSON: Final = _Encoding(
    msgspec.json.Decoder(list[StreamTrade]).decode,
    msgspec.json.Decoder(list[Message]).decode,
    msgspec.json.Decoder(list[msgspec.Raw]).decode,
    msgspec.json.Decoder[Message](Message).decode,
    msgspec.json.Decoder(_Tagged).decode,
)


_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_decode_trade: Final = msgspec.msgpack.Decoder(StreamTrade).decode
_packed_moment: Final = msgspec.msgpack.Decoder[Moment](Moment).decode
_json_moment: Final = msgspec.json.Decoder(str).decode


class PackedTrades(Sequence[StreamTrade]):
    """The trades of a long frame in columns. An item is decoded to an object when it is read."""

    def __init__(self, frame: bytes, packed: Packed) -> None:
        self.packed = packed
        self._frame = memoryview(frame)

    def __len__(self) -> int:
        return len(self.packed.bounds) - 1

    @overload
    def __getitem__(self, index: int) -> StreamTrade: ...
    @overload
    def __getitem__(self, index: slice) -> list[StreamTrade]: ...
    def __getitem__(self, index: int | slice) -> StreamTrade | list[StreamTrade]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        return _decode_trade(self._frame[self.packed.bounds[at] : self.packed.bounds[at + 1]])


def decode_trades(frame: bytes | str) -> Sequence[StreamTrade] | None:
    """The trades of a frame that holds only trades; None if `decode_frame` has to read it."""
    if isinstance(frame, bytes) and (packed := read_packed(frame)) is not None:
        return PackedTrades(frame, packed)
    encoding, encoded = _encoding_of(frame)
    try:
        return encoding.trades(encoded)
    except _UNREADABLE:
        return None


def decode_frame(frame: bytes | str) -> tuple[list[Message], list[str]]:
    """The messages of one frame, and the types of the messages that are not read.

    Bytes are MessagePack, text is JSON. Never raises: an item that is not a message, or that has a field of
    the wrong type, counts as MALFORMED.
    """
    encoding, encoded = _encoding_of(frame)
    try:
        return encoding.frame(encoded), []
    except _UNREADABLE:
        return _decode_items(encoding, encoded)


def _encoding_of(frame: bytes | str) -> tuple[_Encoding, bytes]:
    return (_JSON, frame.encode()) if isinstance(frame, str) else (_PACKED, frame)


def _decode_items(encoding: _Encoding, frame: bytes) -> tuple[list[Message], list[str]]:
    messages: list[Message] = []
    skipped: list[str] = []
    try:
        items = encoding.items(frame)
    except _UNREADABLE:
        return [], [MALFORMED]
    for item in items:
        try:
            messages.append(encoding.item(item))
        except _UNREADABLE:
            skipped.append(_type_of(encoding, item))
    return messages, skipped


def _type_of(encoding: _Encoding, item: msgspec.Raw) -> str:
    try:
        name = encoding.tagged(item).type
    except _UNREADABLE:
        return MALFORMED
    return MALFORMED if name in _TYPES or len(name) > TYPE_LENGTH_MAX else name


def as_of_ns(at: Moment | RawMoment) -> int | None:
    """The time of a message in nanoseconds since 1970, or None if it has none that can be read."""
    if isinstance(at, msgspec.Raw):
        at = _moment(bytes(at))
    if isinstance(at, msgspec.msgpack.Ext):
        return _timestamp_ns(bytes(at.data)) if at.code == _TIMESTAMP_CODE else None
    try:
        return None if at is None else parse_rfc3339(at)
    except ValueError:
        return None


def times_ns(trades: Sequence[StreamTrade]) -> list[int]:
    """`as_of_ns` of many trades, with NO_TIME for None. NumPy decodes 64-bit timestamps all at once."""
    if len(trades) >= VECTOR_MIN:
        joined = b"".join([trade.at for trade in trades])
        if len(joined) == _TIMESTAMP_64_TYPE.itemsize * len(trades):
            moments = np.frombuffer(joined, _TIMESTAMP_64_TYPE)
            # If all heads match, each time has the length of a 64-bit timestamp.
            if (moments["head"] == _TIMESTAMP_64).all():
                return timestamps_ns(moments["packed"].astype(np.uint64)).tolist()
    return [NO_TIME if (at_ns := as_of_ns(trade.at)) is None else at_ns for trade in trades]


def _moment(raw: bytes) -> Moment:
    """The decoded time. JSON text begins with a quotation mark, which in MessagePack would be a number."""
    try:
        return _json_moment(raw) if raw[:1] == b'"' else _packed_moment(raw)
    except _UNREADABLE:
        return None


def _timestamp_ns(packed: bytes) -> int | None:
    if len(packed) == _TIMESTAMP_64_BYTES:
        both = int.from_bytes(packed, "big")
        return (both & SECONDS_MASK) * NS_PER_S + (both >> SECONDS_BITS)
    if len(packed) == _TIMESTAMP_32_BYTES:
        return int.from_bytes(packed, "big") * NS_PER_S
    if len(packed) == _TIMESTAMP_96_BYTES:
        seconds = int.from_bytes(packed[4:], "big", signed=True)
        return seconds * NS_PER_S + int.from_bytes(packed[:4], "big")
    return None

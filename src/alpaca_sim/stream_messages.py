"""Market-data stream messages in both encodings, each encoded once and framed into batches without
decoding.
"""

import struct
from collections.abc import Sequence
from enum import Enum
from typing import Any

import msgspec

from alpaca_sim.clock import SECOND_NS, rfc3339
from alpaca_sim.market import MarketSymbol, Trade
from alpaca_sim.market_json import bar_fields, quote_fields, trade_fields

TIMESTAMP_EXTENSION = -1


class Encoding(Enum):
    """How a connection talks, chosen by the Content-Type of its handshake."""

    JSON = "json"
    MSGPACK = "msgpack"


def encode_message(kind: str, symbol: str, fields: dict[str, Any], at_ns: int, encoding: Encoding) -> bytes:
    """One data message; `T` is the first key and the time is a string or a MessagePack Timestamp."""
    time = rfc3339(at_ns) if encoding is Encoding.JSON else timestamp(at_ns)
    return encode({"T": kind, "S": symbol, **fields, "t": time}, encoding)


def timestamp(at_ns: int) -> msgspec.msgpack.Ext:
    """MessagePack Timestamp 64: nanoseconds in 30 bits, seconds in 34."""
    second, fraction_ns = divmod(at_ns, SECOND_NS)
    return msgspec.msgpack.Ext(TIMESTAMP_EXTENSION, struct.pack(">Q", fraction_ns << 34 | second))


def encode(value: object, encoding: Encoding) -> bytes:
    """Any value in one of both encodings."""
    return msgspec.json.encode(value) if encoding is Encoding.JSON else msgspec.msgpack.encode(value)


def encode_trade(trade: Trade, encoding: Encoding) -> bytes:
    """A `t` message."""
    return encode_message("t", trade.symbol, trade_fields(trade), trade.at_ns, encoding)


def encode_quote(state: MarketSymbol, at_ns: int, encoding: Encoding) -> bytes:
    """A `q` message."""
    return encode_message("q", state.listing.symbol, quote_fields(state), at_ns, encoding)


def encode_bar(state: MarketSymbol, encoding: Encoding) -> bytes:
    """A `b` message with the symbol's minute bar."""
    bar = state.minute_bar
    fields = bar_fields(bar, state.listing.asset_class)
    return encode_message("b", state.listing.symbol, fields, bar.start_ns, encoding)


def frame(messages: Sequence[bytes], encoding: Encoding) -> bytes:
    """An array of already encoded messages."""
    if encoding is Encoding.JSON:
        return b"[" + b",".join(messages) + b"]"
    count = len(messages)
    if count < 16:
        header = bytes([0x90 | count])
    elif count < 1 << 16:
        header = struct.pack(">BH", 0xDC, count)
    else:
        header = struct.pack(">BI", 0xDD, count)
    return header + b"".join(messages)

"""Market-data stream messages in JSON and MessagePack. A frame is an array of messages already encoded."""

import struct
from collections.abc import Sequence
from enum import Enum
from typing import Any

import msgspec

from alpaca_sim.core.clock import SECOND_NS, rfc3339
from alpaca_sim.core.market import Amendment, MarketSymbol, Trade
from alpaca_sim.streams.market_json import bar_fields, number, quote_fields, trade_fields

TIMESTAMP_EXTENSION = -1
BAND_RATIO = 0.05
# Status code and message, reason code and message, for halted and resumed. CTA: tapes A and B; UTP: tape C.
CTA_STATUS = (("2", "Trading Halt", "D", "News Released"), ("3", "Resume", "D", "News Released"))
UTP_STATUS = (
    ("H", "Trading Halt", "T12", "Trading Halted; For information requested by NASDAQ"),
    ("T", "Trading Resumption", "T12", "Trading Halted; For information requested by NASDAQ"),
)


class Encoding(Enum):
    """The encoding of a connection, chosen by the Content-Type of its handshake."""

    JSON = "json"
    MSGPACK = "msgpack"


def encode_message(kind: str, symbol: str, fields: dict[str, Any], at_ns: int, encoding: Encoding) -> bytes:
    """One data message. `T` is its first key; `t` is an RFC 3339 string or a MessagePack Timestamp."""
    time = rfc3339(at_ns) if encoding is Encoding.JSON else timestamp(at_ns)
    return encode({"T": kind, "S": symbol, **fields, "t": time}, encoding)


def timestamp(at_ns: int) -> msgspec.msgpack.Ext:
    """A MessagePack Timestamp 64: nanoseconds in 30 bits, seconds in 34 (MessagePack specification)."""
    second, fraction_ns = divmod(at_ns, SECOND_NS)
    return msgspec.msgpack.Ext(TIMESTAMP_EXTENSION, struct.pack(">Q", fraction_ns << 34 | second))


def encode(value: object, encoding: Encoding) -> bytes:
    """Any value as JSON or MessagePack."""
    return msgspec.json.encode(value) if encoding is Encoding.JSON else msgspec.msgpack.encode(value)


def encode_trade(trade: Trade, encoding: Encoding) -> bytes:
    """A `t` message: a trade."""
    return encode_message("t", trade.symbol, trade_fields(trade), trade.at_ns, encoding)


def encode_quote(state: MarketSymbol, at_ns: int, encoding: Encoding) -> bytes:
    """A `q` message: a quote around the symbol's mark."""
    return encode_message("q", state.listing.symbol, quote_fields(state), at_ns, encoding)


def encode_bar(state: MarketSymbol, encoding: Encoding) -> bytes:
    """A `b` message with the symbol's minute bar."""
    bar = state.minute_bar
    fields = bar_fields(bar, state.listing.asset_class)
    return encode_message("b", state.listing.symbol, fields, bar.start_ns, encoding)


def encode_amendment(amendment: Amendment, encoding: Encoding) -> bytes:
    """A `c` message (correction) or an `x` message (cancel) of a stock trade."""
    original, corrected = amendment.original, amendment.corrected
    old, size = number(original.price), int(original.size)
    if corrected is None:
        fields: dict[str, Any] = {
            "i": original.trade_id, "x": original.exchange, "p": old, "s": size, "a": "C", "z": original.tape,
        }  # fmt: skip
        return encode_message("x", original.symbol, fields, amendment.at_ns, encoding)
    fields = {
        "x": original.exchange,
        "oi": original.trade_id, "op": old, "os": size, "oc": list(original.conditions),
        "ci": corrected.trade_id, "cp": number(corrected.price), "cs": size, "cc": list(corrected.conditions),
        "z": original.tape,
    }  # fmt: skip
    return encode_message("c", original.symbol, fields, amendment.at_ns, encoding)


def encode_status(state: MarketSymbol, at_ns: int, encoding: Encoding) -> bytes:
    """An `s` message: the symbol is halted or resumed."""
    tape = state.listing.tape
    code, text, reason, reason_text = (UTP_STATUS if tape == "C" else CTA_STATUS)[not state.is_halted]
    fields = {"sc": code, "sm": text, "rc": reason, "rm": reason_text, "z": tape}
    return encode_message("s", state.listing.symbol, fields, at_ns, encoding)


def encode_band(state: MarketSymbol, at_ns: int, encoding: Encoding) -> bytes:
    """An `l` message: the limit-up limit-down price band, BAND_RATIO around the mark."""
    mark = number(state.mark)
    up, down = round(mark * (1 + BAND_RATIO), 2), round(mark * (1 - BAND_RATIO), 2)
    return encode_message(
        "l", state.listing.symbol, {"u": up, "d": down, "i": "B", "z": state.listing.tape}, at_ns, encoding
    )


def encode_unknown(trade: Trade, encoding: Encoding) -> bytes:
    """A message that Alpaca may add one day: an unknown type, with a trade's keys and an unknown one."""
    return encode_message(
        "zz", trade.symbol, {**trade_fields(trade), "added": {"later": [1, None]}}, trade.at_ns, encoding
    )


def frame(messages: Sequence[bytes], encoding: Encoding) -> bytes:
    """One array of encoded messages."""
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

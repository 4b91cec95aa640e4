"""Marks: one hash with the newest mark of each symbol, one channel with a conflated batch per flush.

For a symbol without a price, the hash and the channel say so. This differs from a symbol without an entry,
for which no price has been looked for yet.
"""

from collections.abc import AsyncIterator, Awaitable
from typing import Final, cast

import msgspec

from portfolio_realtime.model import Mark, Unmarked
from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection, Message, Subscribed, reports_unavailable
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.state.unreadable import readable

READ_FIELDS_MAX: Final = 2000

_encode = msgspec.json.Encoder().encode
_mark = msgspec.json.Decoder(Mark)
_marks = msgspec.json.Decoder(list[Mark])
_unmarked = msgspec.json.Decoder(Unmarked)
_unmarked_symbols = msgspec.json.Decoder(dict[str, list[str]])
_SOUGHT: Final = b'"sought_ns"'  # only an Unmarked has this field
_UNMARKED: Final = "unmarked"


class TracedMark(msgspec.Struct, frozen=True):
    """A mark with a trace. Its announcement carries the trace context beside the mark."""

    symbol: str
    received_ns: int  # of the mark: shows whether it is still the same mark
    traceparent: str = ""


_traced_marks = msgspec.json.Decoder(list[TracedMark])


class Marks:
    """The hash and channel `{marks}`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def write(self, lease: Lease, marks: list[Mark], traced: TracedMark | None = None) -> None:
        """Write one conflated batch and announce it as one message, with the trace context of `traced`.

        Raises LeaseLost, StateUnavailable.
        """
        encoded = [(mark.symbol, _encode(mark)) for mark in marks]
        told = (
            encoded
            if traced is None
            else [(symbol, _told(symbol, value, traced)) for symbol, value in encoded]
        )
        announcement = b"[" + b",".join(value for _, value in told) + b"]"
        await self._connection.fenced_write(
            keys.fence(f"{keys.marks()}:{lease.name}"),
            keys.marks(),
            lease.fencing_token,
            encoded,
            [],
            (keys.marks(), announcement),
        )

    async def write_unmarked(self, lease: Lease, unmarked: list[Unmarked]) -> None:
        """Write and announce that these symbols have no price. Raises LeaseLost, StateUnavailable."""
        await self._connection.fenced_write(
            keys.fence(f"{keys.marks()}:{lease.name}"),
            keys.marks(),
            lease.fencing_token,
            [(one.symbol, _encode(one)) for one in unmarked],
            [],
            (keys.marks(), _encode({_UNMARKED: [one.symbol for one in unmarked]})),
        )

    async def remove(self, lease: Lease, symbols: list[str]) -> None:
        """Remove the marks of symbols that no account holds any more, without an announcement.

        Raises LeaseLost, StateUnavailable.
        """
        fence = keys.fence(f"{keys.marks()}:{lease.name}")
        for at in range(0, len(symbols), READ_FIELDS_MAX):
            part = symbols[at : at + READ_FIELDS_MAX]
            await self._connection.fenced_write(fence, keys.marks(), lease.fencing_token, [], part, None)

    async def read_all(self) -> list[Mark]:
        """The newest mark of every symbol. Raises StateUnavailable."""
        return (await self.read_whole())[0]

    @reports_unavailable
    async def read_whole(self) -> tuple[list[Mark], list[Unmarked]]:
        """All newest marks, and all symbols for which no price was found. Raises StateUnavailable."""
        found = await cast("Awaitable[list[bytes]]", self._connection.commands.hvals(keys.marks()))
        marks = (readable(_mark.decode, raw, keys.marks()) for raw in found if _SOUGHT not in raw)
        unmarked = (readable(_unmarked.decode, raw, keys.marks()) for raw in found if _SOUGHT in raw)
        return [one for one in marks if one is not None], [one for one in unmarked if one is not None]

    async def read(self, symbols: list[str]) -> dict[str, Mark]:
        """Symbol -> newest mark, without symbols that have none. Raises StateUnavailable."""
        return (await self.look_up(symbols))[0]

    @reports_unavailable
    async def look_up(self, symbols: list[str]) -> tuple[dict[str, Mark], set[str]]:
        """As `read`, and those of the symbols for which no price was found. Raises StateUnavailable."""
        marks: dict[str, Mark] = {}
        unmarked: set[str] = set()
        for at in range(0, len(symbols), READ_FIELDS_MAX):
            part = symbols[at : at + READ_FIELDS_MAX]
            found = await cast(
                "Awaitable[list[bytes | None]]", self._connection.commands.hmget(keys.marks(), part)
            )
            there = [(symbol, raw) for symbol, raw in zip(part, found, strict=True) if raw is not None]
            unmarked.update(symbol for symbol, raw in there if _SOUGHT in raw)
            decoded = (readable(_mark.decode, raw, keys.marks()) for _, raw in there if _SOUGHT not in raw)
            marks.update((mark.symbol, mark) for mark in decoded if mark is not None)
        return marks, unmarked

    def batches(self) -> AsyncIterator[Message | Subscribed]:
        """Batches of marks; decode each with `decode_marks`."""
        return self._connection.follow(keys.marks())


def decode_marks(payload: bytes) -> list[Mark]:
    """The marks of an announced batch; empty if it is unreadable, or announces symbols without a price."""
    if payload[:1] == b"{":
        return []
    return readable(_marks.decode, payload, keys.marks()) or []


def decode_unmarked(payload: bytes) -> list[str]:
    """The symbols that an announcement reports as having no price."""
    if payload[:1] != b"{":
        return []
    return (readable(_unmarked_symbols.decode, payload, keys.marks()) or {}).get(_UNMARKED, [])


def decode_traced(payload: bytes) -> TracedMark | None:
    """The traced mark of an announced batch, or None."""
    if b'"traceparent"' not in payload:
        return None
    marks = readable(_traced_marks.decode, payload, keys.marks()) or []
    return next((mark for mark in marks if mark.traceparent), None)


def _told(symbol: str, value: bytes, traced: TracedMark) -> bytes:
    """A mark's JSON as it is announced. Readers that do not trace ignore the added field."""
    if symbol != traced.symbol:
        return value
    return value[:-1] + b',"traceparent":' + _encode(traced.traceparent) + b"}"

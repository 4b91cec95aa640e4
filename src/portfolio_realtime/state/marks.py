"""Marks: one hash with the newest of each symbol, one channel with a conflated batch per flush."""

from collections.abc import AsyncIterator, Awaitable
from typing import Final, cast

import msgspec

from portfolio_realtime.model import Mark
from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection, Message, Subscribed, reports_unavailable
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.state.unreadable import readable

READ_FIELDS_MAX: Final = 2000

_encode = msgspec.json.Encoder().encode
_mark = msgspec.json.Decoder(Mark)
_marks = msgspec.json.Decoder(list[Mark])


class TracedMark(msgspec.Struct, frozen=True):
    """A mark that is followed through the services, as its announcement says beside the mark itself."""

    symbol: str
    received_ns: int  # of the mark: tells whether it is still this one
    traceparent: str = ""


_traced_marks = msgspec.json.Decoder(list[TracedMark])


class Marks:
    """The hash and channel `marks`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def write(self, lease: Lease, marks: list[Mark], traced: TracedMark | None = None) -> None:
        """Write one conflated batch and announce it as one message; `traced` goes along.

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

    async def remove(self, lease: Lease, symbols: list[str]) -> None:
        """Forget the marks of symbols that nobody holds any more; nobody is told.

        Raises LeaseLost, StateUnavailable.
        """
        fence = keys.fence(f"{keys.marks()}:{lease.name}")
        for at in range(0, len(symbols), READ_FIELDS_MAX):
            part = symbols[at : at + READ_FIELDS_MAX]
            await self._connection.fenced_write(fence, keys.marks(), lease.fencing_token, [], part, None)

    @reports_unavailable
    async def read_all(self) -> list[Mark]:
        """The newest mark of every symbol."""
        found = await cast("Awaitable[list[bytes]]", self._connection.commands.hvals(keys.marks()))
        marks = (readable(_mark.decode, raw, keys.marks()) for raw in found)
        return [mark for mark in marks if mark is not None]

    @reports_unavailable
    async def read(self, symbols: list[str]) -> dict[str, Mark]:
        """The newest marks of these symbols, without those that have none. Raises StateUnavailable."""
        marks: dict[str, Mark] = {}
        for at in range(0, len(symbols), READ_FIELDS_MAX):
            part = symbols[at : at + READ_FIELDS_MAX]
            found = await cast(
                "Awaitable[list[bytes | None]]", self._connection.commands.hmget(keys.marks(), part)
            )
            decoded = (readable(_mark.decode, raw, keys.marks()) for raw in found if raw is not None)
            marks.update((mark.symbol, mark) for mark in decoded if mark is not None)
        return marks

    def batches(self) -> AsyncIterator[Message | Subscribed]:
        """Batches of marks; decode each with `decode_marks`."""
        return self._connection.follow(keys.marks())


def decode_marks(payload: bytes) -> list[Mark]:
    """The marks of one announced batch; none where it cannot be read."""
    return readable(_marks.decode, payload, keys.marks()) or []


def decode_traced(payload: bytes) -> TracedMark | None:
    """The mark of one announced batch that is followed, if any."""
    if b'"traceparent"' not in payload:
        return None
    marks = readable(_traced_marks.decode, payload, keys.marks()) or []
    return next((mark for mark in marks if mark.traceparent), None)


def _told(symbol: str, value: bytes, traced: TracedMark) -> bytes:
    """A mark's JSON as it is announced: whoever does not trace reads past the name that is added."""
    if symbol != traced.symbol:
        return value
    return value[:-1] + b',"traceparent":' + _encode(traced.traceparent) + b"}"

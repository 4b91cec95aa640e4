"""Marks: one hash with the newest of each symbol, one channel with a conflated batch per flush.

Where a symbol was looked for in vain, the hash says so instead, and the channel, too: that is another answer
than a symbol that is not there, for which nobody has looked yet.
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
_SOUGHT: Final = b'"sought_ns"'  # only in what says that there is no mark
_UNMARKED: Final = "unmarked"


class TracedMark(msgspec.Struct, frozen=True):
    """A mark that is followed through the services, as its announcement says beside the mark itself."""

    symbol: str
    received_ns: int  # of the mark: tells whether it is still this one
    traceparent: str = ""


_traced_marks = msgspec.json.Decoder(list[TracedMark])


class Marks:
    """The hash and channel `{marks}`."""

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
        """Forget the marks of symbols that nobody holds any more; nobody is told.

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
        """The newest mark of every symbol, and which have none as far as was looked for."""
        found = await cast("Awaitable[list[bytes]]", self._connection.commands.hvals(keys.marks()))
        marks = (readable(_mark.decode, raw, keys.marks()) for raw in found if _SOUGHT not in raw)
        unmarked = (readable(_unmarked.decode, raw, keys.marks()) for raw in found if _SOUGHT in raw)
        return [one for one in marks if one is not None], [one for one in unmarked if one is not None]

    async def read(self, symbols: list[str]) -> dict[str, Mark]:
        """The newest marks of these symbols, without those that have none. Raises StateUnavailable."""
        return (await self.look_up(symbols))[0]

    @reports_unavailable
    async def look_up(self, symbols: list[str]) -> tuple[dict[str, Mark], set[str]]:
        """The same, and for which of them somebody has looked in vain. Raises StateUnavailable."""
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
    """The marks of one announced batch; none where it cannot be read, or says that there are none."""
    if payload[:1] == b"{":
        return []
    return readable(_marks.decode, payload, keys.marks()) or []


def decode_unmarked(payload: bytes) -> list[str]:
    """The symbols of which an announcement says that they have no price."""
    if payload[:1] != b"{":
        return []
    return (readable(_unmarked_symbols.decode, payload, keys.marks()) or {}).get(_UNMARKED, [])


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

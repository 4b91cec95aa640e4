"""Marks: one hash with the newest mark of each symbol, one channel with a conflated batch per flush.

On one server a flush is a transaction under the watched fence of its feed, else a call of a script. Every
calculator receives every batch. It is packed in columns: 32 bytes per mark instead of 185 as JSON.

For a symbol without a price, the hash and the channel say so. This differs from a symbol without an entry,
for which no price has been looked for yet.
"""

from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Final, NamedTuple, cast

import msgspec

from portfolio_realtime.errors import LeaseLost
from portfolio_realtime.model import Mark, Unmarked
from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import (
    WRITE_FIELDS_MAX,
    Connection,
    Message,
    Subscribed,
    reports_unavailable,
)
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.state.unreadable import readable

READ_FIELDS_MAX: Final = 2000

_encode = msgspec.json.Encoder().encode
_mark = msgspec.json.Decoder(Mark)
_unmarked = msgspec.json.Decoder(Unmarked)
_SOUGHT: Final = b'"sought_ns"'  # only an Unmarked has this field


class TracedMark(msgspec.Struct, frozen=True, array_like=True):
    """A mark with a trace. Its announcement carries the trace context beside the marks."""

    symbol: str
    version: int  # of the mark: shows whether it is still the same mark
    traceparent: str


class _Columns(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The announced form of a batch, column by column.

    Values that many marks share are sent once. Versions and times are differences, which take fewer bytes.
    """

    newest_version: int
    newest_ns: int  # when the newest of them was traded
    symbols: list[str]
    prices: list[float]
    versions_before: list[int]  # how far below `newest_version`
    before_newest_ns: list[int]  # from `as_of_ns` to `newest_ns`
    previous_closes: list[float | None]
    kinds: list[int]  # places in `shared`
    shared: list[tuple[str, str, str | None]]  # source, quality, previous_close_date
    unmarked: list[str]  # symbols without a price
    traced: TracedMark | None = None
    woken: list[str] = []  # see `MarkBatch`


_pack = msgspec.msgpack.Encoder().encode
_columns = msgspec.msgpack.Decoder(_Columns)


class MarkBatch(NamedTuple):
    """The content of one announcement."""

    marks: list[Mark]
    unmarked: list[str]  # symbols without a price
    traced: TracedMark | None = None  # the one mark that has a trace, if any
    woken: Sequence[str] = ()  # sources that were idle: from here on none of their marks is behind


NO_BATCH: Final = MarkBatch([], [])


class Marks:
    """The hash and channel `{marks}`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._watched = connection.watched_keys()
        self._fences = set[str]()  # of the feeds that we have written

    async def write(
        self,
        lease: Lease,
        marks: list[Mark],
        traced: TracedMark | None = None,
        woken: Sequence[str] = (),
    ) -> None:
        """Write one conflated batch and announce it as one message, with the trace context of `traced`.

        `woken`: sources that were idle, all of whose marks are written now. Raises LeaseLost,
        StateUnavailable.
        """
        changed = [(mark.symbol, _encode(mark)) for mark in marks]
        message = encode_marks(marks, [], traced, woken)
        if await self._transact(lease, changed, message):
            return
        fence, announce = _fence(lease), (keys.marks(), message)
        try:
            await self._connection.fenced_write(
                fence, keys.marks(), lease.fencing_token, changed, [], announce
            )
        except LeaseLost:
            self._fences.discard(fence)
            raise
        self._fences.add(fence)
        await self._watch()

    @reports_unavailable
    async def _transact(self, lease: Lease, changed: Sequence[tuple[str, bytes]], message: bytes) -> bool:
        """Write a batch as one transaction; False: the script is to do it, or to tell that it is refused."""
        if not 0 < len(changed) <= WRITE_FIELDS_MAX:
            return False
        word = await self._connection.word()
        fields = [part for pair in changed for part in pair]
        commands = [("HSET", keys.marks(), *fields), (word, keys.marks(), message)]
        expected = {_fence(lease): b"%d" % lease.fencing_token}
        return await self._watched.transact(expected, commands, tuple(self._fences)) is not None

    @reports_unavailable
    async def _watch(self) -> None:
        await self._watched.watch(tuple(self._fences))

    async def write_unmarked(self, lease: Lease, unmarked: list[Unmarked]) -> None:
        """Write and announce that these symbols have no price. Raises LeaseLost, StateUnavailable."""
        await self._connection.fenced_write(
            _fence(lease),
            keys.marks(),
            lease.fencing_token,
            [(one.symbol, _encode(one)) for one in unmarked],
            [],
            (keys.marks(), encode_marks([], [one.symbol for one in unmarked])),
        )

    async def remove(self, lease: Lease, symbols: list[str]) -> None:
        """Remove the marks of symbols that no account holds any more, without an announcement.

        Raises LeaseLost, StateUnavailable.
        """
        fence = _fence(lease)
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


def _fence(lease: Lease) -> str:
    return keys.fence(f"{keys.marks()}:{lease.name}")


def encode_marks(
    marks: Sequence[Mark],
    unmarked: list[str],
    traced: TracedMark | None = None,
    woken: Sequence[str] = (),
) -> bytes:
    """The announcement of a batch."""
    newest_version = max((mark.version for mark in marks), default=0)
    newest_ns = max((mark.as_of_ns for mark in marks), default=0)
    place_of: dict[tuple[str, str, str | None], int] = {}
    kinds = [
        place_of.setdefault((mark.source, mark.quality, mark.previous_close_date), len(place_of))
        for mark in marks
    ]
    columns = _Columns(
        newest_version,
        newest_ns,
        [mark.symbol for mark in marks],
        [mark.price for mark in marks],
        [newest_version - mark.version for mark in marks],
        [newest_ns - mark.as_of_ns for mark in marks],
        [mark.previous_close for mark in marks],
        kinds,
        list(place_of),
        unmarked,
        traced,
        list(woken),
    )
    return _pack(columns)


def decode_marks(payload: bytes) -> MarkBatch:
    """The content of an announcement; `NO_BATCH` if it is unreadable."""
    return readable(_decode_marks, payload, keys.marks()) or NO_BATCH


def _decode_marks(payload: bytes) -> MarkBatch:
    """Raises MsgspecError."""
    columns = _columns.decode(payload)
    newest_version, newest_ns, shared = columns.newest_version, columns.newest_ns, columns.shared
    rows = zip(
        columns.symbols,
        columns.prices,
        columns.versions_before,
        columns.before_newest_ns,
        columns.previous_closes,
        columns.kinds,
        strict=True,
    )
    try:
        marks = [
            Mark(
                symbol,
                price,
                newest_ns - before_ns,
                newest_version - versions_before,
                source,
                close,
                date,
                quality,
            )
            for symbol, price, versions_before, before_ns, close, kind in rows
            for source, quality, date in (shared[kind],)
        ]
    except (IndexError, ValueError) as error:
        raise msgspec.ValidationError(f"columns do not match: {error}") from error
    return MarkBatch(marks, columns.unmarked, columns.traced, columns.woken)

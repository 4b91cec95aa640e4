"""Fan-out: which accounts are watched, by whom, and the newest publication of each. No socket, no clock.

A connection keeps no publication of its own. It notes that an account has a newer one and, when it can send,
gets the newest. This is the conflation, and a slow client costs no more memory than a fast one.

Nearly all connections have nothing pending when a publication arrives. Their frames are collected first and
then written in one loop. No other work runs between two system calls, so they do not displace each other's
data in the processor's caches. This halves the cost of a message. For the same reason the usual case, an
account with exactly one direct client, is handled in columns for a whole batch, without touching any account
or client object.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Final, NamedTuple

import msgspec
import numpy as np

from portfolio_realtime.model import Counted, PositionRows, PublicationBatch
from portfolio_realtime.websocket_server.fanout.freshness import Lapse
from portfolio_realtime.websocket_server.fanout.newest_columns import (
    NO_SOCKET,
    NOBODY,
    NewestColumns,
    Numbers,
    Slots,
    StreamPosition,
)
from portfolio_realtime.websocket_server.fanout.watched_account import (
    POSITIONS_KEY,
    Subscriber,
    WatchedAccount,
)
from portfolio_realtime.wire.frames import text_frame

COLUMNS_MIN: Final = 8  # publications; fewer cost less one by one than the fixed cost of the columns

SendAll = Callable[[Sequence[int], Sequence[bytes]], int]
"""Writes each frame to its socket (a file descriptor); handles what it does not take. Returns all bytes."""


class Gathered:
    """Publications of several shards that are handed on together, in columns."""

    def __init__(self) -> None:
        self.account_ids: list[str] = []
        self.epochs: list[int] = []
        self.sequences: list[int] = []
        self.frames: list[bytes] = []
        self.rows: dict[int, PositionRows] = {}

    def __len__(self) -> int:
        return len(self.frames)

    def add(self, batch: PublicationBatch, first: int = 0, last: int | None = None) -> None:
        """Add the publications of a batch from `first` to before `last`."""
        begin, part = len(self), slice(first, last)
        self.account_ids += batch.account_ids[part]
        self.sequences += batch.sequences[part]
        self.frames += batch.frames[part]
        self.epochs += repeat(batch.epoch, len(self) - begin)
        for place, rows in batch.rows.items():
            if first <= place < first + len(self) - begin:
                self.rows[begin + place - first] = rows

    def positions(self, places: Slots) -> tuple[Numbers, Numbers]:
        """Epochs and sequences of the publications at these places."""
        count = len(self)
        epochs, sequences = (np.fromiter(part, np.int64, count) for part in (self.epochs, self.sequences))
        return epochs[places], sequences[places]


class _Burst:
    """What is to be sent after some publications were applied."""

    __slots__ = ("_lone_filenos", "_lone_frames", "_outgoing", "conflated", "frames", "offered", "taken")

    def __init__(self, filenos: list[int], frames: list[bytes]) -> None:
        """Begin with these frames and their sockets, each of which occurs once."""
        self.offered: dict[str, WatchedAccount] = {}
        self.conflated = 0  # publications that were replaced by a newer one of the same burst
        self.frames = self.taken = len(frames)
        self._lone_filenos, self._lone_frames = filenos, frames
        self._outgoing: dict[int, list[bytes]] | None = None

    def collect(
        self, account: WatchedAccount, at: StreamPosition, frame: bytes, rows: PositionRows | None
    ) -> None:
        """Apply a publication, and note its receivers."""
        before = account.at
        if not account.apply_publication(at, frame, rows):
            return
        self.taken += 1
        if account.has_indirect:
            if account.account_id in self.offered:
                self.conflated += len(account.subscribers) - len(account.direct)
            self.offered[account.account_id] = account
        if before is not None and before >= at:
            return
        self.frames += len(account.direct)
        for fileno in account.direct.values():
            self._add(fileno, frame)

    def _add(self, fileno: int, frame: bytes) -> None:
        """Collect one write per socket: a second write could overtake the rest of the first."""
        if self._outgoing is None:
            lone = zip(self._lone_filenos, self._lone_frames, strict=True)
            self._outgoing = {fileno: [frame] for fileno, frame in lone}
        self._outgoing.setdefault(fileno, []).append(frame)

    @property
    def outgoing(self) -> tuple[Sequence[int], Sequence[bytes]]:
        """The sockets, each once, and the bytes for each."""
        if self._outgoing is None:
            return self._lone_filenos, self._lone_frames
        return tuple(self._outgoing), tuple(map(b"".join, self._outgoing.values()))


class Hub:
    """All watched accounts of one server."""

    def __init__(self, send_all: SendAll) -> None:
        self.accounts: dict[str, WatchedAccount] = {}
        self.sent = self.sent_bytes = 0  # written by `send_all`
        self.conflated = 0  # not sent, because a newer one was handed on with it
        self._send_all = send_all
        self._columns = NewestColumns()
        self._slots: dict[str, int] = {}  # watched account -> slot

    def subscribe(
        self, subscriber: Subscriber, account_id: str, *, with_positions: bool
    ) -> tuple[WatchedAccount, bool]:
        """Subscribe to an account.

        Also returns whether the account, or its positions, was not watched before.
        """
        account = self.accounts.get(account_id)
        is_new = account is None
        if account is None:
            slot = self._slots[account_id] = self._columns.allocate()
            account = self.accounts[account_id] = WatchedAccount(account_id, self._columns, slot)
        had_positions = account.has_positions_watched
        account.add(subscriber, with_positions=with_positions)
        return account, is_new or (with_positions and not had_positions)

    def unsubscribe(self, subscriber: Subscriber, account_id: str) -> None:
        """End a subscription. An account without subscribers is dropped."""
        account = self.accounts.get(account_id)
        if account is None or subscriber not in account.subscribers:
            return
        account.remove(subscriber)
        if not account.subscribers:
            del self.accounts[account_id]
            self._columns.release(self._slots.pop(account_id))

    def publish(self, gathered: Gathered) -> int:
        """Hand on publications that are newer than what subscribers have; return how many were."""
        if len(gathered) < COLUMNS_MIN:
            return self._publish_one_by_one(gathered, _Burst([], []), range(len(gathered)))
        account_ids = gathered.account_ids
        slots = np.fromiter(map(self._slots.get, account_ids, repeat(NOBODY)), np.intp, len(account_ids))
        lone, others = self._split(slots)
        burst = _Burst(*self._take_lone(gathered, slots[lone], lone))
        return self._publish_one_by_one(gathered, burst, others.tolist())

    def _publish_one_by_one(self, gathered: Gathered, burst: _Burst, places: Iterable[int]) -> int:
        """Hand on the burst and the publications at these places; return how many were newer."""
        for place in places:
            account = self.accounts.get(gathered.account_ids[place])
            if account is None:
                continue
            account.heard()
            at = StreamPosition(gathered.epochs[place], gathered.sequences[place])
            burst.collect(account, at, gathered.frames[place], gathered.rows.get(place))
        return self._send(burst)

    def _split(self, slots: Slots) -> tuple[Slots, Slots]:
        """The places of accounts with exactly one client, which is direct and occurs only once, and the rest.

        The former are sorted by file descriptor: sockets that were opened together are close together in the
        kernel's memory. The latter are in their order.
        """
        filenos = self._columns.socket[slots]
        order = np.argsort(filenos)
        filenos = filenos[order]
        is_lone = filenos != NO_SOCKET
        is_again = filenos[1:] == filenos[:-1]
        is_lone[1:][is_again] = is_lone[:-1][is_again] = False
        if is_lone.all():
            return order, order[:0]
        return order[is_lone], np.sort(order[~is_lone])

    def _take_lone(self, gathered: Gathered, slots: Slots, lone: Slots) -> tuple[list[int], list[bytes]]:
        """Apply the publications at these places, of accounts in these slots; return sockets and frames."""
        epochs, sequences = gathered.positions(lone)
        is_newer = self._columns.are_newer(slots, epochs, sequences)
        if not is_newer.all():
            lone, slots, epochs, sequences = (part[is_newer] for part in (lone, slots, epochs, sequences))
        frames = list(map(gathered.frames.__getitem__, lone.tolist()))
        self._columns.store_all(slots, epochs, sequences, frames)
        return self._columns.socket[slots].tolist(), frames

    def _send(self, burst: _Burst) -> int:
        if burst.frames:
            self.sent_bytes += self._send_all(*burst.outgoing)
            self.sent += burst.frames
        self.conflated += burst.conflated
        # Last, so that no direct write follows on a socket that became full.
        for account in burst.offered.values():
            for subscriber in account.subscribers:
                subscriber.notify(account)
        return burst.taken

    def mark(self, lapse_of: Callable[[str], Lapse | None]) -> None:
        """Notify the subscribers of accounts whose freshness has changed.

        `lapse_of` returns None for an account that has not changed.
        """
        for account in tuple(self.accounts.values()):
            lapse = lapse_of(account.account_id)
            if lapse is not None and lapse.hops != account.lapse.hops:
                account.lapse = lapse
                for subscriber in tuple(account.subscribers):
                    subscriber.notify(account)

    def publish_stored(self, stored: bytes, *, is_kept: bool, account_id: str | None = None) -> int:
        """As `publish`, for one stored publication. `is_kept`: a calculator keeps it up to date.

        `account_id`: the account under which it was stored, if that is known. A publication that names
        another account is an error in the store, and is ignored. Raises MsgspecError.
        """
        if account_id is not None and account_id not in self.accounts:
            return 0
        parsed = parse_stored(stored)
        account = self.accounts.get(parsed.account_id)
        if account is None or account_id not in (None, parsed.account_id):
            return 0
        if is_kept:
            account.heard()
        burst = _Burst([], [])
        burst.collect(account, parsed.at, text_frame(parsed.value), parsed.rows)
        return self._send(burst)


class ParsedPublication(NamedTuple):
    """The parts of a stored publication."""

    account_id: str
    at: StreamPosition
    value: bytes
    rows: PositionRows | None


class _StoredRow(msgspec.Struct):
    symbol: str


class _Stored(msgspec.Struct):
    account_id: str
    epoch: Counted
    sequence: Counted
    positions: list[msgspec.Raw] | None = None


_decode_stored = msgspec.json.Decoder(_Stored).decode
_decode_row = msgspec.json.Decoder(_StoredRow).decode


def parse_stored(stored: bytes) -> ParsedPublication:
    """Parse a publication as `state.valuations` stores it.

    It is the value, with `positions` as its last key if it has any. Raises MsgspecError.
    """
    parsed = _decode_stored(stored)
    at = StreamPosition(parsed.epoch, parsed.sequence)
    if parsed.positions is None:
        return ParsedPublication(parsed.account_id, at, stored, None)
    value = stored.partition(POSITIONS_KEY + b"[")[0] + b"}"
    rows = [(_decode_row(raw).symbol, bytes(raw)) for raw in parsed.positions]
    return ParsedPublication(parsed.account_id, at, value, rows)

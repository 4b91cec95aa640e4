"""Fan-out: which accounts are watched, by whom, and the newest publication of each. No socket, no clock.

A connection keeps no publication of its own. It notes that an account has a newer one and, when it can send,
asks for the newest: that is conflation, and a slow client costs no more memory than a fast one.

Nearly all connections owe nothing when something new comes. Their frames are collected first and sent
afterwards, all in one go: between two system calls there is then no other work, whose memory the calls would
drive out of the processor's caches, and which would do the same to them. That halves the cost of a message.
For the same reason the usual case, one such client and nobody else, is dealt with for all accounts of a batch
together, in columns: no object of the account or the client is touched.
"""

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from portfolio_realtime.model import PublicationBatch
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
    Rows,
    Subscriber,
    WatchedAccount,
)
from portfolio_realtime.wire.frames import text_frame

SendAll = Callable[[Sequence[int], Sequence[bytes]], int]
"""Sends to each socket, by its number, its frames, and takes care of what one does not take; all bytes."""


class Gathered:
    """Publications of several shards that are handed on together, column by column."""

    def __init__(self) -> None:
        self.account_ids: list[str] = []
        self.epochs: list[int] = []
        self.sequences: list[int] = []
        self.frames: list[bytes] = []
        self.rows: dict[int, Rows] = {}

    def __len__(self) -> int:
        return len(self.frames)

    def add(self, batch: PublicationBatch, first: int = 0, last: int | None = None) -> None:
        """Those of a batch from `first` to before `last`."""
        begin, part = len(self), slice(first, last)
        self.account_ids += batch.account_ids[part]
        self.sequences += batch.sequences[part]
        self.frames += batch.frames[part]
        self.epochs += repeat(batch.epoch, len(self) - begin)
        for place, rows in batch.rows.items():
            if first <= place < first + len(self) - begin:
                self.rows[begin + place - first] = rows

    def positions(self, places: Slots) -> tuple[Numbers, Numbers]:
        """Epochs and sequences of these."""
        count = len(self)
        epochs, sequences = (np.fromiter(part, np.int64, count) for part in (self.epochs, self.sequences))
        return epochs[places], sequences[places]


class _Burst:
    """What is to be sent when some publications have been taken in."""

    __slots__ = ("_lone_filenos", "_lone_frames", "_outgoing", "frames", "offered", "taken")

    def __init__(self, filenos: list[int], frames: list[bytes]) -> None:
        """Begin with these frames and the sockets that they go to, each once."""
        self.offered: list[WatchedAccount] = []
        self.frames = self.taken = len(frames)
        self._lone_filenos, self._lone_frames = filenos, frames
        self._outgoing: dict[int, list[bytes]] | None = None

    def collect(self, account: WatchedAccount, at: StreamPosition, frame: bytes, rows: Rows | None) -> None:
        """Take a publication in, and note who gets it."""
        before = account.at
        if not account.apply_publication(at, frame, rows):
            return
        self.taken += 1
        if account.has_indirect:
            self.offered.append(account)
        if before is not None and before >= at:
            return
        self.frames += len(account.direct)
        for fileno in account.direct.values():
            self._add(fileno, frame)

    def _add(self, fileno: int, frame: bytes) -> None:
        """One write for each socket: a second could overtake what the first leaves over."""
        if self._outgoing is None:
            lone = zip(self._lone_filenos, self._lone_frames, strict=True)
            self._outgoing = {fileno: [frame] for fileno, frame in lone}
        self._outgoing.setdefault(fileno, []).append(frame)

    @property
    def outgoing(self) -> tuple[Sequence[int], Sequence[bytes]]:
        """Sockets, each once, and what goes to them."""
        if self._outgoing is None:
            return self._lone_filenos, self._lone_frames
        return tuple(self._outgoing), tuple(map(b"".join, self._outgoing.values()))


class Hub:
    """All watched accounts of one server."""

    def __init__(self, send_all: SendAll) -> None:
        self.accounts: dict[str, WatchedAccount] = {}
        self.sent = self.sent_bytes = 0  # by way of `send_all`
        self._send_all = send_all
        self._columns = NewestColumns()
        self._slots: dict[str, int] = {}  # of the watched accounts

    def subscribe(
        self, subscriber: Subscriber, account_id: str, *, with_positions: bool
    ) -> tuple[WatchedAccount, bool]:
        """Begin to send; also says whether the account, or its positions, was not watched before."""
        account = self.accounts.get(account_id)
        is_new = account is None
        if account is None:
            slot = self._slots[account_id] = self._columns.allocate()
            account = self.accounts[account_id] = WatchedAccount(account_id, self._columns, slot)
        had_positions = account.has_positions_watched
        account.add(subscriber, with_positions=with_positions)
        return account, is_new or (with_positions and not had_positions)

    def unsubscribe(self, subscriber: Subscriber, account_id: str) -> None:
        """Send no more; an account that nobody watches is forgotten."""
        account = self.accounts.get(account_id)
        if account is None or subscriber not in account.subscribers:
            return
        account.remove(subscriber)
        if not account.subscribers:
            del self.accounts[account_id]
            self._columns.release(self._slots.pop(account_id))

    def publish(self, gathered: Gathered) -> int:
        """Hand publications to the subscribers, unless they have newer; how many brought something."""
        account_ids = gathered.account_ids
        slots = np.fromiter(map(self._slots.get, account_ids, repeat(NOBODY)), np.intp, len(account_ids))
        is_lone = self._are_lone(slots)
        burst = _Burst(*self._take_lone(gathered, slots, np.flatnonzero(is_lone)))
        for place in np.flatnonzero(~is_lone & (slots != NOBODY)).tolist():
            account = self.accounts[account_ids[place]]
            account.heard()
            at = StreamPosition(gathered.epochs[place], gathered.sequences[place])
            burst.collect(account, at, gathered.frames[place], gathered.rows.get(place))
        return self._send(burst)

    def _are_lone(self, slots: Slots) -> NDArray[np.bool_]:
        """Which have one client that is direct, and is not that of another of them."""
        filenos = self._columns.socket[slots]
        is_lone = filenos != NO_SOCKET
        clients, counts = np.unique(filenos[is_lone], return_counts=True)
        several = clients[counts > 1]
        return is_lone & ~np.isin(filenos, several) if len(several) else is_lone

    def _take_lone(self, gathered: Gathered, slots: Slots, lone: Slots) -> tuple[list[int], list[bytes]]:
        """Take in the publications at these places; the sockets, and the frames that go to them.

        In the order of the sockets' numbers: those that were opened together lie together in the kernel's
        memory.
        """
        lone = lone[np.argsort(self._columns.socket[slots[lone]])]
        epochs, sequences = gathered.positions(lone)
        is_newer = self._columns.are_newer(slots[lone], epochs, sequences)
        lone = lone[is_newer]
        frames = [gathered.frames[place] for place in lone.tolist()]
        slots = slots[lone]
        self._columns.store_all(slots, epochs[is_newer], sequences[is_newer], frames)
        return self._columns.socket[slots].tolist(), frames

    def _send(self, burst: _Burst) -> int:
        if burst.frames:
            self.sent_bytes += self._send_all(*burst.outgoing)
            self.sent += burst.frames
        for account in burst.offered:  # last: a full socket must not be sent to in between
            for subscriber in account.subscribers:
                subscriber.notify(account)
        return burst.taken

    def mark(self, lapse_of: Callable[[str], Lapse | None]) -> None:
        """Tell the subscribers of accounts whose freshness has changed; None: it has not."""
        for account in tuple(self.accounts.values()):
            lapse = lapse_of(account.account_id)
            if lapse is not None and lapse.hops != account.lapse.hops:
                account.lapse = lapse
                for subscriber in tuple(account.subscribers):
                    subscriber.notify(account)

    def publish_stored(self, account_id: str, stored: bytes, *, is_kept: bool) -> int:
        """The same with a stored publication. `is_kept`: a calculator keeps it up to date.

        A stored publication of another account is a fault in the store, and is refused.
        """
        account = self.accounts.get(account_id)
        if account is None:
            return 0
        parsed = parse_stored(stored)
        if parsed.account_id != account_id:
            return 0
        if is_kept:
            account.heard()
        burst = _Burst([], [])
        burst.collect(account, parsed.at, text_frame(parsed.value), parsed.rows)
        return self._send(burst)


class ParsedPublication(NamedTuple):
    """A stored publication, taken apart."""

    account_id: str
    at: StreamPosition
    value: bytes
    rows: Rows | None


class _StoredRow(msgspec.Struct):
    symbol: str


class _Stored(msgspec.Struct):
    account_id: str
    epoch: int
    sequence: int
    positions: list[msgspec.Raw] | None = None


_decode_stored = msgspec.json.Decoder(_Stored).decode
_decode_row = msgspec.json.Decoder(_StoredRow).decode


def parse_stored(stored: bytes) -> ParsedPublication:
    """A publication as `state.valuations` stores it: the value, with `positions` as its last key if any."""
    parsed = _decode_stored(stored)
    at = StreamPosition(parsed.epoch, parsed.sequence)
    if parsed.positions is None:
        return ParsedPublication(parsed.account_id, at, stored, None)
    value = stored.partition(POSITIONS_KEY + b"[")[0] + b"}"
    rows = [(_decode_row(raw).symbol, bytes(raw)) for raw in parsed.positions]
    return ParsedPublication(parsed.account_id, at, value, rows)

"""Fan-out: which accounts are watched, by whom, and the newest publication of each. No socket, no clock.

A connection keeps no publication of its own. It notes that an account has a newer one and, when it can send,
asks for the newest: that is conflation, and a slow client costs no more memory than a fast one.

Nearly all connections owe nothing when something new comes. Their frames are collected first and sent
afterwards, all in one go: between two system calls there is then no other work, whose memory the calls would
drive out of the processor's caches, and which would do the same to them. That halves the cost of a message.
"""

from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import Final, NamedTuple, Protocol

import msgspec

from portfolio_realtime.model import Publication
from portfolio_realtime.websocket.protocol import text_frame, text_of

FRAMES_KEPT_MAX: Final = 8  # frames of one publication, for clients that last got different ones
GONE_ROWS_MAX: Final = 256  # removed positions that are remembered for clients that have not heard of it

_POSITIONS_KEY: Final = b',"positions":'


class StreamPosition(NamedTuple):
    """Where in an account's stream of publications; it only ever grows."""

    epoch: int
    sequence: int


_make: Final = partial(tuple.__new__, StreamPosition)  # a third of the time of the named tuple's own


class Subscriber(Protocol):
    """Who gets publications."""

    @property
    def is_patient(self) -> bool:
        """Does it wait for an account that has no record yet, rather than hear so at once?"""
        ...

    def offer(self, account: "WatchedAccount") -> None:
        """The account has a newer publication. Must not subscribe or unsubscribe anybody."""
        ...

    def refuse(self, account_id: str) -> None:
        """There is no such account."""
        ...

    def position_sent(self, account_id: str) -> StreamPosition | None:
        """Where it is in the account's stream, or None when it has got nothing yet."""
        ...


Outlet = Hashable  # how one connection is sent to; the hub itself does nothing with it
SendAll = Callable[
    [dict[Outlet, bytes]], None
]  # sends each its frames, and takes care of who cannot take them


class _Row(NamedTuple):
    changed_at: StreamPosition
    json: bytes
    is_gone: bool


class WatchedAccount:
    """One watched account: its newest publication, its subscribers, and when each position last changed."""

    __slots__ = (
        "_frames",
        "_outlets",
        "_rows",
        "_value_frame",
        "_wanting_positions",
        "account_id",
        "at",
        "direct",
        "has_indirect",
        "is_live",
        "rows_at",
        "subscribers",
        "unknown_since_s",
    )

    def __init__(self, account_id: str) -> None:
        self.account_id = account_id
        self.at: StreamPosition | None = None
        self.rows_at: StreamPosition | None = None
        self.is_live = False  # does a calculator keep it up to date, as far as we have heard?
        self.unknown_since_s: float | None = None  # when it was first found to have no record
        self.subscribers: dict[Subscriber, bool] = {}  # -> with positions
        self.direct: dict[object, Outlet] = {}  # connections that owe nothing -> how they are sent to
        self._outlets: tuple[Outlet, ...] | None = None  # those of `direct`: this is read for each message
        self.has_indirect = False  # is any subscriber not direct?
        self._wanting_positions = 0  # so many subscribers
        self._value_frame = text_frame(
            b""
        )  # the newest publication without positions, ready to be sent to anybody
        self._rows: dict[str, _Row] = {}
        self._frames: dict[StreamPosition | None, bytes] = {}  # with positions: those since -> frame

    def add(self, subscriber: Subscriber, *, with_positions: bool) -> None:
        """Take a subscriber in, or what it wants from now on."""
        self._want_positions(int(with_positions) - int(self.subscribers.get(subscriber, False)))
        self.subscribers[subscriber] = with_positions
        self._count_direct()

    def remove(self, subscriber: Subscriber) -> None:
        """Let a subscriber go."""
        self._want_positions(-int(self.subscribers.pop(subscriber)))
        self._count_direct()

    def go_direct(self, connection: object, outlet: Outlet) -> None:
        """The connection has what there is: send it what comes next by its outlet."""
        self.direct[connection] = outlet
        self._count_direct()

    def leave_direct(self, connection: object) -> None:
        """The connection is not to be sent to any more without being asked."""
        del self.direct[connection]
        self._count_direct()

    def _count_direct(self) -> None:
        self._outlets = None
        self.has_indirect = len(self.direct) != len(self.subscribers)

    @property
    def outlets(self) -> tuple[Outlet, ...]:
        """Who is direct, by outlet."""
        outlets = self._outlets
        if outlets is None:
            outlets = self._outlets = tuple(self.direct.values())
        return outlets

    def _want_positions(self, more: int) -> None:
        self._wanting_positions += more
        if more < 0 and not self._wanting_positions:
            self._rows.clear()
            self._frames.clear()
            self.rows_at = None

    @property
    def has_positions_watched(self) -> bool:
        """Does any subscriber want the positions?"""
        return self._wanting_positions > 0

    @property
    def is_incomplete(self) -> bool:
        """Is something that a subscriber wants not there?"""
        return self.at is None or (self.has_positions_watched and self.rows_at != self.at)

    def position(self, *, with_positions: bool) -> StreamPosition | None:
        """Where the newest publication is that has what is wanted, or None."""
        return self.at if not with_positions or self.rows_at == self.at else None

    def apply(self, at: StreamPosition, publication: Publication) -> bool:
        """Take a publication in, unless it is older; does it bring anything?"""
        rows = publication.rows if self._wanting_positions else None
        is_newer = self.at is None or at > self.at
        if not is_newer and (rows is None or at != self.at or self.rows_at == at):
            return False
        if is_newer:
            self.at, self._value_frame = at, text_frame(publication.value)
        if rows is not None:
            self._frames.clear()
            self._apply_rows(at, rows)
        return True

    def _apply_rows(self, at: StreamPosition, rows: list[tuple[str, bytes]]) -> None:
        self.rows_at = at
        gone = self._rows.keys() - {symbol for symbol, _ in rows}
        for symbol in gone:
            if not self._rows[symbol].is_gone:
                self._rows[symbol] = _Row(at, _gone_row(symbol), is_gone=True)
        for symbol, json in rows:
            known = self._rows.get(symbol)
            if known is None or known.json != json:
                self._rows[symbol] = _Row(at, json, is_gone=False)
        if len(gone) > GONE_ROWS_MAX:
            self._forget_gone()

    def _forget_gone(self) -> None:
        """Keep only those removed positions of which some subscriber has not heard."""
        sent = [
            position
            for subscriber, with_positions in self.subscribers.items()
            if with_positions and (position := subscriber.position_sent(self.account_id)) is not None
        ]
        self._rows = {
            symbol: row
            for symbol, row in self._rows.items()
            if not row.is_gone or (sent and row.changed_at > min(sent))
        }

    def message(self, since: StreamPosition | None, *, with_positions: bool) -> bytes:
        """The newest publication as JSON; its positions whole, or those that changed after `since`."""
        value = text_of(self._value_frame)
        if not with_positions:
            return value
        rows = [
            row.json
            for row in self._rows.values()
            if (not row.is_gone if since is None else row.changed_at > since)
        ]
        return value[:-1] + _POSITIONS_KEY + b"[" + b",".join(rows) + b"]}"

    @property
    def value_frame(self) -> bytes:
        """The newest publication without positions as a WebSocket frame, made once for all clients."""
        return self._value_frame

    def frame(self, since: StreamPosition | None, *, with_positions: bool) -> bytes:
        """`message` as a WebSocket frame, made once for all clients that need the same."""
        if not with_positions:
            return self._value_frame
        frame = self._frames.get(since)
        if frame is None:
            frame = text_frame(self.message(since, with_positions=True))
            if len(self._frames) < FRAMES_KEPT_MAX:
                self._frames[since] = frame
        return frame


class _Burst:
    """What is to be sent when some publications have been taken in."""

    __slots__ = ("frames", "offered", "outgoing", "taken")

    def __init__(self) -> None:
        self.outgoing: dict[Outlet, bytes] = {}
        self.offered: list[WatchedAccount] = []
        self.frames = self.taken = 0

    def collect(self, account: WatchedAccount, at: StreamPosition, publication: Publication) -> None:
        """Take a publication in, and note who gets it."""
        before = account.at
        if not account.apply(at, publication):
            return
        self.taken += 1
        if account.has_indirect:
            self.offered.append(account)
        if account.at is before:
            return
        outlets, frame, outgoing = account.outlets, account.value_frame, self.outgoing
        self.frames += len(outlets)
        for outlet in outlets:
            outgoing[outlet] = outgoing[outlet] + frame if outlet in outgoing else frame


class Hub:
    """All watched accounts of one server."""

    def __init__(self, send_all: SendAll) -> None:
        self.accounts: dict[str, WatchedAccount] = {}
        self.sent = self.sent_bytes = 0  # by way of `send_all`
        self._send_all = send_all

    def subscribe(
        self, subscriber: Subscriber, account_id: str, *, with_positions: bool
    ) -> tuple[WatchedAccount, bool]:
        """Begin to send; also says whether the account, or its positions, was not watched before."""
        account = self.accounts.get(account_id)
        is_new = account is None
        if account is None:
            account = self.accounts[account_id] = WatchedAccount(account_id)
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

    def publish(self, epoch: int, publications: Iterable[Publication]) -> int:
        """Hand publications to their subscribers, unless they have newer ones; how many brought something."""
        burst = _Burst()
        accounts, collect = self.accounts, burst.collect
        for publication in publications:
            account = accounts.get(publication.account_id)
            if account is not None:
                account.is_live = True
                collect(account, _make((epoch, publication.sequence)), publication)
        return self._send(burst)

    def _send(self, burst: "_Burst") -> int:
        if burst.outgoing:
            self._send_all(burst.outgoing)
            self.sent += burst.frames
            self.sent_bytes += sum(map(len, burst.outgoing.values()))
        for account in burst.offered:  # last: a full socket must not be sent to in between
            for subscriber in account.subscribers:
                subscriber.offer(account)
        return burst.taken

    def publish_stored(self, account_id: str, stored: bytes, *, is_kept: bool) -> int:
        """The same with a stored publication. `is_kept`: a calculator keeps it up to date.

        A stored publication of another account is a fault in the store, and is refused.
        """
        account = self.accounts.get(account_id)
        if account is None:
            return 0
        at, publication = parse_stored(stored)
        if publication.account_id != account_id:
            return 0
        account.is_live = account.is_live or is_kept
        burst = _Burst()
        burst.collect(account, at, publication)
        return self._send(burst)


class _StoredRow(msgspec.Struct):
    symbol: str


class _Stored(msgspec.Struct):
    account_id: str
    epoch: int
    sequence: int
    positions: list[msgspec.Raw] | None = None


_decode_stored = msgspec.json.Decoder(_Stored).decode
_decode_row = msgspec.json.Decoder(_StoredRow).decode


def parse_stored(stored: bytes) -> tuple[StreamPosition, Publication]:
    """A publication as `state.valuations` stores it: the value, with `positions` as its last key if any."""
    parsed = _decode_stored(stored)
    at = StreamPosition(parsed.epoch, parsed.sequence)
    if parsed.positions is None:
        return at, Publication(parsed.account_id, parsed.sequence, stored)
    value = stored.partition(_POSITIONS_KEY + b"[")[0] + b"}"
    rows = [(_decode_row(raw).symbol, bytes(raw)) for raw in parsed.positions]
    return at, Publication(parsed.account_id, parsed.sequence, value, rows)


def _gone_row(symbol: str) -> bytes:
    return msgspec.json.encode({"symbol": symbol, "quantity": "0"})

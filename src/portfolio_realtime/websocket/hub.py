"""Fan-out: which accounts are watched, by whom, and the newest publication of each. No socket, no clock.

A connection keeps no publication of its own. It notes that an account has a newer one and, when it can send,
asks for the newest: that is conflation, and a slow client costs no more memory than a fast one.
"""

from functools import partial
from typing import Final, NamedTuple, Protocol

import msgspec

from portfolio_realtime.model import Publication, PublicationBatch
from portfolio_realtime.websocket.protocol import text_frame

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


class _Row(NamedTuple):
    changed_at: StreamPosition
    json: bytes
    is_gone: bool


class WatchedAccount:
    """One watched account: its newest publication, its subscribers, and when each position last changed."""

    __slots__ = (
        "_frames",
        "_rows",
        "_value",
        "_value_frame",
        "account_id",
        "at",
        "has_positions_watched",
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
        self.has_positions_watched = False  # does any subscriber want the positions?
        self._value = b""
        self._value_frame: bytes | None = None
        self._rows: dict[str, _Row] = {}
        self._frames: dict[StreamPosition | None, bytes] = {}  # with positions: those since -> frame

    def add(self, subscriber: Subscriber, *, with_positions: bool) -> None:
        """Take a subscriber in, or what it wants from now on."""
        self.subscribers[subscriber] = with_positions
        self._note_wishes()

    def remove(self, subscriber: Subscriber) -> None:
        """Let a subscriber go."""
        del self.subscribers[subscriber]
        self._note_wishes()

    def _note_wishes(self) -> None:
        had_positions_watched = self.has_positions_watched
        self.has_positions_watched = any(self.subscribers.values())
        if had_positions_watched and not self.has_positions_watched:
            self._rows.clear()
            self._frames.clear()
            self.rows_at = None

    @property
    def is_incomplete(self) -> bool:
        """Is something that a subscriber wants not there?"""
        return self.at is None or (self.has_positions_watched and self.rows_at != self.at)

    def position(self, *, with_positions: bool) -> StreamPosition | None:
        """Where the newest publication is that has what is wanted, or None."""
        return self.at if not with_positions or self.rows_at == self.at else None

    def apply(self, at: StreamPosition, publication: Publication) -> bool:
        """Take a publication in, unless it is older; does it bring anything?"""
        wanted_rows = publication.rows if self.has_positions_watched else None
        brings_rows = wanted_rows is not None and self.rows_at != at
        if self.at is not None and (at < self.at or (at == self.at and not brings_rows)):
            return False
        self.at, self._value, self._value_frame = at, publication.value, None
        if self._frames:
            self._frames.clear()
        if wanted_rows is not None:
            self._apply_rows(at, wanted_rows)
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
        if not with_positions:
            return self._value
        rows = [
            row.json
            for row in self._rows.values()
            if (not row.is_gone if since is None else row.changed_at > since)
        ]
        return self._value[:-1] + _POSITIONS_KEY + b"[" + b",".join(rows) + b"]}"

    def value_frame(self) -> bytes:
        """The newest publication without positions as a WebSocket frame, made once for all clients."""
        frame = self._value_frame
        if frame is None:
            frame = self._value_frame = text_frame(self._value)
        return frame

    def frame(self, since: StreamPosition | None, *, with_positions: bool) -> bytes:
        """`message` as a WebSocket frame, made once for all clients that need the same."""
        if not with_positions:
            return self.value_frame()
        frame = self._frames.get(since)
        if frame is None:
            frame = text_frame(self.message(since, with_positions=True))
            if len(self._frames) < FRAMES_KEPT_MAX:
                self._frames[since] = frame
        return frame


class Hub:
    """All watched accounts of one server."""

    def __init__(self) -> None:
        self.accounts: dict[str, WatchedAccount] = {}

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

    def apply(self, batch: PublicationBatch) -> list[WatchedAccount]:
        """Take a batch in; the watched accounts that have something newer."""
        advanced: list[WatchedAccount] = []
        accounts, epoch = self.accounts, batch.epoch
        for publication in batch.publications:
            account = accounts.get(publication.account_id)
            if account is None:
                continue
            account.is_live = True
            if account.apply(_make((epoch, publication.sequence)), publication):
                advanced.append(account)
        return advanced

    def apply_stored(self, account_id: str, stored: bytes, *, is_kept: bool) -> WatchedAccount | None:
        """Take a stored publication in; the account, if it is watched and this is newer.

        `is_kept` says that a calculator keeps it up to date; else it may be from long ago.

        A stored publication of another account is a fault in the store, and is refused.
        """
        account = self.accounts.get(account_id)
        if account is None:
            return None
        at, publication = parse_stored(stored)
        if publication.account_id != account_id:
            return None
        account.is_live = account.is_live or is_kept
        return account if account.apply(at, publication) else None


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

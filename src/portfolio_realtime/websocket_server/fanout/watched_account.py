"""One watched account: its newest publication, its subscribers, and when each position last changed."""

from typing import Final, NamedTuple, Protocol

from portfolio_realtime.model import PositionRows
from portfolio_realtime.websocket_server.fanout.deltas import Whole, delta_body, gone_row
from portfolio_realtime.websocket_server.fanout.freshness import Lapse
from portfolio_realtime.websocket_server.fanout.newest_columns import NO_SOCKET, NewestColumns, StreamPosition
from portfolio_realtime.wire.frames import text_frame, text_of
from portfolio_realtime.wire.messages import Disconnect

NO_LAPSE: Final = Lapse((), "")
FRAMES_KEPT_MAX: Final = 8  # frames of one publication, by the publication that clients had before
GONE_ROWS_MAX: Final = 256  # removed positions that are kept for clients that were not told yet

POSITIONS_KEY: Final = b',"positions":'


class Subscriber(Protocol):
    """A receiver of publications."""

    @property
    def is_patient(self) -> bool:
        """Whether it waits for an account without a record, instead of being refused at once."""
        ...

    def notify(self, account: "WatchedAccount") -> None:
        """The account has a newer publication, or its freshness has changed.

        Must not subscribe or unsubscribe.
        """
        ...

    def refuse(self, account_id: str, why: Disconnect) -> None:
        """The account does not exist (FORBIDDEN), or is never valued (NOT_IN_DOLLARS)."""
        ...

    def position_sent(self, account_id: str) -> StreamPosition | None:
        """Its position in the account's stream, or None if nothing was sent yet."""
        ...


class _Row(NamedTuple):
    changed_at: StreamPosition
    json: bytes
    is_gone: bool


class WatchedAccount:
    """A watched account. Its newest publication is in `columns` at `slot`."""

    __slots__ = (
        "_columns",
        "_frames",
        "_rows",
        "_slot",
        "_wanting_positions",
        "_wholes",
        "account_id",
        "direct",
        "has_indirect",
        "is_live",
        "lapse",
        "rows_at",
        "subscribers",
        "unknown_since_s",
    )

    def __init__(self, account_id: str, columns: NewestColumns, slot: int) -> None:
        self.account_id = account_id
        self._columns = columns
        self._slot = slot
        self.rows_at: StreamPosition | None = None
        self.is_live = False  # whether a calculator is known to keep it up to date
        self.lapse = NO_LAPSE  # the hops from which nothing fresh arrives
        self.unknown_since_s: float | None = None  # when it was first found without a record
        self.subscribers: dict[Subscriber, bool] = {}  # subscriber -> with positions
        self.direct: dict[object, int] = {}  # connection without pending frames -> file descriptor
        self.has_indirect = False  # whether any subscriber is not direct
        self._wanting_positions = 0  # number of subscribers
        self._rows: dict[str, _Row] = {}
        self._frames: dict[
            StreamPosition | None, bytes
        ] = {}  # position since which rows are included -> frame with them
        self._wholes: dict[bool, Whole] = {}  # with positions -> the newest state used for deltas

    def add(self, subscriber: Subscriber, *, with_positions: bool) -> None:
        """Add a subscriber, or change whether it wants positions."""
        self._want_positions(int(with_positions) - int(self.subscribers.get(subscriber, False)))
        self.subscribers[subscriber] = with_positions
        self._count_direct()

    def remove(self, subscriber: Subscriber) -> None:
        """Remove a subscriber."""
        self._want_positions(-int(self.subscribers.pop(subscriber)))
        self._count_direct()

    def go_direct(self, connection: object, fileno: int) -> None:
        """Write publications directly to the socket of this connection, which is up to date."""
        self.direct[connection] = fileno
        self._count_direct()

    def leave_direct(self, connection: object) -> None:
        """End direct writes for this connection."""
        del self.direct[connection]
        self._count_direct()

    def heard(self) -> None:
        """Note that a calculator keeps the account up to date."""
        if not self.is_live:
            self.is_live = True
            self._count_direct()

    def _count_direct(self) -> None:
        self.has_indirect = len(self.direct) != len(self.subscribers)
        is_lone = self.is_live and not self.has_indirect and len(self.direct) == 1
        self._columns.socket[self._slot] = next(iter(self.direct.values())) if is_lone else NO_SOCKET

    @property
    def at(self) -> StreamPosition | None:
        """The stream position of the newest publication, or None."""
        return self._columns.position(self._slot)

    def _want_positions(self, more: int) -> None:
        self._wanting_positions += more
        if more < 0 and not self._wanting_positions:
            self._rows.clear()
            self._frames.clear()
            self._wholes.clear()
            self.rows_at = None

    @property
    def has_positions_watched(self) -> bool:
        """Whether any subscriber wants the positions."""
        return self._wanting_positions > 0

    @property
    def is_incomplete(self) -> bool:
        """Whether something that a subscriber wants is missing."""
        return self.at is None or (self.has_positions_watched and self.rows_at != self.at)

    def position(self, *, with_positions: bool) -> StreamPosition | None:
        """The stream position of the newest publication with all that is wanted, or None."""
        return self.at if not with_positions or self.rows_at == self.at else None

    def apply_publication(self, at: StreamPosition, frame: bytes, rows: PositionRows | None) -> bool:
        """Apply a publication that is not older; return whether it has added anything."""
        if not self._wanting_positions:
            rows = None
        before = self.at
        is_newer = before is None or at > before
        if not is_newer and (rows is None or at != before or self.rows_at == at):
            return False
        if is_newer:
            self._columns.store(self._slot, at, frame)
        if rows is not None:
            self._frames.clear()
            self._apply_rows(at, rows)
        return True

    def _apply_rows(self, at: StreamPosition, rows: PositionRows) -> None:
        self.rows_at = at
        gone = self._rows.keys() - {symbol for symbol, _ in rows}
        for symbol in gone:
            if not self._rows[symbol].is_gone:
                self._rows[symbol] = _Row(at, gone_row(symbol), is_gone=True)
        for symbol, json in rows:
            known = self._rows.get(symbol)
            if known is None or known.json != json:
                self._rows[symbol] = _Row(at, json, is_gone=False)
        if len(gone) > GONE_ROWS_MAX:
            self._forget_gone()

    def _forget_gone(self) -> None:
        """Keep only those removed positions of which some subscriber was not told yet."""
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
        """The newest publication as JSON.

        With positions, it has all of them, or those that changed after `since`.
        """
        value = text_of(self.value_frame)
        if not with_positions:
            return value
        rows = [
            row.json
            for row in self._rows.values()
            if (not row.is_gone if since is None else row.changed_at > since)
        ]
        return value[:-1] + POSITIONS_KEY + b"[" + b",".join(rows) + b"]}"

    @property
    def value_frame(self) -> bytes:
        """The newest publication without positions as a WebSocket frame, shared by all clients."""
        return self._columns.frame[self._slot]

    def frame(self, since: StreamPosition | None, *, with_positions: bool) -> bytes:
        """`message` as a WebSocket frame, shared by all clients that need the same."""
        if not with_positions:
            return self.value_frame
        frame = self._frames.get(since)
        if frame is None:
            frame = text_frame(self.message(since, with_positions=True))
            if len(self._frames) < FRAMES_KEPT_MAX:
                self._frames[since] = frame
        return frame

    def whole(self, *, with_positions: bool) -> Whole:
        """The newest state, shared by all clients that get deltas."""
        newest = self.position(with_positions=with_positions)
        assert newest is not None
        whole = self._wholes.get(with_positions)
        if whole is None or whole.at != newest:
            held = {symbol: row.json for symbol, row in self._rows.items() if not row.is_gone}
            whole = Whole(newest, text_of(self.value_frame), held if with_positions else None, {})
            self._wholes[with_positions] = whole
        return whole

    def delta_since(self, base: Whole, *, with_positions: bool) -> bytes:
        """The body of a delta from `base` to the newest state, shared by all clients that need it."""
        whole = self.whole(with_positions=with_positions)
        if base.at not in whole.bodies:
            if len(whole.bodies) >= FRAMES_KEPT_MAX:
                whole.bodies.clear()
            whole.bodies[base.at] = delta_body(base, whole)
        return whole.bodies[base.at]

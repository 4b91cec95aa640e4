"""One client, sans-I/O: what is pending for it, what it asked, when it is too slow, too late or too loud.

No socket and no clock: `now_s` is seconds that never go back, passed in. Whoever has the socket writes what
`next_frame` gives, says when the socket is full (`pause`) and free again (`resume`), and asks
`disconnect_due` now and then.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from portfolio_realtime.websocket_server.access.identity import Identity
from portfolio_realtime.websocket_server.fanout.freshness import SERVER, Lapse, freshness_frame
from portfolio_realtime.websocket_server.fanout.watched_account import StreamPosition, WatchedAccount
from portfolio_realtime.wire.frames import text_frame
from portfolio_realtime.wire.http_problems import HttpProblem
from portfolio_realtime.wire.messages import (
    Auth,
    ClientMessage,
    Disconnect,
    ErrorMessage,
    Heartbeat,
    HeartbeatAck,
    ServerMessage,
    Subscribe,
    TokenExpiring,
    decode_client_message,
    encode,
    is_account_id,
)

UNSENT_S_MAX: Final = 10.0
AUTH_S_MAX: Final = 5.0
EXPIRY_NOTICE_S: Final = 30.0
AGE_S_MAX: Final = 12 * 3600.0  # where nobody says otherwise
AGE_JITTER: Final = 0.25  # at most this part of it less
PING_S: Final = 20.0
PING_JITTER_S: Final = 5.0
PONG_S_MAX: Final = 10.0
SUBSCRIPTIONS_MAX: Final = 64
MESSAGES_PER_MINUTE_MAX: Final = 100
MESSAGES_PER_MINUTE_CLOSE: Final = 120  # the first of those over the maximum are refused, then we close
BAD_MESSAGES_MAX: Final = 5
REPLIES_MAX: Final = 32  # waiting to be sent; the oldest is dropped
FREQUENCY_HZ_MIN: Final = 0.001


@dataclass(frozen=True, slots=True)
class ForbiddenRequest:
    """A subscribe message for an account that is another's, or none; it is answered already."""


def seen_by(epoch: int | None, sequence: int | None) -> StreamPosition | None:
    """Where a client was when it left another server, or None where it does not say so."""
    return None if epoch is None or sequence is None else StreamPosition(epoch, sequence)


def age_s_max(longest_s: float, jitter: float) -> float:
    """How long a client may stay; `jitter`, from 0 to 1, spreads those that came together."""
    return longest_s * (1 - jitter * AGE_JITTER)


@dataclass(slots=True)
class ClientSubscription:
    """One account as one client gets it."""

    account: WatchedAccount
    with_positions: bool
    interval_s: float = 0.0
    sent: StreamPosition | None = None  # while it is direct: what was sent before
    due_s: float = 0.0
    is_direct: bool = False  # sent to by the hub itself, as publications come
    told_hops: tuple[str, ...] = ()  # that nothing fresh comes from them, as the client knows
    seen: StreamPosition | None = None  # by the client, on another server: nothing older is sent
    began: str = ""  # when it subscribed, RFC 3339

    @property
    def is_plain(self) -> bool:
        """Value alone, at any rate."""
        return not self.with_positions and not self.interval_s

    @property
    def is_told(self) -> bool:
        """Does the client know how fresh the account is?"""
        return self.told_hops == self.lapse.hops

    @property
    def newest(self) -> StreamPosition | None:
        """Where the newest publication is that has what is wanted, or None."""
        return self.account.position(with_positions=self.with_positions)

    @property
    def is_behind(self) -> bool:
        """Has the client seen more than we have?"""
        return self.seen is not None and (newest := self.newest) is not None and newest < self.seen

    @property
    def lapse(self) -> Lapse:
        """From where nothing fresh comes for this client, and since when."""
        lapse = self.account.lapse
        return Lapse((*lapse.hops, SERVER), self.began) if self.is_behind else lapse

    @property
    def position_sent(self) -> StreamPosition | None:
        """Where the client is in the account's stream."""
        return self.account.at if self.is_direct else self.sent


class ClientConnection:
    """What one client is owed and what it may."""

    __slots__ = (
        "_bad_messages",
        "_ends_s",
        "_expires_s",
        "_indirect",
        "_is_notice_due",
        "_messages",
        "_minute_s",
        "_opened_s",
        "_paused_s",
        "_pending",
        "_ping_s",
        "_pinged_s",
        "_ponged_s",
        "_replies",
        "due_s",
        "identity",
        "subscriptions",
    )

    def __init__(self, now_s: float, jitter: float = 0.0, longest_s: float = AGE_S_MAX) -> None:
        """`jitter`, from 0 to 1, spreads what clients that came together would else be told together."""
        self.identity: Identity | None = None
        self.subscriptions: dict[str, ClientSubscription] = {}
        self._pending: dict[str, ClientSubscription] = {}
        self._indirect: dict[str, ClientSubscription] = {}  # plain ones that are not direct
        self._replies: list[bytes] = []
        self._opened_s = now_s
        self._ping_s = PING_S + jitter * PING_JITTER_S
        self._ends_s = now_s + age_s_max(longest_s, jitter)
        self.due_s = 0.0  # before this time `disconnect_due` has nothing to do
        self._expires_s: float | None = None
        self._is_notice_due = False
        self._paused_s: float | None = None
        self._pinged_s = self._ponged_s = now_s
        self._minute_s, self._messages, self._bad_messages = now_s, 0, 0

    def authenticated(self, identity: Identity, now_s: float, valid_for_s: float | None) -> Disconnect | None:
        """The client has shown who it is, at first or again; None, or why it cannot be."""
        if self.identity is not None and self.identity.subject != identity.subject:
            return Disconnect.UNAUTHORIZED
        if (
            identity.is_asked and self.identity is not None
        ):  # what was allowed goes on until it is asked again
            identity = identity.with_accounts(identity.accounts | self.identity.accounts)
        refusal = self.regarded(identity)
        if refusal is not None:
            return refusal
        self._expires_s = None if valid_for_s is None else now_s + valid_for_s
        self._is_notice_due = valid_for_s is not None
        self.due_s = 0.0
        return None

    def regarded(self, identity: Identity) -> Disconnect | None:
        """The same client, with what it may see now; why the connection must end, or None."""
        if not all(identity.may_see(account_id) for account_id in self.subscriptions):
            return Disconnect.FORBIDDEN
        self.identity = identity
        return None

    # What goes out

    def subscribe(self, account: WatchedAccount, request: Subscribe, began: str = "") -> None:
        """Owe the client this account from now on: first all of it, then what is newer than it has seen.

        `began`: now, as RFC 3339.
        """
        hz = request.max_frequency_hz
        subscription = ClientSubscription(account, request.detail == "positions", 1 / hz if hz else 0.0)
        subscription.seen, subscription.began = seen_by(request.epoch, request.sequence), began
        self.unsubscribe(account.account_id)
        self.subscriptions[account.account_id] = subscription
        if subscription.is_plain:
            self._indirect[account.account_id] = subscription
        self.mark_pending(account)

    def unsubscribe(self, account_id: str) -> None:
        """Owe it no more."""
        subscription = self.subscriptions.pop(account_id, None)
        if subscription is not None and subscription.is_direct:
            self._recall(subscription)
        self._indirect.pop(account_id, None)
        self._pending.pop(account_id, None)

    def mark_pending(self, account: WatchedAccount) -> bool:
        """The account has a newer publication, or another freshness; was an unsent publication replaced?"""
        subscription = self.subscriptions.get(account.account_id)
        if subscription is None or (subscription.is_direct and subscription.is_told):
            return False
        if account.account_id in self._pending:
            return True
        if subscription.is_direct:
            self._recall(subscription)
        newest = subscription.newest
        is_newer = newest is not None and (subscription.sent is None or newest > subscription.sent)
        if is_newer or not subscription.is_told:
            self._pending[account.account_id] = subscription
        return False

    @property
    def may_go_direct(self) -> bool:
        """Is there a plain subscription that is not direct, and nothing owed?"""
        return bool(self._indirect) and not (self._pending or self._replies or self._paused_s is not None)

    def go_direct(self, fileno: int) -> None:
        """Once nothing is owed, let the hub send what comes next for plain subscriptions straight away.

        The way of nearly every message. A connection that is paused or ends is not direct any more.
        """
        if not self.may_go_direct:
            return
        for account_id, subscription in tuple(self._indirect.items()):
            is_current = subscription.sent is not None and subscription.sent == subscription.account.at
            if is_current and subscription.is_told:
                subscription.is_direct = True
                subscription.account.go_direct(self, fileno)
                del self._indirect[account_id]

    def leave_direct(self) -> None:
        """From now on nothing is written but what `next_frame` gives."""
        for subscription in self.subscriptions.values():
            if subscription.is_direct:
                self._recall(subscription)

    def _recall(self, subscription: ClientSubscription) -> None:
        subscription.sent, subscription.is_direct = subscription.account.at, False
        subscription.account.leave_direct(self)
        self._indirect[subscription.account.account_id] = subscription

    def next_frame(self, now_s: float) -> bytes | None:
        """The next frame to send now, or None: nothing is pending, due, or the socket is full."""
        if self._paused_s is not None:
            return None
        if self._replies:
            return self._replies.pop(0)
        for account_id, subscription in tuple(self._pending.items()):
            account, with_positions = subscription.account, subscription.with_positions
            newest, is_behind = subscription.newest, subscription.is_behind
            if not subscription.is_told:
                lapse = subscription.lapse
                subscription.told_hops = lapse.hops
                if is_behind or newest == subscription.sent:
                    del self._pending[account_id]
                return freshness_frame(account_id, lapse)
            if is_behind:  # until something newer comes
                del self._pending[account_id]
                continue
            if newest is None or subscription.due_s > now_s:  # None: its positions are on their way
                continue
            del self._pending[account_id]
            frame = account.frame(subscription.sent, with_positions=with_positions)
            subscription.seen = None
            subscription.sent, subscription.due_s = newest, now_s + subscription.interval_s
            return frame
        return None

    def due_in_s(self, now_s: float) -> float | None:
        """In how many seconds `next_frame` gives what the client's own rate holds back; None for nothing."""
        if not self._pending:
            return None
        due = [subscription.due_s for subscription in self._pending.values() if subscription.due_s > now_s]
        return min(due) - now_s if due else None

    def pause(self, now_s: float) -> None:
        """The socket is full; who writes to it leaves the direct way."""
        if self._paused_s is None:
            self._paused_s, self.due_s = now_s, 0.0

    def resume(self) -> None:
        """The socket takes more."""
        self._paused_s = None

    # What comes in

    def received(self, text: bytes, now_s: float) -> ClientMessage | ForbiddenRequest | Disconnect | None:
        """Deal with a message; the server does what is left: authenticate, subscribe, unsubscribe, close."""
        self._messages += 1
        if now_s - self._minute_s >= 60:
            self._minute_s, self._messages = now_s, 1
        if self._messages > MESSAGES_PER_MINUTE_CLOSE:
            return Disconnect.BAD_MESSAGE
        if self._messages > MESSAGES_PER_MINUTE_MAX:
            return self.too_many_messages()
        try:
            message = decode_client_message(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._bad_message("no such message; see the protocol")
        if isinstance(message, Heartbeat):
            self._reply(HeartbeatAck(message.timestamp))
            return message
        if isinstance(message, Auth):
            return message
        if self.identity is None:
            return Disconnect.UNAUTHORIZED
        return self._permitted(message) if isinstance(message, Subscribe) else message

    def too_many_messages(self) -> None:
        """Answer a message that is not dealt with: this client, or its user, sends too many."""
        self._reply(ErrorMessage("too_many_messages", f"at most {MESSAGES_PER_MINUTE_MAX} a minute"))

    def _permitted(self, message: Subscribe) -> Subscribe | ForbiddenRequest | Disconnect | None:
        hz = message.max_frequency_hz
        if hz is not None and not FREQUENCY_HZ_MIN <= hz < float("inf"):
            return self._bad_message(f"max_frequency_hz must be at least {FREQUENCY_HZ_MIN}")
        if not self.may_see(message.account_id) and not self.must_ask(message.account_id):
            self.refuse(message.account_id)
            return ForbiddenRequest()
        is_full = len(self.subscriptions) >= SUBSCRIPTIONS_MAX
        if is_full and message.account_id not in self.subscriptions:
            said = f"at most {SUBSCRIPTIONS_MAX} in one connection"
            error = ErrorMessage("too_many_subscriptions", said, message.account_id)
            return self._reply(error)
        return message

    def may_see(self, account_id: str) -> bool:
        """May this client see this account, as far as its token says?"""
        return self.identity is not None and is_account_id(account_id) and self.identity.may_see(account_id)

    def must_ask(self, account_id: str) -> bool:
        """Must somebody else be asked whether this client may see this account?"""
        is_asked = self.identity is not None and self.identity.is_asked
        return is_asked and is_account_id(account_id) and not self.may_see(account_id)

    def refuse(self, account_id: str, why: Disconnect = Disconnect.FORBIDDEN) -> None:
        """Answer a subscribe message: there is no such account, it is another's, or it is never valued."""
        shown = account_id if is_account_id(account_id) else None
        if why is Disconnect.NOT_IN_DOLLARS:
            problem = HttpProblem.NOT_IN_DOLLARS
            self._reply(ErrorMessage("account_not_in_dollars", problem.detail, shown))
        else:
            self._reply(ErrorMessage("forbidden", HttpProblem.FORBIDDEN.detail, shown))

    def _bad_message(self, what: str) -> Disconnect | None:
        self._bad_messages += 1
        if self._bad_messages > BAD_MESSAGES_MAX:
            return Disconnect.BAD_MESSAGE
        return self._reply(ErrorMessage("bad_message", what))

    def _reply(self, message: ServerMessage) -> None:
        self._replies.append(text_frame(encode(message)))
        del self._replies[:-REPLIES_MAX]

    def pong(self, now_s: float) -> None:
        """The client has answered a ping."""
        self._ponged_s = now_s

    # What time brings

    def is_ping_due(self, now_s: float) -> bool:
        """Should a ping be sent now? Asking counts as sending."""
        is_answered = self._ponged_s >= self._pinged_s
        if self._paused_s is not None or not is_answered or now_s - self._pinged_s < self._ping_s:
            return False
        self._pinged_s, self.due_s = now_s, 0.0
        return True

    def disconnect_due(self, now_s: float) -> Disconnect | None:
        """Why this connection must end now, or None. Also tells the client that its token runs out."""
        if self._expires_s is not None and now_s >= self._expires_s:
            return Disconnect.TOKEN_EXPIRED
        for due_s, disconnect in self._deadlines():
            if now_s > due_s:
                return disconnect
        if self._is_notice_due and self._expires_s is not None and self._expires_s - now_s <= EXPIRY_NOTICE_S:
            self._is_notice_due = False
            self._reply(TokenExpiring(max(int(self._expires_s - now_s), 0)))
        self.due_s = self._next_due_s()
        return None

    def _deadlines(self) -> Iterator[tuple[float, Disconnect]]:
        if self._paused_s is not None:
            yield self._paused_s + UNSENT_S_MAX, Disconnect.SLOW_CONSUMER
        if self.identity is None:
            yield self._opened_s + AUTH_S_MAX, Disconnect.UNAUTHORIZED
        if self._pinged_s > self._ponged_s:
            yield self._pinged_s + PONG_S_MAX, Disconnect.NO_PONG
        yield self._ends_s, Disconnect.LIFETIME

    def _next_due_s(self) -> float:
        """When something happens at the earliest if nothing changes; what changes resets `due_s`."""
        due_s = min(due_s for due_s, _ in self._deadlines())
        if self._expires_s is not None:
            due_s = min(due_s, self._expires_s - EXPIRY_NOTICE_S if self._is_notice_due else self._expires_s)
        return min(due_s, self._pinged_s + self._ping_s)

"""One client without socket and clock: what is pending, what it has requested, and when it must be closed.

`now_s` is monotonic seconds. The owner of the socket writes the frames of `next_frame`, reports when the
socket is full (`pause`) and free again (`resume`), and calls `disconnect_due` regularly.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from portfolio_realtime.websocket_server.access.identity import Identity
from portfolio_realtime.websocket_server.clients.many_subscriptions import PROGRESS_S, ManySubscriptions
from portfolio_realtime.websocket_server.fanout.deltas import Whole, delta_head
from portfolio_realtime.websocket_server.fanout.freshness import SERVER, Lapse, freshness_frame
from portfolio_realtime.websocket_server.fanout.watched_account import StreamPosition, WatchedAccount
from portfolio_realtime.wire.frames import text_frame
from portfolio_realtime.wire.http_problems import HttpProblem
from portfolio_realtime.wire.messages import (
    Auth,
    ClientMessage,
    Disconnect,
    ErrorCode,
    ErrorMessage,
    Heartbeat,
    HeartbeatAck,
    ServerMessage,
    Subscribe,
    SubscribeMany,
    TokenExpiring,
    decode_client_message,
    encode,
    is_account_id,
)

UNSENT_S_MAX: Final = 10.0
AUTH_S_MAX: Final = 5.0
EXPIRY_NOTICE_S: Final = 30.0
AGE_S_MAX: Final = 12 * 3600.0  # if the settings do not say otherwise
AGE_JITTER: Final = 0.25  # of which at most this share is taken off
PING_S: Final = 20.0
PING_JITTER_S: Final = 5.0
PONG_S_MAX: Final = 10.0
SUBSCRIPTIONS_MAX: Final = 64
SUBSCRIPTIONS_MAX_BACK_END: Final = 20_000  # for a back end that may see every account
MESSAGES_PER_MINUTE_MAX: Final = 100
MESSAGES_PER_MINUTE_CLOSE: Final = 120  # messages above the maximum are refused; from here on we close
BACK_END_FACTOR: Final = 6  # a back end that may see every account may send this many times as many
BAD_MESSAGES_MAX: Final = 5
REPLIES_MAX: Final = 32  # waiting to be sent; the oldest is dropped
FREQUENCY_HZ_MIN: Final = 0.001


@dataclass(frozen=True, slots=True)
class ForbiddenRequest:
    """A subscribe message for an account that the client may not see. It has been answered."""


def seen_by(epoch: int | None, sequence: int | None) -> StreamPosition | None:
    """The stream position that a client reports from another server, or None if it reports none."""
    return None if epoch is None or sequence is None else StreamPosition(epoch, sequence)


def age_s_max(longest_s: float, jitter: float) -> float:
    """The longest stay of a client in seconds. `jitter`, from 0 to 1, spreads those that came together."""
    return longest_s * (1 - jitter * AGE_JITTER)


@dataclass(slots=True)
class ClientSubscription:
    """One client's subscription to one account."""

    account: WatchedAccount
    with_positions: bool
    interval_s: float = 0.0
    sent: StreamPosition | None = None  # last position sent, without direct writes
    due_s: float = 0.0
    is_direct: bool = False  # the hub writes publications to its socket itself
    told_hops: tuple[str, ...] = ()  # the stale hops that the client was told of
    seen: StreamPosition | None = None  # position seen on another server: nothing older is sent
    began: str = ""  # time of the subscription, RFC 3339
    delta: int | None = None  # the account's number in deltas; None: whole messages are sent
    base: Whole | None = None  # the last sent state, if deltas are sent

    @property
    def is_plain(self) -> bool:
        """Whether it wants whole messages without positions and without a rate limit."""
        return not self.with_positions and not self.interval_s and self.delta is None

    @property
    def is_told(self) -> bool:
        """Whether the client knows how fresh the account is."""
        return self.told_hops == self.lapse.hops

    @property
    def newest(self) -> StreamPosition | None:
        """The stream position of the newest publication with all that is wanted, or None."""
        return self.account.position(with_positions=self.with_positions)

    @property
    def is_behind(self) -> bool:
        """Whether the client has seen a newer publication than we have."""
        return self.seen is not None and (newest := self.newest) is not None and newest < self.seen

    @property
    def lapse(self) -> Lapse:
        """The hops from which nothing fresh arrives for this client, and since when."""
        lapse = self.account.lapse
        return Lapse((*lapse.hops, SERVER), self.began) if self.is_behind else lapse

    @property
    def position_sent(self) -> StreamPosition | None:
        """The client's position in the account's stream."""
        return self.account.at if self.is_direct else self.sent

    def frame(self) -> bytes:
        """The newest publication for this client, as a delta or as a whole message."""
        account, with_positions, base = self.account, self.with_positions, self.base
        if self.delta is None:
            return account.frame(self.sent, with_positions=with_positions)
        self.base = account.whole(with_positions=with_positions)
        if base is None:
            return account.frame(None, with_positions=with_positions)
        return text_frame(delta_head(self.delta) + account.delta_since(base, with_positions=with_positions))


class ClientConnection:
    """What is to be sent to one client, and what the client may do."""

    __slots__ = (
        "_bad_messages",
        "_direct",
        "_ends_s",
        "_expires_s",
        "_indirect",
        "_is_notice_due",
        "_many",
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
        """`jitter`, from 0 to 1, spreads pings and the end of connections that began together.

        `longest_s`: the longest time that the connection may last.
        """
        self.identity: Identity | None = None
        self.subscriptions: dict[str, ClientSubscription] = {}
        self._pending: dict[str, ClientSubscription] = {}
        self._direct: dict[str, ClientSubscription] = {}
        self._indirect: dict[str, ClientSubscription] = {}  # plain and current, may become direct
        self._replies: list[bytes] = []
        self._many = ManySubscriptions()
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
        """Set or renew the client's identity; return None, or why the connection must end."""
        if self.identity is not None and self.identity.subject != identity.subject:
            return Disconnect.UNAUTHORIZED
        # Accounts that were allowed stay allowed until they are checked again.
        if identity.is_asked and self.identity is not None:
            identity = identity.with_accounts(identity.accounts | self.identity.accounts)
        refusal = self.regarded(identity)
        if refusal is not None:
            return refusal
        self._expires_s = None if valid_for_s is None else now_s + valid_for_s
        self._is_notice_due = valid_for_s is not None
        self.due_s = self._next_due_s(now_s)
        return None

    def regarded(self, identity: Identity) -> Disconnect | None:
        """Set the accounts that the same client may see; return why the connection must end, or None."""
        if not all(identity.may_see(account_id) for account_id in self.subscriptions):
            return Disconnect.FORBIDDEN
        self.identity = identity
        return None

    # What goes out

    def subscribe(
        self, account: WatchedAccount, request: Subscribe, began: str = "", *, is_many: bool = False
    ) -> None:
        """Subscribe the client: it first gets a whole message, then what is newer than it has seen.

        `began`: the present time, RFC 3339. `is_many`: one of a back end's many accounts. It gets no value
        again that the request says it has.
        """
        hz = request.max_frequency_hz
        subscription = ClientSubscription(account, request.detail == "positions", 1 / hz if hz else 0.0)
        subscription.seen, subscription.began = seen_by(request.epoch, request.sequence), began
        subscription.delta = request.delta
        if is_many and not subscription.with_positions:
            subscription.sent = subscription.seen
        self.unsubscribe(account.account_id)
        self.subscriptions[account.account_id] = subscription
        if is_many:
            self._many.begin(account.account_id, is_waiting=subscription.sent is None)
            self.due_s = 0.0
        self.mark_pending(account)

    def unsubscribe(self, account_id: str) -> None:
        """End a subscription."""
        subscription = self.subscriptions.pop(account_id, None)
        if subscription is not None and subscription.is_direct:
            self._recall(subscription)
        self._indirect.pop(account_id, None)
        self._pending.pop(account_id, None)
        self._many.sent(account_id)

    def mark_pending(self, account: WatchedAccount) -> bool:
        """Note that the account has a newer publication or another freshness.

        Returns whether an unsent publication was replaced.
        """
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
        elif newest is not None:
            self._note_current(subscription)
        return False

    def _note_current(self, subscription: ClientSubscription) -> None:
        if subscription.is_plain:
            self._indirect[subscription.account.account_id] = subscription

    @property
    def has_pending(self) -> bool:
        """Whether `next_frame` may have something, now or later."""
        return bool(self._pending or self._replies) or self._many.due_s() is not None

    @property
    def may_go_direct(self) -> bool:
        """Whether nothing is pending and a plain subscription is current but not direct."""
        return bool(self._indirect) and not (self._pending or self._replies or self._paused_s is not None)

    def go_direct(self, fileno: int) -> None:
        """Let the hub write publications of plain subscriptions to the socket itself, if nothing is pending.

        Nearly all messages are sent this way. A connection that is paused or ends is not direct any more.
        """
        if not self.may_go_direct:
            return
        candidates, self._indirect = self._indirect, {}
        for account_id, subscription in candidates.items():
            is_current = subscription.sent is not None and subscription.sent == subscription.account.at
            if is_current and subscription.is_told:
                subscription.is_direct = True
                subscription.account.go_direct(self, fileno)
                self._direct[account_id] = subscription

    def leave_direct(self) -> None:
        """From now on write only the frames of `next_frame`."""
        for subscription in tuple(self._direct.values()):
            self._recall(subscription)

    def _recall(self, subscription: ClientSubscription) -> None:
        subscription.sent, subscription.is_direct = subscription.account.at, False
        subscription.account.leave_direct(self)
        del self._direct[subscription.account.account_id]
        self._note_current(subscription)

    def next_frame(self, now_s: float) -> bytes | None:
        """The next frame to send, or None: nothing is pending or due, or the socket is full."""
        if self._paused_s is not None:
            return None
        if self._replies:
            return self._replies.pop(0)
        if (progress := self._many.progress(len(self.subscriptions), now_s)) is not None:
            return text_frame(encode(progress))
        for account_id, subscription in tuple(self._pending.items()):
            newest, is_behind = subscription.newest, subscription.is_behind
            if not subscription.is_told:
                lapse = subscription.lapse
                subscription.told_hops = lapse.hops
                if is_behind or newest == subscription.sent:
                    del self._pending[account_id]
                    self._note_current(subscription)
                return freshness_frame(account_id, lapse)
            if is_behind:  # wait for a publication newer than the client has seen
                del self._pending[account_id]
                continue
            if newest is None or subscription.due_s > now_s:  # None: its positions have not arrived yet
                continue
            del self._pending[account_id]
            frame = subscription.frame()
            subscription.seen = None
            self._many.sent(account_id)
            subscription.sent, subscription.due_s = newest, now_s + subscription.interval_s
            self._note_current(subscription)
            return frame
        return None

    def due_in_s(self, now_s: float) -> float | None:
        """Seconds until a value that the client's rate limit holds back is due; None if there is none."""
        if not self._pending:
            return None
        due = [subscription.due_s for subscription in self._pending.values() if subscription.due_s > now_s]
        return min(due) - now_s if due else None

    def pause(self, now_s: float) -> None:
        """Note that the socket is full. The caller then ends direct writes."""
        if self._paused_s is None:
            self._paused_s, self.due_s = now_s, 0.0

    def resume(self) -> None:
        """Note that the socket accepts data again."""
        self._paused_s = None

    # What comes in

    def received(
        self, text: bytes, now_s: float, *, user_may_send: bool = True
    ) -> ClientMessage | ForbiddenRequest | Disconnect | None:
        """Process a message from the client.

        `user_may_send`: whether the user's limit, over all connections, allows it. Returns what the caller
        still has to do: a message (authenticate, subscribe, unsubscribe), a ForbiddenRequest to count, a
        reason to close, or None.
        """
        self._messages += 1
        if now_s - self._minute_s >= 60:
            self._minute_s, self._messages = now_s, 1
        factor = BACK_END_FACTOR if self._is_back_end else 1
        if self._messages > factor * MESSAGES_PER_MINUTE_CLOSE:
            return Disconnect.BAD_MESSAGE
        if self._messages > factor * MESSAGES_PER_MINUTE_MAX:
            return self._refuse_message(f"at most {factor * MESSAGES_PER_MINUTE_MAX} a minute")
        if not user_may_send:
            return self._refuse_message("this user sends too many messages in a minute, over all connections")
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
        if isinstance(message, SubscribeMany):
            return self._permitted_many(message)
        return self._permitted(message) if isinstance(message, Subscribe) else message

    def _refuse_message(self, reason: str) -> None:
        self._reply(ErrorMessage("too_many_messages", reason))

    def _permitted(self, message: Subscribe) -> Subscribe | ForbiddenRequest | Disconnect | None:
        hz = message.max_frequency_hz
        if hz is not None and not FREQUENCY_HZ_MIN <= hz < float("inf"):
            return self._bad_message(f"max_frequency_hz must be at least {FREQUENCY_HZ_MIN}")
        if message.delta is not None and self._is_number_of_another(message.delta, message.account_id):
            return self._bad_message(f"delta {message.delta} is used for another account; choose another")
        if not self.may_see(message.account_id) and not self.must_ask(message.account_id):
            self.refuse(message.account_id)
            return ForbiddenRequest()
        is_full = len(self.subscriptions) >= self._subscriptions_max
        if is_full and message.account_id not in self.subscriptions:
            said = f"at most {self._subscriptions_max} in one connection"
            error = ErrorMessage("too_many_subscriptions", said, message.account_id)
            return self._reply(error)
        return message

    def _is_number_of_another(self, number: int, account_id: str) -> bool:
        return any(one.delta == number and name != account_id for name, one in self.subscriptions.items())

    @property
    def _subscriptions_max(self) -> int:
        return SUBSCRIPTIONS_MAX_BACK_END if self._is_back_end else SUBSCRIPTIONS_MAX

    @property
    def _is_back_end(self) -> bool:
        return self.identity is not None and self.identity.is_for_every_account

    def _permitted_many(self, message: SubscribeMany) -> SubscribeMany | Disconnect | None:
        """The message with the accounts that the client may have. The others are refused one by one."""
        if message.have and len(message.have) != len(message.account_ids):
            return self._bad_message("have must have as many entries as account_ids")
        have = message.have or [None] * len(message.account_ids)
        wanted = dict(zip(message.account_ids, have, strict=True))
        room = self._subscriptions_max - len(self.subscriptions)
        for account_id in tuple(wanted):
            is_new = account_id not in self.subscriptions
            if not self.may_see(account_id):
                del wanted[account_id]
                self._many.refuse(account_id if is_account_id(account_id) else "", "forbidden")
            elif is_new and room <= 0:
                del wanted[account_id]
                self._many.refuse(account_id, "too_many_subscriptions")
            else:
                room -= is_new
        return SubscribeMany([*wanted], message.detail, [*wanted.values()])

    def may_see(self, account_id: str) -> bool:
        """Whether the client's identity allows this account."""
        return self.identity is not None and is_account_id(account_id) and self.identity.may_see(account_id)

    def must_ask(self, account_id: str) -> bool:
        """Whether webhook or entitlements must decide if the client may see this account."""
        is_asked = self.identity is not None and self.identity.is_asked
        return is_asked and is_account_id(account_id) and not self.may_see(account_id)

    def refuse(self, account_id: str, why: Disconnect = Disconnect.FORBIDDEN) -> None:
        """Answer a subscribe message: the account does not exist, is not the client's, or is never valued."""
        is_foreign = why is Disconnect.NOT_IN_DOLLARS
        problem = HttpProblem.NOT_IN_DOLLARS if is_foreign else HttpProblem.FORBIDDEN
        code: ErrorCode = "account_not_in_dollars" if is_foreign else "forbidden"
        if account_id in self._many.waiting:
            self._many.refuse(account_id, code)
        else:
            shown = account_id if is_account_id(account_id) else None
            self._reply(ErrorMessage(code, problem.detail, shown))

    def _bad_message(self, what: str) -> Disconnect | None:
        self._bad_messages += 1
        if self._bad_messages > BAD_MESSAGES_MAX:
            return Disconnect.BAD_MESSAGE
        return self._reply(ErrorMessage("bad_message", what))

    def _reply(self, message: ServerMessage) -> None:
        self._replies.append(text_frame(encode(message)))
        del self._replies[:-REPLIES_MAX]

    def pong(self, now_s: float) -> None:
        """Note that the client has answered a ping."""
        self._ponged_s = now_s

    # What time brings

    def is_ping_due(self, now_s: float) -> bool:
        """Whether a ping is due. The caller must then send one."""
        is_answered = self._ponged_s >= self._pinged_s
        if self._paused_s is not None or not is_answered or now_s - self._pinged_s < self._ping_s:
            return False
        self._pinged_s, self.due_s = now_s, 0.0
        return True

    def disconnect_due(self, now_s: float) -> Disconnect | None:
        """Why this connection must end now, or None.

        Also adds a notice for the client when its token is about to expire.
        """
        if self._expires_s is not None and now_s >= self._expires_s:
            return Disconnect.TOKEN_EXPIRED
        for due_s, disconnect in self._deadlines():
            if now_s > due_s:
                return disconnect
        if self._is_notice_due and self._expires_s is not None and self._expires_s - now_s <= EXPIRY_NOTICE_S:
            self._is_notice_due = False
            self._reply(TokenExpiring(max(int(self._expires_s - now_s), 0)))
        self.due_s = self._next_due_s(now_s)
        return None

    def _deadlines(self) -> Iterator[tuple[float, Disconnect]]:
        if self._paused_s is not None:
            yield self._paused_s + UNSENT_S_MAX, Disconnect.SLOW_CONSUMER
        if self.identity is None:
            yield self._opened_s + AUTH_S_MAX, Disconnect.UNVERIFIABLE  # it may only have been slow, or we
        if self._pinged_s > self._ponged_s:
            yield self._pinged_s + PONG_S_MAX, Disconnect.NO_PONG
        yield self._ends_s, Disconnect.LIFETIME

    def _next_due_s(self, now_s: float) -> float:
        """When `disconnect_due` next has something to do. Every change resets `due_s`."""
        due_s = min(due_s for due_s, _ in self._deadlines())
        due_s = min(due_s, now_s + PROGRESS_S if self._many.waiting else due_s)
        if self._expires_s is not None:
            due_s = min(due_s, self._expires_s - EXPIRY_NOTICE_S if self._is_notice_due else self._expires_s)
        return min(due_s, self._pinged_s + self._ping_s)

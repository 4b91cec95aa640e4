"""One client, with a made-up clock: pending, pace, limits, deadlines."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio_realtime.websocket_server.access.authentication import Identity
from portfolio_realtime.websocket_server.clients import connection as limits
from portfolio_realtime.websocket_server.clients.connection import ClientConnection, ForbiddenRequest
from portfolio_realtime.websocket_server.fanout.hub import Hub
from portfolio_realtime.websocket_server.fanout.newest_columns import StreamPosition
from portfolio_realtime.websocket_server.fanout.watched_account import WatchedAccount
from portfolio_realtime.wire.messages import Auth, Disconnect, Heartbeat, Subscribe, Unsubscribe
from tests.support.publications import batch_of, gathered, payload, publication

ALICE = Identity("alice", frozenset({"a", "ab"}))


class Silent:
    """A subscriber that only keeps an account watched."""

    is_patient = True

    def notify(self, account: WatchedAccount) -> None: ...

    def refuse(self, account_id: str, why: Disconnect) -> None: ...

    def position_sent(self, account_id: str) -> StreamPosition | None: ...


@pytest.fixture
def hub() -> Hub:
    return Hub(lambda _, __: 0)


@pytest.fixture
def connection() -> ClientConnection:
    """Alice's, opened at 0."""
    opened = ClientConnection(0.0)
    assert opened.authenticated(ALICE, 0.0, None) is None
    return opened


def watched(hub: Hub, account_id: str = "a") -> WatchedAccount:
    return hub.subscribe(Silent(), account_id, with_positions=False)[0]


def publish(hub: Hub, sequence: int, account_id: str = "a") -> None:
    hub.publish(gathered(batch_of(1, [publication(account_id, 1, sequence)])))


def reply(connection: ClientConnection, now_s: float = 0.0) -> dict[str, object]:
    frame = connection.next_frame(now_s)
    assert frame is not None
    return payload(frame)


def test_a_paused_client_gets_only_the_newest_when_it_resumes(connection: ClientConnection, hub: Hub) -> None:
    """Conflation: what it missed is gone, and costs nothing."""
    account = watched(hub)
    connection.subscribe(account, Subscribe("a"))
    connection.pause(0.0)
    replaced = 0
    for sequence in range(1, 100):
        publish(hub, sequence)
        replaced += connection.mark_pending(account)
    assert connection.next_frame(1.0) is None
    connection.resume()
    assert reply(connection)["sequence"] == 99
    assert connection.next_frame(1.0) is None
    assert replaced == 98


def test_a_client_that_stays_paused_is_a_slow_consumer(connection: ClientConnection) -> None:
    """Not before the deadline, not after a resume, surely after it."""
    connection.pause(5.0)
    assert connection.disconnect_due(5.0 + limits.UNSENT_S_MAX) is None
    assert connection.disconnect_due(5.1 + limits.UNSENT_S_MAX) is Disconnect.SLOW_CONSUMER
    connection.resume()
    assert connection.disconnect_due(5.1 + limits.UNSENT_S_MAX) is None


def test_a_client_may_lower_its_rate_and_still_gets_the_last_value(
    connection: ClientConnection, hub: Hub
) -> None:
    """One in two seconds; the trailing value comes when it is due."""
    account = watched(hub)
    connection.subscribe(account, Subscribe("a", max_frequency_hz=0.5))
    publish(hub, 1)
    connection.mark_pending(account)
    assert reply(connection, 10.0)["sequence"] == 1
    for sequence in (2, 3):
        publish(hub, sequence)
        connection.mark_pending(account)
    assert connection.next_frame(11.9) is None
    assert connection.due_in_s(11.5) == pytest.approx(0.5)
    assert reply(connection, 12.0)["sequence"] == 3
    assert connection.due_in_s(12.0) is None


def test_the_rate_of_one_account_does_not_hold_back_another(connection: ClientConnection, hub: Hub) -> None:
    """Each subscription has its own pace."""
    slow, fast = watched(hub, "a"), watched(hub, "ab")
    connection.subscribe(slow, Subscribe("a", max_frequency_hz=0.1))
    connection.subscribe(fast, Subscribe("ab"))
    for sequence in (1, 2):
        for account in (slow, fast):
            publish(hub, sequence, account.account_id)
            connection.mark_pending(account)
        seen = [reply(connection, 0.0)["account_id"] for _ in range(2 if sequence == 1 else 1)]
        assert "ab" in seen


def test_who_says_nothing_is_closed_after_the_deadline() -> None:
    """No first auth message in 5 s."""
    connection = ClientConnection(100.0)
    assert connection.disconnect_due(100.0 + limits.AUTH_S_MAX) is None
    assert connection.disconnect_due(100.1 + limits.AUTH_S_MAX) is Disconnect.UNVERIFIABLE


def test_a_token_is_announced_to_expire_once_and_then_closes() -> None:
    """30 s of notice, then 4004."""
    connection = ClientConnection(0.0)
    connection.authenticated(ALICE, 0.0, 100.0)
    assert connection.disconnect_due(69.0) is None
    assert connection.next_frame(69.0) is None
    assert connection.disconnect_due(70.0) is None
    assert reply(connection, 70.0) == {"type": "token_expiring", "in_s": 30}
    assert connection.disconnect_due(80.0) is None
    assert connection.next_frame(80.0) is None
    assert connection.disconnect_due(100.0) is Disconnect.TOKEN_EXPIRED


def test_a_refreshed_token_prolongs_and_another_subject_is_refused(
    connection: ClientConnection, hub: Hub
) -> None:
    """Only the same user, and only one who may still see what is subscribed."""
    connection.subscribe(watched(hub), Subscribe("a"))
    assert connection.authenticated(ALICE, 90.0, 200.0) is None
    assert connection.disconnect_due(150.0) is None
    mallory = Identity("mallory", ALICE.accounts)
    assert connection.authenticated(mallory, 90.0, 200.0) is Disconnect.UNAUTHORIZED
    narrowed = Identity("alice", frozenset({"ab"}))
    assert connection.authenticated(narrowed, 90.0, 200.0) is Disconnect.FORBIDDEN
    assert connection.identity == ALICE


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"nonsense",
        b"[]",
        b"null",
        b"{}",
        b'{"type":"buy"}',
        b'{"type":"auth"}',
        b'{"type":"auth","token":7}',
        b'{"type":"subscribe","account_id":"a","detail":"everything"}',
        b'{"type":"subscribe","account_id":"a","max_frequency_hz":0}',
        b'{"type":"subscribe","account_id":"a","max_frequency_hz":-1}',
        b'{"type":"subscribe","account_id":"a","max_frequency_hz":1e999}',
        b'{"type":"subscribe","account_id":["a"]}',
        b'{"type":"heartbeat","timestamp":{}}',
        b"\xff\xfe",
        b'{"type":"auth","token":"\xff"}',
        b"[" * 4000,
        b'{"x":' * 500 + b"1" + b"}" * 500,
    ],
)
def test_a_bad_message_gets_an_error_and_a_series_of_them_closes(
    connection: ClientConnection, text: bytes
) -> None:
    """The connection survives a few, and never fails."""
    for _ in range(limits.BAD_MESSAGES_MAX):
        assert connection.received(text, 0.0) is None
        assert reply(connection)["code"] == "bad_message"
    assert connection.received(text, 0.0) is Disconnect.BAD_MESSAGE


def test_good_messages_are_understood(connection: ClientConnection) -> None:
    """Each kind, with its defaults."""
    heartbeat = connection.received(b'{"type":"heartbeat","timestamp":1763822405123}', 0.0)
    assert heartbeat == Heartbeat(1763822405123)
    assert reply(connection) == {"type": "heartbeat_ack", "timestamp": 1763822405123}
    assert connection.received(b'{"type":"auth","token":"x"}', 0.0) == Auth("x")
    assert connection.received(b'{"type":"subscribe","account_id":"a"}', 0.0) == Subscribe("a", "value", None)
    assert connection.received(b'{"type":"unsubscribe","account_id":"a"}', 0.0) == Unsubscribe("a")


@pytest.mark.parametrize(
    "account_id", ["b", "", "abc", "A", "*", "a*", "../a", "a b", "a\n", "x" * 65, "{s01}:accounts"]
)
def test_an_account_of_another_and_one_that_cannot_be_get_the_same_answer(
    connection: ClientConnection, account_id: str
) -> None:
    """Nothing tells them apart but the id that was asked for."""
    text = json.dumps({"type": "subscribe", "account_id": account_id}).encode()
    assert connection.received(text, 0.0) == ForbiddenRequest()
    answer = reply(connection)
    assert (answer["code"], answer["message"]) == (
        "forbidden",
        "the account does not exist, or it is not yours",
    )


def test_nothing_can_be_subscribed_before_the_client_has_said_who_it_is() -> None:
    """A subscribe message without a token ends the connection."""
    assert (
        ClientConnection(0.0).received(b'{"type":"subscribe","account_id":"a"}', 0.0)
        is Disconnect.UNAUTHORIZED
    )


def test_too_many_messages_are_refused_then_closed_and_a_new_minute_is_new(
    connection: ClientConnection,
) -> None:
    """100 a minute; a little more gets an error, much more the end."""
    beat = b'{"type":"heartbeat"}'
    for _ in range(limits.MESSAGES_PER_MINUTE_MAX):
        assert connection.received(beat, 1.0) is not None
        assert reply(connection)["type"] == "heartbeat_ack"
    assert connection.received(beat, 1.0) is None
    assert reply(connection)["code"] == "too_many_messages"
    assert isinstance(connection.received(beat, 61.0), Heartbeat)
    for _ in range(limits.MESSAGES_PER_MINUTE_CLOSE - 1):
        connection.received(beat, 61.0)
    assert connection.received(beat, 61.0) is Disconnect.BAD_MESSAGE


def test_messages_beyond_the_limit_of_the_user_count_too(connection: ClientConnection) -> None:
    """Who goes on in spite of the errors is closed, whichever limit refuses the messages."""
    beat = b'{"type":"heartbeat"}'
    for _ in range(limits.MESSAGES_PER_MINUTE_CLOSE):
        assert connection.received(beat, 1.0, user_may_send=False) is None
        assert reply(connection)["code"] == "too_many_messages"
    assert connection.received(beat, 1.0, user_may_send=False) is Disconnect.BAD_MESSAGE


def test_a_connection_holds_at_most_64_subscriptions(hub: Hub) -> None:
    """The 65th gets an error; subscribing again to one of the 64 does not."""
    connection = ClientConnection(0.0)
    named = frozenset({"more", *(f"n{index}" for index in range(limits.SUBSCRIPTIONS_MAX))})
    connection.authenticated(Identity("alice", named), 0.0, None)
    for index in range(limits.SUBSCRIPTIONS_MAX):
        request = connection.received(b'{"type":"subscribe","account_id":"n%d"}' % index, 0.0)
        assert isinstance(request, Subscribe)
        connection.subscribe(watched(hub, request.account_id), request)
    assert connection.received(b'{"type":"subscribe","account_id":"more"}', 0.0) is None
    said = reply(connection)
    assert said["code"] == "too_many_subscriptions"
    assert said["account_id"] == "more"  # so that the client knows which one it goes without
    assert isinstance(connection.received(b'{"type":"subscribe","account_id":"n1"}', 0.0), Subscribe)


def test_a_client_that_does_not_answer_pings_is_closed(connection: ClientConnection) -> None:
    """A ping every 20 s, 10 s to answer."""
    assert not connection.is_ping_due(limits.PING_S - 1)
    assert connection.is_ping_due(limits.PING_S)
    assert not connection.is_ping_due(limits.PING_S + 1)
    connection.pong(limits.PING_S + 1)
    assert connection.disconnect_due(limits.PING_S + limits.PONG_S_MAX + 2) is None
    assert connection.is_ping_due(2 * limits.PING_S)
    assert connection.disconnect_due(2 * limits.PING_S + limits.PONG_S_MAX) is None
    assert connection.disconnect_due(2 * limits.PING_S + limits.PONG_S_MAX + 1) is Disconnect.NO_PONG


def test_clients_that_came_together_are_not_pinged_and_not_sent_away_together() -> None:
    """Pings every 20 to 25 s, the last quarter of the longest age, as chance has it for each."""
    for jitter, ping_s, age_s in ((0.0, 20, 7200), (0.5, 22.5, 6300), (1.0, 25, 5400)):
        connection = ClientConnection(100.0, jitter, 7200)
        connection.authenticated(ALICE, 100.0, None)
        assert not connection.is_ping_due(100.0 + ping_s - 0.1)
        assert connection.is_ping_due(100.0 + ping_s)
        connection.pong(100.0 + ping_s)
        assert connection.disconnect_due(100.0 + age_s) is None
        assert connection.disconnect_due(100.1 + age_s) is Disconnect.LIFETIME


class Watcher:
    """Sweeps over one connection as the endpoint does: always, or only when it says that something is due."""

    def __init__(self, *, only_when_due: bool) -> None:
        self.connection = ClientConnection(0.0, 0.5)
        self.connection.authenticated(ALICE, 0.0, None)
        self.only_when_due = only_when_due
        self.told: list[object] = []

    def sweep(self, now_s: float) -> None:
        if self.told[-1:] and isinstance(self.told[-1], Disconnect):
            return
        if self.only_when_due and now_s < self.connection.due_s:
            return
        disconnect = self.connection.disconnect_due(now_s)
        if disconnect is not None:
            self.told.append(disconnect)
        elif self.connection.is_ping_due(now_s):
            self.told.append(("ping", now_s))
        while (frame := self.connection.next_frame(now_s)) is not None:
            self.told.append((payload(frame)["type"], now_s))

    def hear(self, event: str, now_s: float) -> None:
        if event == "pong":
            self.connection.pong(now_s)
        elif event == "pause":
            self.connection.pause(now_s)
        elif event == "resume":
            self.connection.resume()
        elif event == "auth":
            self.connection.authenticated(ALICE, now_s, 45.0)
        elif event == "auth for ever":
            self.connection.authenticated(ALICE, now_s, None)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["pong", "pong", "pause", "resume", "auth", "auth for ever", "nothing", "nothing"]),
        st.sampled_from([0.5, 1.0, 3.0, 9.0, 15.0, 4000.0]),
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_who_is_checked_only_when_something_is_due_is_told_the_same(steps: list[tuple[str, float]]) -> None:
    """Every ping, notice and deadline comes at the same moment as with a check at every sweep."""
    always, due = Watcher(only_when_due=False), Watcher(only_when_due=True)
    now_s = 0.0
    for event, wait_s in steps:
        for watcher in (always, due):
            watcher.hear(event, now_s)
        for _ in range(3):
            now_s += wait_s / 3
            for watcher in (always, due):
                watcher.sweep(now_s)
            assert due.told == always.told


def test_replies_to_a_client_that_does_not_read_are_bounded(connection: ClientConnection) -> None:
    """The oldest are dropped."""
    connection.pause(0.0)
    for _ in range(limits.MESSAGES_PER_MINUTE_MAX):
        connection.received(b'{"type":"heartbeat"}', 0.0)
    connection.resume()
    taken = 0
    while connection.next_frame(0.0) is not None:
        taken += 1
    assert taken == limits.REPLIES_MAX


ACCOUNT_IDS = [f"n{index}" for index in range(80)]  # more than one connection may subscribe to


def _message(kind: str, account_id: str, detail: str) -> bytes:
    return json.dumps({"type": kind, "account_id": account_id, "detail": detail}).encode()


SENT = st.one_of(
    st.sampled_from([b'{"type":"heartbeat"}', b"nonsense", b'{"type":"subscribe","account_id":"../a"}']),
    st.builds(
        _message,
        st.sampled_from(["subscribe", "subscribe", "unsubscribe"]),
        st.sampled_from(ACCOUNT_IDS),
        st.sampled_from(["value", "positions"]),
    ),
)
EVERYTHING = [_message("subscribe", account_id, "value") for account_id in ACCOUNT_IDS]
BURSTS = st.lists(
    st.tuples(st.one_of(st.just(EVERYTHING), st.lists(SENT, min_size=1, max_size=12)), st.integers(1, 12)),
    max_size=8,
)


@settings(max_examples=100, deadline=None)
@given(BURSTS, st.booleans())
def test_at_most_32_replies_and_64_values_wait_for_a_client_whatever_it_sends(
    bursts: list[tuple[list[bytes], int]], is_paused: bool
) -> None:
    """And what waits is no more than what it can get: the rest is dropped or conflated."""
    hub, connection, now_s = Hub(lambda _, __: 0), ClientConnection(0.0), 0.0
    connection.authenticated(Identity("alice", frozenset(ACCOUNT_IDS)), 0.0, None)
    if is_paused:
        connection.pause(0.0)
    for sequence, (texts, times) in enumerate(bursts, 1):
        for text in texts * times:
            request = connection.received(text, now_s)
            if isinstance(request, Disconnect):
                now_s += 60.0  # as if it had come back: its subscriptions stay, which is worse
            elif isinstance(request, Subscribe):
                connection.subscribe(watched(hub, request.account_id), request)
            elif isinstance(request, Unsubscribe):
                connection.unsubscribe(request.account_id)
        hub.publish(gathered(batch_of(1, [publication(name, 1, sequence) for name in ACCOUNT_IDS])))
        for account in hub.accounts.values():
            connection.mark_pending(account)
        assert len(connection._replies) <= 32
        assert len(connection._pending) <= len(connection.subscriptions) <= 64
        assert connection._pending.keys() <= connection.subscriptions.keys()
    connection.resume()
    frames = 0
    while connection.next_frame(now_s) is not None:
        frames += 1
    assert frames <= 32 + len(connection.subscriptions)


def test_the_range_of_a_close_code_says_whether_to_reconnect() -> None:
    """4000-4499 reconnect, 4500-4999 do not; no code twice."""
    codes = [disconnect.code for disconnect in Disconnect]
    assert len(set(codes)) == len(codes)
    final = {
        Disconnect.UNAUTHORIZED,
        Disconnect.CONNECTION_LIMIT,
        Disconnect.FORBIDDEN,
        Disconnect.NOT_IN_DOLLARS,
        Disconnect.BAD_MESSAGE,
    }
    assert {disconnect for disconnect in Disconnect if disconnect.code >= 4500} == final
    assert all(4000 <= code < 5000 for code in codes)

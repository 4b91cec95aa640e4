"""Fan-out under any order of events: never older, never another's, the newest always, deltas add up."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio_realtime.model import Publication
from portfolio_realtime.websocket_server.clients.connection import ClientConnection, ClientSubscription
from portfolio_realtime.websocket_server.fanout import hub as hub_module
from portfolio_realtime.websocket_server.fanout import newest_columns as columns_module
from portfolio_realtime.websocket_server.fanout import watched_account as watched_module
from portfolio_realtime.websocket_server.fanout.hub import Gathered, Hub
from portfolio_realtime.websocket_server.fanout.newest_columns import StreamPosition
from portfolio_realtime.websocket_server.fanout.watched_account import WatchedAccount
from portfolio_realtime.wire.frames import text_frame
from portfolio_realtime.wire.messages import Disconnect, Subscribe
from tests.support.publications import Picture, batch_of, gathered, payload, payloads, publication, stored

ACCOUNTS = ("a", "ab")  # one is a prefix of the other


@pytest.fixture(autouse=True, scope="module", params=[0, 1_000_000], ids=["in columns", "one by one"])
def columns_min(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everything holds for few publications and for many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub_module, "COLUMNS_MIN", request.param)
        yield


class Client:
    """A subscriber on the pure connection, with what it shows for each account."""

    is_patient = True

    def __init__(self) -> None:
        self.fileno = next(_filenos)
        _clients[self.fileno] = self
        self.connection = ClientConnection(0.0)
        self.pictures: dict[str, Picture] = {}
        self.refused: list[str] = []
        self.is_paused = False
        self.now_s = 0.0

    def subscribe(self, hub: Hub, account_id: str, detail: str, hz: float | None = None) -> bool:
        self.pictures[account_id] = Picture(hz)
        account, begins = hub.subscribe(self, account_id, with_positions=detail == "positions")
        self.connection.subscribe(account, Subscribe(account_id, detail, hz))  # type: ignore[arg-type]  # one of two texts
        return begins

    def unsubscribe(self, hub: Hub, account_id: str) -> None:
        hub.unsubscribe(self, account_id)
        self.connection.unsubscribe(account_id)
        self.pictures.pop(account_id, None)

    def read(self, now_s: float = 0.0, frames: int = 1000) -> None:
        """Take at most so many frames; who has read all may be written to directly."""
        self.now_s = now_s
        for _ in range(frames):
            frame = self.connection.next_frame(now_s)
            if frame is None:
                return self.connection.go_direct(self.fileno)
            self.show(frame)
        return None

    def write(self, frames: bytes) -> None:
        """The hub's short way to the socket, which must have room."""
        assert not self.is_paused
        for message in payloads(frames):
            self.pictures[message["account_id"]].show(message, self.now_s)

    def pause(self, now_s: float) -> None:
        self.is_paused = True
        self.connection.pause(now_s)
        self.connection.leave_direct()

    def resume(self) -> None:
        self.is_paused = False
        self.connection.resume()

    def show(self, frame: bytes) -> None:
        """What a browser does with a frame."""
        message = payload(frame)
        self.pictures[message["account_id"]].show(message, self.now_s)

    def notify(self, account: WatchedAccount) -> None:
        self.connection.mark_pending(account)

    def refuse(self, account_id: str, why: Disconnect) -> None:
        self.refused.append(account_id)

    def position_sent(self, account_id: str) -> StreamPosition | None:
        subscription = self.connection.subscriptions.get(account_id)
        return subscription.position_sent if subscription else None


_filenos = count(5)
_clients: WeakValueDictionary[int, Client] = WeakValueDictionary()


def write_all(filenos: Sequence[int], frames: Sequence[bytes]) -> int:
    """Each number is a client's."""
    assert len(set(filenos)) == len(filenos)
    for fileno, text in zip(filenos, frames, strict=True):
        _clients[fileno].write(text)
    return sum(map(len, frames))


def publish(hub: Hub, epoch: int, *publications: Publication) -> None:
    hub.publish(gathered(batch_of(epoch, publications)))


class World:
    """A hub, its clients, a clock, and what was published."""

    def __init__(self) -> None:
        self.hub = Hub(write_all)
        self.clients = [Client() for _ in range(2)]
        self.now_s = 0.0
        self.published: dict[tuple[str, int, int], dict[str, str]] = {}
        self.newest_of: dict[str, tuple[int, int]] = {}  # since somebody watches

    def publish(self, account_id: str, epochs: int, sequences: int, quantities: dict[str, str]) -> None:
        """So many epochs and sequences after the newest, or before it."""
        epoch, sequence = max((at for name, *at in self.published if name == account_id), default=(5, 0))
        epoch, sequence = epoch + epochs, sequence + sequences if not epochs else 1
        # one (epoch, sequence) is one publication, however often it comes
        known = self.published.setdefault((account_id, epoch, sequence), quantities)
        if account_id in self.hub.accounts:
            self.newest_of[account_id] = max(self.newest_of.get(account_id, (0, 0)), (epoch, sequence))
        publish(self.hub, epoch, publication(account_id, epoch, sequence, known))

    def read(self, index: int, frames: int) -> None:
        self.clients[index].read(self.now_s, frames)

    def subscribe(self, index: int, account_id: str, detail: str, hz: float | None) -> None:
        self.clients[index].subscribe(self.hub, account_id, detail, hz)

    def unsubscribe(self, index: int, account_id: str) -> None:
        self.clients[index].unsubscribe(self.hub, account_id)

    def pause(self, index: int) -> None:
        self.clients[index].pause(self.now_s)

    def resume(self, index: int) -> None:
        self.clients[index].resume()

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        for client in self.clients:
            client.now_s = self.now_s

    def check(self) -> None:
        """What must hold at any moment."""
        self.newest_of = {name: at for name, at in self.newest_of.items() if name in self.hub.accounts}
        assert {name: account.at for name, account in self.hub.accounts.items()} == {
            name: self.newest_of.get(name) for name in self.hub.accounts
        }
        for client in self.clients:
            subscriptions = client.connection.subscriptions
            assert client.connection._pending.keys() <= subscriptions.keys() <= set(ACCOUNTS), "is bounded"
            for account_id, subscription in subscriptions.items():
                self.check_picture(client.pictures[account_id], account_id, subscription)
            if not any(subscription.is_direct for subscription in subscriptions.values()):
                # its socket may be closed now, and the number soon be another's
                assert client.fileno not in self.hub._columns.socket

    def check_picture(self, picture: Picture, account_id: str, subscription: ClientSubscription) -> None:
        """P2: it never goes back. P3: what was sent so far adds up to the whole of that sequence."""
        seen = picture.positions_seen
        assert seen == sorted(set(seen))
        assert (seen[-1] if seen else None) == subscription.position_sent
        if seen and subscription.with_positions:
            assert picture.quantities == self.published[account_id, *seen[-1]]

    def check_everybody_has_the_newest(self) -> None:
        """When everybody has read, nobody is behind."""
        self.now_s += 1000
        for client in self.clients:
            client.resume()
            client.read(self.now_s)
            for account_id, subscription in client.connection.subscriptions.items():
                seen = client.pictures[account_id].positions_seen
                newest = subscription.account.position(with_positions=subscription.with_positions)
                assert (seen[-1] if seen else None) == newest


QUANTITIES = st.dictionaries(st.sampled_from(["A", "B", "C"]), st.sampled_from(["1", "2"]))
CLIENT = st.integers(0, len(World().clients) - 1)
ACCOUNT = st.sampled_from(ACCOUNTS)
PUBLISH = st.tuples(
    st.just("publish"),
    ACCOUNT,
    st.sampled_from([0, 0, 0, 0, 0, 1, -1]),
    st.sampled_from([1, 1, 1, 3, 0, -1]),
    QUANTITIES,
)
READ = st.tuples(st.just("read"), CLIENT, st.sampled_from([1, 1000]))
SUBSCRIBE = st.tuples(
    st.just("subscribe"),
    CLIENT,
    ACCOUNT,
    st.sampled_from(["value", "positions"]),
    st.sampled_from([None, None, 0.5]),
)
OTHERS = st.one_of(
    SUBSCRIBE,
    st.tuples(st.just("unsubscribe"), CLIENT, ACCOUNT),
    st.tuples(st.sampled_from(["pause", "resume", "resume"]), CLIENT),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 5.0])),
)
EVENTS = st.lists(st.one_of(PUBLISH, PUBLISH, READ, READ, OTHERS), min_size=20, max_size=80)


@settings(max_examples=300, deadline=None)
@given(st.lists(SUBSCRIBE, min_size=2, max_size=5), EVENTS)
def test_every_client_ends_with_the_newest_and_never_goes_back(
    first: list[tuple[Any, ...]], events: list[tuple[Any, ...]]
) -> None:
    """However publications arrive and clients read, stall, join and leave: P2, P3 and P5 hold."""
    world = World()
    for name, *arguments in first + events:
        getattr(world, name)(*arguments)
        world.check()
    world.check_everybody_has_the_newest()
    world.check()


PACED = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.just("a"), st.just(0), st.just(1), QUANTITIES),
        st.tuples(st.just("read"), st.just(0), st.just(1000)),
        st.tuples(st.just("wait"), st.sampled_from([0.25, 0.5, 1.0, 1.75, 2.0])),
        st.tuples(st.sampled_from(["pause", "resume", "resume"]), st.just(0)),
    ),
    min_size=10,
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["value", "positions"]), st.sampled_from([0.5, 1.0, 4.0]), PACED)
def test_who_has_lowered_its_rate_is_never_told_sooner_and_not_later_than_that(
    detail: str, hz: float, events: list[tuple[Any, ...]]
) -> None:
    """`Picture` counts the time between two; after one interval it has the newest."""
    world = World()
    world.subscribe(0, "a", detail, hz)
    for name, *arguments in events:
        getattr(world, name)(*arguments)
        world.check()
    world.wait(1 / hz)
    world.resume(0)
    world.read(0, 1000)
    assert world.clients[0].connection.due_in_s(world.now_s) is None
    seen = world.clients[0].pictures["a"].positions_seen
    assert seen[-1:] == [at for at in [world.newest_of.get("a")] if at is not None]


def test_a_removed_position_is_sent_once_as_a_row_with_quantity_zero() -> None:
    """Somebody who was told of a position is told that it is gone; a newcomer hears nothing of it."""
    hub, early, late = Hub(write_all), Client(), Client()
    early.subscribe(hub, "a", "positions")
    publish(hub, 1, publication("a", 1, 1, {"A": "1", "B": "2"}))
    early.read()
    publish(hub, 1, publication("a", 1, 2, {"A": "1"}))
    frame = early.connection.next_frame(0.0)
    assert frame is not None
    assert payload(frame)["positions"] == [{"symbol": "B", "quantity": "0"}]
    late.subscribe(hub, "a", "positions")
    frame = late.connection.next_frame(0.0)
    assert frame is not None
    assert [position["symbol"] for position in payload(frame)["positions"]] == ["A"]


def test_removed_positions_are_forgotten_when_everybody_has_heard() -> None:
    """What is remembered of removed positions does not grow without end."""
    hub, client = Hub(write_all), Client()
    client.subscribe(hub, "a", "positions")
    rounds = 3 * watched_module.GONE_ROWS_MAX
    for sequence in range(1, rounds):
        publish(hub, 1, publication("a", 1, sequence, {f"S{sequence}": "1"}))
        client.read()
    assert len(hub.accounts["a"]._rows) <= watched_module.GONE_ROWS_MAX + 2
    assert client.pictures["a"].quantities == {f"S{rounds - 1}": "1"}


def test_who_owes_nothing_is_written_to_directly_until_it_stalls() -> None:
    """The short way of nearly every message; a stalled client leaves it, and comes back with the newest."""
    hub, client = Hub(write_all), Client()
    client.subscribe(hub, "a", "value")
    publish(hub, 1, publication("a", 1, 1))
    assert not hub.accounts["a"].direct
    client.read()
    publish(hub, 1, publication("a", 1, 2))
    assert client.pictures["a"].positions_seen == [(1, 1), (1, 2)]  # without having asked
    client.pause(0.0)
    client.read()  # nothing comes, and it must not be taken for one that owes nothing
    assert not hub.accounts["a"].direct
    for sequence in (3, 4):
        publish(hub, 1, publication("a", 1, sequence))
    client.resume()
    client.read()
    publish(hub, 1, publication("a", 1, 5))
    assert client.pictures["a"].positions_seen[2:] == [(1, 4), (1, 5)]
    assert (hub.sent, hub.sent_bytes > 0) == (2, True)


def test_what_comes_together_for_one_client_goes_out_together_and_in_order() -> None:
    """One write for each socket and burst: a second could overtake what the first left over."""
    writes: list[bytes] = []

    def write(_: Sequence[int], frames: Sequence[bytes]) -> int:
        writes.extend(frames)
        return sum(map(len, frames))

    hub, client = Hub(write), Client()
    for account_id in ACCOUNTS:
        client.subscribe(hub, account_id, "value")
    publish(hub, 1, publication("a", 1, 1), publication("ab", 1, 1))
    client.read()
    publish(hub, 1, publication("a", 1, 2), publication("ab", 1, 2), publication("a", 1, 3))
    [together] = writes
    seen = [(message["account_id"], message["sequence"]) for message in payloads(together)]
    assert seen == [("a", 2), ("ab", 2), ("a", 3)]
    assert hub.sent == 3
    assert hub.sent_bytes == len(together)


def test_who_cannot_be_sent_to_directly_is_offered_after_the_burst() -> None:
    """What it is given then must not overtake what the burst has for the same socket."""
    order: list[str] = []
    hub, direct, slow = Hub(lambda _, __: order.append("burst") or 0), Client(), Client()
    for client in (direct, slow):
        client.subscribe(hub, "a", "value")
    publish(hub, 1, publication("a", 1, 1))
    direct.read()
    order.clear()
    slow.notify = lambda account: order.append("notify")  # type: ignore[method-assign]
    publish(hub, 1, publication("a", 1, 2))
    assert order == ["burst", "notify"]


def test_what_a_newer_one_of_the_same_burst_replaces_is_counted() -> None:
    """A busy server hands on several turns of a calculator at once: who is not direct gets the newest."""
    hub, direct, slow = Hub(write_all), Client(), Client()
    for client in (direct, slow):
        client.subscribe(hub, "a", "value")
    publish(hub, 1, publication("a", 1, 1))
    direct.read()
    both = (batch_of(1, [publication("a", 1, sequence)]) for sequence in (2, 3))
    hub.publish(gathered(*both))
    assert hub.conflated == 1
    frame = slow.connection.next_frame(0.0)
    assert frame is not None
    assert payload(frame)["sequence"] == 3


def test_all_clients_of_an_account_share_one_frame() -> None:
    """The frame is made once; only who has missed something gets one of its own."""
    hub, one, two = Hub(write_all), Client(), Client()
    one.subscribe(hub, "a", "positions")
    two.subscribe(hub, "a", "positions")
    publish(hub, 1, publication("a", 1, 1, {"A": "1"}))
    assert one.connection.next_frame(0.0) is two.connection.next_frame(0.0)


def test_watching_begins_with_the_first_subscriber_and_with_the_first_that_wants_positions() -> None:
    """Only then must the calculators be told."""
    hub = Hub(write_all)
    assert Client().subscribe(hub, "a", "value")
    assert not Client().subscribe(hub, "a", "value")
    assert Client().subscribe(hub, "a", "positions")
    assert not Client().subscribe(hub, "a", "positions")


def test_a_stored_publication_brings_the_positions_that_the_hub_had_left_out() -> None:
    """Somebody opens the positions of an account whose value is already watched."""
    hub, plain, detailed = Hub(write_all), Client(), Client()
    plain.subscribe(hub, "a", "value")
    publish(hub, 1, publication("a", 1, 4))
    plain.read()
    whole = publication("a", 1, 5, {"A": "1"})
    publish(hub, 1, whole)
    detailed.subscribe(hub, "a", "positions")
    assert detailed.connection.next_frame(0.0) is None
    assert hub.publish_stored(stored(whole), is_kept=True, account_id="a") == 1
    plain.read()
    assert plain.pictures["a"].positions_seen == [(1, 4), (1, 5)]  # it had this one
    detailed.read()
    assert detailed.pictures["a"].quantities == {"A": "1"}


def test_a_stored_publication_of_another_account_is_refused() -> None:
    """A mixed-up store must not become a leak."""
    hub, client = Hub(write_all), Client()
    client.subscribe(hub, "a", "value")
    assert hub.publish_stored(stored(publication("ab", 1, 1)), is_kept=True, account_id="a") == 0
    assert client.connection.next_frame(0.0) is None


def test_what_nobody_watches_any_more_is_forgotten() -> None:
    """The hub's memory is that of the accounts that are watched now."""
    hub, client = Hub(write_all), Client()
    client.subscribe(hub, "a", "value")
    hub.unsubscribe(client, "a")
    publish(hub, 1, publication("a", 1, 1))
    assert not hub.accounts


def test_frames_carry_any_length_as_the_protocol_says() -> None:
    """7, 16 and 64 bits of length."""
    assert text_frame(b"x" * 125)[:2] == b"\x81\x7d"
    assert text_frame(b"x" * 126)[:4] == b"\x81\x7e\x00\x7e"
    assert text_frame(b"x" * 65536)[:10] == b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"
    assert payload(text_frame(b'{"a":"' + b"x" * 200 + b'"}'))["a"] == "x" * 200


def test_what_is_gathered_goes_out_as_if_it_had_come_alone() -> None:
    """Parts of batches of several epochs, rows with their publications, one account twice."""
    first = batch_of(
        1,
        [
            publication("a", 1, sequence, {"A": str(sequence)} if sequence % 2 else None)
            for sequence in (1, 2, 3)
        ],
    )
    second = batch_of(2, [publication("ab", 2, 1, {"B": "7"}), publication("a", 2, 1, {"A": "9"})])
    hub, clients = Hub(write_all), [Client() for _ in range(3)]
    for client, account_id, detail in zip(
        clients, ("a", "ab", "ab"), ("positions", "value", "value"), strict=True
    ):
        client.subscribe(hub, account_id, detail)
    together = Gathered()
    together.add(first, 0, 1)
    together.add(first, 1, 2000)
    together.add(second)
    assert len(together) == 5
    assert together.rows.keys() == {0, 2, 3, 4}
    assert hub.publish(together) == 5
    for client in clients:
        client.read()
    assert clients[0].pictures["a"].quantities == {"A": "9"}
    assert [client.pictures["ab"].positions_seen for client in clients[1:]] == [[(2, 1)]] * 2


def test_one_client_each_is_the_same_in_any_number_of_accounts() -> None:
    """What is dealt with in columns: who is behind, who watches two, who is not watched, who stalls."""
    hub, clients = Hub(write_all), [Client() for _ in range(3 * columns_module.INITIAL)]
    for index, client in enumerate(clients):
        client.subscribe(hub, f"a{index}", "value")
    clients[0].subscribe(hub, "a1", "value")

    def publish_all(sequence: int) -> None:
        publish(hub, 1, *(publication(f"a{index}", 1, sequence) for index in range(len(clients) + 5)))

    publish_all(1)
    for client in clients:
        client.read()
    publish(hub, 1, publication("a7", 1, 3))
    clients[9].pause(0.0)
    for sequence in (2, 4):
        publish_all(sequence)
    clients[9].resume()
    clients[9].read()
    seen = {
        account_id: [sequence for _, sequence in picture.positions_seen]
        for client in clients[1:]
        for account_id, picture in client.pictures.items()
    }
    assert seen == {
        **{f"a{index}": [1, 2, 4] for index in range(1, len(clients))},
        "a7": [1, 3, 4],
        "a9": [1, 4],
    }
    assert [sequence for _, sequence in clients[0].pictures["a1"].positions_seen] == [1, 2, 4]
    assert hub.sent == sum(map(len, seen.values())) + 4 - len(clients)  # but the first, and what was read

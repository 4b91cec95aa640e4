"""Fan-out under any order of events: never older, never another's, the newest always, deltas add up."""

from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio_realtime.model import PublicationBatch
from portfolio_realtime.state.valuations import with_rows
from portfolio_realtime.websocket import hub as hub_module
from portfolio_realtime.websocket.connection import Connection
from portfolio_realtime.websocket.hub import Hub, StreamPosition, WatchedAccount
from portfolio_realtime.websocket.protocol import Subscribe, text_frame
from tests.websocket.wire import Picture, payload, publication

ACCOUNTS = ("a", "ab", "b")  # one is a prefix of another


class Client:
    """A subscriber on the pure connection, with what it shows for each account."""

    is_patient = True

    def __init__(self) -> None:
        self.connection = Connection(0.0)
        self.pictures: dict[str, Picture] = {}
        self.refused: list[str] = []

    def subscribe(self, hub: Hub, account_id: str, detail: str) -> bool:
        self.pictures[account_id] = Picture()
        account, begins = hub.subscribe(self, account_id, with_positions=detail == "positions")
        self.connection.subscribe(account, Subscribe(account_id, detail))  # type: ignore[arg-type]  # one of two texts
        return begins

    def read(self, frames: int = 1000) -> None:
        """Take at most so many frames."""
        for _ in range(frames):
            frame = self.connection.take(0.0)
            if frame is None:
                return
            message = payload(frame)
            self.pictures[message["account_id"]].show(message)

    def offer(self, account: WatchedAccount) -> None:
        self.connection.offer(account)

    def refuse(self, account_id: str) -> None:
        self.refused.append(account_id)

    def position_sent(self, account_id: str) -> StreamPosition | None:
        subscription = self.connection.subscriptions.get(account_id)
        return subscription.sent if subscription else None


def publish(hub: Hub, epoch: int, *publications: object) -> None:
    for account in hub.apply(PublicationBatch(epoch, list(publications))):  # type: ignore[arg-type]  # publications
        for subscriber in tuple(account.subscribers):
            subscriber.offer(account)


QUANTITIES = st.dictionaries(st.sampled_from(["A", "B", "C", "D", "E"]), st.sampled_from(["1", "2", "3"]))
EVENTS = st.lists(
    st.one_of(
        st.tuples(
            st.just("publish"), st.sampled_from(ACCOUNTS), st.integers(1, 3), st.integers(1, 12), QUANTITIES
        ),
        st.tuples(st.just("read"), st.integers(0, 3), st.integers(1, 2)),
        st.tuples(
            st.just("subscribe"),
            st.integers(0, 3),
            st.sampled_from(ACCOUNTS),
            st.sampled_from(["value", "positions"]),
        ),
        st.tuples(st.just("unsubscribe"), st.integers(0, 3), st.sampled_from(ACCOUNTS)),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(EVENTS)
def test_every_client_ends_with_the_newest_and_never_goes_back(events: list[tuple[object, ...]]) -> None:
    """However publications arrive and clients read, join and leave: P2, P3 and P5 hold."""
    hub = Hub()
    clients = [Client() for _ in range(4)]
    published: dict[tuple[str, int, int], dict[str, str]] = {}
    newest_of: dict[str, tuple[int, int]] = {}  # since somebody watches
    for event in events:
        match event:
            case ("publish", str(account_id), int(epoch), int(sequence), dict(quantities)):
                # one (epoch, sequence) is one publication, however often it comes
                known = published.setdefault((account_id, epoch, sequence), quantities)
                publish(hub, epoch, publication(account_id, epoch, sequence, known))
                if account_id in hub.accounts:
                    newest_of[account_id] = max(newest_of.get(account_id, (0, 0)), (epoch, sequence))
            case ("read", int(index), int(frames)):
                clients[index].read(frames)
            case ("subscribe", int(index), str(account_id), str(detail)):
                clients[index].subscribe(hub, account_id, detail)
            case ("unsubscribe", int(index), str(account_id)):
                hub.unsubscribe(clients[index], account_id)
                clients[index].connection.unsubscribe(account_id)
                clients[index].pictures.pop(account_id, None)
            case _:
                raise AssertionError(event)
        newest_of = {account_id: at for account_id, at in newest_of.items() if account_id in hub.accounts}
        assert {account_id: account.at for account_id, account in hub.accounts.items()} == {
            account_id: newest_of.get(account_id) for account_id in hub.accounts
        }
    for client in clients:
        client.read()
        assert set(client.pictures) >= set(client.connection.subscriptions)
        for account_id, subscription in client.connection.subscriptions.items():
            picture = client.pictures[account_id]
            newest = subscription.account.position(with_positions=subscription.with_positions)
            assert picture.positions_seen == sorted(set(picture.positions_seen))
            assert (picture.positions_seen[-1:] or [None])[0] == newest
            if newest is not None and subscription.with_positions:
                assert picture.quantities == published[account_id, newest.epoch, newest.sequence]


def test_a_removed_position_is_sent_once_as_a_row_with_quantity_zero() -> None:
    """Somebody who was told of a position is told that it is gone; a newcomer hears nothing of it."""
    hub, early, late = Hub(), Client(), Client()
    early.subscribe(hub, "a", "positions")
    publish(hub, 1, publication("a", 1, 1, {"A": "1", "B": "2"}))
    early.read()
    publish(hub, 1, publication("a", 1, 2, {"A": "1"}))
    frame = early.connection.take(0.0)
    assert frame is not None
    assert payload(frame)["positions"] == [{"symbol": "B", "quantity": "0"}]
    late.subscribe(hub, "a", "positions")
    frame = late.connection.take(0.0)
    assert frame is not None
    assert [position["symbol"] for position in payload(frame)["positions"]] == ["A"]


def test_removed_positions_are_forgotten_when_everybody_has_heard() -> None:
    """What is remembered of removed positions does not grow without end."""
    hub, client = Hub(), Client()
    client.subscribe(hub, "a", "positions")
    rounds = 3 * hub_module.GONE_ROWS_MAX
    for sequence in range(1, rounds):
        publish(hub, 1, publication("a", 1, sequence, {f"S{sequence}": "1"}))
        client.read()
    assert len(hub.accounts["a"]._rows) <= hub_module.GONE_ROWS_MAX + 2
    assert client.pictures["a"].quantities == {f"S{rounds - 1}": "1"}


def test_all_clients_of_an_account_share_one_frame() -> None:
    """The frame is made once; only who has missed something gets one of its own."""
    hub, one, two = Hub(), Client(), Client()
    one.subscribe(hub, "a", "positions")
    two.subscribe(hub, "a", "positions")
    publish(hub, 1, publication("a", 1, 1, {"A": "1"}))
    assert one.connection.take(0.0) is two.connection.take(0.0)


def test_watching_begins_with_the_first_subscriber_and_with_the_first_that_wants_positions() -> None:
    """Only then must the calculators be told."""
    hub = Hub()
    assert Client().subscribe(hub, "a", "value")
    assert not Client().subscribe(hub, "a", "value")
    assert Client().subscribe(hub, "a", "positions")
    assert not Client().subscribe(hub, "a", "positions")


def test_a_stored_publication_brings_the_positions_that_the_hub_had_left_out() -> None:
    """Somebody opens the positions of an account whose value is already watched."""
    hub, plain, detailed = Hub(), Client(), Client()
    plain.subscribe(hub, "a", "value")
    whole = publication("a", 1, 5, {"A": "1"})
    publish(hub, 1, whole)
    plain.read()
    detailed.subscribe(hub, "a", "positions")
    assert detailed.connection.take(0.0) is None
    account = hub.apply_stored("a", with_rows(whole), is_kept=True)
    assert account is not None
    detailed.offer(account)
    plain.offer(account)
    assert plain.connection.take(0.0) is None  # it has this one
    detailed.read()
    assert detailed.pictures["a"].quantities == {"A": "1"}


def test_a_stored_publication_of_another_account_is_refused() -> None:
    """A mixed-up store must not become a leak."""
    hub, client = Hub(), Client()
    client.subscribe(hub, "a", "value")
    assert hub.apply_stored("a", with_rows(publication("ab", 1, 1)), is_kept=True) is None
    assert client.connection.take(0.0) is None


def test_what_nobody_watches_any_more_is_forgotten() -> None:
    """The hub's memory is that of the accounts that are watched now."""
    hub, client = Hub(), Client()
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

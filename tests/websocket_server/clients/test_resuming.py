"""A client that changes servers goes on where it was (P2): nothing older is sent, and the wait is said."""

import asyncio
import itertools
import json
import random

import pytest
from websockets.asyncio.client import ClientConnection as WebSocket

from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.state import State
from portfolio_realtime.state.connection import Connection
from portfolio_realtime.websocket_server.access.identity import Identity
from portfolio_realtime.websocket_server.clients.connection import ClientConnection
from portfolio_realtime.websocket_server.fanout.freshness import Lapse
from portfolio_realtime.websocket_server.fanout.hub import Hub
from portfolio_realtime.websocket_server.fanout.watched_account import WatchedAccount
from portfolio_realtime.wire.messages import Disconnect, Subscribe
from tests.conftest import DEADLINE_S
from tests.support.lagging import late
from tests.support.publications import batch_of, gathered, payload, publication
from tests.support.websocket_servers import (
    Calculator,
    Served,
    bearer,
    receive_any,
    refused_handshake,
    serving,
    write_accounts,
)

BEGAN = "2026-11-20T15:04:05.000000Z"
MOVES = 60


class Marked:
    """A subscriber that is a connection; what it is owed is taken by the test."""

    is_patient = True

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def notify(self, account: WatchedAccount) -> None:
        self.connection.mark_pending(account)

    def refuse(self, account_id: str, why: Disconnect) -> None: ...

    def position_sent(self, account_id: str) -> None: ...


class Server:
    """One server's hub, which gets what is published when the test lets it."""

    def __init__(self) -> None:
        self.hub = Hub(lambda _, frames: sum(map(len, frames)))

    def take_in(self, epoch: int, sequence: int) -> None:
        """It hears of a publication."""
        self.hub.publish(gathered(batch_of(epoch, [publication("a", epoch, sequence)])))

    def connect(self, detail: str, seen: tuple[int, int] | None) -> tuple[ClientConnection, WatchedAccount]:
        """A client that has seen so much."""
        connection = ClientConnection(0.0)
        connection.authenticated(Identity("alice", frozenset({"a"})), 0.0, None)
        account, _ = self.hub.subscribe(Marked(connection), "a", with_positions=detail == "positions")
        account.lapse = Lapse((), BEGAN)
        epoch, sequence = seen or (None, None)
        wanted = Subscribe("a", detail, epoch=epoch, sequence=sequence)  # type: ignore[arg-type]  # one of two texts
        connection.subscribe(account, wanted, BEGAN)
        return connection, account


def said(connection: ClientConnection) -> list[object]:
    """What is owed now: the position of each value, the hops of each word about freshness."""
    found: list[object] = []
    while (frame := connection.next_frame(0.0)) is not None:
        message = payload(frame)
        is_word = message["type"] == "freshness"
        found.append(message["stale_hops"] if is_word else (message["epoch"], message["sequence"]))
    return found


def test_a_server_that_is_behind_says_so_and_waits() -> None:
    """It marks what the client shows, sends nothing older, and goes on where the client was."""
    server = Server()
    connection, account = server.connect("value", (2, 7))
    server.take_in(1, 900)
    assert said(connection) == [["server"]]
    for at in ((2, 1), (2, 6)):
        server.take_in(*at)
        assert said(connection) == []
    connection.go_direct(7)
    assert not account.direct, "nobody may send to it past the check"
    server.take_in(2, 7)
    assert said(connection) == [[], (2, 7)]
    connection.go_direct(7)
    assert account.direct


def test_a_server_that_is_current_answers_at_once() -> None:
    """With the same value or a newer one, complete as ever."""
    for seen in ((1, 3), (1, 2), (0, 900), None):
        server = Server()
        server.take_in(1, 3)  # nobody watches yet: not kept
        connection, _ = server.connect("value", seen)
        server.take_in(1, 3)
        assert said(connection) == [(1, 3)]


@pytest.mark.parametrize("seed", range(20))
def test_whoever_hops_between_servers_never_goes_back(seed: int) -> None:
    """Two servers of which each lags as chance will; the client moves at every value or without any."""
    rng = random.Random(seed)
    servers, told = [Server(), Server()], [0, 0]
    watchers = [server.connect("value", None) for server in servers]  # the account stays watched
    published = [(1, 1)]
    seen: tuple[int, int] | None = None
    for _ in range(MOVES):
        for _ in range(rng.randrange(4)):
            epoch, sequence = published[-1]
            published.append((epoch + 1, 1) if rng.random() < 0.1 else (epoch, sequence + 1))
        index = rng.randrange(2)
        connection, _ = servers[index].connect("value", seen)
        for which, server in enumerate(servers):
            for _ in range(rng.randrange(5)):
                if told[which] < len(published):
                    server.take_in(*published[told[which]])
                    told[which] += 1
        for at in said(connection):
            if isinstance(at, tuple):
                assert seen is None or at >= seen
                seen = at
    assert seen is not None
    assert len(watchers) == 2


async def test_both_ways_in_take_it_and_half_of_it_is_no_position(
    server: Served, calculator: Calculator
) -> None:
    """In the address, in a message, as the id of the last event; only nonsense is refused."""
    epoch = await calculator.publish("a", 5)
    ahead = f"epoch={epoch}&sequence=6"
    async with server.open(f"/ws/portfolio/a?{ahead}") as by_path, server.open("/ws") as by_message:
        request = {"type": "subscribe", "account_id": "a", "epoch": epoch, "sequence": 6}
        await by_message.send(json.dumps(request))
        assert (await receive_any(by_path))["stale_hops"] == ["server"]
        assert (await receive_any(by_message))["stale_hops"] == ["server"]
        events = server.http.stream(
            "GET", "/v1/portfolio/a/stream", headers={**bearer(), "Last-Event-ID": f"{epoch}-6"}
        )
        async with events as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == "event: freshness"
            await calculator.publish("a", 6)
            while not (line := await anext(lines)).startswith("id: "):
                pass
            assert line == f"id: {epoch}-6"
        for client in (by_path, by_message):
            assert (await receive_any(client))["stale_hops"] == []
            assert (await receive_any(client))["sequence"] == 6
    async with server.open(f"/ws/portfolio/a?epoch={epoch + 1}") as half:
        assert (await receive_any(half))["sequence"] == 6
    assert await refused_handshake(server.open("/ws/portfolio/a?epoch=x&sequence=1")) == 400


async def test_of_two_servers_one_lags_and_nobody_goes_back(
    state: State, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty clients leave the one that is current for the one that hears all a moment late, and return."""
    await write_accounts(state, "a")
    async with serving(valkey_url) as current:
        monkeypatch.setattr(Connection, "follow", late(Connection.follow))
        async with serving(valkey_url, has_signs=False) as lagging:
            publishing = asyncio.create_task(keep_publishing(Calculator(state)))
            try:
                async with asyncio.timeout(DEADLINE_S), lagging.open("/ws/portfolio/a") as resident:
                    await receive_until_late(resident)  # from then on it has only what it hears late
                    histories = await asyncio.gather(*(hop(current, lagging) for _ in range(20)))
            finally:
                await cancel_until_ended([publishing])
    for positions, words in histories:
        assert positions == sorted(positions)
        assert words >= 1, "it was said that the server is behind"


async def keep_publishing(calculator: Calculator) -> None:
    """Forever, as fast as an account may change."""
    for sequence in itertools.count(1):
        await calculator.publish("a", sequence)
        await asyncio.sleep(0.05)


async def receive_until_late(client: WebSocket) -> None:
    """The first value is read, the second one heard."""
    for _ in range(2):
        while (await receive_any(client))["type"] != "portfolio":
            pass


async def hop(current: Served, lagging: Served) -> tuple[list[tuple[int, int]], int]:
    """Some values here, some there, some here again: all positions, and how often a wait was said."""
    positions: list[tuple[int, int]] = []
    words = 0
    for server in (current, lagging, current):
        epoch, sequence = positions[-1] if positions else (0, 0)
        async with server.open(f"/ws/portfolio/a?epoch={epoch}&sequence={sequence}") as client:
            for _ in range(200):
                message = await receive_any(client)
                if message["type"] == "portfolio":
                    positions.append((message["epoch"], message["sequence"]))
                    if len(positions) % 5 == 0:
                        break
                else:
                    words += message["stale_hops"] == ["server"]
    return positions, words

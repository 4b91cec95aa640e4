"""A value that may be old is never shown as live: by shard, by hop, on every way out."""

import asyncio
import json

import pytest
from websockets.asyncio.client import ClientConnection

from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.state import State
from portfolio_realtime.websocket_server.access.identity import Identity
from portfolio_realtime.websocket_server.clients.connection import ClientConnection as ServedConnection
from portfolio_realtime.websocket_server.fanout import freshness
from portfolio_realtime.websocket_server.fanout.freshness import (
    REACHED_S_MAX,
    SILENT_S_MAX,
    Lapse,
    ShardSigns,
)
from portfolio_realtime.websocket_server.fanout.hub import Hub
from portfolio_realtime.wire.messages import Disconnect, Subscribe
from tests.conftest import DEADLINE_S, Until
from tests.support.publications import batch_of, gathered, payload, publication
from tests.support.websocket_servers import Calculator, Served, bearer, give_signs, receive_any, serving

ALICE = Identity("alice", frozenset({"a", "ab"}))
LAPSE = Lapse(("calculator",), "2026-11-20T15:04:05.000000Z")
FRESH_AGAIN = Lapse((), "2026-11-20T15:04:09.000000Z")
LATER = SILENT_S_MAX + 0.1


class Time:
    """Seconds that the test moves."""

    now_s = 100.0

    def seconds(self) -> float:
        return self.now_s

    def ns(self) -> int:
        return int(self.now_s * NS_PER_S)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def signs(time: Time) -> ShardSigns:
    return ShardSigns(3, time.seconds, time.ns)


def hops(signs: ShardSigns) -> list[tuple[str, ...]]:
    return [signs.lapse(shard).hops for shard in range(3)]


# What has been heard


def test_a_shard_of_which_nobody_speaks_is_not_fresh(signs: ShardSigns, time: Time) -> None:
    """The others are; and it is again with the first sign."""
    time.now_s += LATER
    for shard in (0, 2):
        signs.hear(shard, [])
    assert signs.look(is_following=True) == {1}
    assert hops(signs) == [(), ("calculator",), ()]
    assert signs.is_anything_heard
    signs.hear(1, [])
    assert signs.look(is_following=True) == {1}
    assert hops(signs) == [(), (), ()]


def test_a_hop_before_the_calculator_is_named_by_it(signs: ShardSigns) -> None:
    """The sign comes, and says that it knows nothing new itself."""
    signs.hear(0, ["collector"])
    assert signs.look(is_following=True) == {0}
    assert signs.lapse(0).hops == ("collector",)
    assert signs.counts() == {"collector": 1, "calculator": 0, "valkey": 0}


def test_when_nothing_is_heard_at_all_it_is_said_why(signs: ShardSigns, time: Time) -> None:
    """Nobody speaks, or we do not hear."""
    time.now_s += LATER
    signs.look(is_following=True)
    assert hops(signs) == [("calculator",)] * 3
    assert not signs.is_anything_heard
    signs.look(is_following=False)
    assert hops(signs) == [("valkey",)] * 3
    assert not signs.is_anything_heard


def test_who_has_just_begun_to_listen_does_not_blame_the_calculators(signs: ShardSigns, time: Time) -> None:
    """It was we who did not hear; that a path breaks again and again must not hide it for ever."""
    time.now_s += LATER
    signs.listen()
    assert signs.look(is_following=True) == {0, 1, 2}
    assert hops(signs) == [("valkey",)] * 3
    time.now_s += LATER
    signs.reach()
    assert signs.look(is_following=True) == {0, 1, 2}
    signs.listen()
    assert signs.look(is_following=True) == set()
    assert hops(signs) == [("calculator",)] * 3


def test_who_stood_still_reads_first_what_came_meanwhile(signs: ShardSigns, time: Time) -> None:
    """After a pause of our own what was is kept until it can be told."""
    signs.hear(0, ("collector",))
    signs.look(is_following=True)
    time.now_s += LATER
    signs.wake()
    assert signs.look(is_following=True) == set()
    assert hops(signs) == [("collector",), (), ()]
    time.now_s += LATER
    signs.reach()
    assert signs.look(is_following=True) == {0, 1, 2}


def test_whoever_cannot_say_who_is_watched_is_not_fresh(signs: ShardSigns, time: Time) -> None:
    """What is published is heard, and nothing that we ask is answered: soon nobody values our accounts."""
    for _ in range(2):
        time.now_s += REACHED_S_MAX / 2
        for shard in range(3):
            signs.hear(shard, [])
        assert signs.look(is_following=True) == set()
    time.now_s += 0.1
    assert signs.look(is_following=True) == {0, 1, 2}
    assert hops(signs) == [("valkey",)] * 3
    assert not signs.is_anything_heard
    signs.reach()
    assert signs.look(is_following=True) == {0, 1, 2}
    assert hops(signs) == [()] * 3


# What a client is told


@pytest.fixture
def hub() -> Hub:
    return Hub(lambda _, __: 0)


@pytest.fixture
def connection() -> ServedConnection:
    opened = ServedConnection(0.0)
    assert opened.authenticated(ALICE, 0.0, None) is None
    return opened


class Told:
    """A subscriber that is a connection; what it is owed is taken at once."""

    is_patient = True

    def __init__(self, connection: ServedConnection) -> None:
        self.connection = connection

    def notify(self, account: object) -> None:
        self.connection.mark_pending(account)  # type: ignore[arg-type]  # a watched account

    def refuse(self, account_id: str, why: Disconnect) -> None: ...

    def position_sent(self, account_id: str) -> None: ...


def taken(connection: ServedConnection, now_s: float = 0.0) -> list[object]:
    """Type of each message that is owed now, or the hops of a word about freshness."""
    found: list[object] = []
    while (frame := connection.next_frame(now_s)) is not None:
        message = payload(frame)
        found.append(message["stale_hops"] if message["type"] == "freshness" else message["type"])
    return found


@pytest.mark.parametrize("hz", [None, 0.01])
def test_a_client_is_told_before_and_after(hub: Hub, connection: ServedConnection, hz: float | None) -> None:
    """Also one that is sent to directly, and one whose own pace holds values back."""
    account, _ = hub.subscribe(Told(connection), "a", with_positions=False)
    connection.subscribe(account, Subscribe("a", max_frequency_hz=hz))
    hub.publish(gathered(batch_of(1, [publication("a", 1, 1)])))
    assert taken(connection) == ["portfolio"]
    connection.go_direct(7)
    assert bool(account.direct) == (hz is None)
    hub.mark(lambda _: LAPSE)
    assert not account.direct
    assert taken(connection) == [["calculator"]]
    connection.go_direct(7)
    hub.mark(lambda _: LAPSE)
    assert taken(connection) == []
    hub.mark(lambda _: FRESH_AGAIN)
    hub.publish(gathered(batch_of(1, [publication("a", 1, 2)])))
    assert taken(connection) == ([[]] if hz else [[], "portfolio"])
    assert taken(connection, 1000.0) == (["portfolio"] if hz else [])


def test_a_new_client_hears_it_before_the_value(hub: Hub, connection: ServedConnection) -> None:
    """A frozen value is never first."""
    account, _ = hub.subscribe(Told(connection), "a", with_positions=False)
    hub.publish(gathered(batch_of(1, [publication("a", 1, 1)])))
    account.lapse = LAPSE
    connection.subscribe(account, Subscribe("a"))
    assert taken(connection) == [["calculator"], "portfolio"]


def test_a_mark_that_comes_and_goes_unsent_is_not_told(hub: Hub, connection: ServedConnection) -> None:
    """A client that is slow hears how it is now."""
    account, _ = hub.subscribe(Told(connection), "a", with_positions=False)
    connection.subscribe(account, Subscribe("a"))
    connection.pause(0.0)
    hub.mark(lambda _: LAPSE)
    hub.mark(lambda _: FRESH_AGAIN)
    hub.publish(gathered(batch_of(1, [publication("a", 1, 1)])))
    connection.resume()
    assert taken(connection) == ["portfolio"]


# A real server


class Signs:
    """Calculators that live, for as long as the test says so, with these hops silent before them."""

    def __init__(self, state: State) -> None:
        self.hops: tuple[str, ...] | None = None  # None: nobody lives
        self._state = state

    async def give(self) -> None:
        """Give signs, forever."""
        while True:
            if self.hops is not None:
                await give_signs(self._state, self.hops)
            await asyncio.sleep(0.1)


async def told(client: ClientConnection, hops: list[str]) -> None:
    """Return when the client has been told of these hops."""
    async with asyncio.timeout(DEADLINE_S):
        while json.loads(await client.recv()).get("stale_hops") != hops:
            pass


async def test_every_way_out_tells(
    calculator: Calculator, state: State, valkey_url: str, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WebSocket, events, HTTP, /ready and metrics, while nobody publishes and when somebody does again."""
    monkeypatch.setattr(freshness, "SILENT_S_MAX", 1.0)
    signs = Signs(state)
    giving = asyncio.create_task(signs.give())
    async with serving(valkey_url, has_signs=False) as server:

        async def answers(hops: list[str]) -> bool:
            answer = await server.http.get("/v1/portfolio/a", headers=bearer())
            return answer.status_code == 200 and answer.json().get("stale_hops", []) == hops

        await calculator.publish("a", 1)
        async with server.open("/ws/portfolio/a") as client:
            await told(client, ["calculator"])
            assert (await server.http.get("/ready")).json() == {"status": "nothing is published"}
            async with server.open("/ws/portfolio/a") as late:
                assert [(await receive_any(late))["type"] for _ in range(2)] == ["freshness", "portfolio"]
            assert await _first_event(server) == "freshness"
            await until(lambda: _metric(server), "the metric tells it")
            signs.hops = ("collector",)
            await told(client, ["collector"])
            await until(lambda: answers(["collector"]), "HTTP tells it, too")
            await until(server.ready, "values are published, though not all is known")
            signs.hops = ()
            await told(client, [])
            await until(lambda: answers([]), "all is fresh")
    await cancel_until_ended([giving])


async def _first_event(server: Served) -> str:
    async with server.http.stream("GET", "/v1/portfolio/a/stream", headers=bearer()) as answer:
        async with asyncio.timeout(DEADLINE_S):
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    return json.loads(line.removeprefix("data:"))["type"]
    raise AssertionError("no event")


async def _metric(server: Served) -> bool:
    text = (await server.http.get("/metrics")).text
    wanted = [line for line in text.splitlines() if line.startswith("portfolio_realtime_stale_shards{")]
    return any('hop="calculator"' in line and not line.endswith(" 0.0") for line in wanted)

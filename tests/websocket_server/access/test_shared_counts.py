"""What servers count together: told within milliseconds, judged when a killed server counts no more."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from portfolio_realtime import config
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.clock import SystemClock
from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.state import State, connection_counts, keys
from portfolio_realtime.state.connection_counts import NAMES_MAX, OPEN, ConnectionCounts, Judged
from portfolio_realtime.websocket_server.access import shared_counts
from portfolio_realtime.websocket_server.access.limits import Limits
from portfolio_realtime.websocket_server.access.shared_counts import Excess, SharedCounts
from tests.conftest import Until

NOW_S = 1.0
PER_USER, PER_ADDRESS, PER_MINUTE = 3, 4, 5
MESSAGES, UNTOLD = 100, 5
HEARD_S_MAX = 20.0


@dataclass
class Server:
    """One server, as far as limits go."""

    shared: SharedCounts
    limits: Limits
    tasks: list["asyncio.Task[Any]"]
    excess: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])

    async def kill(self) -> None:
        """It tells nothing any more."""
        await cancel_until_ended(self.tasks)

    def enter(self, user: str, count: int = 1) -> list[bool]:
        """So many connections of this user."""
        return [self.limits.enter(user, NOW_S) for _ in range(count)]

    def send(self, user: str, count: int) -> int:
        """Send so many messages of this user; how many were accepted."""
        return [self.limits.messages_of_user.try_acquire(user, NOW_S) for _ in range(count)].count(True)


Start = Callable[[str], Coroutine[Any, Any, Server]]


@pytest.fixture
async def start(state: State) -> AsyncGenerator[Start]:
    """Starts a server with this name, which knows the others."""
    servers: list[Server] = []
    settings = config.load(
        _env_file=None,
        connections_per_user=PER_USER,
        connections_per_address=PER_ADDRESS,
        connects_per_minute=PER_MINUTE,
        messages_per_user=MESSAGES,
    )

    async def one(name: str) -> Server:
        counts = ConnectionCounts(state.connection, name)
        shared = SharedCounts(counts, SystemClock())
        server = Server(shared, Limits(settings, shared), [])

        def beyond(excess: Excess) -> None:
            server.excess.update(excess)

        shared.on_excess = beyond
        server.tasks = [asyncio.create_task(shared.keep()), asyncio.create_task(shared.share())]
        servers.append(server)
        return server

    yield one
    for server in servers:
        await server.kill()


async def elsewhere(state: State, user: str) -> int:
    """How many connections of a user all servers together have told."""
    asking = ConnectionCounts(state.connection, "who asks")
    name = SharedCounts(asking, SystemClock())._place("user", user, is_of_minute=False)[1]
    return (await asking.tell(OPEN, {name: 0}))[name]


async def test_who_exceeds_a_limit_at_all_servers_together_is_told_to_close_the_excess(
    start: Start, state: State, until: Until
) -> None:
    """Only the server at which the excess came, and only as many; who leaves meanwhile makes room."""
    first, second = await start("first"), await start("second")
    assert first.enter("alice", 2) == [True, True]

    async def is_told() -> bool:
        return await elsewhere(state, "alice") == 2

    await until(is_told, "the first has told", HEARD_S_MAX)
    assert second.enter("alice", 3) == [True, True, True], "a handshake waits for nobody"
    assert second.enter("alice") == [False], "at one server alone it is refused at once"
    second.limits.connections_of_user.leave("alice")
    assert second.enter("bob", 3) == [True, True, True]
    await until(lambda: second.excess, "the verdict", HEARD_S_MAX)
    assert (first.excess, second.excess) == ({}, {("user", "alice"): 1})


async def test_the_counts_of_a_killed_server_are_held_against_nobody(
    start: Start, state: State, until: Until
) -> None:
    """Its users come to another server before it is known that it is dead."""
    first, second = await start("first"), await start("second")
    first.enter("alice", PER_USER)

    async def is_told() -> bool:
        return await elsewhere(state, "alice") == PER_USER

    await until(is_told, "the first has told", HEARD_S_MAX)
    await first.kill()
    assert second.enter("alice", PER_USER) == [True] * PER_USER

    async def is_gone() -> bool:
        return await elsewhere(state, "alice") == PER_USER and not second.shared._excesses

    await until(lambda: second.shared._excesses, "it exceeds the limit", HEARD_S_MAX)
    await until(is_gone, "only the living one counts, and the verdict is made", HEARD_S_MAX)
    assert second.excess == {}


async def test_an_address_that_has_too_many_elsewhere_is_refused_at_once(start: Start, until: Until) -> None:
    """Once that is known here; open connections, and new ones in a minute."""
    first, second = await start("first"), await start("second")
    for _ in range(PER_ADDRESS - 1):
        assert first.limits.connections_of_address.enter("192.0.2.7")
    for _ in range(PER_MINUTE):
        assert first.limits.connects_of_address.try_acquire("192.0.2.8", NOW_S)
    await until(lambda: not first.shared._changed, "it is told", HEARD_S_MAX)
    assert second.limits.connections_of_address.enter("192.0.2.7")
    assert second.limits.connects_of_address.try_acquire("192.0.2.8", NOW_S)
    await until(lambda: not second.limits.connections_of_address.has_room("192.0.2.7"), "full", HEARD_S_MAX)
    await until(lambda: not second.limits.may_connect("192.0.2.8", NOW_S), "often enough", HEARD_S_MAX)
    assert second.limits.may_connect("192.0.2.9", NOW_S)


async def test_messages_to_another_server_count_here(
    start: Start, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first that is told on. So few as most users send are told to nobody."""
    monkeypatch.setattr(SharedCounts, "minute", 7)
    first, second = await start("first"), await start("second")
    assert (first.send("quiet", UNTOLD), first.shared._changed) == (UNTOLD, {})
    assert first.send("alice", MESSAGES + 1) == MESSAGES
    assert not first.shared._wake.is_set(), "it is told with the next sign of life"
    await until(lambda: not first.shared._changed, "it is told", HEARD_S_MAX)
    assert second.send("alice", UNTOLD + 1) == UNTOLD + 1, "a message waits for nobody"
    assert second.send("bob", MESSAGES // 2) == MESSAGES // 2
    await until(lambda: any(count for count, _ in second.shared._elsewhere.values()), "answered", HEARD_S_MAX)
    assert second.send("alice", 1) == 0
    assert second.send("bob", MESSAGES) == MESSAGES // 2
    monkeypatch.setattr(SharedCounts, "minute", 8)
    assert second.send("alice", 2 * UNTOLD) == 2 * UNTOLD


async def test_what_valkey_has_lost_is_told_again(start: Start, state: State, until: Until) -> None:
    """Within a heartbeat or two."""
    server = await start("first")
    server.enter("alice", 2)

    async def are_told() -> bool:
        return await elsewhere(state, "alice") == 2

    await until(are_told, "they are told", HEARD_S_MAX)
    await state.connection.commands.delete(keys.counting_servers(), keys.connection_counts("first", OPEN))
    await until(are_told, "they are told again", HEARD_S_MAX)


async def test_while_valkey_is_away_each_server_counts_for_itself(
    start: Start, state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits, nothing is lost: what has changed meanwhile is told when it is back."""
    server, other = await start("first"), await start("second")
    tell, is_away = ConnectionCounts.tell, True

    async def tell_or_fail(self: ConnectionCounts, period: str, counts: dict[str, int]) -> dict[str, int]:
        if is_away:
            raise StateUnavailable("away")
        return await tell(self, period, counts)

    monkeypatch.setattr(ConnectionCounts, "tell", tell_or_fail)
    assert server.enter("alice", 4) == [True, True, True, False]
    assert other.enter("alice", 4) == [True, True, True, False]
    assert (server.send("alice", MESSAGES), other.send("alice", MESSAGES)) == (MESSAGES, MESSAGES)
    server.limits.connections_of_user.leave("alice")
    await asyncio.sleep(2 * shared_counts.AGAIN_S)
    is_away = False
    await until(lambda: server.excess or other.excess, "the verdict", HEARD_S_MAX)
    assert sum((*server.excess.values(), *other.excess.values())) == 2


async def test_many_names_are_told_in_steps(state: State) -> None:
    """Each with its count; a count of nothing is taken away, and what a server has expires."""
    one, other = ConnectionCounts(state.connection, "one"), ConnectionCounts(state.connection, "other")
    assert [await one.keep(), await other.keep()] == [False, False]
    names = [f"name-{number}" for number in range(2 * NAMES_MAX + 1)]
    assert set((await one.tell(OPEN, dict.fromkeys(names, 7))).values()) == {0}
    assert await one.keep()
    found = await other.tell(OPEN, {**dict.fromkeys(names, 1), "unknown": 1})
    assert found == {**dict.fromkeys(names, 7), "unknown": 0}
    await one.tell(OPEN, dict.fromkeys(names[1:], 0))
    assert await other.tell(OPEN, dict.fromkeys(names[:2], 1)) == {names[0]: 7, names[1]: 0}
    for period, ttl_ms in ((OPEN, connection_counts.LIVING_MS), ("7", connection_counts.MINUTE_MS)):
        await one.tell(period, {"a": 1})
        assert 0 < await state.connection.commands.pttl(keys.connection_counts("one", period)) <= ttl_ms


async def test_of_servers_that_judge_at_once_only_one_takes_off_the_same_excess(state: State) -> None:
    """Ten at each, twelve allowed: eight go, not sixteen."""
    servers = [ConnectionCounts(state.connection, name) for name in ("one", "other")]
    for server in servers:
        await server.tell(OPEN, {"alice": 10})

    taken_off = await asyncio.gather(*(server.judge({"alice": Judged(10, 10, 12)}) for server in servers))

    assert sum(found["alice"] for found in taken_off) == 8
    asking = ConnectionCounts(state.connection, "who asks")
    assert await asking.tell(OPEN, {"alice": 0}) == {"alice": 12}

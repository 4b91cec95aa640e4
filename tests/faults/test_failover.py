"""A connection is believed only while it answers: failover, and paths that die without a word."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest

from portfolio_harness.valkey_node import ValkeyNode
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.state.connection import Connection, Message, Subscribed
from portfolio_realtime.state.embedded import free_port
from portfolio_realtime.state.subscriptions import MISSED_S_MAX, PROBE_S, PROBE_S_MAX
from tests.conftest import Until, one_server

from .valkey_proxy import ValkeyProxy

NOTICED_S_MAX = 5.0
MANY = 20  # commands at the same time, so many connections


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncGenerator[Connection]:
    """A connection that ends with the test."""
    connection = Connection(url)
    yield connection
    await connection.close()


async def hear(connection: Connection, heard: list[Message | Subscribed]) -> None:
    """Follow, forever."""
    async for event in connection.follow("news"):
        await asyncio.sleep(0)
        heard.append(event)


async def test_what_is_promised_is_noticed_in_time() -> None:
    """By arithmetic: the last word before, one that hangs, one that comes, and the look at it."""
    assert PROBE_S + PROBE_S_MAX + MISSED_S_MAX <= NOTICED_S_MAX


async def test_an_endpoint_that_moves_is_followed(mortal_server: ValkeyNode, until: Until) -> None:
    """A planned failover whose front moves new connections only: the old primary lives on as a replica.

    Every open connection leads to it; the first READONLY gives all of them up, and no call fails for it.
    """
    async with (
        ValkeyProxy(mortal_server.port) as front,
        one_server() as new,
        connected(front.url) as connection,
        connected(mortal_server.url) as old,
    ):
        commands = connection.commands

        async def read_id() -> bytes:
            return (await commands.info("server"))["run_id"]

        await asyncio.gather(*(commands.set(f"key:{n}", 1) for n in range(MANY)))
        before = front.flows
        assert before > 1
        await old.commands.execute_command("REPLICAOF", "127.0.0.1", str(new.port))
        front.port = new.port
        await connection.fenced_write("fence", "hash", 1, [("field", b"value")], [], None)
        ids = set(await asyncio.gather(*(read_id() for _ in range(MANY))))
        async with connected(new.url) as direct:
            assert await direct.commands.hget("hash", "field") == b"value"
            assert ids == {(await direct.commands.info("server"))["run_id"]}


async def test_a_blocked_read_outlives_a_change_of_roles(mortal_server: ValkeyNode, until: Until) -> None:
    """UNBLOCKED answers the read of the revocations when a primary is demoted under it: it is asked again."""
    async with connected(mortal_server.url) as connection, connected(mortal_server.url) as operator:
        reading = asyncio.ensure_future(connection.commands.xread({"stream": "0"}, block=2000))

        async def is_blocked() -> bool:
            return bool((await operator.commands.info("clients"))["blocked_clients"])

        await until(is_blocked, "the read waits")
        await operator.commands.execute_command("REPLICAOF", "127.0.0.1", str(free_port()))
        assert not await reading


async def test_a_subscription_whose_path_dies_is_given_up(mortal_server: ValkeyNode, until: Until) -> None:
    """Nothing is said, nothing is closed: it is made again, its reader reads again, and then it hears."""
    async with (
        ValkeyProxy(mortal_server.port) as front,
        connected(front.url) as connection,
        connected(mortal_server.url) as publisher,
    ):
        heard: list[Message | Subscribed] = []

        following = asyncio.create_task(hear(connection, heard))
        await until(lambda: heard == [Subscribed()], "subscribed")
        front.lose_open_flows()
        await until(lambda: len(heard) > 1, "noticed")
        assert heard == [Subscribed(), Subscribed()]
        await publisher.commands.publish("news", b"here")
        await until(lambda: heard[-1] == Message("news", b"here"), "heard")
        await cancel_until_ended([following])


async def test_a_silent_server_is_not_taken_for_a_deaf_subscription(
    mortal_server: ValkeyNode, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing can be published nothing needs to be heard: no reader reads everything for nothing."""
    monkeypatch.setattr("portfolio_realtime.state.subscriptions.MISSED_S_MAX", 0.3)
    monkeypatch.setattr("portfolio_realtime.state.subscriptions.PROBE_S", 0.1)
    async with ValkeyProxy(mortal_server.port) as front, connected(front.url) as connection:
        heard: list[Message | Subscribed] = []

        following = asyncio.create_task(hear(connection, heard))
        await until(lambda: heard == [Subscribed()], "subscribed")
        front.answer = b"-BUSY a script"
        with pytest.raises(StateUnavailable, match="BUSY"):
            await connection.ping()
        await asyncio.sleep(1)
        assert heard == [Subscribed()]
        front.answer = b""
        await until(lambda: _answers(connection), "it is back")
        await cancel_until_ended([following])
        assert heard == [Subscribed()]


async def test_a_closed_transport_counts_as_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop says so in an error of its own, where a proxy accepts us and hangs up at once.

    It is tried once more, and then it is Valkey that cannot be reached, not a bug of ours.
    """
    tries: list[str] = []

    async def send(*_: object, **__: object) -> None:
        tries.append("sent")
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    monkeypatch.setattr("redis.asyncio.connection.AbstractConnection.connect_check_health", send)
    async with connected("redis://127.0.0.1:1/0") as connection:
        with pytest.raises(StateUnavailable, match="closed"):
            await connection.ping()
    assert len(tries) > 1


async def _answers(connection: Connection) -> bool:
    with contextlib.suppress(StateUnavailable):
        await connection.ping()
        return True
    return False

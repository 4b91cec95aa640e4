"""Limits of users and addresses hold over all servers: processes of one port, and servers of their own."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.state import State, keys
from portfolio_realtime.state.connection_counts import LIVING_MS
from portfolio_realtime.state.embedded import free_port
from portfolio_realtime.websocket_server.access.shared_counts import VERDICT_S
from tests.conftest import Until
from tests.support.server_processes import Remote, children, started
from tests.support.websocket_servers import bearer, keep_giving_signs, receive

START_S_MAX = 60.0
PER_USER, PER_ADDRESS, PER_MINUTE = 12, 6, 20
MESSAGES = 60
PAUSE_S = 0.3  # between two messages
SETTINGS = {
    "DRAIN_GRACE_SECONDS": "0",
    "TRUSTED_PROXIES": "127.0.0.1",
    "CONNECTIONS_PER_USER": str(PER_USER),
    "CONNECTIONS_PER_ADDRESS": str(PER_ADDRESS),
    "CONNECTS_PER_MINUTE": str(PER_MINUTE),
    "MESSAGES_PER_USER": str(MESSAGES),
}
ADDRESSES = (f"198.51.{number // 256}.{number % 256}" for number in range(65_536))


@pytest.fixture
async def remotes(state: State) -> AsyncGenerator[list[Remote]]:
    """Where the two servers of a test will be; calculators live."""
    served = [Remote(free_port()), Remote(free_port())]
    signs = asyncio.create_task(keep_giving_signs(state))
    yield served
    await cancel_until_ended([signs])
    for remote in served:
        await remote.http.aclose()


async def test_the_processes_of_a_port_count_a_user_and_an_address_together(
    remotes: list[Remote], valkey_url: str, until: Until
) -> None:
    """4501 and 429 whichever process is asked; what a killed one had is free again."""
    remote = remotes[0]
    with started(valkey_url, remote.port, WEBSOCKET_WORKERS="3", **SETTINGS) as process:

        def are_listening() -> list[int]:
            now = children(process.pid)
            return now if len(now) == 3 and all(map(listens, now)) else []

        before = await until(are_listening, "three processes listen", START_S_MAX)
        async with contextlib.AsyncExitStack() as stack:
            clients = await connect(stack, [remote], PER_USER + 5)
            await until(so_many_are_open(clients), "the newest five are closed", START_S_MAX)
            assert {client.close_code for client in clients} == {None, 4501}
            os.kill(before[0], signal.SIGKILL)
            await until(lambda: set(are_listening()) - {*before}, "another takes its place", START_S_MAX)
            clients += await connect(stack, [remote], PER_USER)
            await until(so_many_are_open(clients), "what the killed one had is free again", START_S_MAX)
        async with contextlib.AsyncExitStack() as stack:
            clients = await connect(stack, [remote], 2 * PER_ADDRESS, address="203.0.113.1")
            await until(so_many_are_open(clients, PER_ADDRESS), "the newest are closed", START_S_MAX)
            assert {client.close_code for client in clients} <= {None, 4007}
        came = [await is_refused(remote, "203.0.113.2") for _ in range(3 * PER_MINUTE)].count(False)
        assert PER_MINUTE <= came <= 2 * PER_MINUTE + 6, "the minute may end meanwhile"


async def test_servers_that_are_started_separately_count_a_user_together(
    remotes: list[Remote], valkey_url: str, state: State, until: Until
) -> None:
    """As on two machines; the counts of one that is killed are gone within LIVING_MS."""
    with contextlib.ExitStack() as servers:
        first, second = [
            servers.enter_context(started(valkey_url, remote.port, **SETTINGS)) for remote in remotes
        ]
        for remote in remotes:
            await until(remote.ready, "it is ready", START_S_MAX)
        async with contextlib.AsyncExitStack() as stack:
            mine = await connect(stack, remotes[:1], PER_USER - 2)
            await asyncio.sleep(0.5)  # so that it is told which came first
            theirs = await connect(stack, remotes[1:], PER_USER - 2)
            await until(so_many_are_open([*mine, *theirs]), "the newest are closed", START_S_MAX)
            assert [client.close_code for client in mine] == [None] * len(mine), "they came first"
            assert [client.close_code for client in theirs].count(4501) == PER_USER - 4
            first.kill()
            theirs += await connect(stack, remotes[1:], PER_USER - 2)
            await asyncio.sleep(VERDICT_S + 1)
            assert [client.close_code for client in theirs].count(None) == PER_USER
            counted = await state.connection.commands.keys(keys.connection_counts("*", "open"))
            assert len(counted) == 1, f"the killed one counts for {LIVING_MS} ms at most"
        second.terminate()


async def test_messages_of_a_user_count_at_all_servers(
    remotes: list[Remote], valkey_url: str, until: Until
) -> None:
    """As many as are allowed to one server; a second one refuses after a few."""
    with contextlib.ExitStack() as servers:
        for remote in remotes:
            servers.enter_context(started(valkey_url, remote.port, **SETTINGS))
        for remote in remotes:
            await until(remote.ready, "it is ready", START_S_MAX)
        while time.time() % 60 > 30:  # the counts of a minute end with it
            await asyncio.sleep(1)
        async with contextlib.AsyncExitStack() as stack:
            here, there = [(await connect(stack, [remote], 1))[0] for remote in remotes]
            sent = 1  # when it was connected
            for _ in range(MESSAGES - 1):
                assert await answers(here)
            assert not await answers(here)
            while await answers(there):
                sent += 1
                assert sent < MESSAGES // 2, "what the other server got is not known here"
                await asyncio.sleep(PAUSE_S)


def so_many_are_open(clients: list[ClientConnection], count: int = PER_USER) -> Callable[[], bool]:
    """Are exactly so many of them open?"""
    return lambda: sum(client.close_code is None for client in clients) == count


async def connect(
    stack: contextlib.AsyncExitStack, remotes: list[Remote], count: int, address: str = ""
) -> list[ClientConnection]:
    """Connect that often as alice, each time from another address; or from this one, each time as another.

    The connections that were let in.
    """
    clients: list[ClientConnection] = []
    async with asyncio.timeout(START_S_MAX):
        while count:
            who = (address, f"user-{count}") if address else (next(ADDRESSES), "alice")
            remote = remotes[count % len(remotes)]
            try:
                client = await stack.enter_async_context(remote.open("/ws", through_proxy(*who)))
            except InvalidStatus as refused:
                assert address
                assert refused.response.status_code == 429
            else:
                if not await answers(client) and client.close_code != 4501:
                    assert client.close_code == 4007, "a process that has just begun asks to come back later"
                    continue
                clients.append(client)
            count -= 1
    return clients


def through_proxy(address: str, subject: str) -> dict[str, str]:
    """Headers of this user, as the proxy adds the address."""
    return {"X-Forwarded-For": address, **bearer(subject=subject)}


async def is_refused(remote: Remote, address: str) -> bool:
    """Is a handshake from this address answered with 429?"""
    try:
        async with remote.open("/ws", through_proxy(address, "bob")):
            return False
    except InvalidStatus as refused:
        assert refused.response.status_code == 429
        return True


def listens(pid: int) -> bool:
    """Has this process a listening socket?"""
    listening = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line}
    with contextlib.suppress(FileNotFoundError):
        targets = {str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()}
        return any(f"socket:[{inode}]" in targets for inode in listening)
    return False


async def answers(client: ClientConnection) -> bool:
    """Is this connection still there?"""
    try:
        await client.send('{"type":"heartbeat"}')
        return (await receive(client))["type"] == "heartbeat_ack"
    except ConnectionClosed:
        return False

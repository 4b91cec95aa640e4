"""How servers begin, leave service, and are several on one port: real processes, real signals."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.state import State
from tests.conftest import SHARDS, Until, end, free_port
from tests.support.websocket_servers import (
    SECRET,
    Calculator,
    Served,
    bearer,
    closed,
    keep_giving_signs,
    receive,
    write_accounts,
)

START_S_MAX = 30.0


@contextlib.contextmanager
def started(url: str, port: int, **settings: str) -> Generator["subprocess.Popen[bytes]"]:
    """`python -m portfolio_realtime.websocket_server` with these settings."""
    environment = {"REDIS_URL": url, "SHARDS": str(SHARDS), "JWT_SECRET": SECRET, "WEBSOCKET_PORT": str(port)}
    process = subprocess.Popen(
        [sys.executable, "-m", "portfolio_realtime.websocket_server"],
        env={**os.environ, "LOG_LEVEL": "warning", **environment, **settings},
    )
    try:
        yield process
    finally:
        end(process)


class Remote(Served):
    """A server in another process."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10)


@pytest.fixture
async def remote(state: State) -> AsyncGenerator[Remote]:
    """Where the server of the test will be; calculators live."""
    served = Remote(free_port())
    signs = asyncio.create_task(keep_giving_signs(state))
    yield served
    await cancel_until_ended([signs])
    await served.http.aclose()


def children(pid: int) -> list[int]:
    """The processes that a process has started and that live."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in found.split()]


async def exit_code(process: "subprocess.Popen[bytes]") -> int:
    return await asyncio.to_thread(process.wait, 20)


async def test_a_server_leaves_service_by_degrees(
    remote: Remote, valkey_url: str, state: State, until: Until
) -> None:
    """/ready says no; in the grace time clients still come and get values; then 4001; exit code 0."""
    await write_accounts(state, "a")
    calculator = Calculator(state)
    await calculator.publish("a", 1)
    with started(valkey_url, remote.port, DRAIN_GRACE_SECONDS="3") as process:
        await until(remote.ready, "the server is ready", START_S_MAX)
        async with remote.open("/ws/portfolio/a") as client:
            assert (await receive(client))["sequence"] == 1
            process.terminate()

            async def is_draining() -> bool:
                answer = await remote.http.get("/ready")
                return (answer.status_code, answer.json()["status"]) == (503, "draining")

            await until(is_draining, "/ready says no")
            async with remote.open("/ws/portfolio/a") as late:
                assert (await receive(late))["sequence"] == 1
                await calculator.publish("a", 2)
                assert (await receive(client))["sequence"] == 2
                assert [await closed(client), await closed(late)] == [4001, 4001]
        assert await exit_code(process) == 0


async def test_the_second_signal_ends_a_server_at_once(remote: Remote, valkey_url: str, until: Until) -> None:
    """Also in the midst of a drain that would take a minute; clients are still told."""
    with started(valkey_url, remote.port, DRAIN_GRACE_SECONDS="60") as process:
        await until(remote.ready, "the server is ready", START_S_MAX)
        async with remote.open("/ws") as client:
            process.send_signal(signal.SIGINT)

            async def is_draining() -> bool:
                return not await remote.ready()

            await until(is_draining, "/ready says no")
            process.send_signal(signal.SIGTERM)
            assert await closed(client) == 4001
        assert await exit_code(process) == 0


async def test_several_processes_serve_one_port_and_one_that_dies_is_started_again(
    remote: Remote, valkey_url: str, state: State, until: Until
) -> None:
    """WEBSOCKET_WORKERS: each is fed, each has its metrics; one signal ends them all."""
    await write_accounts(state, "a")
    calculator = Calculator(state)
    settings = {"WEBSOCKET_WORKERS": "2", "DRAIN_GRACE_SECONDS": "0"}
    with started(valkey_url, remote.port, **settings) as process:
        await until(remote.ready, "a process is ready", START_S_MAX)

        async def serving_instances() -> set[str]:
            lines = (await remote.http.get("/metrics")).text.splitlines()
            own = [line for line in lines if line.startswith("portfolio_realtime_connections{")]
            return {line.split('instance="')[1].split('"')[0] for line in own}

        async def are_both_seen() -> bool:
            return len(await serving_instances()) == 2

        await until(are_both_seen, "both processes are seen", START_S_MAX)
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(remote.open("/ws/portfolio/a")) for _ in range(16)]
            await calculator.publish("a", 1)
            assert {(await receive(client))["sequence"] for client in clients} == {1}
            before = children(process.pid)
            os.kill(before[0], signal.SIGKILL)

            def is_replaced() -> bool:
                now = children(process.pid)
                return len(now) == 2 and before[0] not in now

            await until(is_replaced, "another process takes its place")
            await calculator.publish("a", 2)
            received = await asyncio.gather(*map(receive, clients), return_exceptions=True)
            cut = sum(isinstance(one, ConnectionClosed) for one in received)
            assert 0 < cut < len(clients), "the kernel spreads connections over both"
        process.terminate()
        assert await exit_code(process) == 0
        assert not await remote.ready()


PER_USER, PER_ADDRESS, PER_MINUTE = 12, 6, 20
ADDRESSES = (f"198.51.{number // 256}.{number % 256}" for number in range(65_536))


async def test_several_processes_count_a_user_and_an_address_together(
    remote: Remote, valkey_url: str, until: Until
) -> None:
    """4501 and 429 whichever process is asked; what a killed one had is free again."""
    settings = {
        "WEBSOCKET_WORKERS": "3",
        "DRAIN_GRACE_SECONDS": "0",
        "TRUSTED_PROXIES": "127.0.0.1",
        "CONNECTIONS_PER_USER": str(PER_USER),
        "CONNECTIONS_PER_ADDRESS": str(PER_ADDRESS),
        "CONNECTS_PER_MINUTE": str(PER_MINUTE),
    }
    with started(valkey_url, remote.port, **settings) as process:

        def are_listening() -> list[int]:
            now = children(process.pid)
            return now if len(now) == 3 and all(map(listens, now)) else []

        before = await until(are_listening, "three processes listen", START_S_MAX)
        async with contextlib.AsyncExitStack() as stack:
            clients = await fill(remote, stack)
            assert len(clients) == PER_USER
            os.kill(before[0], signal.SIGKILL)
            await until(lambda: set(are_listening()) - {*before}, "another takes its place", START_S_MAX)
            clients = [client for client in clients if await answers(client)]
            for _ in range(6):
                clients += await fill(remote, stack)
            assert len(clients) == PER_USER
        async with contextlib.AsyncExitStack() as stack:
            for number in range(PER_ADDRESS):
                headers = through_proxy("203.0.113.1", f"user-{number}")
                await stack.enter_async_context(remote.open("/ws", headers))
            assert [await is_refused(remote, "203.0.113.1") for _ in range(6)] == [True] * 6
        came = [await is_refused(remote, "203.0.113.2") for _ in range(3 * PER_MINUTE)].count(False)
        assert PER_MINUTE <= came <= 2 * PER_MINUTE, "the minute may end meanwhile"


def through_proxy(address: str, subject: str) -> dict[str, str]:
    """Headers of this user, as the proxy adds the address."""
    return {"X-Forwarded-For": address, **bearer(subject=subject)}


async def fill(remote: Remote, stack: contextlib.AsyncExitStack) -> list[ClientConnection]:
    """Connect as alice until that is refused with 4501; those that are in."""
    clients: list[ClientConnection] = []
    async with asyncio.timeout(START_S_MAX):
        while True:
            headers = through_proxy(next(ADDRESSES), "alice")
            client = await stack.enter_async_context(remote.open("/ws", headers))
            if await answers(client):
                clients.append(client)
            elif client.close_code == 4501:
                return clients
            else:
                assert client.close_code == 4007, "a process that has just begun asks to come back later"


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


def test_several_processes_need_a_valkey_to_share(valkey_url: str) -> None:
    """Each would have one of its own: that is refused, with the remedy."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REDIS_")}
    done = subprocess.run(
        [sys.executable, "-m", "portfolio_realtime.websocket_server"],
        env={**environment, "WEBSOCKET_WORKERS": "2"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert "set REDIS_HOST" in done.stderr


def test_the_server_starts_without_what_only_calculators_need() -> None:
    """After a crash thousands of clients wait for the new process: each import counts."""
    program = "import sys, portfolio_realtime.websocket_server; print('scipy' in sys.modules)"
    found = subprocess.run((sys.executable, "-c", program), check=True, capture_output=True, text=True)
    assert found.stdout == "False\n"

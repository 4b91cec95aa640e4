"""The guide's check of a WebSocket server: one that runs on port 8001 or 8000, else one started here.

`python -m pytest tests/test_websocket_server.py -v`. On a server that it did not start it only does what
harms nobody: probes, a heartbeat, an account that cannot exist. Values, ports and endings are tried on a
server of its own, a process beside it on a Valkey of its own, so nothing is skipped.
"""

import asyncio
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from portfolio_realtime.state import State
from portfolio_realtime.state.embedded import free_port
from tests.conftest import SHARDS, end
from tests.support.websocket_servers import Calculator, write_accounts

PORTS = (8001, 8000)
START_S_MAX = 30.0
ANSWER_S_MAX = 5.0


@dataclass
class Server:
    """Where a server is."""

    port: int

    def url(self, path: str) -> str:
        """An HTTP address."""
        return f"http://127.0.0.1:{self.port}{path}"

    def open(self, path: str) -> connect:
        """A WebSocket client."""
        return connect(f"ws://127.0.0.1:{self.port}{path}", compression=None)


async def is_server(port: int) -> bool:
    """Does one of our servers answer here?"""
    with contextlib.suppress(httpx.HTTPError, ValueError):
        async with httpx.AsyncClient(timeout=2, trust_env=False) as http:
            answer = await http.get(f"http://127.0.0.1:{port}/health")
            return answer.status_code == 200 and answer.json().get("status") == "ok"
    return False


async def answering(process: "subprocess.Popen[bytes]", port: int) -> None:
    """Wait until a server that we have started answers."""
    give_up = time.monotonic() + START_S_MAX
    while not await is_server(port):
        assert process.poll() is None, f"the server ended with code {process.returncode}"
        assert time.monotonic() < give_up, "the server did not answer in time"
        await asyncio.sleep(0.05)


@pytest.fixture
async def server(valkey_url: str, state: State) -> AsyncGenerator[Server]:
    """A server that runs already, else one of our own."""
    for port in PORTS:
        if await is_server(port):
            yield Server(port)
            return
    async with started(valkey_url, state) as ours:
        yield ours


@pytest.fixture
async def own_server(valkey_url: str, state: State) -> AsyncGenerator[Server]:
    """A server of our own, whoever else runs."""
    async with started(valkey_url, state) as ours:
        yield ours


@contextlib.asynccontextmanager
async def started(valkey_url: str, state: State) -> AsyncGenerator[Server]:
    """A server process on a free port, with one account."""
    await write_accounts(state, "guide-account")
    port = free_port()
    process = start(port, REDIS_URL=valkey_url, SHARDS=str(SHARDS))
    try:
        await answering(process, port)
        yield Server(port)
    finally:
        end(process)


def start(port: int, *, hears_errors: bool = False, **environment: str) -> "subprocess.Popen[bytes]":
    """The service as the guide starts it, in the repository's root, without the developer's secrets."""
    return subprocess.Popen(
        [sys.executable, "-m", "portfolio_realtime.websocket_server"],
        env={
            **os.environ,
            "WEBSOCKET_PORT": str(port),
            "WEBSOCKET_HOST": "127.0.0.1",
            "JWT_SECRET": "",
            "API_KEY_SECRET": "",
            "DEMO_PAGE": "false",
            **environment,
        },
        stderr=subprocess.PIPE if hears_errors else subprocess.DEVNULL,
    )


async def get(server: Server, path: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=ANSWER_S_MAX, trust_env=False) as http:
        return await http.get(server.url(path))


async def receive(client: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(ANSWER_S_MAX):
        return json.loads(await client.recv())


async def test_the_server_is_healthy(server: Server) -> None:
    """`/health` says that the process lives, whatever else is down."""
    answer = await get(server, "/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_the_server_says_whether_it_is_ready(server: Server) -> None:
    """`/ready` is for the load balancer: 200 or 503, with the reason."""
    answer = await get(server, "/ready")
    assert answer.status_code in (200, 503)
    assert answer.json()["status"] in ("ok", "draining", "waiting for the state", "nothing is published")


async def test_a_heartbeat_is_answered(server: Server) -> None:
    """Before and after a client has said who it is."""
    async with server.open("/ws") as client:
        await client.send(json.dumps({"type": "heartbeat", "timestamp": 7}))
        assert await receive(client) == {"type": "heartbeat_ack", "timestamp": 7}


async def test_an_impossible_account_is_refused_for_good(server: Server) -> None:
    """4503 where authentication is off or the token is good, 4007 where it waits for one: never a value."""
    async with server.open("/ws/portfolio/not.an.account") as client:
        with pytest.raises(ConnectionClosed):
            async with asyncio.timeout(2 * ANSWER_S_MAX):
                while True:
                    assert json.loads(await client.recv())["type"] != "portfolio"
        assert client.close_code in (4007, 4503)


async def test_a_published_value_reaches_a_client(own_server: Server, state: State) -> None:
    """End to end: from the calculator's publication through Valkey to a browser's socket."""
    calculator = Calculator(state)
    await calculator.publish("guide-account", 1, {"AAPL": "10"}, equity="104211.37")
    async with own_server.open("/ws/portfolio/guide-account?detail=positions") as client:
        first = await receive(client)
        assert (first["total_value"], first["positions"][0]["symbol"]) == ("$104211.37", "AAPL")
        await calculator.publish("guide-account", 2, {"AAPL": "10"}, equity="104212.00")
        assert (await receive(client))["equity"] == "104212.00"


async def test_a_used_port_is_one_clear_line(valkey_url: str) -> None:
    """The port, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start(port, REDIS_URL=valkey_url, hears_errors=True)
        try:
            _, said = await asyncio.to_thread(process.communicate, timeout=START_S_MAX)
        finally:
            end(process)
    assert process.returncode == 2
    lines = said.decode().splitlines()
    assert f"port {port} is in use" in lines[-1]
    assert "change WEBSOCKET_PORT" in lines[-1]
    assert "Traceback" not in said.decode()


@pytest.mark.parametrize("level", ["info", "error"])
async def test_that_authentication_is_off_is_said_at_every_log_level(valkey_url: str, level: str) -> None:
    """Loudly, and only where it is."""
    said = {
        secret: await heard(REDIS_URL=valkey_url, LOG_LEVEL=level, JWT_SECRET=secret)
        for secret in ("", secrets.token_urlsafe(48))
    }
    assert ["authentication is OFF" in text for text in said.values()] == [True, False]
    assert "set JWT_SECRET" in said[""]


async def heard(**environment: str) -> str:
    """What a server says on stderr from its start to its end."""
    port = free_port()
    process = start(port, hears_errors=True, SHARDS=str(SHARDS), DRAIN_GRACE_SECONDS="0", **environment)
    try:
        await answering(process, port)
        process.terminate()
        _, said = await asyncio.to_thread(process.communicate, timeout=START_S_MAX)
        return said.decode()
    finally:
        end(process)


async def test_a_terminated_server_ends_in_time_and_asks_clients_to_reconnect(
    valkey_url: str, state: State
) -> None:
    """SIGTERM: 4001 for the clients, exit code 0."""
    await write_accounts(state, "guide-account")
    port = free_port()
    process = start(port, REDIS_URL=valkey_url, SHARDS=str(SHARDS))
    try:
        give_up = time.monotonic() + START_S_MAX
        while not await is_server(port):
            assert time.monotonic() < give_up, "the server did not answer in time"
            await asyncio.sleep(0.05)
        async with Server(port).open("/ws/portfolio/guide-account") as client:
            process.terminate()
            with pytest.raises(ConnectionClosed):
                await receive(client)
            assert client.close_code == 4001
        assert await asyncio.to_thread(process.wait, 5) == 0
    finally:
        end(process)

"""E11, E19, E20 and E26: what a running server leaves in its logs, metrics and answers."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from portfolio_realtime.state import State
from portfolio_realtime.state.embedded import free_port
from tests.conftest import SHARDS, end
from tests.support.websocket_servers import API_KEY, SECRET, closed, give_signs, receive, token

pytestmark = pytest.mark.asyncio(loop_scope="package")

START_S_MAX = 30.0
FORGED_LINE = "forged line"
EVIL = f"evil\x1b[31m\r\n{FORGED_LINE}"


@dataclass
class Process:
    """A server in a process of its own, with the loudest logs, and what they say."""

    port: int
    log: Path

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """An HTTP answer."""
        async with httpx.AsyncClient(trust_env=False) as http:
            return await http.get(f"http://127.0.0.1:{self.port}{path}", headers=headers)

    async def refused(self, path: str, offered: str | None = None, **headers: str) -> None:
        """Try to open a WebSocket, and be refused before or after."""
        with contextlib.suppress(InvalidStatus):
            async with connect(
                f"ws://127.0.0.1:{self.port}{path}",
                additional_headers=headers,
                compression=None,
                subprotocols=None if offered is None else [Subprotocol("bearer"), Subprotocol(offered)],
            ) as client:
                await closed(client)

    async def subscribe(self, account_id: str, **headers: str) -> str:
        """Ask for an account by message; the code of the answer."""
        url = f"ws://127.0.0.1:{self.port}/ws"
        async with connect(url, additional_headers=headers, compression=None) as client:
            await client.send(json.dumps({"type": "subscribe", "account_id": account_id}))
            return (await receive(client))["code"]

    def said(self) -> str:
        """Everything that it has logged until now."""
        return self.log.read_text()


@contextlib.contextmanager
def started(url: str, log: IO[bytes]) -> Generator[int]:
    """The service as operators start it; the port."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "portfolio_realtime.websocket_server"],
        env={
            **os.environ,
            "REDIS_URL": url,
            "SHARDS": str(SHARDS),
            "WEBSOCKET_HOST": "127.0.0.1",
            "WEBSOCKET_PORT": str(port),
            "DRAIN_GRACE_SECONDS": "0",
            "DRAIN_SECONDS": "0",
            "JWT_SECRET": SECRET,
            "API_KEY_SECRET": API_KEY,
            "TRUSTED_PROXIES": "127.0.0.1",
            "ALLOW_TOKEN_IN_URL": "true",
            "LOG_LEVEL": "debug",
            "LOG_FORMAT": "console",  # for people, and easier to fool
        },
        stdout=log,
        stderr=log,
    )
    try:
        yield port
    finally:
        end(process)


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def process(shared: State, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Process]:
    """It is ready."""
    log = tmp_path_factory.mktemp("logs") / "server.log"
    with log.open("wb") as file, started(shared.connection.url, file) as port:
        server = Process(port, log)
        async with asyncio.timeout(START_S_MAX):
            while True:
                await give_signs(shared)
                with contextlib.suppress(httpx.HTTPError):
                    if (await server.get("/ready")).status_code == 200:
                        break
                await asyncio.sleep(0.05)
        yield server


async def test_e11_tokens_and_tickets_leave_no_trace(process: Process) -> None:
    """Good, bad and spent, by every way in: not in logs, metrics or answers."""
    good, bad = token(subject="traced"), token(subject="traced")[:-4] + "AAAA"
    secret_parts = [good.split(".")[2], bad.split(".")[2], good.split(".")[1], API_KEY, SECRET]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{process.port}", trust_env=False) as http:
        answer = await http.post("/v1/tickets", headers={"Authorization": f"Bearer {good}"})
        ticket = answer.json()["ticket"]
    secret_parts.append(ticket)
    for credentials in (good, bad):
        await process.refused("/ws/portfolio/b", Authorization=f"Bearer {credentials}")
        await process.refused(f"/ws/portfolio/b?token={credentials}")
        await process.refused("/ws/portfolio/b", credentials)
        await process.refused(f"/nothing/{credentials}?token={credentials}")
        async with connect(f"ws://127.0.0.1:{process.port}/ws", compression=None) as client:
            await client.send(json.dumps({"type": "auth", "token": credentials}))
            await client.send(json.dumps({"type": "no such", "token": credentials}))
            await client.send(credentials)
            heard = ""
            with contextlib.suppress(Exception):
                async with asyncio.timeout(0.3):
                    while True:
                        heard += str(await client.recv())
        answers = [
            await process.get("/v1/portfolio/b", Authorization=f"Bearer {credentials}"),
            await process.get(f"/v1/portfolio/{credentials}", Authorization=f"Bearer {credentials}"),
            await process.get(f"/v1/portfolio/b?token={credentials}"),
        ]
        told = heard + "".join(answer.text + str(answer.headers) for answer in answers)
        assert not [part for part in secret_parts if part in told]
    for _ in range(2):
        await process.refused(f"/ws/portfolio/b?ticket={ticket}")
    metrics = (await process.get("/metrics", **{"X-API-Key": API_KEY})).text
    assert "auth_failures" in metrics
    for part in secret_parts:
        assert part not in metrics
        assert part not in process.said()


async def test_e19_nothing_that_a_client_sends_can_forge_a_line_of_the_log(process: Process) -> None:
    """Neither by account id, user agent, origin, address or path."""
    good = f"Bearer {token()}"
    await process.refused("/ws/portfolio/a%0d%0a" + FORGED_LINE.replace(" ", "%20"), Authorization=good)
    upgrade = (
        b"GET /ws%s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n%s: %s\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Origin: https://evil.example\r\n\r\n"
    )
    for name in (b"User-Agent", b"X-Forwarded-For", b"Origin", b"X-Real-IP", b"Authorization", EVIL.encode()):
        await send_raw(process, upgrade % (b"", name, EVIL.encode()))
        await send_raw(process, upgrade % (b"", name, b"\x1b[31mforged line"))
    await send_raw(process, upgrade % (b"/portfolio/" + EVIL.encode(), b"X", b"y"))
    await send_raw(process, upgrade % (b"/portfolio/\x1b[31mforged%20line", b"X", b"y"))
    said = process.said()
    assert "refused" in said
    assert FORGED_LINE not in said
    assert "\x1b[31m" not in said
    assert "\r" not in said


async def send_raw(process: Process, request: bytes) -> None:
    """Send what no client would, and hear it out."""
    reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
    writer.write(request)
    async with asyncio.timeout(START_S_MAX):
        with contextlib.suppress(ConnectionError):
            while await reader.read(4096):
                pass
    writer.close()


async def test_e20_refusals_are_counted_and_logged_with_their_reason(process: Process) -> None:
    """Who from where and why, and nothing of what was shown."""
    from_outside = {"X-Forwarded-For": "203.0.113.77"}
    before = (await process.get("/metrics", **{"X-API-Key": API_KEY})).text
    await process.refused("/ws", Authorization="Bearer nonsense", **from_outside)
    await process.refused("/ws", Authorization=f"Bearer {token(lifetime_s=-5)}", **from_outside)
    await process.refused("/ws", Origin="https://evil.example", **from_outside)
    await process.refused("/ws/portfolio/nobodys", Authorization=f"Bearer {token()}", **from_outside)
    await process.get("/v1/portfolio/a", **from_outside)
    await process.get("/v1/portfolio/nobodys", Authorization=f"Bearer {token()}", **from_outside)
    await process.subscribe("nobodys", Authorization=f"Bearer {token()}", **from_outside)
    await process.get("/metrics", **{"X-API-Key": "guess"}, **from_outside)
    after = (await process.get("/metrics", **{"X-API-Key": API_KEY})).text
    assert counted(after, "forbidden") == counted(before, "forbidden") + 3  # by path, message and HTTP
    for reason in ("invalid", "expired", "missing", "api_key"):
        assert counted(after, reason) == counted(before, reason) + 1
    for reason in ("invalid", "expired", "missing", "api_key", "forbidden"):
        assert any(
            reason in line and "203.0.113.77" in line and "refused" in line
            for line in process.said().splitlines()
        )
    assert any("403" in line and "203.0.113.77" in line for line in process.said().splitlines())


def counted(metrics: str, reason: str) -> float:
    """How many credentials were refused for this reason."""
    for line in metrics.splitlines():
        if "auth_failures_total{" in line and f'reason="{reason}"' in line:
            return float(line.rpartition(" ")[2])
    return 0.0


async def test_e26_answers_tell_no_version_and_no_insides(process: Process) -> None:
    """No banner on any way out, no traceback, no debugging page, no list of files."""
    reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
    writer.write(b"NONSENSE\r\n\r\n")
    async with asyncio.timeout(START_S_MAX):
        nonsense = (await reader.read()).decode()
    writer.close()
    answers = [
        await process.get(path) for path in ("/health", "/", "/nothing", "/v1/portfolio/a", "/%ff", "/..")
    ]
    heard = nonsense + "".join(f"{answer.headers} {answer.text}" for answer in answers)
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"ws://127.0.0.1:{process.port}/nothing"):
            pass
    heard += str(refused.value.response.headers)
    for banner in ("server:", "'server'", "uvicorn", "websockets/", "Python/", "x-powered-by", "Traceback"):
        assert banner.lower() not in heard.lower(), banner

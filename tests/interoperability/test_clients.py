"""The same conversation held by clients that others have written: values, changes, a heartbeat, a goodbye."""

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import websocket
from playwright.async_api import async_playwright
from websockets.asyncio.client import connect
from websockets.sync.client import connect as connect_sync

from tests.conftest import Until
from tests.frontend.conftest import ARGUMENTS, CHROMIUM
from tests.interoperability.conftest import ACCOUNT_ID, Running
from tests.interoperability.programs import need, node_modules
from tests.support.websocket_servers import bearer, token

pytestmark = pytest.mark.asyncio(loop_scope="module")

NODE_CLIENT = Path(__file__).parent / "node_client.cjs"
NODE_WITH_WEBSOCKET = (20, 10)
SPEAK_S_MAX = 30.0
HEARTBEAT = {"type": "heartbeat", "timestamp": "κόσμε"}
ACK = {"type": "heartbeat_ack", "timestamp": "κόσμε"}


def hello() -> dict[str, str]:
    """The first message."""
    return {"type": "auth", "token": token()}


def url(running: Running, scheme: str = "ws") -> str:
    return f"{scheme}://127.0.0.1:{running.served.port}/ws/portfolio/{ACCOUNT_ID}?detail=positions"


def check(running: Running, first: dict[str, Any], second: dict[str, Any]) -> None:
    """A whole first value, then the changes of the next one."""
    assert (first["equity"], len(first["positions"])) == (f"{running.sequence - 1}.00", 2)
    assert second["equity"] == f"{running.sequence}.00"
    assert [row["symbol"] for row in second["positions"]] == ["AAPL"]


async def test_websockets(running: Running) -> None:
    """Python, asyncio; permessage-deflate offered."""
    async with asyncio.timeout(SPEAK_S_MAX), connect(url(running), compression="deflate") as client:
        await client.send(json.dumps(hello()))
        first = json.loads(await client.recv())
        await running.publish()
        check(running, first, json.loads(await client.recv()))
        await client.send(json.dumps(HEARTBEAT))
        assert json.loads(await client.recv()) == ACK
        await (await client.ping())
        assert client.protocol.extensions == []
    assert client.close_code == 1000


async def test_websockets_with_threads(running: Running) -> None:
    """Python, blocking; a message in fragments."""

    def speak() -> int | None:
        with connect_sync(url(running)) as client:
            client.send(json.dumps(hello()))
            assert json.loads(client.recv(SPEAK_S_MAX))["type"] == "portfolio"
            client.send(iter(['{"type":"heart', 'beat","timestamp"', ':"κόσμε"}']))
            assert json.loads(client.recv(SPEAK_S_MAX)) == ACK
        return client.protocol.close_code

    assert await asyncio.to_thread(speak) == 1000


async def test_websocket_client(running: Running) -> None:
    """Python's other blocking client; credentials in a header."""

    def begin() -> tuple[websocket.WebSocket, dict[str, Any]]:
        client = websocket.create_connection(url(running), timeout=SPEAK_S_MAX, header=bearer())
        return client, json.loads(client.recv())

    def go_on(client: websocket.WebSocket) -> dict[str, Any]:
        second = json.loads(client.recv())
        client.send(json.dumps(HEARTBEAT))
        assert json.loads(client.recv()) == ACK
        client.close(1000)
        return second

    client, first = await asyncio.to_thread(begin)
    await running.publish()
    check(running, first, await asyncio.to_thread(go_on, client))


@pytest.mark.parametrize("compress", [0, 15])
async def test_aiohttp(running: Running, compress: int) -> None:
    """Without and with permessage-deflate offered."""
    async with (
        asyncio.timeout(SPEAK_S_MAX),
        aiohttp.ClientSession() as session,
        session.ws_connect(url(running, "http"), compress=compress) as client,
    ):
        await client.send_json(hello())
        first = await client.receive_json()
        await running.publish()
        check(running, first, await client.receive_json())
        await client.send_json(HEARTBEAT)
        assert await client.receive_json() == ACK
        assert client.compress == 0
        await client.close()
    assert client.close_code == 1000


async def speaking_node(running: Running, *words: str, folder: Path | None) -> None:
    """The conversation of `node_client.cjs`."""
    environment = {**os.environ, **({} if folder is None else {"NODE_PATH": str(folder)})}
    process = await asyncio.create_subprocess_exec(
        *(need("node"), *words, url(running), token()),
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(SPEAK_S_MAX):
            first = json.loads(await process.stdout.readline())
            await running.publish()
            check(running, first, json.loads(await process.stdout.readline()))
            assert json.loads(await process.stdout.readline()) == ACK
            assert await process.stdout.readline() == b"closed 1000\n"
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()


def node_version() -> tuple[int, ...]:
    """Of the machine's Node."""
    told = subprocess.run((need("node"), "--version"), check=True, capture_output=True, text=True).stdout
    return tuple(map(int, told.strip().removeprefix("v").split(".")))


async def test_node_of_its_own(running: Running) -> None:
    """Node's own WebSocket, which is also that of browsers' tools; it offers permessage-deflate."""
    if (version := node_version()) < NODE_WITH_WEBSOCKET:
        pytest.skip(f"Node {version} has no WebSocket of its own")
    words = ("--experimental-websocket", "--no-warnings", str(NODE_CLIENT), "builtin")
    await speaking_node(running, *words, folder=None)


async def test_node_ws(running: Running) -> None:
    """The package `ws` from npm; it offers permessage-deflate."""
    modules = await asyncio.to_thread(node_modules)
    await speaking_node(running, str(NODE_CLIENT), "ws", folder=modules)


@contextlib.asynccontextmanager
async def curl(*words: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A running curl, ended afterwards."""
    process = await asyncio.create_subprocess_exec(
        *(need("curl"), "--silent", "--no-buffer", "--max-time", str(int(SPEAK_S_MAX)), *words),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def credentials() -> tuple[str, str]:
    return "--header", f"Authorization: {bearer()['Authorization']}"


async def test_curl_reads_a_value(running: Running) -> None:
    """REST, and the same for existing clients."""
    base = f"http://127.0.0.1:{running.served.port}"
    for address in (
        f"{base}/v1/portfolio/{ACCOUNT_ID}",
        f"{base}/api/portfolio/value?accountId={ACCOUNT_ID}",
    ):
        async with curl("--fail", *credentials(), address) as process:
            output, _ = await process.communicate()
        assert process.returncode == 0
        assert json.loads(output)["equity"] == f"{running.sequence}.00"


async def test_curl_follows_the_events(running: Running) -> None:
    """Server-sent events: a whole value, then changes."""
    address = f"http://127.0.0.1:{running.served.port}/v1/portfolio/{ACCOUNT_ID}/stream?detail=positions"
    async with curl(*credentials(), address) as process, asyncio.timeout(SPEAK_S_MAX):
        assert process.stdout is not None
        first = await next_event(process.stdout)
        await running.publish()
        check(running, first, await next_event(process.stdout))


async def next_event(lines: asyncio.StreamReader) -> dict[str, Any]:
    """The data of the next event."""
    while True:
        line = await lines.readline()
        assert line, "the stream ended"
        if line.startswith(b"data: "):
            return json.loads(line.removeprefix(b"data: "))


async def test_curl_upgrades_to_a_websocket(running: Running) -> None:
    """curl as a client of bytes: the handshake's answer and the first frame are there."""
    words = ("--include", "--http1.1", *credentials(), "--output", "-")
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    asked = [word for name, value in headers.items() for word in ("--header", f"{name}: {value}")]
    async with curl(*words, *asked, url(running, "http")) as process, asyncio.timeout(SPEAK_S_MAX):
        assert process.stdout is not None
        head = await process.stdout.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        first, second, *length = await process.stdout.readexactly(4)
        assert (first, second) == (0x81, 126)
        value = json.loads(await process.stdout.readexactly(int.from_bytes(bytes(length))))
        assert value["equity"] == f"{running.sequence}.00"


BROWSER_SIDE = """([url, token]) => new Promise((resolve, reject) => {
  const socket = new WebSocket(url);
  const messages = window.messages = [];
  socket.onopen = () => socket.send(JSON.stringify({ type: "auth", token }));
  socket.onerror = () => reject(new Error("no connection"));
  socket.onmessage = ({ data }) => {
    messages.push(JSON.parse(data));
    if (messages.length === 2) socket.send('{"type":"heartbeat","timestamp":"κόσμε"}');
    if (messages.length === 3) socket.close(1000, "done");
  };
  socket.onclose = ({ code, wasClean }) =>
    resolve({ code, wasClean, extensions: socket.extensions, messages });
})"""


async def test_chromium(running: Running, until: Until) -> None:
    """A browser's own WebSocket, from a page of the server; it offers permessage-deflate."""
    if CHROMIUM is None:
        need("chromium")
    async with async_playwright() as playwright, asyncio.timeout(60):
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = await browser.new_page()
        await page.goto(f"http://127.0.0.1:{running.served.port}/health")
        speaking = asyncio.create_task(page.evaluate(BROWSER_SIDE, [url(running), token()]))
        await until(
            lambda: page.evaluate("window.messages?.length >= 1"), "the first value is there", SPEAK_S_MAX
        )
        await running.publish()
        seen = await speaking
        await browser.close()
    check(running, *seen["messages"][:2])
    assert seen["messages"][2] == ACK
    assert (seen["code"], seen["wasClean"], seen["extensions"]) == (1000, True, "")

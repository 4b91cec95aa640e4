"""Clients that send what they like, or read nothing."""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncGenerator

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from portfolio_harness.system import CONFLATED, counted
from tests.support.websocket_servers import (
    Calculator,
    Served,
    bearer,
    receive,
    receive_until,
    token,
)

SECURE = {"X-Forwarded-Proto": "https"}
RAW_S_MAX = 10.0
CONNECTS_MAX = 5
TEXT_FRAME = b"\x81"
_BEAT = b'{"type":"heartbeat"}'
HEARTBEAT = TEXT_FRAME + bytes((0x80 | len(_BEAT), 0, 0, 0, 0)) + _BEAT  # RFC 6455, 5.2; masked by zeros
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
EVENTS = "GET /v1/portfolio/b/stream?detail=positions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
UNREAD_MESSAGES = 12  # of 70 kB and more: several times what the kernel and we keep
unread_sequence = itertools.count(1_000_000).__next__


def through_proxy(address: str, **more: str) -> dict[str, str]:
    """Headers as the proxy adds them to a request from this address."""
    return {**SECURE, "X-Forwarded-For": address, **more}


async def refusal(server: Served, path: str = "/ws", **headers: str) -> int | None:
    """The HTTP status with which the handshake is refused, or None: it is not."""
    try:
        async with server.open(path, headers):
            return None
    except InvalidStatus as refused:
        return refused.response.status_code


@contextlib.asynccontextmanager
async def raw(server: Served) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client that sends what it likes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def until_cut(reader: asyncio.StreamReader) -> bytes:
    """Everything until the server ends the connection."""
    heard = b""
    async with asyncio.timeout(RAW_S_MAX):
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(65_536):
                heard += part
    return heard


async def dripping(writer: asyncio.StreamWriter) -> None:
    """One byte at a time, for much longer than anybody waits."""
    for byte in UPGRADE + b"X-Slow: " + b"y" * 10_000:
        writer.write(bytes((byte,)))
        await asyncio.sleep(0.02)


async def everything(client: ClientConnection) -> list[str]:
    """All messages until the server closes."""
    messages: list[str] = []
    async with asyncio.timeout(RAW_S_MAX):
        with contextlib.suppress(ConnectionClosed):
            while True:
                messages.append(str(await client.recv()))
    return messages


async def ready(client: ClientConnection) -> None:
    """Wait until the server knows who it is."""
    await client.send('{"type":"heartbeat"}')
    await receive(client)


@contextlib.asynccontextmanager
async def reading_nothing(server: Served) -> AsyncGenerator[None]:
    """A client of account b with its positions, which reads nothing as soon as the server knows it."""
    for _ in range(CONNECTS_MAX):
        with socket.socket() as stalled:
            if await asyncio.to_thread(is_admitted, stalled, server.port):
                yield
                return
    raise AssertionError("the server admits nobody")


def is_admitted(client: socket.socket, port: int) -> bool:
    """Does the server answer account b's owner? It refuses while its Valkey is slow, as on a busy machine."""
    client.settimeout(RAW_S_MAX)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    head = UPGRADE.replace(b"/ws ", b"/ws/portfolio/b?detail=positions ")
    good = token(subject="stalled", accounts=["b"])
    client.sendall(head + f"Authorization: Bearer {good}\r\n\r\n".encode() + HEARTBEAT)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += client.recv(1)
    assert answer.startswith(b"HTTP/1.1 101")
    return client.recv(1, socket.MSG_PEEK)[:1] == TEXT_FRAME


async def publish_much(calculator: Calculator, sequence: int) -> None:
    """About 100 KB: every one of 400 positions has changed."""
    await calculator.publish("b", sequence, {f"SYMBOL{number}": str(sequence) for number in range(400)})


async def conflated(server: Served) -> int:
    """How many publications the server has replaced by a newer one before it could send them."""
    return int(await counted(f"http://127.0.0.1:{server.port}", CONFLATED))


async def rest_of(client: socket.socket) -> bytes:
    """Everything that the client can still read, until the server's end of the connection."""
    heard = b""
    client.settimeout(RAW_S_MAX)
    with contextlib.suppress(ConnectionError):
        while part := await asyncio.to_thread(client.recv, 1 << 20):
            heard += part
    return heard


async def disconnects(server: Served, code: str) -> float:
    """How many connections have ended with this code."""
    for line in (await server.http.get("/metrics")).text.splitlines():
        if line.startswith("portfolio_realtime_disconnects_total{") and f'code="{code}"' in line:
            return float(line.rpartition(" ")[2])
    return 0.0


@contextlib.asynccontextmanager
async def unread_events(
    server: Served, calculator: Calculator, subject: str
) -> AsyncGenerator[socket.socket]:
    """A client of the events of account b that reads nothing, when nothing more goes into its socket."""
    with socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(("127.0.0.1", server.port))
        many = {f"SYMBOL{number}": "1" for number in range(400)}
        await calculator.publish("b", unread_sequence(), many)
        good = token(subject=subject, accounts=["b"])
        head = f"{EVENTS}Authorization: Bearer {good}\r\n\r\n"
        async with server.open("/ws/portfolio/b?detail=positions", bearer(accounts=["b"])) as reader:
            await receive(reader)
            stalled.sendall(head.encode())
            assert await asyncio.to_thread(stalled.recv, 16, socket.MSG_PEEK) == b"HTTP/1.1 200 OK\r\n"[:16]
            for _ in range(UNREAD_MESSAGES):  # the reader shows that each was handed on
                last = unread_sequence()
                await calculator.publish("b", last, dict.fromkeys(many, str(last)))
                await receive_until(reader, last)
        yield stalled

"""E12, E13, E15: slow, oversized and malformed requests and frames, on real sockets."""

import asyncio
import json
import struct

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from portfolio_realtime.websocket_server.clients import connection as connection_limits
from portfolio_realtime.websocket_server.clients import http_protocol
from portfolio_realtime.websocket_server.clients.connection import ClientConnection as ServedConnection
from portfolio_realtime.wire.messages import MESSAGE_BYTES_MAX, Disconnect
from tests.security.hostile_clients import (
    RAW_S_MAX,
    UPGRADE,
    dripping,
    raw,
    ready,
    until_cut,
)
from tests.support.websocket_servers import (
    Served,
    bearer,
    closed,
    receive,
    token,
)

pytestmark = pytest.mark.asyncio(loop_scope="package")

NONSENSE = [
    "",
    "nonsense",
    "{",
    "[]",
    "null",
    '"subscribe"',
    "7",
    '{"type":"no such"}',
    '{"type":["subscribe"]}',
    '{"type":"subscribe"}',
    '{"type":"subscribe","account_id":7}',
    '{"type":"subscribe","account_id":"a","max_frequency_hz":-1}',
    '{"type":"subscribe","account_id":"a","max_frequency_hz":1e400}',
    '{"type":"subscribe","account_id":"a","detail":"everything"}',
    '{"type":"auth","token":{}}',
    "[" * 4000,
    '{"a":' * 800,
    '{"type":"heartbeat","timestamp":' + "9" * 4000 + "}",
    "\ud83d\ude00" * 10,
    "\x00" * 100,
]
POST = b"POST /v1/portfolios HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
LISTED = {disconnect.code for disconnect in Disconnect} | {1002, 1003, 1007, 1009}


async def test_e12_who_does_not_say_who_it_is_is_closed(own: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a deadline, and heartbeats do not prolong it."""
    monkeypatch.setattr(connection_limits, "AUTH_S_MAX", 0.3)
    async with own.open("/ws/portfolio/a", {}) as client:
        await client.send('{"type":"heartbeat"}')
        assert await closed(client) == 4007


async def test_e12_a_handshake_that_comes_byte_by_byte_is_cut(
    own: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a connection that has asked something before."""
    monkeypatch.setattr(http_protocol, "REQUEST_S_MAX", 0.5)
    for before in (b"", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"):
        async with raw(own) as (reader, writer):
            writer.write(before)
            drip = asyncio.create_task(dripping(writer))
            heard = await until_cut(reader)
            drip.cancel()
            assert (b" 200 " in heard) == bool(before)
            assert b" 101 " not in heard


async def test_e12_whoever_says_nothing_at_all_is_cut(own: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open socket costs its owner as much as us."""
    monkeypatch.setattr(http_protocol, "REQUEST_S_MAX", 0.2)
    async with raw(own) as (reader, _):
        assert await until_cut(reader) == b""


async def test_e12_a_head_must_be_whole_within_10_s_and_credentials_be_there_within_5_s(own: Served) -> None:
    """The deadlines themselves; the tests above shorten them."""
    loop = asyncio.get_running_loop()
    http = http_protocol.BoundedHttp(Config(own.open), ServerState(), {})
    came_s = loop.time()
    http.connection_made(asyncio.Transport())
    assert http._deadline is not None
    assert came_s + 10.0 <= http._deadline.when() <= loop.time() + 10.0
    http._cancel_deadline()
    silent = ServedConnection(100.0)
    assert silent.disconnect_due(105.0) is None
    assert silent.disconnect_due(105.1) is Disconnect.UNVERIFIABLE


async def test_e13_what_is_too_big_is_refused_before_it_is_there(own: Served) -> None:
    """The head of a request, a message, and a frame that only says that it will be a gigabyte."""
    async with raw(own) as (reader, writer):
        writer.write(UPGRADE + b"X-Big: " + b"y" * 2 * http_protocol.HEAD_BYTES_MAX)
        assert b" 431 " in await until_cut(reader)
    async with own.open("/ws/portfolio/a") as client:
        await client.send("x" * (MESSAGE_BYTES_MAX + 1))
        assert await closed(client) == 1009
    async with raw(own) as (reader, writer):
        writer.write(UPGRADE + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(struct.pack("!BBQ", 0x81, 0xFF, 1 << 30) + b"mask")
        assert (await until_cut(reader))[2:4] == struct.pack("!H", 1009)
    assert (http_protocol.HEAD_BYTES_MAX, MESSAGE_BYTES_MAX) == (32 * 1024, 4 * 1024)


async def test_e13_a_body_is_bounded_whoever_sends_it(own: Served) -> None:
    """Without credentials, and however it is told and cut into pieces; a whole question is none too large."""
    length, pieces = b"Content-Length: 1000000000\r\n", b"Transfer-Encoding: chunked\r\n"
    piece = b"%x\r\n" % http_protocol.BODY_BYTES_MAX + b"y" * http_protocol.BODY_BYTES_MAX + b"\r\n"
    for head, body in ((length, piece), (pieces, piece)):
        for is_whole in (True, False):
            async with raw(own) as (reader, writer):
                writer.write(POST + head + b"\r\n" + (body if is_whole else b""))
                await writer.drain()
                for _ in range(4):
                    writer.write(body)
                assert b" 413 " in await until_cut(reader)
    async with raw(own) as (reader, writer):
        ids = [f"{number:064}" for number in range(500)]
        asked = json.dumps({"ids": ids}).encode()
        assert http_protocol.HEAD_BYTES_MAX < len(asked) <= http_protocol.BODY_BYTES_MAX
        writer.write(POST + b"Authorization: Bearer %s\r\n" % token("*").encode())
        writer.write(b"Content-Length: %d\r\n\r\n" % len(asked) + asked)
        async with asyncio.timeout(RAW_S_MAX):
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"


async def test_e12_a_body_that_comes_byte_by_byte_is_cut(
    own: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a head is."""
    monkeypatch.setattr(http_protocol, "REQUEST_S_MAX", 0.5)
    async with raw(own) as (reader, writer):
        writer.write(POST + b"Content-Length: 1000\r\n\r\n")
        drip = asyncio.create_task(dripping(writer))
        assert await until_cut(reader) == b""
        drip.cancel()


async def test_e13_compression_is_declined(own: Served) -> None:
    """So nothing small can become large here."""
    async with raw(own) as (reader, writer):
        writer.write(UPGRADE + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
        async with asyncio.timeout(RAW_S_MAX):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"permessage-deflate" not in head.lower()


@pytest.mark.parametrize("text", NONSENSE, ids=range(len(NONSENSE)))
async def test_e15_nonsense_gets_a_defined_answer(
    own: Served, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An error or an acknowledgement, and the connection lives; after a series of them it is closed."""
    async with own.open("/ws", bearer(subject="odd")) as client:
        await client.send(text.encode("utf-16", "surrogatepass").decode("utf-16"))
        answer = await receive(client)
        assert answer["type"] in ("error", "heartbeat_ack")
        assert "Traceback" not in json.dumps(answer)
        await ready(client)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    "frames",
    [
        b"\x82\x84mask" + bytes(4),  # binary
        b"\x81\x82mask" + bytes(a ^ b for a, b in zip(b"\xff\xfe", b"ma", strict=True)),  # no UTF-8
        b"\x81\x01x",  # not masked
        b"\xf1\x81maskx",  # reserved bits
        b"\x83\x81maskx",  # reserved opcode
        b"\x09\x80mask",  # fragmented ping
        b"\x89\xfe\x00\x7emask" + bytes(126),  # oversized ping
        b"\x80\x81maskx",  # continuation of nothing
        b"\x88\x81maskx",  # close with half a code
        b"\x00" * 100,
        b"\xff" * 100,
    ],
    ids=range(11),
)
async def test_e15_frames_that_break_the_protocol_are_closed_with_a_listed_code(
    own: Served, frames: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Never a crash, never a stack trace, never a code that nobody knows."""
    async with raw(own) as (reader, writer):
        writer.write(UPGRADE + f"Authorization: Bearer {token()}\r\n\r\n".encode())
        async with asyncio.timeout(RAW_S_MAX):
            await reader.readuntil(b"\r\n\r\n")
        writer.write(frames)
        heard = await until_cut(reader)
    assert heard[0] == 0x88
    assert struct.unpack("!H", heard[2:4])[0] in LISTED
    assert "Traceback" not in caplog.text

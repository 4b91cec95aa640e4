"""E01, E02, E12 to E18: what a stranger can do to the door, on real sockets."""

import asyncio
import contextlib
import gc
import itertools
import json
import os
import re
import socket
import struct
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from unittest.mock import Mock

import httpx
import pytest
from structlog.testing import capture_logs
from uvicorn import Config
from uvicorn.server import ServerState
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from portfolio_harness.slow_readers import resident_mb
from portfolio_harness.system import CONFLATED, counted
from portfolio_realtime.state import State
from portfolio_realtime.websocket_server.access.identity import Identity
from portfolio_realtime.websocket_server.access.refusal_log import LINES_PER_KIND_MAX
from portfolio_realtime.websocket_server.clients import connection as connection_limits
from portfolio_realtime.websocket_server.clients import http_protocol
from portfolio_realtime.websocket_server.clients.connection import ClientConnection as ServedConnection
from portfolio_realtime.websocket_server.clients.gateway import Gateway
from portfolio_realtime.websocket_server.http_api import portfolios
from portfolio_realtime.wire.messages import MESSAGE_BYTES_MAX, Disconnect
from tests.conftest import Until
from tests.security.conftest import APP, METRICS_TOKEN
from tests.support.websocket_servers import (
    API_KEY,
    Calculator,
    Served,
    bearer,
    closed,
    receive,
    receive_until,
    serving,
    token,
)

pytestmark = pytest.mark.asyncio(loop_scope="package")

SECURE = {"X-Forwarded-Proto": "https"}
RAW_S_MAX = 10.0
QUEUED, QUEUED_MB_MAX = 400, 15  # publications of 100 KB for who does not read, and what they may cost


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


UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


async def test_e01_origin_is_compared_exactly(behind_proxy: Served) -> None:
    """Nothing that only looks like an allowed page gets in; who is no browser sends none."""
    wrong = [
        "https://evil-app.example.com",
        "https://app.example.com.evil",
        "https://app.example.com:443",
        "https://app.example.com:8443",
        "http://app.example.com",
        "HTTPS://APP.EXAMPLE.COM",
        "https://app.example.com/",
        "https://app.example.com,https://evil.example",
        "https://user@app.example.com",
        "null",
        "",
    ]
    for number, origin in enumerate(wrong):
        headers = through_proxy(f"198.51.100.{number}", Origin=origin)
        assert await refusal(behind_proxy, **headers) == 403, origin
    assert await refusal(behind_proxy, **through_proxy("198.51.100.99", Origin=APP)) is None
    assert await refusal(behind_proxy, **through_proxy("198.51.100.98")) is None


async def test_e02_without_tls_there_is_no_way_in(behind_proxy: Served) -> None:
    """Only the trusted proxy says that TLS was there; answers ask browsers to insist on it."""
    assert await refusal(behind_proxy) == 403
    assert await refusal(behind_proxy, **{"X-Forwarded-Proto": "http"}) == 403
    assert await refusal(behind_proxy, **{"X-Forwarded-Proto": "https, http"}) == 403
    assert await refusal(behind_proxy, **{"X-Forwarded-Proto": "wss"}) is None
    for path in ("/v1/portfolio/a", "/", "/metrics"):
        assert (await behind_proxy.http.get(path, headers=bearer())).status_code == 403
    answer = await behind_proxy.http.get("/v1/portfolio/a", headers={**bearer(), **SECURE})
    assert answer.status_code in (200, 503)
    assert answer.headers["strict-transport-security"].startswith("max-age=31536000")
    assert (await behind_proxy.http.get("/ready")).status_code == 200


async def test_e02_a_server_that_trusts_no_proxy_believes_nobody(shared: State) -> None:
    """With REQUIRE_TLS and no TRUSTED_PROXIES nothing gets in, whatever it says."""
    async with serving(shared.connection.url, require_tls=True) as server:
        assert await refusal(server, **SECURE) == 403


async def test_e12_who_does_not_say_who_it_is_is_closed(own: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a deadline, and heartbeats do not prolong it."""
    monkeypatch.setattr(connection_limits, "AUTH_S_MAX", 0.3)
    async with own.open("/ws/portfolio/a", {}) as client:
        await client.send('{"type":"heartbeat"}')
        assert await closed(client) == 4500


async def test_e12_a_handshake_that_comes_byte_by_byte_is_cut(
    own: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a connection that has asked something before."""
    monkeypatch.setattr(http_protocol, "HEAD_S_MAX", 0.5)
    for before in (b"", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"):
        async with raw(own) as (reader, writer):
            writer.write(before)
            drip = asyncio.create_task(dripping(writer))
            heard = await until_cut(reader)
            drip.cancel()
            assert (b" 200 " in heard) == bool(before)
            assert b" 101 " not in heard


async def dripping(writer: asyncio.StreamWriter) -> None:
    """One byte at a time, for much longer than anybody waits."""
    for byte in UPGRADE + b"X-Slow: " + b"y" * 10_000:
        writer.write(bytes((byte,)))
        await asyncio.sleep(0.02)


async def test_e12_whoever_says_nothing_at_all_is_cut(own: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open socket costs its owner as much as us."""
    monkeypatch.setattr(http_protocol, "HEAD_S_MAX", 0.2)
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
    assert silent.disconnect_due(105.1) is Disconnect.UNAUTHORIZED


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


async def test_e13_compression_is_declined(own: Served) -> None:
    """So nothing small can become large here."""
    async with raw(own) as (reader, writer):
        writer.write(UPGRADE + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
        async with asyncio.timeout(RAW_S_MAX):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"permessage-deflate" not in head.lower()


async def test_e14_one_connection_may_not_send_without_end(own: Served) -> None:
    """First it is told, then it is closed."""
    async with own.open("/ws", bearer(subject="loud")) as client:
        for _ in range(connection_limits.MESSAGES_PER_MINUTE_CLOSE + 1):
            await client.send('{"type":"heartbeat"}')
        kinds = [json.loads(text)["type"] for text in await everything(client)]
        assert kinds.count("heartbeat_ack") <= connection_limits.MESSAGES_PER_MINUTE_MAX
        assert client.close_code == 4505


async def everything(client: ClientConnection) -> list[str]:
    """All messages until the server closes."""
    messages: list[str] = []
    async with asyncio.timeout(RAW_S_MAX):
        with contextlib.suppress(ConnectionClosed):
            while True:
                messages.append(str(await client.recv()))
    return messages


async def test_e14_one_user_may_not_send_more_by_more_connections(behind_proxy: Served) -> None:
    """MESSAGES_PER_USER is over all of them; another user is not concerned."""
    headers = through_proxy("198.51.100.20", **bearer(subject="chatty"))
    answers: list[str] = []
    for _ in range(3):
        async with behind_proxy.open("/ws", headers) as client:
            for _ in range(20):
                await client.send('{"type":"heartbeat"}')
                answers.append((await receive(client)).get("code", "answered"))
    assert 40 <= answers.count("answered") < 60
    assert answers[-1] == "too_many_messages"
    async with behind_proxy.open("/ws", through_proxy("198.51.100.21", **bearer(subject="calm"))) as client:
        await client.send('{"type":"heartbeat"}')
        assert (await receive(client))["type"] == "heartbeat_ack"


async def test_e14_connections_of_a_user_and_of_an_address_are_limited(behind_proxy: Served) -> None:
    """4501 for the user's fourth, 429 for the address's fifth; who leaves makes room."""
    async with contextlib.AsyncExitStack() as stack:
        for address in ("198.51.100.30", "198.51.100.31", "198.51.100.32"):
            headers = through_proxy(address, **bearer(subject="many"))
            await ready(await stack.enter_async_context(behind_proxy.open("/ws", headers)))
        headers = through_proxy("198.51.100.33", **bearer(subject="many"))
        async with behind_proxy.open("/ws", headers) as fourth:
            assert await closed(fourth) == 4501
    async with contextlib.AsyncExitStack() as stack:
        for number in range(4):
            headers = through_proxy("198.51.100.34", **bearer(subject=f"user-{number}"))
            await stack.enter_async_context(behind_proxy.open("/ws", headers))
        assert await refusal(behind_proxy, **through_proxy("198.51.100.34")) == 429
        assert await refusal(behind_proxy, **through_proxy("198.51.100.35")) is None
    assert await refusal(behind_proxy, **through_proxy("198.51.100.34")) is None


async def ready(client: ClientConnection) -> None:
    """Wait until the server knows who it is."""
    await client.send('{"type":"heartbeat"}')
    await receive(client)


async def test_e14_new_connections_of_an_address_are_limited(behind_proxy: Served) -> None:
    """A bucket of twelve that fills again within a minute; neighbours in one IPv6 network share it."""
    for near, far in (("198.51.100.40", "198.51.100.41"), ("2001:db8:1:2::5", "2001:db8:1:3::5")):
        statuses = [await refusal(behind_proxy, **through_proxy(near)) for _ in range(20)]
        assert 12 <= statuses.count(None) < 20
        assert statuses[-1] == 429
        assert await refusal(behind_proxy, **through_proxy(far)) is None
    assert await refusal(behind_proxy, **through_proxy("2001:db8:1:2::6")) == 429


async def test_e14_streams_of_events_have_the_same_limits(behind_proxy: Served, until: Until) -> None:
    """Open ones and new ones, by address and by user; who leaves makes room."""
    path, http = "/v1/portfolio/a/stream", behind_proxy.http

    async def opened(stack: contextlib.AsyncExitStack, address: str, subject: str) -> httpx.Response:
        headers = through_proxy(address, **bearer(subject=subject))
        answer = await stack.enter_async_context(http.stream("GET", path, headers=headers))
        if answer.status_code == 200:
            answer.extensions["lines"] = answer.aiter_lines()  # kept: it would end the stream
            answer.extensions["first"] = await anext(answer.extensions["lines"])
        return answer

    async with contextlib.AsyncExitStack() as stack:
        for number in range(4):
            answer = await opened(stack, "198.51.100.36", f"events-{number}")
            assert (answer.status_code, answer.extensions["first"]) == (200, "event: portfolio")
        fifth = await opened(stack, "198.51.100.36", "events-5")
        assert (fifth.status_code, fifth.headers["retry-after"]) == (429, "10")
        assert await refusal(behind_proxy, **through_proxy("198.51.100.36")) == 429
        for number in range(3):
            await opened(stack, f"198.51.100.{42 + number}", "many-events")
        fourth = await opened(stack, "198.51.100.46", "many-events")
        assert fourth.extensions["first"] == "event: close"
        assert '"code":4501' in await anext(fourth.extensions["lines"])

    async def has_room() -> bool:
        async with contextlib.AsyncExitStack() as stack:
            return (await opened(stack, "198.51.100.36", "events-6")).status_code == 200

    await until(has_room, "who left has made room")
    answers = [await http.get(path, headers=through_proxy("198.51.100.47")) for _ in range(20)]
    statuses = [answer.status_code for answer in answers]
    assert statuses[:12] == [401] * 12
    assert statuses[-1] == 429
    assert await refusal(behind_proxy, **through_proxy("198.51.100.47")) == 429


async def test_e14_new_connections_of_a_user_are_limited(shared: State) -> None:
    """From however many addresses, as sockets and as events; a back end has no such limit."""
    async with serving(shared.connection.url, connects_per_user=6) as server:
        restless = bearer(subject="restless")

        async def opens_socket() -> bool:
            async with server.open("/ws/portfolio/a", restless) as client:
                with contextlib.suppress(ConnectionClosed):
                    return (await receive(client))["type"] == "portfolio"
                return client.close_code != 4501

        async def opens_events() -> bool:
            path = "/v1/portfolio/a/stream"
            async with server.http.stream("GET", path, headers=restless) as answer:
                return await anext(answer.aiter_lines()) == "event: portfolio"

        outcomes = [await opens() for _ in range(10) for opens in (opens_socket, opens_events)]
        assert outcomes[:6] == [True] * 6
        assert outcomes.count(False) >= 10
        for headers, count in ((bearer(subject="calm"), 6), ({"X-API-Key": API_KEY}, 12)):
            for _ in range(count):
                async with server.open("/ws/portfolio/a", headers) as client:
                    assert (await receive(client))["type"] == "portfolio"


async def test_e14_refused_credentials_of_an_address_are_limited(behind_proxy: Served) -> None:
    """429 after as many as connections, a few lines of the log for each reason; good ones are heard."""
    address = "198.51.100.11"
    guesses = [{"Authorization": f"Bearer guess-{number}"} for number in range(40)]
    guesses += [{"X-API-Key": f"guess-{number}"} for number in range(10)]
    tried = {
        "/v1/portfolio/a": guesses,
        "/v1/portfolio/b": [bearer()] * 20,  # another's
        "/metrics": [{"X-API-Key": f"guess-{number}"} for number in range(20)],
        "/docs": [{"X-API-Key": f"guess-{number}"} for number in range(20)],
    }
    for number, (path, shown) in enumerate(tried.items()):
        place = f"{address}{number}"
        with capture_logs() as logged:
            answers = [
                await behind_proxy.http.get(path, headers=through_proxy(place, **headers))
                for headers in shown
            ]
        statuses = [answer.status_code for answer in answers]
        assert 12 <= len(statuses) - statuses.count(429) < 18, path
        assert statuses[0] in (401, 403, 404)
        assert (statuses[-1], answers[-1].headers["retry-after"]) == (429, "10")
        lines = [line for line in logged if line.get("peer") == place]
        kinds = Counter((line["event"], line["reason"]) for line in lines)
        assert len(kinds) <= 3
        assert max(kinds.values()) <= LINES_PER_KIND_MAX  # in a minute
        good = through_proxy(place, **bearer())
        assert (await behind_proxy.http.get("/v1/portfolio/a", headers=good)).status_code == 200
    elsewhere = through_proxy("198.51.100.70")
    assert (await behind_proxy.http.get("/v1/portfolio/a", headers=elsewhere)).status_code == 401


async def test_e14_nobody_gets_events_from_a_server_that_is_full_or_ends(
    shared: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503, as a WebSocket."""
    monkeypatch.setattr("portfolio_realtime.websocket_server.server.CONNECTIONS_MAX", 1)
    async with serving(shared.connection.url) as server, server.open("/ws"):
        answer = await server.http.get("/v1/portfolio/a/stream", headers=bearer())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert await refusal(server) == 503
        assert (await server.http.get("/v1/portfolio/a", headers=bearer())).status_code == 200


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


LISTED = {disconnect.code for disconnect in Disconnect} | {1002, 1003, 1007, 1009}


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


@contextlib.contextmanager
def reading_nothing(server: Served) -> Generator[None]:
    """A client that asks for account b with its positions, and then reads nothing."""
    with socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(("127.0.0.1", server.port))
        head = UPGRADE.replace(b"/ws ", b"/ws/portfolio/b?detail=positions ")
        good = token(subject="stalled", accounts=["b"])
        stalled.sendall(head + f"Authorization: Bearer {good}\r\n\r\n".encode())
        yield


async def publish_much(calculator: Calculator, sequence: int) -> None:
    """About 100 KB: every one of 400 positions has changed."""
    await calculator.publish("b", sequence, {f"SYMBOL{number}": str(sequence) for number in range(400)})


async def test_e16_a_client_that_does_not_read_is_cut_and_costs_little(
    own: Served, shared: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its deadline is counted from when its socket is full; nothing is queued for it meanwhile."""
    monkeypatch.setattr(connection_limits, "UNSENT_S_MAX", 0.5)
    calculator = Calculator(shared)
    with reading_nothing(own):
        sequence = 1

        async def is_cut() -> bool:
            nonlocal sequence
            sequence += 1
            await publish_much(calculator, sequence)
            return 'disconnects_total{code="4002"' in (await own.http.get("/metrics")).text

        await until(is_cut, "the server cuts who does not read", 30)


async def test_e16_who_does_not_read_is_cut_after_10_s() -> None:
    """The deadline itself; the test above shortens it. An unanswered ping has the same."""
    stalled, mute = ServedConnection(0.0), ServedConnection(0.0)
    for connection in (stalled, mute):
        connection.authenticated(Identity("alice", frozenset({"a"})), 0.0, None)
    stalled.pause(100.0)
    assert stalled.disconnect_due(110.0) is None
    assert stalled.disconnect_due(110.1) is Disconnect.SLOW_CONSUMER
    assert mute.is_ping_due(100.0)
    assert mute.disconnect_due(110.0) is None
    assert mute.disconnect_due(110.1) is Disconnect.NO_PONG


async def test_e16_nothing_is_queued_for_a_client_that_does_not_read(
    own: Served, shared: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server, which is in this process, keeps the newest for it and not the forty megabytes before."""
    monkeypatch.setattr(connection_limits, "UNSENT_S_MAX", 600.0)
    calculator = Calculator(shared)
    with reading_nothing(own):
        before, sequence = await conflated(own), 10_000

        async def conflates() -> bool:
            nonlocal sequence
            sequence += 1
            await publish_much(calculator, sequence)
            return await conflated(own) > before

        await until(conflates, "its socket is full")
        before, before_mb = await conflated(own), resident_mb(os.getpid())
        for _ in range(QUEUED):
            sequence += 1
            await publish_much(calculator, sequence)

        async def has_heard_all() -> bool:
            return await conflated(own) >= before + QUEUED

        await until(has_heard_all, "the server has had them all")
        assert resident_mb(os.getpid()) - before_mb < QUEUED_MB_MAX


async def conflated(server: Served) -> int:
    """How many publications the server has replaced by a newer one before it could send them."""
    return int(await counted(f"http://127.0.0.1:{server.port}", CONFLATED))


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


EVENTS = "GET /v1/portfolio/b/stream?detail=positions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
UNREAD_MESSAGES = 12  # of 70 kB and more: several times what the kernel and we keep
unread_sequence = itertools.count(1_000_000).__next__


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


@pytest.fixture
def no_collector() -> Generator[None]:
    """Nothing ends because it is collected."""
    gc.disable()
    yield
    gc.enable()


async def test_e16_events_that_nobody_reads_are_cut(
    own: Served, shared: State, until: Until, monkeypatch: pytest.MonkeyPatch, no_collector: None
) -> None:
    """As a WebSocket is."""
    monkeypatch.setattr(portfolios, "UNSENT_S_MAX", 0.5)
    before = await disconnects(own, "4002")
    async with unread_events(own, Calculator(shared), "unread") as client:

        async def is_cut() -> bool:
            return await disconnects(own, "4002") > before

        await until(is_cut, "the server cuts who does not read")
        assert b"event: close" not in await rest_of(client)


async def test_e06_events_that_nobody_reads_end_with_their_token(
    own: Served, shared: State, until: Until, monkeypatch: pytest.MonkeyPatch, no_collector: None
) -> None:
    """Cut: it would not take the word of it."""
    monkeypatch.setattr(portfolios, "UNSENT_S_MAX", 1000.0)
    monkeypatch.setattr(http_protocol, "UNREAD_S_MAX", 1000.0)
    before = await disconnects(own, "4004")
    async with unread_events(own, Calculator(shared), "unread") as client:
        assert await disconnects(own, "4004") == before
        monkeypatch.setattr(Gateway, "valid_for_s", Mock(return_value=0.0))  # much later

        async def is_cut() -> bool:
            return await disconnects(own, "4004") > before

        await until(is_cut, "the token has expired")
        assert b"event: close" not in await rest_of(client)


async def test_e14_events_that_nobody_reads_give_their_place_back_when_the_client_goes(
    shared: State, until: Until, no_collector: None
) -> None:
    """At once, not when the collector comes."""
    async with serving(shared.connection.url, connections_per_user=1) as server:

        async def has_place() -> bool:
            async with server.open("/ws", bearer(subject="gone")) as client:
                with contextlib.suppress(ConnectionClosed):
                    await ready(client)
                    return True
                return False

        async with unread_events(server, Calculator(shared), "gone"):
            assert not await has_place()
        await until(has_place, "the place is free")
        assert await disconnects(server, "1006") == 1


async def test_e16_an_answer_that_nobody_reads_is_cut(
    own: Served, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any route: many requests, and nothing is read. Who reads late gets all of it."""
    monkeypatch.setattr(http_protocol, "UNREAD_S_MAX", 0.3)
    lost: list[http_protocol.BoundedHttp] = []
    connection_lost = http_protocol.BoundedHttp.connection_lost

    def noted(self: http_protocol.BoundedHttp, exc: Exception | None) -> None:
        lost.append(self)
        connection_lost(self, exc)

    monkeypatch.setattr(http_protocol.BoundedHttp, "connection_lost", noted)
    script = re.findall(r'src="(assets/[^"]+)"', (await own.http.get("/")).text)[0]
    size = len((await own.http.get(f"/{script}")).content)
    request = f"GET /{script} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    count = 1_000_000 // size
    with socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(("127.0.0.1", own.port))
        stalled.sendall(count * request)
        await until(lambda: lost, "the server cuts who does not read")
        assert len(await rest_of(stalled)) < count * size


async def test_e16_nobody_is_connected_for_ever(shared: State) -> None:
    """At MAX_CONNECTION_AGE_SECONDS a client is asked to come again, whichever way it came."""
    async with serving(shared.connection.url, max_connection_age_seconds=1) as brief:
        answer = await brief.http.get("/v1/portfolio/a/stream", headers=bearer())
        assert answer.text.endswith('event: close\ndata: {"code":4005,"reason":"lifetime reached"}\n\n')
        async with brief.open("/ws/portfolio/a", bearer()) as client:
            with pytest.raises(ConnectionClosed):
                while True:
                    await client.recv()
            assert client.close_code == Disconnect.LIFETIME.code


async def test_e17_forwarding_headers_of_strangers_are_ignored(
    own: Served, behind_proxy: Served, shared: State
) -> None:
    """A client behind the proxy cannot choose its address; one that is no proxy cannot choose anything."""
    spoofed = [through_proxy(f"203.0.113.{number}, 198.51.100.50") for number in range(20)]
    assert [await refusal(behind_proxy, **headers) for headers in spoofed][-1] == 429
    async with serving(shared.connection.url, connects_per_minute=5) as alone:
        statuses = [await refusal(alone, **through_proxy(f"203.0.113.{number}")) for number in range(8)]
        assert statuses == [None] * 5 + [429] * 3
    assert (await own.http.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"})).status_code == 403


async def test_e18_metrics_and_documents_are_for_operators(own: Served, shared: State) -> None:
    """This machine, the API key, METRICS_TOKEN; nobody else, and no user either."""
    outside = {"X-Forwarded-For": "198.51.100.60"}
    for path in ("/metrics", "/docs", "/openapi.json", "/asyncapi.json"):
        for headers in ({}, bearer(), {"X-API-Key": "guess"}, {"Authorization": f"Bearer {METRICS_TOKEN}x"}):
            refused = await own.http.get(path, headers={**outside, **headers})
            assert refused.status_code == 403, (path, headers)
        for headers in ({"X-API-Key": API_KEY}, {"Authorization": f"Bearer {METRICS_TOKEN}"}):
            assert (await own.http.get(path, headers={**outside, **headers})).status_code == 200
        assert (await own.http.get(path)).status_code == 200
    async with serving(shared.connection.url, public_docs=True) as public:
        assert (await public.http.get("/docs", headers=outside)).status_code == 200
        assert (await public.http.get("/metrics", headers=outside)).status_code == 403

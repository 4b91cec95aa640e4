"""The first bytes of a connection: whichever way a request comes, it gets the same answer."""

import asyncio
from unittest.mock import Mock

import pytest
from benchmarks.raw_websocket import HEADERS, TEXT, RawClient, frame, upgrade_request
from uvicorn import Config
from uvicorn.server import ServerState

from portfolio_realtime.websocket_server.clients.http_protocol import BoundedHttp, FirstBytes
from tests.support.websocket_servers import Calculator, Served, bearer

HOST = {"Host": "127.0.0.1"}
HEALTH = upgrade_request("/health", HOST)
SPLITS = {
    "a request line that is cut": 5,
    "a path that is cut": 12,
    "a header that is cut": 60,
    "the last byte": -1,
}


def upgrade() -> bytes:
    """A request that is let in, with a token of this moment."""
    return upgrade_request("/ws/portfolio/a", {**HOST, **HEADERS, **bearer()})


@pytest.mark.parametrize("name", SPLITS)
async def test_a_request_in_two_pieces_is_the_same_request(
    server: Served, calculator: Calculator, name: str
) -> None:
    await calculator.publish("a", 1)
    request = upgrade()
    async with RawClient(server.port) as client:
        await client.send(request[: SPLITS[name]])
        await asyncio.sleep(0.05)
        await client.send(request[SPLITS[name] :])
        assert (await client.response())[0] == 101
        first = await client.read()
        assert first is not None and first.opcode == TEXT


async def test_who_says_the_first_byte_late_has_no_more_time_for_the_rest(server: Served) -> None:
    """The deadline of the head goes along with the connection."""
    door, transport = FirstBytes(Config(server.open), ServerState(), {}), Mock(asyncio.Transport)
    door.connection_made(transport)
    due = door._deadline
    door.data_received(b"G")
    (http,) = transport.set_protocol.call_args.args
    assert isinstance(http, BoundedHttp)
    assert http._deadline is due
    assert due is not None and not due.cancelled()
    http.data_received(b"ET /health HTTP/1.1\r\n\r")
    assert http._deadline is due and not due.cancelled()
    http.connection_lost(None)
    assert due.cancelled()


async def test_a_connection_that_was_used_for_http_becomes_a_websocket(server: Served) -> None:
    """A proxy keeps connections open and uses them again."""
    async with RawClient(server.port) as client:
        await client.send(HEALTH)
        status, headers = await client.response()
        assert status == 200
        await client.read_body(int(headers["content-length"]))
        await client.send(upgrade())
        assert (await client.response())[0] == 101


async def test_frames_that_come_with_the_request_are_not_lost(server: Served) -> None:
    """RFC 6455 §4.1 forbids it to clients; what came is dealt with all the same."""
    hello = frame(TEXT, b'{"type":"heartbeat","timestamp":"now"}')
    async with RawClient(server.port) as client:
        await client.send(upgrade() + hello)
        assert (await client.response())[0] == 101
        answer = await client.read()
        assert answer is not None and b"heartbeat_ack" in answer.payload


@pytest.mark.parametrize(
    ("path", "changes", "status"),
    [
        ("/ws/other", {}, 404),
        ("/other", {}, 404),
        ("/ws/portfolio/a", {"Upgrade": "h2c"}, 426),
        ("/ws/portfolio/a", {"Connection": "keep-alive"}, 426),
        ("/ws/portfolio/a", {"Content-Length": "-1"}, 400),
    ],
)
async def test_what_is_no_request_for_a_websocket_of_ours_is_told_so(
    server: Served, path: str, changes: dict[str, str], status: int
) -> None:
    async with RawClient(server.port) as client:
        assert await client.upgrade(path, bearer() | changes) == status


async def test_who_goes_before_saying_anything_leaves_nothing_behind(server: Served) -> None:
    """And the server goes on."""
    for said in (b"", b"GET /ws", upgrade()[:-4]):
        async with RawClient(server.port) as client:
            await client.send(said)
    assert (await server.http.get("/health")).status_code == 200

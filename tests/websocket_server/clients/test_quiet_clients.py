"""A client that answers pings and says nothing else, beside the package's protocol and on a real socket."""

import asyncio
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side

from portfolio_realtime.websocket_server.clients import connection, endpoint, gateway
from portfolio_realtime.websocket_server.clients.quiet_clients import EMPTY_PING, is_empty_pong, new_protocol
from portfolio_realtime.wire.messages import Disconnect
from tests.support.websocket_servers import Served, bearer

FRAME_S_MAX = 20.0
PONG = b"\x8a\x80mask"
MASK = b"\0\0\0\0"
HEARTBEAT = b'{"type":"heartbeat","timestamp":"1"}'
REQUEST = (
    "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: {}\r\n\r\n"
)


class Client:
    """The client's end of a socket, one frame at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def frame(self) -> tuple[int, bytes]:
        """First byte and payload of the next frame; all are short."""
        async with asyncio.timeout(FRAME_S_MAX):
            first, length = await self._reader.readexactly(2)
            return first, await self._reader.readexactly(length)


async def connected(server: Served) -> Client:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(REQUEST.format(bearer()["Authorization"]).encode())
    async with asyncio.timeout(FRAME_S_MAX):
        await reader.readuntil(b"\r\n\r\n")
    return Client(reader, writer)


@given(st.one_of(st.binary(max_size=8), st.binary(max_size=4).map(PONG[:2].__add__)))
def test_what_counts_as_an_empty_pong_is_one_for_the_package_too(data: bytes) -> None:
    """And nothing of it is left over."""
    protocol = new_protocol()
    protocol.receive_data(data)
    events = protocol.events_received()
    assert is_empty_pong(data) == (events == [Frame(Opcode.PONG, b"")] and len(data) == len(PONG))


def test_the_empty_ping_is_that_of_the_package() -> None:
    """Byte by byte."""
    protocol = Protocol(Side.SERVER)
    protocol.send_ping(b"")
    assert protocol.data_to_send() == [EMPTY_PING]


@pytest.mark.parametrize("is_quiet", [True, False])
async def test_a_client_is_pinged_and_closed_when_it_does_not_answer(
    server: Served, monkeypatch: pytest.MonkeyPatch, is_quiet: bool
) -> None:
    """Whether or not it has said anything else; until then each answer counts."""
    made: list[Protocol] = []

    def making() -> Protocol:
        made.append(new_protocol())
        return made[-1]

    monkeypatch.setattr(connection, "PING_S", 0.05)
    monkeypatch.setattr(connection, "PING_JITTER_S", 0.0)
    monkeypatch.setattr(gateway, "SWEEP_S", 0.02)
    monkeypatch.setattr(endpoint, "new_protocol", making)
    client = await connected(server)
    if not is_quiet:
        client.writer.write(bytes((0x81, 0x80 | len(HEARTBEAT))) + MASK + HEARTBEAT)
        assert b"heartbeat_ack" in (await client.frame())[1]
    for _ in range(3):
        assert await client.frame() == (EMPTY_PING[0], b"")
        assert len(made) == (not is_quiet)
        client.writer.write(PONG)
    assert await client.frame() == (EMPTY_PING[0], b"")
    monkeypatch.setattr(connection, "PONG_S_MAX", 0.0)
    first, payload = await client.frame()
    assert (first, struct.unpack("!H", payload[:2])[0]) == (0x88, Disconnect.NO_PONG.code)
    client.writer.close()


async def test_a_pong_in_pieces_or_before_a_message_loses_nothing(server: Served) -> None:
    """The message is answered, and so is the next one."""
    client = await connected(server)
    message = bytes((0x81, 0x80 | len(HEARTBEAT))) + MASK + HEARTBEAT
    for part in (PONG, PONG[:1], PONG[1:] + message, PONG, message[:3], message[3:]):
        client.writer.write(part)
        await client.writer.drain()
        await asyncio.sleep(0.01)
    for _ in range(2):
        assert b"heartbeat_ack" in (await client.frame())[1]
    client.writer.close()

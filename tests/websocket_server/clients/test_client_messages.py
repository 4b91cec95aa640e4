"""What a client may send to the real server, and what becomes of the rest."""

import asyncio
import json

import pytest

from portfolio_realtime.websocket_server.clients import connection as limits
from tests.support.websocket_servers import Served, closed, receive, token


async def test_an_oversized_message_is_closed_with_1009(server: Served) -> None:
    """4 KiB, whole or in pieces."""
    async with server.open("/ws/portfolio/a") as client:
        await client.send("x" * 5000)
        assert await closed(client) == 1009
    async with server.open("/ws/portfolio/a") as client:
        await client.send(["x" * 1000] * 5)
        assert await closed(client) == 1009


async def test_a_message_may_come_in_pieces(server: Served) -> None:
    """Fragments are put together."""
    async with server.open("/ws/portfolio/a") as client:
        await client.send(['{"type":', '"heart', 'beat"}'])
        assert (await receive(client))["type"] == "heartbeat_ack"


async def test_a_binary_message_is_closed_with_4505(server: Served) -> None:
    """The protocol is text."""
    async with server.open("/ws/portfolio/a") as client:
        await client.send(b"{}")
        assert await closed(client) == 4505


async def test_a_bad_message_gets_an_error_and_the_connection_lives(server: Served) -> None:
    """Until there are too many of them."""
    async with server.open("/ws/portfolio/a") as client:
        for _ in range(limits.BAD_MESSAGES_MAX):
            await client.send("nonsense")
            assert (await receive(client))["code"] == "bad_message"
        await client.send("nonsense")
        assert await closed(client) == 4505


async def test_a_ping_is_answered(server: Served) -> None:
    """By the protocol itself."""
    async with server.open("/ws/portfolio/a") as client:
        await asyncio.wait_for(await client.ping(b"hello"), 5)


async def test_the_server_pings_and_ends_who_does_not_answer(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that answers stays; a socket that is silent is closed."""
    monkeypatch.setattr(limits, "PING_S", 0.2)
    monkeypatch.setattr(limits, "PONG_S_MAX", 0.7)
    async with server.open("/ws/portfolio/a") as living:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        lines = [
            "GET /ws/portfolio/a HTTP/1.1",
            "Host: 127.0.0.1",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            f"Authorization: Bearer {token()}",
        ]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        received = await asyncio.wait_for(reader.read(-1), 10)
        assert b"101 Switching Protocols" in received
        assert b"no pong" in received
        writer.close()
        await living.send(json.dumps({"type": "heartbeat"}))
        assert (await receive(living))["type"] == "heartbeat_ack"

"""Whether a client is written to past its transport: never while the transport has something to write."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from typing import Any, Literal

import pytest

from portfolio_realtime.websocket_server.clients.connection import ClientConnection
from portfolio_realtime.websocket_server.clients.direct_socket import DirectSocket
from portfolio_realtime.websocket_server.fanout.direct_writes import DirectWrites
from portfolio_realtime.websocket_server.fanout.hub import Hub
from portfolio_realtime.websocket_server.fanout.watched_account import StreamPosition, WatchedAccount
from portfolio_realtime.wire.messages import Disconnect, Subscribe
from tests.support.publications import batch_of, gathered, payloads, publication


class SlowTransport(asyncio.Transport):
    """A transport that writes what it has when the test says so."""

    def __init__(self, own: socket.socket) -> None:
        super().__init__({"socket": own})
        self._own = own
        self.buffer = b""

    def write(self, data: Any) -> None:
        self.buffer += data

    def get_write_buffer_size(self) -> int:
        return len(self.buffer)

    def is_closing(self) -> bool:
        return False

    def write_now(self) -> None:
        self._own.sendall(self.buffer)
        self.buffer = b""


class Client:
    """A subscriber on a real socket."""

    is_patient = True

    def __init__(self) -> None:
        own, self._peer = socket.socketpair()
        own.setblocking(False)
        self._peer.setblocking(False)
        self._own = own
        self.direct_writes = DirectWrites()
        self.hub = Hub(self.direct_writes.send_all)
        self.transport = SlowTransport(own)
        self.connection = ClientConnection(0.0)
        self.socket = DirectSocket(self.transport, self.connection, self.direct_writes)

    def subscribe(self, account_id: str, detail: Literal["value", "positions"]) -> None:
        account, _ = self.hub.subscribe(self, account_id, with_positions=detail == "positions")
        self.connection.subscribe(account, Subscribe(account_id, detail))

    def publish(self, account_id: str, sequence: int) -> None:
        one = publication(account_id, 1, sequence, {"A": str(sequence)})
        self.hub.publish(gathered(batch_of(1, (one,))))

    def notify(self, account: WatchedAccount) -> None:
        self.connection.mark_pending(account)
        while (frame := self.connection.next_frame(0.0)) is not None:
            self.transport.write(frame)
        self.socket.choose_soon()

    def refuse(self, account_id: str, why: Disconnect) -> None: ...

    def position_sent(self, account_id: str) -> StreamPosition | None:
        subscription = self.connection.subscriptions.get(account_id)
        return subscription.position_sent if subscription else None

    def received(self) -> list[tuple[str, int]]:
        """Account and sequence of each frame that reached the client; a torn frame fails."""
        try:
            messages = payloads(self._peer.recv(1 << 20))
        except BlockingIOError:
            return []
        return [(message["account_id"], message["sequence"]) for message in messages]

    def close(self) -> None:
        self.socket.end()
        self._own.close()
        self._peer.close()


@pytest.fixture
async def client() -> AsyncGenerator[Client]:
    made = Client()
    yield made
    made.close()


async def test_a_frame_never_lands_within_one_that_the_transport_is_still_writing(client: Client) -> None:
    """An account that was written directly waits while the transport writes another account's long frame."""
    client.subscribe("a", "value")
    client.subscribe("b", "positions")
    client.publish("a", 1)
    client.publish("b", 1)
    client.transport.write_now()
    await asyncio.sleep(0)
    assert client.received() == [("a", 1), ("b", 1)]
    client.publish("a", 2)
    assert client.received() == [("a", 2)]  # straight to the socket

    client.publish("b", 2)
    begun = client.transport.buffer
    client.transport.buffer = begun[10:]
    client.transport._own.sendall(begun[:10])  # the socket took the beginning of it
    client.publish("a", 3)
    client.transport.write_now()
    assert client.received() == [("b", 2), ("a", 3)]

    await asyncio.sleep(0)
    client.publish("a", 4)
    assert client.received() == [("a", 4)]


async def test_what_the_socket_does_not_take_ends_the_direct_way(client: Client) -> None:
    """The rest is the transport's, and so is all that follows until it has written it."""
    client.subscribe("a", "value")
    client.publish("a", 1)
    client.transport.write_now()
    await asyncio.sleep(0)
    client.received()
    client.socket._write_rest(b"rest")
    client.publish("a", 2)
    assert client.received() == []
    assert client.transport.buffer.startswith(b"rest")


async def test_nothing_is_written_past_the_transport_of_a_connection_that_has_ended(client: Client) -> None:
    """Its number may be another's."""
    client.subscribe("a", "value")
    client.publish("a", 1)
    client.transport.write_now()
    await asyncio.sleep(0)
    client.socket.end()
    assert not client.hub.accounts["a"].direct
    client.connection.resume()
    client.socket.choose()
    assert not client.hub.accounts["a"].direct


async def test_a_ping_goes_past_a_transport_that_has_nothing_to_write(client: Client) -> None:
    """The client stays direct; before it was, and while the transport writes, the ping follows the rest."""
    client.socket.write(b"\x89\x00")
    assert client.transport.buffer == b"\x89\x00"
    client.transport.buffer = b""

    client.subscribe("a", "value")
    client.publish("a", 1)
    client.transport.write_now()
    await asyncio.sleep(0)
    client.received()
    client.socket.write(b"\x89\x00")
    assert client._peer.recv(100) == b"\x89\x00"
    assert client.transport.buffer == b""
    client.publish("a", 2)
    assert client.received() == [("a", 2)]

    client.transport.buffer = b"rest of a frame"
    client.socket.write(b"\x89\x00")
    assert client.transport.buffer == b"rest of a frame\x89\x00"
    client.publish("a", 3)
    assert client.transport.buffer.startswith(b"rest of a frame\x89\x00")
    with pytest.raises(BlockingIOError):
        client._peer.recv(100)


async def test_nothing_is_written_to_a_socket_that_has_ended(client: Client) -> None:
    """Its number may be another client's by then."""
    client.subscribe("a", "value")
    client.publish("a", 1)
    client.transport.write_now()
    await asyncio.sleep(0)
    client.received()
    client.socket.end()
    client.socket.write(b"\x89\x00")
    assert client.transport.buffer == b""
    with pytest.raises(BlockingIOError):
        client._peer.recv(100)

"""A client of the simulator's market-data streams."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgpack
from websockets.asyncio.client import ClientConnection, connect

from alpaca_sim.api.stream_session import ERRORS
from tests.alpaca_sim.conftest import AUTH_MESSAGE, Running

READ_S_MAX = 10
CONNECTED = {"T": "success", "msg": "connected"}
AUTHENTICATED = {"T": "success", "msg": "authenticated"}


def pack(message: dict[str, Any]) -> bytes:
    """A message in MessagePack."""
    packed = msgpack.packb(message)
    assert packed is not None
    return packed


class Client:
    """A client that decodes and takes batches apart."""

    def __init__(self, socket_: ClientConnection, is_msgpack: bool) -> None:
        """An open WebSocket."""
        self.socket = socket_
        self.is_msgpack = is_msgpack
        self.waiting: list[dict[str, Any]] = []

    async def batch(self) -> list[dict[str, Any]]:
        """One frame, decoded."""
        frame = await asyncio.wait_for(self.socket.recv(), READ_S_MAX)
        assert isinstance(frame, bytes) == self.is_msgpack
        return msgpack.unpackb(frame) if self.is_msgpack else json.loads(frame)

    async def next(self) -> dict[str, Any]:
        """One message."""
        if not self.waiting:
            self.waiting = await self.batch()
        return self.waiting.pop(0)

    async def alone(self) -> dict[str, Any]:
        """A control message, which comes alone in its array."""
        (message,) = await self.batch()
        return message

    async def say(self, **message: Any) -> None:
        """Send one message."""
        await self.socket.send(pack(message) if self.is_msgpack else json.dumps(message))

    async def ask(self, **message: Any) -> dict[str, Any]:
        """Send one message and give the control message it brings."""
        await self.say(**message)
        return await self.alone()

    async def log_in(self) -> None:
        """From connected to authenticated."""
        assert await self.alone() == CONNECTED
        assert await self.ask(**AUTH_MESSAGE) == AUTHENTICATED


@asynccontextmanager
async def open_client(
    running: Running,
    path: str = "/v2/sip",
    is_msgpack: bool = False,
    headers: dict[str, str] | None = None,
) -> AsyncGenerator[Client]:
    """One WebSocket, closed at the end."""
    content_type = "application/msgpack" if is_msgpack else "application/json"
    async with connect(
        running.ws_url + path, additional_headers={"Content-Type": content_type, **(headers or {})}
    ) as opened:
        yield Client(opened, is_msgpack)


def error(code: int) -> dict[str, Any]:
    """The error message of a code."""
    return {"T": "error", "code": code, "msg": ERRORS[code]}

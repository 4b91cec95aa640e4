"""A server as Autobahn wants it: our way in and `Endpoint`, but every message comes back.

Only what is done with a whole message is another: text takes our own way from the bytes of a socket to the
message, fragments and UTF-8 included, and so do control frames and closing. Binary messages, which we refuse,
are put together here, and messages may be as long as Autobahn's.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any, Final, cast

import uvicorn
from prometheus_client import CollectorRegistry
from uvicorn import Config
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode

from portfolio_realtime import config
from portfolio_realtime.clock import SystemClock
from portfolio_realtime.state import open_state
from portfolio_realtime.websocket_server.clients.endpoint import Endpoint
from portfolio_realtime.websocket_server.clients.gateway import Gateway
from portfolio_realtime.websocket_server.clients.http_protocol import FirstBytes
from portfolio_realtime.websocket_server.clients.quiet_clients import new_protocol
from portfolio_realtime.wire.frames import text_frame

NOWHERE: Final = "redis://127.0.0.1:1/0"  # a state that is never asked
MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
START_S_MAX: Final = 10.0


class Echo(Endpoint):
    """One connection."""

    __slots__ = ("_binary",)

    def __init__(
        self, gateway: Gateway, config: Config, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        super().__init__(gateway, config, server_state, app_state)
        self._made = new_protocol(MESSAGE_BYTES_MAX)
        self._binary: list[bytes] | None = None  # fragments of a binary message

    def _frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.BINARY:
            self._binary = []
        if self._binary is None or frame.opcode not in (Opcode.BINARY, Opcode.CONT):
            return super()._frame(frame)
        self._binary.append(bytes(frame.data))
        if frame.fin:
            payload, self._binary = b"".join(self._binary), None
            self._write(bytes((0x80 | Opcode.BINARY,)) + text_frame(payload)[1:])
        return None

    def _received(self, text: bytes) -> None:
        self._write(text_frame(text))

    def _write(self, frame: bytes) -> None:
        assert self._transport is not None
        self._transport.write(frame)


class _Server(uvicorn.Server):
    """Without signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


async def _no_app(scope: object, receive: object, send: object) -> None: ...


@contextlib.asynccontextmanager
async def echoing() -> AsyncGenerator[str]:
    """A server that echoes, for as long as the context; its URL."""
    settings: dict[str, Any] = {"_env_file": None}
    state = open_state(NOWHERE, holder="autobahn", shards=1, lease_ms=1000)
    gateway = Gateway(config.Settings(**settings), state, SystemClock(), CollectorRegistry())
    options = uvicorn.Config(
        cast("Any", _no_app),
        port=0,
        http=cast("Any", FirstBytes),
        ws=cast("Any", partial(Echo, gateway)),
        lifespan="off",
        log_config=None,
    )
    server = _Server(options)
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(START_S_MAX):
            while not server.started:
                await asyncio.sleep(0.02)
        yield f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/ws"
    finally:
        server.should_exit = True
        await serving
        await gateway.close()
        await state.close()

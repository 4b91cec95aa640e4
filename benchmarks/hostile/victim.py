"""The server's side of one WebSocket without a socket: bytes in, bytes out, what came back is judged."""

import asyncio
import contextlib
import secrets
import socket
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from prometheus_client import CollectorRegistry
from uvicorn import Config
from uvicorn.server import ServerState
from websockets.exceptions import ProtocolError
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, Protocol, Side
from websockets.streams import StreamReader

from benchmarks.raw_websocket import CUT, HEADERS
from portfolio_realtime import config
from portfolio_realtime.clock import SystemClock
from portfolio_realtime.state import open_state
from portfolio_realtime.websocket_server.clients.endpoint import Endpoint
from portfolio_realtime.websocket_server.clients.gateway import Gateway
from portfolio_realtime.wire.messages import Disconnect

NOWHERE: Final = "redis://127.0.0.1:1/0"  # a state that is never asked
OWN_CODES: Final = frozenset({1002, 1007, 1009, *(disconnect.code for disconnect in Disconnect)})
RECEIVE_BYTES: Final = 65536
TURNS: Final = 4  # of the loop, so that what was begun ends
ANSWERS: Final = frozenset({"error", "heartbeat_ack", "token_expiring", "portfolio"})


class Surprise(AssertionError):
    """The server did what it must not."""


@dataclass(frozen=True)
class Verdict:
    """How one connection went: the close code (CUT: none was sent) and how many messages were answered."""

    code: int
    answers: int


def judge(sent: bytes, received: bytes) -> Verdict:
    """Read what the server sent after the handshake. Raises Surprise."""
    if b"Traceback" in received or b'File "' in received:
        raise Surprise(f"a stack trace: {received!r}")
    code, answers = CUT, 0
    for got in _frames(received):
        if code != CUT:
            raise Surprise("a frame after the close frame")
        if got.opcode is Opcode.CLOSE:
            code = int.from_bytes(got.data[:2]) if len(got.data) >= 2 else 1005
        elif got.opcode is Opcode.TEXT:
            _judge_message(got.data)
            answers += 1
    if code not in OWN_CODES and code != CUT and code != _client_code(sent):
        raise Surprise(f"close code {code}, which is not listed, nor the client's own")
    return Verdict(code, answers)


def _judge_message(text: bytes | bytearray | memoryview) -> None:
    message = msgspec.json.decode(bytes(text))
    if message.get("type") not in ANSWERS:
        raise Surprise(f"an answer of no known type: {message}")


def _frames(received: bytes) -> list[Frame]:
    """All whole frames; a wrong one is a surprise."""
    reader, found = StreamReader(), list[Frame]()
    reader.feed_data(received)
    while True:
        parsing = Frame.parse(reader.read_exact, mask=False)
        try:
            next(parsing)
        except StopIteration as end:
            found.append(end.value)
        except ProtocolError as error:
            raise Surprise(f"the server sent a wrong frame: {error}") from error
        else:
            return found


def _client_code(sent: bytes) -> int | None:
    """The code of a good close frame among what the client sent: the server says the same."""
    client = Protocol(Side.SERVER, state=OPEN, max_size=None)
    client.receive_data(sent)
    received = client.close_rcvd
    return None if received is None else received.code


class _Transport(asyncio.Transport):
    """A transport that keeps what is written, also what goes past it straight to its socket."""

    def __init__(self) -> None:
        own, self._peer = socket.socketpair()
        own.setblocking(False)
        self._peer.setblocking(False)
        super().__init__({"peername": ("127.0.0.1", 1), "socket": own})
        self._own = own
        self._written = bytearray()
        self.is_closed = False

    @property
    def written(self) -> bytes:
        """All of it so far, in order."""
        with contextlib.suppress(BlockingIOError):
            while received := self._peer.recv(RECEIVE_BYTES):
                self._written += received
        return bytes(self._written)

    def end(self) -> None:
        """Give the socket back."""
        self._own.close()
        self._peer.close()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: Any) -> None:
        self._written[:] = self.written + bytes(data)

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Victim:
    """A server without sockets; where authentication is off, everybody may ask for everything."""

    def __init__(self, *, is_open: bool) -> None:
        secret = "" if is_open else secrets.token_urlsafe(48)
        settings: dict[str, Any] = {"_env_file": None, "jwt_secret": secret}
        state = open_state(NOWHERE, holder="hostile", shards=1, lease_ms=1000)
        self._gateway = Gateway(config.Settings(**settings), state, SystemClock(), CollectorRegistry())
        self._config = Config(app=lambda: None)

    async def meet(self, sent: bytes) -> Verdict:
        """One connection that is upgraded and then gets these bytes. Raises Surprise, or what it raised."""
        raised: list[BaseException] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: raised.append(context.get("exception") or Surprise(context["message"]))
        )
        transport = _Transport()
        try:
            verdict = await self._met(transport, sent)
        finally:
            transport.end()
        if raised:
            raise raised[0]
        return verdict

    async def _met(self, transport: _Transport, sent: bytes) -> Verdict:
        endpoint = Endpoint(self._gateway, self._config, ServerState(), {})
        endpoint.connection_made(transport)
        try:
            headers = {"Host": "127.0.0.1", **HEADERS}
            named = [(name.lower(), value) for name, value in headers.items()]
            endpoint.requested("/ws/portfolio/a", named, "GET", "1.1")
            await self._settle()
            head, end, early = transport.written.partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101") or not end:
                raise Surprise(f"no upgrade: {head!r}")
            if not transport.is_closed:
                endpoint.data_received(sent)
                await self._settle()
        finally:
            endpoint.connection_lost(None)
        return judge(sent, early + transport.written[len(head) + 4 + len(early) :])

    async def _settle(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)

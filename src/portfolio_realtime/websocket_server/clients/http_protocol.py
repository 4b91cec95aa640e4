"""The first protocol of every connection, and uvicorn's HTTP protocol with limits.

uvicorn waits without limit for a request and keeps all of its head; the application keeps all of its body,
before it asks who the client is. Here a request that is not complete in REQUEST_S_MAX is cut off, and one
with a head larger than HEAD_BYTES_MAX or a body larger than BODY_BYTES_MAX is refused. A client that does
not read its answer for UNREAD_S_MAX is cut off, too. A route can do so earlier (`request.state.cut`).

A request for a WebSocket is handed over as parsed; uvicorn would write it as text again, to be parsed a
second time.
"""

import asyncio
from typing import Any, Final, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from portfolio_realtime.websocket_server.clients.handshake import rejection
from portfolio_realtime.wire.http_problems import HttpProblem

BEGINNING: Final = b"GET /ws"
SOCKETS_MAX: Final = 60_000  # HTTP and WebSocket connections together, in any state
REQUEST_S_MAX: Final = 10.0
HEAD_BYTES_MAX: Final = 32_768
BODY_BYTES_MAX: Final = 65_536  # the longest question: 500 account ids of 64 characters
UNREAD_S_MAX: Final = 20.0  # since socket and buffer became full
TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)


class BoundedHttp(HttpToolsProtocol):
    """One HTTP connection with the limits of this file."""

    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _body_bytes = 0
    _is_in_head = True  # the next data belongs to the head of a request

    def connection_made(self, transport: Any) -> None:
        """A client has connected: start the deadline of its first request."""
        super().connection_made(transport)
        self._await_request()

    def take_over(self, transport: asyncio.Transport, deadline: asyncio.TimerHandle) -> None:
        """Continue with a client that connected earlier. `deadline` aborts it if its request is late."""
        self._deadline = deadline
        self.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has disconnected."""
        self._cancel_deadline()
        self._cancel_unread()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass data on; refuse a head that is too large."""
        if self._is_in_head:
            room = HEAD_BYTES_MAX - self._head_bytes
            if len(data) > room:  # what comes after `room` may be the body
                super().data_received(data[:room])
                self._head_bytes += room if self._is_in_head else 0
                if self._head_bytes >= HEAD_BYTES_MAX:
                    self._refuse(TOO_LARGE)
                elif self.parser is not None and not self.transport.is_closing():
                    self.data_received(data[room:])
                return
            self._head_bytes += len(data)
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A request begins, perhaps not the first of its connection."""
        super().on_message_begin()
        self.scope["state"] = {**self.app_state, "cut": self.transport.abort}
        self._body_bytes = 0
        if not self._is_in_head:
            self._is_in_head, self._head_bytes = True, 0
        self._await_request()

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._is_in_head, self._head_bytes = False, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body has come: refuse one that is too large."""
        self._body_bytes += len(body)
        if self._body_bytes <= BODY_BYTES_MAX:
            super().on_body(body)
        elif not self.transport.is_closing():
            cycle = cast("Any", self.cycle)  # the library types it as never None; it begins so
            is_answered = cycle is not None and cycle.response_started
            self._refuse(b"" if is_answered else rejection(HttpProblem.BODY_TOO_LARGE))

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._cancel_deadline()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """The request asks for a WebSocket: its protocol takes over the transport."""
        self.connections.discard(self)
        self._cancel_deadline()
        self._cancel_unread()
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.scope["headers"]]
        hand_over(
            *(self.transport, self.config, self.server_state, self.app_state),
            *(self.url.decode("latin-1"), headers, self.scope["method"], self.scope["http_version"]),
        )
        self.parser: Any = None  # breaks a reference cycle, which would wait for the garbage collector

    def pause_writing(self) -> None:
        """The client does not read and the buffers are full: start the deadline."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(UNREAD_S_MAX, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._cancel_unread()

    def _cancel_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _await_request(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_S_MAX, self._cut)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cut(self) -> None:
        self._deadline = None
        self.transport.abort()

    def _refuse(self, answer: bytes) -> None:
        self._cancel_deadline()
        self.transport.write(answer)
        self.transport.close()


class FirstBytes(asyncio.Protocol):
    """A connection until its first bytes: `uvicorn.Config(http=FirstBytes)`.

    A complete request for a WebSocket goes to an Endpoint at once. uvicorn would prepare HTTP objects that a
    WebSocket does not need, which was a third of the cost of a connection (decision 5). Everything else goes
    to uvicorn, which also hands over WebSocket requests that arrive in pieces.
    """

    __slots__ = ("_arguments", "_connections", "_deadline", "_transport")

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._arguments = config, server_state, app_state
        self._connections: set[Any] = server_state.connections
        self._transport: Any = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected: start the deadline of its first bytes."""
        self._transport = transport
        self._connections.add(self)
        if len(self._connections) > SOCKETS_MAX:
            self._transport.abort()
            return
        self._deadline = asyncio.get_running_loop().call_later(REQUEST_S_MAX, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        """Choose the protocol by the first bytes, and give it the transport."""
        deadline = self._deadline
        if deadline is None:  # refused: too many sockets
            return
        self._connections.discard(self)
        request = _upgrade_request(data)
        if request is None:
            http = BoundedHttp(*self._arguments)
            http.take_over(self._transport, deadline)
            self._transport.set_protocol(http)
            http.data_received(data)
            return
        deadline.cancel()
        endpoint = hand_over(
            self._transport, *self._arguments, request.target, request.headers, "GET", request.http_version
        )
        if request.rest:
            endpoint.data_received(request.rest)

    def eof_received(self) -> None:
        """The client has closed without sending. The transport closes by itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has disconnected."""
        self._connections.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()

    def shutdown(self) -> None:
        """uvicorn ends: close the connection."""
        self._transport.close()


class _UpgradeRequest:
    """A complete request for a WebSocket; the parser calls its methods."""

    __slots__ = ("headers", "http_version", "rest", "target")

    def __init__(self) -> None:
        self.target = self.http_version = ""
        self.headers: list[tuple[str, str]] = []
        self.rest = b""

    def on_url(self, url: bytes) -> None:
        self.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1"), value.decode("latin-1")))


def _upgrade_request(data: bytes) -> _UpgradeRequest | None:
    """The complete request for a WebSocket at the start of these bytes, or None."""
    if not data.startswith(BEGINNING) or len(data) > HEAD_BYTES_MAX:
        return None
    request = _UpgradeRequest()
    parser = httptools.HttpRequestParser(request)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade as upgrade:
        request.http_version = parser.get_http_version()
        request.rest = data[upgrade.args[0] :]
        return request
    except httptools.HttpParserError:
        return None
    return None


def hand_over(
    transport: asyncio.Transport,
    config: Config,
    server_state: ServerState,
    app_state: dict[str, Any],
    target: str,
    headers: list[tuple[str, str]],
    method: str,
    http_version: str,
) -> asyncio.Protocol:
    """Give the transport of a WebSocket request to a new endpoint, which answers it; return that."""
    make: Any = config.ws_protocol_class
    endpoint = make(config=config, server_state=server_state, app_state=app_state)
    endpoint.connection_made(transport)
    endpoint.requested(target, headers, method, http_version)
    transport.set_protocol(endpoint)
    return endpoint

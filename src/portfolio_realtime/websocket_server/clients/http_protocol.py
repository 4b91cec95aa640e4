"""uvicorn's HTTP protocol with an end to its patience: with how a request begins, and how its answer is read.

uvicorn waits for the head of a request for ever and keeps all of it. Here a request whose head is not whole
in HEAD_S_MAX is cut off, and one with a head of more than HEAD_BYTES_MAX is refused. Whoever does not read
its answer for UNREAD_S_MAX is cut off, too; a route can do so earlier (`request.state.cut`).

A request for a WebSocket is handed over as it was parsed; uvicorn would write it down again, to be parsed a
second time.
"""

import asyncio
from typing import Any, Final

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

HEAD_S_MAX: Final = 10.0
HEAD_BYTES_MAX: Final = 32_768
UNREAD_S_MAX: Final = 20.0  # since the socket and our buffer are full
TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)


class PatientHttp(HttpToolsProtocol):
    """One HTTP connection."""

    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _is_in_head = True  # what comes next belongs to the head of a request

    def connection_made(self, transport: Any) -> None:
        """A client has come: its first request must be whole soon."""
        super().connection_made(transport)
        self._await_head()

    def take_over(self, transport: asyncio.Transport, deadline: asyncio.TimerHandle) -> None:
        """A client that came earlier: by the deadline, which aborts, its first request must be whole."""
        self._deadline = deadline
        self.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._cancel_deadline()
        self._cancel_unread()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of the client; no more of a head than it may have."""
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """The first bytes of a request, on a connection that may have had others."""
        super().on_message_begin()
        self.scope["state"] = {**self.app_state, "cut": self.transport.abort}
        if not self._is_in_head:
            self._is_in_head, self._head_bytes = True, 0
        self._await_head()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._is_in_head, self._head_bytes = False, 0
        self._cancel_deadline()
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        """The request asks for a WebSocket, whose protocol takes the transport over."""
        self.connections.discard(self)
        self._cancel_unread()
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.scope["headers"]]
        hand_over(
            *(self.transport, self.config, self.server_state, self.app_state),
            *(self.url.decode("latin-1"), headers, self.scope["method"], self.scope["http_version"]),
        )
        self.parser: Any = None  # they hold each other, and only the garbage collector would part them

    def pause_writing(self) -> None:
        """The client does not read: the buffers are full."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(UNREAD_S_MAX, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self._cancel_unread()

    def _cancel_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _await_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_S_MAX, self._cut)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cut(self) -> None:
        self._deadline = None
        self.transport.abort()

    def _refuse(self) -> None:
        self._cancel_deadline()
        self.transport.write(TOO_LARGE)
        self.transport.close()


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
    """The protocol that answers a request for a WebSocket, and has its transport from now on."""
    make: Any = config.ws_protocol_class
    endpoint = make(config=config, server_state=server_state, app_state=app_state)
    endpoint.connection_made(transport)
    endpoint.requested(target, headers, method, http_version)
    transport.set_protocol(endpoint)
    return endpoint

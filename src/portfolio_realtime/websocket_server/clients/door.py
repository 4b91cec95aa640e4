"""A connection until its first bytes: a request for a WebSocket is an Endpoint's, everything else uvicorn's.

uvicorn prepares for HTTP what a WebSocket never needs: that was a third of what a connect costs (decision 5).
It still gets every request that is not whole in the first bytes, and hands over those for a WebSocket.
"""

import asyncio
from typing import Any, Final

import httptools
from uvicorn import Config
from uvicorn.server import ServerState

from portfolio_realtime.websocket_server.clients import http_protocol

BEGINNING: Final = b"GET /ws"
SOCKETS_MAX: Final = 60_000  # of HTTP and WebSocket together, whatever they are doing


class Door(asyncio.Protocol):
    """What uvicorn makes for each connection: `uvicorn.Config(http=Door)`."""

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
        """A client has come: it must say something soon."""
        self._transport = transport
        self._connections.add(self)
        if len(self._connections) > SOCKETS_MAX:
            self._transport.abort()
            return
        self._deadline = asyncio.get_running_loop().call_later(
            http_protocol.HEAD_S_MAX, self._transport.abort
        )

    def data_received(self, data: bytes) -> None:
        """The first bytes: from now on the transport has another protocol."""
        deadline = self._deadline
        if deadline is None:  # it was one too many
            return
        self._connections.discard(self)
        request = _request(data)
        if request is None:
            http = http_protocol.PatientHttp(*self._arguments)
            http.take_over(self._transport, deadline)
            self._transport.set_protocol(http)
            http.data_received(data)
            return
        deadline.cancel()
        endpoint = http_protocol.hand_over(
            self._transport, *self._arguments, request.target, request.headers, "GET", request.http_version
        )
        if request.rest:
            endpoint.data_received(request.rest)

    def eof_received(self) -> None:
        """The client has gone without a word: the transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._connections.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()

    def shutdown(self) -> None:
        """uvicorn ends."""
        self._transport.close()


class _Request:
    """A whole request for a WebSocket, as the parser tells it."""

    __slots__ = ("headers", "http_version", "rest", "target")

    def __init__(self) -> None:
        self.target = self.http_version = ""
        self.headers: list[tuple[str, str]] = []
        self.rest = b""

    def on_url(self, url: bytes) -> None:
        self.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1"), value.decode("latin-1")))


def _request(data: bytes) -> _Request | None:
    """The request for a WebSocket that these bytes begin with, if it is one and whole."""
    if not data.startswith(BEGINNING) or len(data) > http_protocol.HEAD_BYTES_MAX:
        return None
    request = _Request()
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

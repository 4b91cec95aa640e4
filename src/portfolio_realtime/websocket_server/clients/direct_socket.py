"""Decides, for one client, whether frames go straight to its socket or through its transport."""

import asyncio

from portfolio_realtime.websocket_server.clients.connection import ClientConnection
from portfolio_realtime.websocket_server.fanout.direct_writes import DirectWrites


class DirectSocket:
    """One client's socket, as far as it is written to past its transport.

    Never while the transport has something to write: a frame would land within another.
    """

    __slots__ = ("_connection", "_direct_writes", "_fileno", "_is_ended", "_loop", "_transport")

    def __init__(
        self, transport: asyncio.Transport, connection: ClientConnection, direct_writes: DirectWrites
    ) -> None:
        self._transport = transport
        self._connection = connection
        self._direct_writes = direct_writes
        self._loop = asyncio.get_running_loop()
        self._fileno: int | None = None  # while it may be written to past the transport
        self._is_ended = False

    def choose(self) -> None:
        """Decide anew; to be called after every write, and when the connection owes something no more."""
        transport, connection = self._transport, self._connection
        if self._is_ended or transport.is_closing() or transport.get_write_buffer_size():
            connection.leave_direct()
        elif connection.may_go_direct:
            if self._fileno is None:
                self._fileno = int(transport.get_extra_info("socket").fileno())
                self._direct_writes.open(self._fileno, self._write_rest)
            connection.go_direct(self._fileno)

    def choose_soon(self) -> None:
        """Decide once the transport has had the chance to write what it was just given."""
        self.choose()
        if self._connection.may_go_direct:
            self._loop.call_soon(self.choose)

    def end(self) -> None:
        """Nothing more is written past the transport, whatever comes: the number will soon be another's."""
        self._is_ended = True
        self.choose()
        if self._fileno is not None:
            self._direct_writes.close(self._fileno)
            self._fileno = None

    def _write_rest(self, rest: bytes) -> None:
        """What the socket did not take; the transport writes it, or finds out what is wrong."""
        self._transport.write(rest)
        self.choose()

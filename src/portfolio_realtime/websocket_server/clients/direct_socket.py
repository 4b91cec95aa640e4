"""Decides for one client whether frames are written directly to its socket or through its transport."""

import asyncio

from portfolio_realtime.websocket_server.clients.connection import ClientConnection
from portfolio_realtime.websocket_server.fanout.direct_writes import DirectWrites


class DirectSocket:
    """Direct writes to one client's socket.

    There are none while the transport has data to write, because a frame would then land inside another one.
    """

    __slots__ = ("_connection", "_direct_writes", "_fileno", "_is_ended", "_loop", "_transport")

    def __init__(
        self, transport: asyncio.Transport, connection: ClientConnection, direct_writes: DirectWrites
    ) -> None:
        self._transport = transport
        self._connection = connection
        self._direct_writes = direct_writes
        self._loop = asyncio.get_running_loop()
        self._fileno: int | None = None  # set while direct writes are possible
        self._is_ended = False

    def write(self, frame: bytes) -> None:
        """Write a frame that is due now, past the transport if that has nothing left to write."""
        transport = self._transport
        if self._is_ended or transport.is_closing():
            return
        if self._fileno is None or transport.get_write_buffer_size():
            transport.write(frame)
            self.choose()
        else:  # what is direct stays so: it would cost more than the frame to leave and to come back
            self._direct_writes.send_all((self._fileno,), (frame,))

    def choose(self) -> None:
        """Decide again. Call it after every write, and when nothing is pending any more."""
        transport, connection = self._transport, self._connection
        if self._is_ended or transport.is_closing() or transport.get_write_buffer_size():
            connection.leave_direct()
        elif connection.may_go_direct:
            if self._fileno is None:
                self._fileno = int(transport.get_extra_info("socket").fileno())
                self._direct_writes.open(self._fileno, self._write_rest)
            connection.go_direct(self._fileno)

    def choose_soon(self) -> None:
        """Decide now, and again after the transport could write what it has."""
        self.choose()
        if self._connection.may_go_direct:
            self._loop.call_soon(self.choose)

    def end(self) -> None:
        """End direct writes for good: another client may soon have the file descriptor."""
        self._is_ended = True
        self.choose()
        if self._fileno is not None:
            self._direct_writes.close(self._fileno)
            self._fileno = None

    def _write_rest(self, rest: bytes) -> None:
        """Let the transport write what the socket did not take; it also handles a broken socket."""
        self._transport.write(rest)
        self.choose()

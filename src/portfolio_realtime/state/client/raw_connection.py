"""A connection that the client library has set up, read and written without the library's layers.

The library finds the primary, connects, encrypts, logs in and selects the database. Then its transport gets
our protocol, which feeds hiredis and hands on each answer in the same call: no task wakes up in between, and
no timer is made for an answer. See docs/decisions/0037-the-library-connects-and-we-read.md.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import hiredis
from redis import exceptions
from redis.asyncio import ConnectionPool

from portfolio_realtime.state.error_answers import Parser

NOT_ENOUGH: Final = object()  # hiredis has no whole answer
CLOSED: Final = "Connection closed by server."

pack: Callable[[Sequence[Any]], bytes] = cast("Any", hiredis.pack_command)
"""A command in the form in which it is sent. Raises TypeError for an argument that is no text or number."""


class RawConnection(asyncio.Protocol):
    """Calls `take` with each answer, errors included, and `lose` once, when the connection is over."""

    def __init__(self, take: Callable[[Any], None], lose: Callable[[Exception], None]) -> None:
        self.is_congested = False  # the transport asks for a pause in writing
        self.is_over = False
        self.heard_s = 0.0  # when something was last received, by the loop's clock
        self._take = take
        self._lose = lose
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(
            protocolError=exceptions.InvalidResponse, replyError=Parser.parse_error, notEnoughData=NOT_ENOUGH
        )
        self._connection: Any = None  # the library's, whose streams must live as long as the transport
        self._transport: asyncio.Transport | None = None

    async def open(self, pool: ConnectionPool) -> None:
        """Set up a connection as those of the pool, and take it over. Raises RedisError, OSError."""
        connection = pool.make_connection()
        try:
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        # The library has no public way to its streams, nor asyncio to what a reader holds.
        inside: Any = connection
        reader, transport = inside._reader, inside._writer.transport  # noqa: SLF001  # see above
        self._connection, self._transport = inside, transport
        transport.set_protocol(self)
        early = bytes(reader._buffer)  # noqa: SLF001  # see above
        reader._buffer.clear()  # noqa: SLF001  # see above
        if reader.at_eof():
            self.break_off(exceptions.ConnectionError(CLOSED))
            raise exceptions.ConnectionError(CLOSED)
        self.heard_s = self._loop.time()
        if early:
            self.data_received(early)

    def write(self, packed: bytes) -> None:
        """Send bytes; never waits."""
        if self._transport is not None:
            self._transport.write(packed)

    def data_received(self, data: bytes) -> None:
        """Hand on all answers that are whole now."""
        self.heard_s = self._loop.time()
        reader = self._reader
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not NOT_ENOUGH:
                self._take(answer)
        except exceptions.InvalidResponse as error:
            self.break_off(error)

    def pause_writing(self) -> None:
        """The transport holds much that is not sent."""
        self.is_congested = True

    def resume_writing(self) -> None:
        """The transport has sent most of it."""
        self.is_congested = False

    def pause_reading(self) -> None:
        """Leave what comes at the server."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Receive again; the time of the pause does not count as silence."""
        self.heard_s = self._loop.time()
        if self._transport is not None:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self.break_off(exceptions.ConnectionError(f"{CLOSED} {exc}" if exc else CLOSED))

    def break_off(self, error: Exception) -> None:
        """Close the connection at once, for this reason; further calls do nothing."""
        if self.is_over:
            return
        self.is_over = True
        if self._transport is not None:
            self._transport.abort()
        if self._connection is not None:
            # Otherwise it would warn that it was not closed.
            self._connection._reader = self._connection._writer = None  # noqa: SLF001  # see `open`
        self._connection = self._transport = None
        self._lose(error)

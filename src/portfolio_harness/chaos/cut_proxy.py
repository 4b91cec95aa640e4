"""A TCP proxy on loopback that can hold data back, delay it, be narrow, refuse connections, and reset."""

import asyncio
import contextlib
from typing import Final, Self

READ_BYTES: Final = 256 * 1024
UNDER_WAY_MAX: Final = 64  # reads that a slow link holds at most
NARROW_READ_BYTES: Final = 512  # of a narrow link, so that it holds little and its sender waits, as with TCP
SUBSCRIBE: Final = b"SUBSCRIBE"  # what a connection that subscribes says
HELD_S: Final = 0.02  # how often a held direction checks whether it is open again


class CutProxy:
    """A proxy between one process and Valkey. Data that is held back arrives later, as with TCP."""

    def __init__(self, port: int) -> None:
        self.target = port  # the port that new connections lead to
        self.port = 0
        self.holds_there = False
        self.holds_back = False
        self.refuses = False
        self.delay_s = 0.0  # of everything, in each direction
        self.bytes_per_s = 0.0  # of all connections together, in each direction; 0: any number
        self._free_s: dict[str, float] = {}  # direction -> when the narrow link may send again
        self._subscribing: set[asyncio.Task[None]] = set()  # flows that have subscribed to something
        self._lost: set[asyncio.Task[None]] = set()  # flows that pass nothing any more
        self._flows: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.reset()
        self.heal()
        await asyncio.gather(*self._flows, return_exceptions=True)

    def heal(self) -> None:
        """Let everything pass again, except on lost flows."""
        self.holds_there = self.holds_back = self.refuses = False
        self.delay_s = self.bytes_per_s = 0.0

    def reset(self) -> None:
        """Abort every connection."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def lose_open_flows(self) -> None:
        """Let the present connections pass nothing any more, without closing them. New ones pass."""
        self._lost |= self._flows

    @property
    def hears(self) -> bool:
        """Whether there is a subscription that passes something."""
        return bool(self._subscribing - self._lost)

    def lose_subscriptions(self) -> None:
        """Let the present subscriptions pass nothing any more, without closing them; commands pass."""
        self._lost |= self._subscribing

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._flows.add(task)
        task.add_done_callback(self._flows.discard)
        task.add_done_callback(self._lost.discard)
        task.add_done_callback(self._subscribing.discard)
        writers = [writer]
        self._writers.add(writer)
        try:
            if self.refuses:
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            writers.append(far_writer)
            self._writers.add(far_writer)
            directions = (
                self._pass(task, reader, far_writer, "holds_there"),
                self._pass(task, far_reader, writer, "holds_back"),
            )
            passing = [asyncio.ensure_future(one) for one in directions]
            try:
                await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in passing:
                    one.cancel()
        except OSError:
            pass
        finally:
            for each in writers:
                self._writers.discard(each)
                each.transport.abort()

    async def _pass(
        self,
        flow: asyncio.Task[None],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        holds: str,
    ) -> None:
        """Hand on what comes, each piece as late as the link is slow."""
        pieces = asyncio.Queue[tuple[float, bytes]](UNDER_WAY_MAX)
        handing_on = asyncio.ensure_future(self._hand_on(flow, pieces, writer, holds))
        try:
            with contextlib.suppress(OSError):
                while raw := await reader.read(NARROW_READ_BYTES if self.bytes_per_s else READ_BYTES):
                    if SUBSCRIBE in raw:
                        self._subscribing.add(flow)
                    await pieces.put((asyncio.get_running_loop().time() + self.delay_s, raw))
                await pieces.put((0.0, b""))
                await handing_on
        finally:
            handing_on.cancel()

    async def _hand_on(
        self,
        flow: asyncio.Task[None],
        pieces: asyncio.Queue[tuple[float, bytes]],
        writer: asyncio.StreamWriter,
        holds: str,
    ) -> None:
        with contextlib.suppress(OSError):
            while (piece := await pieces.get())[1]:
                due_s, raw = piece
                await asyncio.sleep(max(0.0, due_s - asyncio.get_running_loop().time()))
                await self._wait_turn(holds, len(raw))
                while getattr(self, holds) or flow in self._lost:
                    await asyncio.sleep(HELD_S)
                writer.write(raw)
                await writer.drain()

    async def _wait_turn(self, direction: str, size: int) -> None:
        """Wait until a narrow link has sent what came before, and this."""
        if self.bytes_per_s:
            loop = asyncio.get_running_loop()
            due_s = max(loop.time(), self._free_s.get(direction, 0.0)) + size / self.bytes_per_s
            self._free_s[direction] = due_s
            while self.bytes_per_s and loop.time() < due_s:
                await asyncio.sleep(min(HELD_S, max(0.0, due_s - loop.time())))

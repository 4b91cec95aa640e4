"""Stands between a service and a real Valkey: answers with an error of its choice, or loses what is sent."""

import asyncio
import contextlib
from types import TracebackType
from typing import Final, Self

import hiredis

HANDSHAKE: Final = frozenset({b"HELLO", b"CLIENT", b"SELECT"})


class ValkeyProxy:
    """`async with ValkeyProxy(port) as proxy:`; services connect to `proxy.url`."""

    def __init__(self, port: int) -> None:
        self.port = port  # of the server that new connections lead to
        self._flows: set[asyncio.Task[None]] = set()
        self.url = ""
        self.answer = b""  # an error, such as b"-OOM …": every command but those of the handshake gets it
        self.refuses_handshake = False  # those, too
        self.refused = 0  # commands that got it
        self.passed = 0  # commands that did not
        self.lost: set[int] = set()  # flows of which nothing passes any more, though they stay open
        self.flows = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for flow in tuple(self._flows):
            flow.cancel()
        await asyncio.gather(*self._flows, return_exceptions=True)

    def lose_open_flows(self) -> None:
        """What is open now passes nothing any more; what is opened later does."""
        self.lost |= set(range(self.flows))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.flows = self.flows, self.flows + 1
        task = asyncio.current_task()
        assert task is not None
        self._flows.add(task)
        task.add_done_callback(self._flows.discard)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
        back = asyncio.create_task(self._back(number, far_reader, writer))
        try:
            await self._there(number, reader, writer, far_writer, back)
        except (OSError, asyncio.CancelledError):
            pass  # only we cancel flows, at the end; Python 3.11 would log it as an error
        finally:
            back.cancel()
            for each in (far_writer, writer):
                each.close()

    async def _there(
        self,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far: asyncio.StreamWriter,
        back: "asyncio.Task[None]",
    ) -> None:
        commands = hiredis.Reader()
        while raw := await reader.read(65536):
            if number in self.lost:
                continue
            if not self.answer and not self.refuses_handshake:
                self.passed += 1
                far.write(raw)
                continue
            commands.feed(raw)
            while (command := commands.gets()) is not False:
                if command[0].upper() in HANDSHAKE and not self.refuses_handshake:
                    far.write(_packed(command))
                else:
                    back.cancel()  # answers to come would stand before ours
                    self.refused += 1
                    writer.write(self.answer + b"\r\n")

    async def _back(self, number: int, far: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while raw := await far.read(65536):
                if number not in self.lost:
                    writer.write(raw)
        writer.close()


def _packed(command: list[bytes]) -> bytes:
    parts = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in command)
    return b"*%d\r\n%s" % (len(command), parts)

"""Forks services from a process that has already imported what they share (`preloaded.py`).

The import is paid once, and its memory is shared. Each service stays a process of its own, in a session of
its own, with the environment that it is given.
"""

import asyncio
import contextlib
import json
import os
import signal
from collections import deque
from collections.abc import Mapping
from typing import Final

from portfolio_realtime.preloading import Importing

ANSWER_S_MAX: Final = 30.0  # from a request until the process runs, the import included; on a busy machine


class PreloadedEnded(Exception):
    """The preloaded process has ended, or does not answer; nothing was started."""


class Forked:
    """A process that was forked, as `asyncio.subprocess.Process` shows one that was started."""

    def __init__(self, pid: int) -> None:
        self.pid: Final = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()
        try:
            self._descriptor = os.pidfd_open(pid)  # names this process, also when its id is used again
        except OSError:  # it has ended already; the code comes
            self._descriptor = -1

    async def wait(self) -> int:
        """Wait until it has ended; its exit code, or -N for signal N."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        """Send SIGTERM. Raises ProcessLookupError when it has ended."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL. Raises ProcessLookupError when it has ended."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self._descriptor < 0:
            raise ProcessLookupError
        signal.pidfd_send_signal(self._descriptor, number)

    def end(self, code: int) -> None:
        """Note that it has ended with this code."""
        self.returncode = code
        self._ended.set()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def await_end(self) -> None:
        """Note its end when it comes, because the process that would tell its code is gone.

        The kernel has sent it SIGTERM when that process ended.
        """
        if self._descriptor < 0:
            self.end(-signal.SIGTERM)
            return
        loop, descriptor = asyncio.get_running_loop(), self._descriptor

        def seen() -> None:
            loop.remove_reader(descriptor)
            self.end(-signal.SIGTERM)

        loop.add_reader(descriptor, seen)


class Preloaded:
    """The preloaded process, and what was forked from it."""

    def __init__(self, importing: Importing) -> None:
        self._process = importing.process
        self._socket = importing.socket
        self._connecting = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._asked: deque[asyncio.Future[Forked]] = deque()
        self._running: dict[int, Forked] = {}

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def start(self, module: str, environment: Mapping[str, str]) -> Forked:
        """Run `python -m module` in a fork. Raises PreloadedEnded."""
        writer = await self._connected()
        if self._reading is None or self._reading.done():
            raise PreloadedEnded
        answer: asyncio.Future[Forked] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        writer.write(json.dumps({"module": module, "environment": dict(environment)}).encode() + b"\n")
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                return await answer
        except TimeoutError:
            self._process.kill()  # or it would start the service later
            raise PreloadedEnded from None

    async def stop(self) -> None:
        """End it. What it has forked and still runs gets SIGTERM."""
        if self._writer is None or self._reading is None:
            self._socket.close()
            await self._end()
            return
        self._writer.close()
        await self._reading

    async def _connected(self) -> asyncio.StreamWriter:
        async with self._connecting:
            if self._writer is None:
                reader, self._writer = await asyncio.open_connection(sock=self._socket)
                self._reading = asyncio.create_task(self._read(reader))
            return self._writer

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            async for line in reader:
                self._take(json.loads(line))
        await self._end()
        for answer in self._asked:
            if not answer.done():
                answer.set_exception(PreloadedEnded())
        for forked in self._running.values():
            forked.await_end()

    async def _end(self) -> None:
        self._process.kill()
        await asyncio.to_thread(self._process.wait)

    def _take(self, said: Mapping[str, int]) -> None:
        pid = said["pid"]
        if "code" in said:
            self._running.pop(pid).end(said["code"])
            return
        forked = self._running[pid] = Forked(pid)
        answer = self._asked.popleft()
        if not answer.done():
            answer.set_result(forked)

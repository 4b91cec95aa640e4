"""One real Valkey or Redis on loopback that can be asked anything, stopped, and killed."""

import asyncio
import contextlib
import shutil
import signal
from collections.abc import AsyncGenerator
from typing import Any, Final, NoReturn

from redis.asyncio import Redis

from portfolio_realtime.errors import SettingsError
from portfolio_realtime.state.embedded import EmbeddedServer

COMMAND_S_MAX: Final = 20.0
BACK_S: Final = 0.2  # before a server that has ended is started again


def redis_program() -> str:
    """Path of Debian's server, which is Redis. Raises SettingsError with the remedy."""
    if (found := shutil.which("redis-server")) is None:
        raise SettingsError("there is no redis-server: apt-get install redis-server")
    return found


class ValkeyNode(EmbeddedServer):
    """A server whose state is lost when it ends; started again it has the same port."""

    is_paused = False

    @property
    def is_usable(self) -> bool:
        """Will it answer?"""
        return self.is_running and not self.is_paused

    @property
    def pids(self) -> list[int]:
        """Process id of each of its servers that runs."""
        return [self.pid] if self.is_running else []

    async def primaries(self) -> list["ValkeyNode"]:
        """The servers that hold keys."""
        return [self]

    async def flush(self) -> None:
        """Forget everything."""
        await self.do("FLUSHALL")

    async def keep(self) -> NoReturn:
        """Start it again whenever it has ended, forever."""
        while True:
            await self.wait()
            await asyncio.sleep(BACK_S)
            await self.start()

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncGenerator[Redis]:
        """A connection to this very server, whatever it is part of."""
        async with Redis.from_url(self.url, socket_timeout=COMMAND_S_MAX) as client:
            yield client

    async def do(self, *command: str | int) -> Any:
        """What it answers to one command."""
        async with self.client() as client:
            return await client.execute_command(*command)

    def pause(self) -> None:
        """It stands still with its connections open."""
        self.is_paused = True
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on."""
        self.send(signal.SIGCONT)
        self.is_paused = False

    async def start(self) -> None:
        """Start, empty, and wait until it answers. Raises StateUnavailable with the remedy."""
        self.is_paused = False
        await super().start()

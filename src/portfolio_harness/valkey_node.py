"""One real Valkey or Redis on loopback that can run any command, be paused, and be killed."""

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
BACK_S: Final = 0.2  # the pause before a server that has ended is restarted


def redis_program() -> str:
    """The path of redis-server, as Debian installs it. Raises SettingsError with the remedy."""
    if (found := shutil.which("redis-server")) is None:
        raise SettingsError("there is no redis-server: apt-get install redis-server")
    return found


class ValkeyNode(EmbeddedServer):
    """A server that loses its data when it ends, unless its options name a file. A restart keeps its port."""

    is_paused = False

    @property
    def is_usable(self) -> bool:
        """Whether it runs and is not paused."""
        return self.is_running and not self.is_paused

    @property
    def pids(self) -> list[int]:
        """The process id, in a list; empty when it does not run."""
        return [self.pid] if self.is_running else []

    async def primaries(self) -> list["ValkeyNode"]:
        """This server, in a list, as `ValkeyCluster.primaries` has it."""
        return [self]

    async def flush(self) -> None:
        """Delete all keys."""
        await self.do("FLUSHALL")

    async def keep(self) -> NoReturn:
        """Restart it whenever it ends, forever."""
        while True:
            await self.wait()
            await asyncio.sleep(BACK_S)
            await self.start()

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncGenerator[Redis]:
        """A client of this server alone, also when it is part of a cluster."""
        async with Redis.from_url(self.url, socket_timeout=COMMAND_S_MAX) as client:
            yield client

    async def do(self, *command: str | int) -> Any:
        """Run one command and return the answer. Raises redis.RedisError."""
        async with self.client() as client:
            return await client.execute_command(*command)

    def pause(self) -> None:
        """Stop the process (SIGSTOP); its connections stay open."""
        self.is_paused = True
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue the process (SIGCONT)."""
        self.send(signal.SIGCONT)
        self.is_paused = False

    async def start(self) -> None:
        """Start it and wait until it answers. Raises StateUnavailable with the remedy."""
        self.is_paused = False
        await super().start()

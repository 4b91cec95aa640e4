"""A primary, a replica and three Sentinels: Debian's programs on loopback."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from portfolio_harness.system import free_port
from portfolio_realtime.processes import Process, end_with_parent
from tests.interoperability.programs import need

NAME: Final = "our-primary"
COUNT: Final = 3
QUORUM: Final = 2
DOWN_MS: Final = 1500  # without an answer, and a primary counts as dead
START_S_MAX: Final = 60.0
COMMAND_S_MAX: Final = 20.0


class Program:
    """One process on a port, and commands to it."""

    def __init__(self, folder: Path, program: str, *lines: str) -> None:
        self.port = free_port(0)
        self._program = program
        self._folder = folder / f"{program}-{self.port}"
        self._lines = lines
        self._process: Process | None = None

    async def start(self) -> None:
        """Start, and wait until it answers."""
        self._folder.mkdir()
        configuration = self._folder / "conf"
        own = (
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self._folder}",
            f"logfile {self._folder / 'log'}",
        )
        configuration.write_text("\n".join((*own, *self._lines)) + "\n")
        self._process = await asyncio.create_subprocess_exec(
            *(need(self._program), str(configuration)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            preexec_fn=end_with_parent,
            start_new_session=True,
        )
        async with asyncio.timeout(START_S_MAX):
            while not await self._answers():
                await asyncio.sleep(0.05)

    async def _answers(self) -> bool:
        with contextlib.suppress(Exception):
            return bool(await self.do("PING"))
        return False

    async def do(self, *command: Any) -> Any:
        """One command."""
        client: Redis = Redis(port=self.port, socket_timeout=COMMAND_S_MAX)
        try:
            return await client.execute_command(*command)
        finally:
            await client.aclose()

    async def kill(self) -> None:
        """As a power cut would."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class Watched:
    """Two servers, and the Sentinels that watch them."""

    def __init__(self, folder: Path) -> None:
        self._primary = Program(folder, "redis-server", 'save ""')
        follows = f"replicaof 127.0.0.1 {self._primary.port}"
        self._replica = Program(folder, "redis-server", 'save ""', "repl-diskless-sync-delay 0", follows)
        lines = (
            f'sentinel monitor "{NAME}" 127.0.0.1 {self._primary.port} {QUORUM}',
            f'sentinel down-after-milliseconds "{NAME}" {DOWN_MS}',
            f'sentinel failover-timeout "{NAME}" 10000',
        )
        self._sentinels = [Program(folder, "redis-sentinel", *lines) for _ in range(COUNT)]

    @property
    def places(self) -> str:
        """As REDIS_SENTINELS has them."""
        return ",".join(f"127.0.0.1:{one.port}" for one in self._sentinels)

    async def start(self) -> None:
        """Start all, and wait until each Sentinel knows the others and the replica."""
        for one in (self._primary, self._replica, *self._sentinels):
            await one.start()
        async with asyncio.timeout(START_S_MAX):
            while not all([await self._knows_all(one) for one in self._sentinels]):
                await asyncio.sleep(0.2)

    async def _knows_all(self, sentinel: Program) -> bool:
        told = await sentinel.do("SENTINEL MASTER", NAME)
        return int(told["num-other-sentinels"]) == COUNT - 1 and int(told["num-slaves"]) == 1

    async def primary_port(self) -> int:
        """Of the primary, as a Sentinel says."""
        told = await self._sentinels[-1].do("SENTINEL GET-MASTER-ADDR-BY-NAME", NAME)
        return int(told[1])

    async def hand_over(self) -> None:
        """The Sentinels make the replica the primary; the one before lives on and follows."""
        await self._sentinels[0].do("SENTINEL FAILOVER", NAME)

    async def kill_primary(self) -> None:
        """Whoever it is now."""
        port = await self.primary_port()
        await next(one for one in (self._primary, self._replica) if one.port == port).kill()

    async def kill_first_sentinel(self) -> None:
        """The one that is asked first."""
        await self._sentinels[0].kill()

    async def stop(self) -> None:
        """End all."""
        for one in (*self._sentinels, self._replica, self._primary):
            await one.kill()


@contextlib.asynccontextmanager
async def watched(folder: Path) -> AsyncGenerator[Watched]:
    """Started."""
    found = Watched(folder)
    try:
        await found.start()
        yield found
    finally:
        await found.stop()

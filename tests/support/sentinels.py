"""A primary, a replica and three Sentinels: Debian's programs on loopback."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Final

from portfolio_harness.valkey_node import ValkeyNode
from portfolio_realtime.state.embedded import free_port
from tests.interoperability.programs import need

NAME: Final = "our-primary"
COUNT: Final = 3
QUORUM: Final = 2
DOWN_MS: Final = 1500  # without an answer, and a primary counts as dead
START_S_MAX: Final = 60.0


class Sentinel(ValkeyNode):
    """One Sentinel, whose file of settings it writes itself from then on."""

    def __init__(self, folder: Path, *lines: str) -> None:
        super().__init__(free_port(), program=need("redis-sentinel"))
        self._file = folder / f"sentinel-{self.port}.conf"
        own = (f"port {self.port}", "bind 127.0.0.1", f"dir {folder}")
        self._file.write_text("\n".join((*own, *lines)) + "\n")

    def _command(self) -> Sequence[str]:
        return self._program, str(self._file)


class Watched:
    """Two servers, and the Sentinels that watch them."""

    def __init__(self, folder: Path) -> None:
        program, own = need("redis-server"), ("--dir", str(folder), "--repl-diskless-sync-delay", "0")
        self._primary = ValkeyNode(free_port(), program=program, options=own)
        follows = ("--replicaof", "127.0.0.1", str(self._primary.port))
        self._replica = ValkeyNode(free_port(), program=program, options=(*own, *follows))
        lines = (
            f'sentinel monitor "{NAME}" 127.0.0.1 {self._primary.port} {QUORUM}',
            f'sentinel down-after-milliseconds "{NAME}" {DOWN_MS}',
            f'sentinel failover-timeout "{NAME}" 10000',
        )
        self._sentinels = [Sentinel(folder, *lines) for _ in range(COUNT)]

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

    async def _knows_all(self, sentinel: Sentinel) -> bool:
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

"""What it costs to know who is watched: reading all accounts, and reading what has changed. One JSON line.

WATCHED accounts in SHARDS shards; the readers are the symbol collector, which reads all shards every SWEEP_S,
and calculators, which read theirs every SWEEP_S and the shard of each account that is newly watched at once.
`at_rest` is a sweep of the collector and of all calculators, for each second; `arrival` is one account that
is newly watched. `python -m benchmarks.interest`
"""

import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import uvloop

from portfolio_harness.process_usage import cpu_s
from portfolio_realtime.state import State, open_state
from portfolio_realtime.state.embedded import EmbeddedServer
from portfolio_realtime.state.interest import BEGIN_ACCOUNTS_MAX, UNREAD

WATCHED: Final = 100_000
SHARDS: Final = 16
SWEEP_S: Final = 5.0
READERS: Final = 2  # of each shard: its calculator, and the collector
ROUNDS: Final = 9
ARRIVALS: Final = 20  # of a round


class Meter:
    """What the server has sent, and the processor time of it and of this process, since `begin`."""

    def __init__(self, state: State, pid: int) -> None:
        self._commands: Any = state.connection.commands
        self._pid = pid

    async def _read(self) -> tuple[float, float, float]:
        sent = (await self._commands.info("stats"))["total_net_output_bytes"]
        return sent, cpu_s(self._pid), time.process_time()

    async def measure(self, work: Callable[[], Awaitable[None]]) -> tuple[float, ...]:
        """Bytes, and seconds of the server and of this process."""
        before = await self._read()
        await work()
        return tuple(after - earlier for after, earlier in zip(await self._read(), before, strict=True))


class Readers:
    """The symbol collector and the calculators, as far as interest goes; `way` is `all` or `changes`."""

    def __init__(self, state: State, way: str) -> None:
        self._interest = state.interest
        self._way = way
        self._until = dict.fromkeys(range(SHARDS), UNREAD)
        self._coming = (f"{way}-{number:08x}-4000-8000-{number:012x}" for number in range(WATCHED))

    async def _read(self, shard: int) -> None:
        since = UNREAD if self._way == "all" else self._until[shard]
        self._until[shard] = (await self._interest.read_changes(shard, since)).until

    async def sweep(self) -> None:
        """Read each shard once for each of its readers."""
        for _ in range(READERS):
            for shard in range(SHARDS):
                await self._read(shard)

    async def arrive(self) -> None:
        """Watch accounts, and read a shard after each."""
        for number in range(ARRIVALS):
            await self._interest.begin([next(self._coming)])
            await self._read(number % SHARDS)


async def measure() -> dict[str, object]:
    """Both ways of reading, at rest and for an arrival."""
    async with EmbeddedServer() as server:
        state = open_state(server.url, holder="benchmark", shards=SHARDS, lease_ms=60_000)
        names = [f"{number:08x}-0000-4000-8000-{number:012x}" for number in range(WATCHED)]
        for at in range(0, WATCHED, BEGIN_ACCOUNTS_MAX):
            await state.interest.begin(names[at : at + BEGIN_ACCOUNTS_MAX])
        meter = Meter(state, server.pid)
        found: dict[str, object] = {"watched": WATCHED}
        for way in ("all", "changes"):
            readers = Readers(state, way)
            for name, work, divisor in (
                ("at_rest", readers.sweep, SWEEP_S),
                ("arrival", readers.arrive, ARRIVALS),
            ):
                rounds = [await meter.measure(work) for _ in range(1 + ROUNDS)]
                sent, server_s, own_s = (statistics.mean(each) for each in zip(*rounds[1:], strict=True))
                found[f"{name}_{way}"] = {
                    "bytes": round(sent / divisor),
                    "server_us": round(1e6 * server_s / divisor),
                    "readers_us": round(1e6 * own_s / divisor),
                }
        await state.close()
        return found


if __name__ == "__main__":
    print(msgspec.json.encode(uvloop.run(measure())).decode())

"""What a publication costs on a cluster of three primaries, beside one server: ratios, pair by pair.

A flush has publications of 16 shards, and a follower hears them all. Counted is the processor time of this
process, which publishes and hears, and of the servers. `python -m benchmarks.publishing`
"""

import asyncio
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import uvloop

from portfolio_harness.process_usage import cpu_s
from portfolio_harness.valkey_cluster import ValkeyCluster
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.model import Publication, Publications
from portfolio_realtime.state import State, keys, open_state
from portfolio_realtime.state.connection import Message
from portfolio_realtime.state.embedded import EmbeddedServer
from portfolio_realtime.state.leases import Lease

SHARDS: Final = 16
LEASE_MS: Final = 600_000
FLUSHES: Final = {1: 60, 20: 25}  # publications of each shard in a flush -> flushes of a round
PAIRS: Final = 8  # after one that warms up
VALUE: Final = b'{"type":"portfolio","value":"' + b"1" * 420 + b'"}'
HEARD_S_MAX: Final = 30.0
SETTLE_S: Final = 3.0


@dataclass(frozen=True)
class Cost:
    """Processor time of one publication, in µs."""

    own_us: float
    servers_us: float

    @property
    def whole_us(self) -> float:
        """Both together."""
        return self.own_us + self.servers_us


class Side:
    """One server, or one cluster."""

    def __init__(self, url: str, pids: Sequence[int]) -> None:
        self._state: State = open_state(url, holder="publishing", shards=SHARDS, lease_ms=LEASE_MS)
        self._pids = pids
        self._leases: dict[int, Lease] = {}
        self._heard = 0

    async def begin(self) -> None:
        """Own all shards and follow them."""
        for shard in range(SHARDS):
            lease = await self._state.leases.acquire(keys.shard_lease(shard))
            assert lease is not None
            self._leases[shard] = lease
        self._following = asyncio.create_task(self._follow())
        await asyncio.sleep(SETTLE_S)

    async def _follow(self) -> None:
        async for event in self._state.valuations.batches():
            self._heard += isinstance(event, Message)

    async def round(self, flushes: int, each: int) -> Cost:
        """Publish, and hear all of it."""
        expected = self._heard + flushes * SHARDS
        servers_s, own_s = sum(map(cpu_s, self._pids)), time.process_time()
        for sequence in range(flushes):
            flush = [
                (
                    shard,
                    lease,
                    Publications.of(
                        Publication(f"account-{number}", sequence, VALUE) for number in range(each)
                    ),
                )
                for shard, lease in self._leases.items()
            ]
            failures = await self._state.valuations.publish_all(flush)
            assert not any(failures), failures
        async with asyncio.timeout(HEARD_S_MAX):
            while self._heard < expected:
                await asyncio.sleep(0.01)
        own_s, servers_s = time.process_time() - own_s, sum(map(cpu_s, self._pids)) - servers_s
        count = flushes * SHARDS * each
        return Cost(1e6 * own_s / count, 1e6 * servers_s / count)

    async def end(self) -> None:
        """Close everything."""
        await cancel_until_ended([self._following])
        await self._state.close()


async def measure() -> None:
    """Both sides in turn, and what was seen."""
    async with EmbeddedServer() as server, ValkeyCluster(replicas=0) as cluster:
        await asyncio.sleep(SETTLE_S)
        single, spread = Side(server.url, [server.pid]), Side(cluster.url, [one.pid for one in cluster.nodes])
        for side in (single, spread):
            await side.begin()
        for each, flushes in FLUSHES.items():
            pairs = [
                (await single.round(flushes, each), await spread.round(flushes, each))
                for _ in range(1 + PAIRS)
            ][1:]
            print(_described(each, pairs))
        for side in (single, spread):
            await side.end()


def _described(each: int, pairs: Sequence[tuple[Cost, Cost]]) -> str:
    own = statistics.median(spread.own_us / single.own_us for single, spread in pairs)
    whole = statistics.median(spread.whole_us / single.whole_us for single, spread in pairs)
    one = statistics.median(single.whole_us for single, _ in pairs)
    server = statistics.median(single.servers_us for single, _ in pairs)
    return (
        f"{each:3} of each shard in a flush: one server {one:.1f} us a publication, of which "
        f"Valkey {server:.1f} us; cluster {whole:.2f} "
        f"times that, the publishing process alone {own:.2f} times; load {os.getloadavg()[0]:.0f}"
    )


if __name__ == "__main__":
    uvloop.run(measure())

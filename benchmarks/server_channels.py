"""What a channel for each server saves: everybody hears all, beside each hears its own. One JSON line.

SERVERS servers, each in a process of its own, watch as many accounts each; every flush publishes all accounts
of one shard. `all`: one message, which every server hears. `own`: a message for each server, with the
accounts that it watches. Figures are for one publication. `python -m benchmarks.server_channels`
"""

import asyncio
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Final

import msgspec
import uvloop

from portfolio_harness.process_usage import cpu_s
from portfolio_realtime.model import Publication, Publications
from portfolio_realtime.state import State, keys, open_state
from portfolio_realtime.state.connection import Message
from portfolio_realtime.state.embedded import EmbeddedServer
from portfolio_realtime.state.interest import UNREAD, Servers
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.state.valuations import KnownInterest, decode_batch

SERVERS: Final = 4
EACH: Final = (2, 20, 200)  # accounts of each server in a flush
PUBLICATIONS: Final = 80_000  # of a round, about
ROUNDS: Final = 5  # after one that warms up
LEASE_MS: Final = 600_000
SETTLE_S: Final = 1.5
VALUE: Final = b'{"type":"portfolio","value":"' + b"1" * 420 + b'"}'
SHARD: Final = 0
END: Final = "end"


def account(server: int, number: int) -> str:
    """The id of an account that this server watches."""
    return f"{server:08x}-0000-4000-8000-{number:012x}"


async def serve(url: str, channel: str, watched: frozenset[str]) -> list[tuple[float, int]]:
    """Be a server as far as publications go: seconds of the processor and bytes of each round."""
    state = open_state(url, holder="server", shards=1, lease_ms=LEASE_MS)
    rounds, size, found = list[tuple[float, int]](), 0, 0
    began_s = time.process_time()
    async for event in state.connection.follow(channel):
        if not isinstance(event, Message):
            continue
        if event.payload == b"round":
            rounds.append((time.process_time() - began_s, size))
            began_s, size = time.process_time(), 0
        elif event.payload == b"end":
            break
        else:
            size += len(event.payload)
            found += sum(account_id in watched for account_id in decode_batch(event.payload).account_ids)
    await state.close()
    assert found, "nothing of its own has come"
    return rounds


def serve_alone(url: str, channel: str, watched: frozenset[str]) -> list[tuple[float, int]]:
    """The same in a process of its own."""
    return uvloop.run(serve(url, channel, watched))


async def flush(
    state: State, lease: Lease, made: list[Publication], interest: dict[int, KnownInterest] | None
) -> None:
    """Store what is published, and announce it."""
    assert await state.valuations.publish_all([(SHARD, lease, Publications.of(made))], interest=interest) == [
        None
    ]


async def measure(way: str, each: int) -> dict[str, float]:
    """One way, with so many accounts of each server in a flush."""
    key = keys.valuations(SHARD)
    own = [keys.server_valuations(SHARD, f"server-{server}") for server in range(SERVERS)]
    followed = own if way == "own" else [key] * SERVERS
    async with EmbeddedServer() as valkey:
        state = open_state(valkey.url, holder="calculator", shards=1, lease_ms=LEASE_MS)
        lease = await state.leases.acquire(keys.shard_lease(SHARD))
        assert lease is not None
        by_server = [
            [Publication(account(server, number), 1, VALUE) for number in range(each)]
            for server in range(SERVERS)
        ]
        made = [one for batch in by_server for one in batch]
        servers: dict[str, Servers] = {
            one.account_id: {f"server-{server}": False}
            for server, batch in enumerate(by_server)
            for one in batch
        }
        interest = {SHARD: KnownInterest(servers, UNREAD)} if way == "own" else None
        channels = own if way == "own" else [key]
        spawn, loop = multiprocessing.get_context("spawn"), asyncio.get_running_loop()
        with ProcessPoolExecutor(SERVERS, mp_context=spawn) as pool:
            watched = [frozenset(one.account_id for one in batch) for batch in by_server]
            serving = [
                loop.run_in_executor(pool, serve_alone, valkey.url, channel, accounts)
                for channel, accounts in zip(followed, watched, strict=True)
            ]
            while (await state.connection.commands.pubsub_numsub(*channels))[0][1] < SERVERS // len(channels):
                await asyncio.sleep(0.1)
            await asyncio.sleep(SETTLE_S)
            flushes = max(1, PUBLICATIONS // (each * SERVERS))
            spent = list[tuple[float, float]]()
            for _ in range(1 + ROUNDS):
                own_s, valkey_s = time.process_time(), cpu_s(valkey.pid)
                for _ in range(flushes):
                    await flush(state, lease, made, interest)
                await asyncio.sleep(SETTLE_S)
                spent.append((time.process_time() - own_s, cpu_s(valkey.pid) - valkey_s))
                for channel in channels:
                    await state.connection.commands.publish(channel, "round")
            for channel in channels:
                await state.connection.commands.publish(channel, END)
            heard = await asyncio.gather(*serving)
        await state.close()
    count, middle = flushes * each * SERVERS, statistics.median
    return {
        "calculator_us": round(1e6 * middle(own_s for own_s, _ in spent[1:]) / count, 2),
        "valkey_us": round(1e6 * middle(valkey_s for _, valkey_s in spent[1:]) / count, 2),
        "all_servers_us": round(
            1e6 * sum(middle(used_s for used_s, _ in one[1:]) for one in heard) / count, 2
        ),
        "out_of_valkey_bytes": round(sum(middle(size for _, size in one[1:]) for one in heard) / count),
    }


async def main() -> None:
    """Both ways, with few and with many accounts in a flush."""
    found: dict[str, object] = {"servers": SERVERS}
    for each in EACH:
        for way in ("all", "own"):
            found[f"{way}_{each}"] = await measure(way, each)
    found["load"] = round(os.getloadavg()[0])
    print(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    uvloop.run(main())

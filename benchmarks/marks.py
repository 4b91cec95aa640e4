"""What one feed of all US stocks costs each process: bytes and processor time, as one JSON line.

Every flush has a new mark of each of SYMBOLS symbols: more than any market brings. The consumer's part is
this process; a calculator's is one of its own that hears, decodes and takes in all of them. `full_feed`
reckons that up to FLUSHES_PER_S. `held` says of how many symbols, and of how many of PARTS parts of them, a
calculator's share of ACCOUNTS accounts holds any. `python -m benchmarks.marks`
"""

import asyncio
import multiprocessing
import os
import statistics
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from typing import Final

import msgspec
import numpy as np
import uvloop

from portfolio_harness.process_usage import cpu_s
from portfolio_realtime.model import Mark
from portfolio_realtime.state import State, open_state
from portfolio_realtime.state.connection import Message
from portfolio_realtime.state.embedded import EmbeddedServer
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.state.marks import decode_marks
from portfolio_realtime.valuation.valuer import Valuer

SYMBOLS: Final = 11_000
ACCOUNTS: Final = 100_000
POSITIONS: Final = 10  # of an account, drawn by popularity: the nth symbol with a weight of 1 / n
PARTS: Final = 16
CALCULATORS: Final = (1, 2, 4, 16, 64, 256)
FLUSHES: Final = 30  # of a round
ROUNDS: Final = 7  # after one that warms up
FLUSHES_PER_S: Final = 10  # MARK_FLUSH_INTERVAL at its default
SETTLE_S: Final = 2.0
HEARD_S_MAX: Final = 60.0
LEASE_MS: Final = 600_000
DAY_NS: Final = 86_400_000_000_000


def symbols() -> list[str]:
    """As many as there are, each with four letters."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    numbers = range(26**3, 26**3 + SYMBOLS)
    return ["".join(letters[number // 26**place % 26] for place in range(4)) for number in numbers]


def marks(names: list[str], flush: int) -> list[Mark]:
    """A mark of each, newer with each flush."""
    now_ns = 20_000 * DAY_NS + flush * 100_000_000
    return [
        Mark(
            symbol=name,
            price=round(10 + number * 0.07 + flush * 0.01, 2),
            as_of_ns=now_ns + number,
            version=now_ns,
            source="sip",
            previous_close=round(10 + number * 0.07, 2),
            previous_close_date="2026-11-20",
        )
        for number, name in enumerate(names)
    ]


async def follow(url: str, batches: int, rounds: int) -> list[tuple[float, int]]:
    """Be a calculator as far as marks go: seconds of the processor and bytes of each round."""
    state = open_state(url, holder="calculator", shards=1, lease_ms=LEASE_MS)
    valuer = Valuer(price_ttl_s=60, min_update_interval_s=1)
    found: list[tuple[float, int]] = []
    heard = size = 0
    began_s = time.process_time()
    async for event in state.marks.batches():
        if not isinstance(event, Message):
            continue
        if not heard:
            began_s = time.process_time()
        assert valuer.apply_marks(decode_marks(event.payload).marks)
        heard, size = heard + 1, size + len(event.payload)
        if heard == batches:
            found.append((time.process_time() - began_s, size))
            heard = size = 0
            if len(found) == rounds:
                break
    await state.close()
    return found


def follow_alone(url: str, batches: int, rounds: int) -> list[tuple[float, int]]:
    """The same in a process of its own."""
    return uvloop.run(follow(url, batches, rounds))


async def write(state: State, lease: Lease, flushes: list[list[Mark]], pid: int) -> tuple[float, float]:
    """Write these: seconds of this process and of the server."""
    own_s, server_s = time.process_time(), cpu_s(pid)
    for flush in flushes:
        await state.marks.write(lease, flush)
    await asyncio.sleep(SETTLE_S)
    return time.process_time() - own_s, cpu_s(pid) - server_s


async def feed() -> dict[str, float]:
    """Bytes and microseconds of one mark: medians of the rounds."""
    names = symbols()
    async with EmbeddedServer() as server:
        state = open_state(server.url, holder="consumer", shards=1, lease_ms=LEASE_MS)
        lease = await state.leases.acquire("market_data:stocks")
        assert lease is not None
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            loop = asyncio.get_running_loop()
            following = loop.run_in_executor(pool, follow_alone, server.url, FLUSHES, 1 + ROUNDS)
            await asyncio.sleep(2 * SETTLE_S)
            written = [
                await write(
                    state,
                    lease,
                    [marks(names, turn * FLUSHES + flush) for flush in range(FLUSHES)],
                    server.pid,
                )
                for turn in range(1 + ROUNDS)
            ]
            async with asyncio.timeout(HEARD_S_MAX):
                heard = await following
        await state.close()
    count = FLUSHES * SYMBOLS
    middle = statistics.median
    return {
        "announced_bytes": round(middle(size for _, size in heard[1:]) / count, 1),
        "consumer_us": round(1e6 * middle(own_s for own_s, _ in written[1:]) / count, 3),
        "server_us": round(1e6 * middle(server_s for _, server_s in written[1:]) / count, 3),
        "calculator_us": round(1e6 * middle(heard_s for heard_s, _ in heard[1:]) / count, 3),
    }


def held() -> dict[str, dict[str, float]]:
    """Which shares of the symbols, and of their parts, a calculator's accounts hold."""
    rng = np.random.default_rng(7)
    weights = 1 / np.arange(1, SYMBOLS + 1)
    book = rng.choice(SYMBOLS, (ACCOUNTS, POSITIONS), p=weights / weights.sum())
    part_of = np.array([zlib.crc32(name.encode()) % PARTS for name in symbols()])
    shares: dict[str, dict[str, float]] = {}
    for calculators in CALCULATORS:
        mine = np.unique(book[: ACCOUNTS // calculators])
        shares[str(calculators)] = {
            "symbols": round(len(mine) / SYMBOLS, 3),
            "parts": round(len(np.unique(part_of[mine])) / PARTS, 3),
        }
    return shares


async def measure() -> dict[str, object]:
    """All of it."""
    one = await feed()
    marks_per_s = SYMBOLS * FLUSHES_PER_S
    full = {
        "marks_per_s": marks_per_s,
        "announced_mbyte_per_s": round(one["announced_bytes"] * marks_per_s / 1e6, 2),
        **{
            f"{name}_cores": round(one[f"{name}_us"] * marks_per_s / 1e6, 3)
            for name in ("consumer", "server", "calculator")
        },
    }
    return {"mark": one, "full_feed": full, "held": held(), "load": round(os.getloadavg()[0])}


if __name__ == "__main__":
    print(msgspec.json.encode(uvloop.run(measure())).decode())

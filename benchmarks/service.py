"""The portfolio calculator as a process, beside a real Valkey: how it starts, and what holds it up.

`python -m benchmarks.service start --accounts 100000 --json`: from nothing to the first publication, and to
a complete book; with progress and peak memory.

`python -m benchmarks.service pause --accounts 100000 --json`: does the full pass of RECALCULATION_INTERVAL
delay publications? The same load twice, without full passes and with one a second.

`python -m benchmarks.service collect --accounts 1000 --rate-limit 1000 --json`: what bounds the cold start of
the symbol collector and of a server, beside a simulated Alpaca; with an empty Valkey, and once again.

`python -m benchmarks.service lose --accounts 100000 --json`: does what goes through all accounts delay them?
All are read again after a lost subscription, half of them are forgotten, the rest is packed.

This program plays everybody else, through the product's own writers: the symbol collector that has left the
records, the feed, a server with clients. It shares the machine with what it measures.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
import typer

from benchmarks.service_world import COMPLETE, KNOWN, PACKED, SHARDS, Seen, World, show, world
from benchmarks.valuation import Holdings, holdings
from portfolio_harness.progress import say
from portfolio_realtime.processes import end_all, end_with_parent
from portfolio_realtime.state import keys

START_S_MAX: Final = 600.0
CALCULATOR: Final = "portfolio_calculator"
SIMULATOR_SYMBOLS: Final = 500
COLLECT_S_MAX: Final = 1800.0

app = typer.Typer(add_completion=False, help=__doc__)


async def measure_start(held: Holdings, watched: int) -> dict[str, object]:
    """From the start of the process to the first value, to all watched values, to the complete book."""
    async with world(held, watched) as others:
        feeding = asyncio.create_task(others.feed())
        async with others.process(CALCULATOR) as calculator, asyncio.timeout(START_S_MAX):
            all_seen_s = await others.all_seen()
            await calculator.wait_for(COMPLETE)
            complete_s, cpu_s = calculator.seconds_until(COMPLETE), calculator.cpu_s()
            first_s = others.seen.first_s
            assert first_s is not None
            metrics = await others.metrics()
            result: dict[str, object] = {
                "accounts": held.accounts,
                "positions": held.columns.size,
                "watched": watched,
                "first_publication_s": round(first_s - calculator.started_s, 2),
                "all_watched_published_s": round(all_seen_s - calculator.started_s, 2),
                "complete_s": round(complete_s, 2),
                "complete_cpu_s": round(cpu_s, 2),
                "accounts_per_s": round(held.accounts / complete_s),
                "longest_pause_ms": round(1000 * metrics["calculator_longest_pause_seconds"], 1),
                "publications_meanwhile": others.seen.publications,
                "peak_mb": calculator.memory_mb("VmHWM"),
                "resident_mb": calculator.memory_mb("VmRSS"),
            }
        feeding.cancel()
        return result


@dataclass(frozen=True)
class Phase:
    """What was seen in one stretch of time under load."""

    full_passes: int
    full_pass_ms: float  # mean, other work in between included
    block_ms_at_most: float  # upper bound of the histogram's bucket with the longest block or refresh
    pause_ms_at_most: float  # the same for the delay of the event loop
    publications: int
    lag_ms_p50: float
    lag_ms_p99: float
    lag_ms_max: float


async def measure_phase(others: World, duration_s: float, recalculation_s: float) -> Phase:
    """Publications flow for `duration_s`, with a full pass every `recalculation_s`."""
    settings = {"RECALCULATION_INTERVAL": recalculation_s, "MIN_UPDATE_INTERVAL": 0.05}
    feeding = asyncio.create_task(others.feed())
    async with others.process(CALCULATOR, **settings) as calculator:
        async with asyncio.timeout(START_S_MAX):
            await calculator.wait_for(COMPLETE)
            await others.all_seen()
        before = await others.metrics()
        others.seen = Seen()
        await asyncio.sleep(duration_s)
        seen = others.seen
        after = await others.metrics()
        feeding.cancel()
    lags = sorted(seen.lags_ms)
    passes = after["recalculation_seconds_count"] - before.get("recalculation_seconds_count", 0)
    spent_s = after["recalculation_seconds_sum"] - before.get("recalculation_seconds_sum", 0)
    return Phase(
        full_passes=int(passes),
        full_pass_ms=round(1000 * spent_s / passes, 2) if passes else 0.0,
        block_ms_at_most=max(
            longest_ms(name, before, after)
            for name in ("recalculation_block_seconds", "book_refresh_seconds")
        ),
        pause_ms_at_most=longest_ms("calculator_pause_seconds", before, after),
        publications=seen.publications,
        lag_ms_p50=round(lags[len(lags) // 2], 2),
        lag_ms_p99=round(lags[int(len(lags) * 0.99)], 2),
        lag_ms_max=round(lags[-1], 2),
    )


def longest_ms(name: str, before: dict[str, float], after: dict[str, float]) -> float:
    """Upper bound of the histogram's highest bucket that has grown; 0: none has."""
    bounds = sorted(
        (key for key in after if key.startswith(f"{name}_bucket{{")),
        key=lambda key: float(key[key.index("{") + 1 : -1]),
    )
    at_most, below = 0.0, 0.0
    for key in bounds:
        grown = after[key] - before.get(key, 0)
        if grown > below:
            at_most, below = float(key[key.index("{") + 1 : -1]), grown
    return 1000 * at_most


async def measure_pause(held: Holdings, watched: int, duration_s: float) -> dict[str, object]:
    """The same load without and with full passes."""
    async with world(held, watched) as others:
        without = await measure_phase(others, duration_s, 100_000)
        say(f"without full passes: {without}")
        with_passes = await measure_phase(others, duration_s, 1)
        say(f"with one a second: {with_passes}")
    return {
        "accounts": held.accounts,
        "positions": held.columns.size,
        "watched": watched,
        "duration_s": duration_s,
        "without": msgspec.to_builtins(without),
        "with": msgspec.to_builtins(with_passes),
    }


async def measure_lose(held: Holdings, watched: int) -> dict[str, object]:
    """Half of the shards lose all records and every subscription is cut, while publications flow."""
    async with world(held, watched) as others:
        feeding = asyncio.create_task(others.feed())
        settings = {"RECALCULATION_INTERVAL": 1, "MIN_UPDATE_INTERVAL": 0.05}
        async with others.process(CALCULATOR, **settings) as calculator, asyncio.timeout(START_S_MAX):
            await calculator.wait_for(COMPLETE)
            before = await others.metrics()
            others.seen = Seen()
            commands, lost = others.state.connection.commands, range(0, SHARDS, 2)
            await commands.unlink(*(keys.accounts(shard) for shard in lost))
            began_s = time.monotonic()
            await commands.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            left = await others.state.accounts.count(range(SHARDS))
            while (after := await others.metrics())["valued_accounts"] != left:
                say(f"{after['valued_accounts']:.0f} accounts in the book, {left} are right")
            forgotten_s = time.monotonic() - began_s
            await calculator.wait_for(PACKED)
            after = await others.metrics()
            publications = others.seen.publications
        feeding.cancel()
    return {
        "accounts": held.accounts,
        "left": left,
        "forgotten_s": round(forgotten_s, 1),
        "pause_ms_at_most": longest_ms("calculator_pause_seconds", before, after),
        "block_ms_at_most": longest_ms("recalculation_block_seconds", before, after),
        "refresh_ms_at_most": longest_ms("book_refresh_seconds", before, after),
        "publications": publications,
    }


@contextlib.asynccontextmanager
async def simulator(accounts: int, rate_limit: int) -> AsyncGenerator[str]:
    """A simulated Alpaca whose accounts stand still; its URL."""
    options = {
        "port": 0,
        "accounts": accounts,
        "symbols": SIMULATOR_SYMBOLS,
        "rate-limit": rate_limit,
        "activities-per-second": 0,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "alpaca_sim"),
        *(text for name, value in options.items() for text in (f"--{name}", str(value))),
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=end_with_parent,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_S_MAX):
            ready = (await process.stdout.readline()).decode()
        yield ready.split()[3]
    finally:
        await end_all([process])


async def measure_collect(accounts: int, rate_limit: int) -> dict[str, object]:
    """Two lives of a collector and a server on one Valkey, the second with the records of the first."""
    held = holdings(1, 1, 1, 7)
    result: dict[str, object] = {"accounts": accounts, "rate_limit_per_min": rate_limit}
    async with world(held, 1, 0, clients=False) as others, simulator(accounts, rate_limit) as url:
        broker = {"ALPACA_BROKER_URL": url, "BROKER_API_KEY": "sim-key", "BROKER_SECRET_KEY": "sim-secret"}
        for life in ("empty", "filled"):
            async with (
                others.process("symbol_collector", **broker) as collector,
                others.process("websocket_server", WEBSOCKET_PORT=0, JWT_SECRET="") as server,
                asyncio.timeout(COLLECT_S_MAX),
            ):
                await server.wait_for("serving")
                await collector.wait_for(KNOWN)
                result[life] = {
                    "server_serving_s": round(server.seconds_until("serving"), 2),
                    "all_known_s": round(collector.seconds_until(KNOWN), 1),
                    "collector_cpu_s": round(collector.cpu_s(), 1),
                }
                say(f"{life}: {result[life]}")
    return result


Accounts = Annotated[int, typer.Option(min=1)]
Positions = Annotated[int, typer.Option(help="Per account", min=1)]
Json = Annotated[bool, typer.Option("--json", help="One JSON line")]


def _run(work: Coroutine[Any, Any, dict[str, object]], *, as_json: bool) -> None:
    show(asyncio.run(work), as_json=as_json)


@app.command()
def start(
    accounts: Accounts = 100_000,
    positions: Positions = 10,
    symbols: Annotated[int, typer.Option(min=1)] = 11_000,
    watched: Annotated[int, typer.Option(min=1)] = 1_000,
    as_json: Json = False,
) -> None:
    """A cold start from the records in Valkey."""
    _run(measure_start(holdings(accounts, positions, symbols, 7), watched), as_json=as_json)


@app.command()
def pause(
    accounts: Accounts = 100_000,
    positions: Positions = 10,
    symbols: Annotated[int, typer.Option(min=1)] = 11_000,
    watched: Annotated[int, typer.Option(min=1)] = 200,
    duration: Annotated[float, typer.Option(help="Seconds of each of the two phases", min=1)] = 20,
    as_json: Json = False,
) -> None:
    """Does the full pass delay publications?"""
    _run(measure_pause(holdings(accounts, positions, symbols, 7), watched, duration), as_json=as_json)


@app.command()
def lose(
    accounts: Accounts = 100_000,
    positions: Positions = 10,
    symbols: Annotated[int, typer.Option(min=1)] = 11_000,
    watched: Annotated[int, typer.Option(min=1)] = 200,
    as_json: Json = False,
) -> None:
    """Does what goes through all accounts delay publications?"""
    _run(measure_lose(holdings(accounts, positions, symbols, 7), watched), as_json=as_json)


@app.command()
def collect(
    accounts: Accounts = 1_000,
    rate_limit: Annotated[int, typer.Option(help="REST requests a minute", min=1)] = 1_000,
    as_json: Json = False,
) -> None:
    """The cold start of a symbol collector and a server."""
    _run(measure_collect(accounts, rate_limit), as_json=as_json)


if __name__ == "__main__":
    app()

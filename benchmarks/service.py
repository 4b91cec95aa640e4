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
import os
import random
import sys
import time
from collections.abc import AsyncGenerator, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.valuation import Holdings, holdings
from portfolio_realtime.clock import parse_rfc3339
from portfolio_realtime.model import Mark
from portfolio_realtime.processes import end_all, end_with_parent
from portfolio_realtime.state import State, keys, open_state
from portfolio_realtime.state.connection import Subscribed
from portfolio_realtime.state.embedded import EmbeddedServer
from portfolio_realtime.state.interest import RENEW_S
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.state.valuations import decode_batch
from portfolio_realtime.telemetry import PREFIX
from portfolio_realtime.wire.frames import text_of

SHARDS: Final = 16
LEASE_MS: Final = 3_600_000  # of this program, which renews none
WRITE_ACCOUNTS: Final = 1000
PROGRESS_ACCOUNTS: Final = 50_000
START_S_MAX: Final = 600.0
METRICS_S: Final = 2.5  # a little longer than a service takes to leave its metrics
FEED: Final = "sip"
FEED_S: Final = 0.1
MOVED_SHARE: Final = 0.02  # of the symbols, in each batch of marks
CALCULATOR: Final = "portfolio_calculator"
COMPLETE: Final = "accounts read"  # what the calculator says then
KNOWN: Final = "all accounts are known"  # what the symbol collector says
PACKED: Final = "book packed"
SHOWN: Final = ("reading accounts", COMPLETE, PACKED, "collecting", KNOWN)
SIMULATOR_SYMBOLS: Final = 500
COLLECT_S_MAX: Final = 1800.0

app = typer.Typer(add_completion=False, help=__doc__)


def say(text: str) -> None:
    """Progress, for people."""
    print(text, file=sys.stderr, flush=True)


def show(result: Mapping[str, object], *, as_json: bool) -> None:
    """The outcome: one JSON line, or a table."""
    if as_json:
        print(msgspec.json.encode(result).decode())
    else:
        for name, figure in result.items():
            print(f"{name:28} {figure}")


class Process:
    """One service in a process of its own, and what it says."""

    def __init__(self, process: asyncio.subprocess.Process, name: str, started_s: float) -> None:
        self.started_s = started_s
        self._process = process
        self._name = name
        self._said: dict[str, tuple[float, dict[str, Any]]] = {}  # event -> when, and the first line of it
        self._news = asyncio.Condition()
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            try:
                said = msgspec.json.decode(line)
            except msgspec.DecodeError:  # a traceback
                say(f"  {self._name}: {line.decode().rstrip()}")
                continue
            async with self._news:
                self._said.setdefault(said["event"], (time.monotonic(), said))
                self._news.notify_all()
            if said["event"] in SHOWN or said["level"] not in ("info", "debug"):
                words = (
                    "event",
                    "read",
                    "of",
                    "percent",
                    "accounts",
                    "known",
                    "listed",
                    "rows",
                    "seconds",
                    "reason",
                )
                say(f"  {self._name}: " + " ".join(f"{word}={said[word]}" for word in words if word in said))

    async def wait_for(self, event: str) -> dict[str, Any]:
        """The first line with this event."""
        async with self._news:
            await self._news.wait_for(lambda: event in self._said)
        return self._said[event][1]

    def seconds_until(self, event: str) -> float:
        """From the start of the process to the first line with this event."""
        return self._said[event][0] - self.started_s

    def memory_mb(self, name: str) -> float:
        """`VmRSS` (now) or `VmHWM` (at most) of the process."""
        return memory_mb(self._process.pid, name)

    def cpu_s(self) -> float:
        """Processor time that the process has used so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def end(self) -> None:
        """End the process."""
        await end_all([self._process])
        await self._listening


def memory_mb(pid: int, name: str) -> float:
    """`VmRSS` (now) or `VmHWM` (at most) of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return round(int(kilobytes) / 1024, 1)


@dataclass
class Seen:
    """What a server would have seen."""

    first_s: float | None = None  # monotonic time of the first publication
    accounts: set[str] = field(default_factory=set[str])
    publications: int = 0
    lags_ms: list[float] = field(default_factory=list[float])


class World:
    """Everybody but the calculator."""

    shards = SHARDS

    def __init__(self, state: State, url: str, lease: Lease, held: Holdings, watched: int) -> None:
        self.state = state
        self.seen = Seen()
        self.lease = lease
        self.held = held
        self._url = url
        self._random = random.Random(1)
        every = max(1, held.accounts // watched)
        self._watched = [held.account(index).account_id for index in range(0, held.accounts, every)][:watched]

    async def fill(self, records: int) -> None:
        """Leave records and all marks in Valkey, as the symbol collector and the consumer do."""
        for at in range(0, records, WRITE_ACCOUNTS):
            indices = range(at, min(at + WRITE_ACCOUNTS, records))
            await self.state.accounts.write(self.lease, [self.held.account(index) for index in indices])
            if (at + WRITE_ACCOUNTS) % PROGRESS_ACCOUNTS == 0:
                say(f"{at + WRITE_ACCOUNTS} records written")
        await self.move(range(self.held.symbols))

    async def move(self, columns: range | list[int]) -> None:
        """A trade of each of these symbols, now, on a feed that is live."""
        await self.state.feeds.keep(FEED)
        now_ns = time.time_ns()
        marks = [
            Mark(f"S{column:05d}", self._random.randrange(100, 100_000) / 100, now_ns, now_ns, FEED)
            for column in columns
        ]
        await self.state.marks.write(self.lease, marks)

    async def feed(self) -> None:
        """Some symbols trade, ten times a second, for ever."""
        moved = max(1, int(MOVED_SHARE * self.held.symbols))
        while True:
            await self.move(self._random.sample(range(self.held.symbols), moved))
            await asyncio.sleep(FEED_S)

    async def watch(self) -> None:
        """Clients watch the chosen accounts, for ever."""
        await self.state.interest.begin(self._watched)
        while True:
            await asyncio.sleep(RENEW_S)
            await self.state.interest.renew(self._watched, [])

    async def follow(self) -> None:
        """Receive what is published, for ever; the lag is from the newest trade in it to here."""
        async for message in self.state.valuations.batches():
            if isinstance(message, Subscribed):
                continue
            batch = decode_batch(message.payload)
            seen, now_s = self.seen, time.monotonic()
            seen.first_s = seen.first_s or now_s
            seen.publications += len(batch.frames)
            seen.accounts.update(batch.account_ids)
            value = msgspec.json.decode(text_of(batch.frames[-1]))
            seen.lags_ms.append((time.time_ns() - parse_rfc3339(value["as_of"])) / 1e6)

    async def all_seen(self) -> float:
        """Wait until every watched account has been published; monotonic time."""
        while len(self.seen.accounts) < len(self._watched):
            await asyncio.sleep(0.005)
        return time.monotonic()

    @contextlib.asynccontextmanager
    async def process(self, service: str, **settings: object) -> AsyncGenerator[Process]:
        """A service with these settings, from its first moment."""
        overrides = {"REDIS_URL": self._url, "LOG_FORMAT": "json", "SHARDS": SHARDS, **settings}
        started_s = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"portfolio_realtime.{service}"),
            env={**os.environ, **{name: str(value) for name, value in overrides.items()}},
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=end_with_parent,
        )
        running = Process(process, service, started_s)
        try:
            yield running
        finally:
            await running.end()

    async def metrics(self) -> dict[str, float]:
        """What the services count, without labels but `le`: `name` or `name{le}` -> value."""
        return await read_metrics(self.state)


async def read_metrics(state: State) -> dict[str, float]:
    """What the services count, without labels but `le`: `name` or `name{le}` -> value."""
    await asyncio.sleep(METRICS_S)
    found: dict[str, float] = {}
    for _, _, text in await state.metrics.read_all():
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                bound = f"{{{sample.labels['le']}}}" if "le" in sample.labels else ""
                found[sample.name.removeprefix(f"{PREFIX}_") + bound] = sample.value
    return found


@contextlib.asynccontextmanager
async def world(
    held: Holdings, watched: int, records: int | None = None, *, clients: bool = True
) -> AsyncGenerator[World]:
    """A Valkey of its own, filled with the first so many records; with or without watching clients."""
    server = EmbeddedServer()
    await server.start()
    state = open_state(server.url, holder="benchmark", shards=SHARDS, lease_ms=LEASE_MS)
    tasks: list[asyncio.Task[None]] = []
    try:
        lease = await state.leases.acquire("benchmark")
        assert lease is not None
        made = World(state, server.url, lease, held, watched)
        await made.fill(held.accounts if records is None else records)
        say(f"Valkey holds {memory_mb(server.pid, 'VmRSS'):.0f} MB")
        if clients:
            tasks = [asyncio.create_task(made.watch()), asyncio.create_task(made.follow())]
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await state.close()
        await server.stop()


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

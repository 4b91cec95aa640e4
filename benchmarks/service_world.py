"""One service as a process beside a real Valkey, with everybody else played: records, feed, clients."""

import asyncio
import contextlib
import os
import random
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.valuation import Holdings
from portfolio_harness import process_usage
from portfolio_harness.progress import say
from portfolio_realtime.clock import parse_rfc3339
from portfolio_realtime.model import Mark
from portfolio_realtime.processes import end_all, end_with_parent
from portfolio_realtime.state import State, open_state
from portfolio_realtime.state.connection import Subscribed
from portfolio_realtime.state.embedded import EmbeddedServer
from portfolio_realtime.state.interest import RENEW_S
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.state.valuations import decode_batch, is_stored
from portfolio_realtime.telemetry import PREFIX
from portfolio_realtime.wire.frames import text_of

SHARDS: Final = 16
LEASE_MS: Final = 3_600_000  # of this program, which renews none
WRITE_ACCOUNTS: Final = 1000
PROGRESS_ACCOUNTS: Final = 50_000
METRICS_S: Final = 2.5  # a little longer than a service takes to leave its metrics
FEED: Final = "sip"
FEED_S: Final = 0.1
MOVED_SHARE: Final = 0.02  # of the symbols, in each batch of marks
COMPLETE: Final = "accounts read"  # what the calculator says then
KNOWN: Final = "all accounts are known"  # what the symbol collector says
PACKED: Final = "book packed"
SHOWN: Final = ("reading accounts", COMPLETE, PACKED, "collecting", KNOWN)


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
        return process_usage.cpu_s(self._process.pid)

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
        self._rng = random.Random(1)
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
            Mark(f"S{column:05d}", self._rng.randrange(100, 100_000) / 100, now_ns, now_ns, FEED)
            for column in columns
        ]
        await self.state.marks.write(self.lease, marks)

    async def feed(self) -> None:
        """Some symbols trade, ten times a second, for ever."""
        moved = max(1, int(MOVED_SHARE * self.held.symbols))
        while True:
            await self.move(self._rng.sample(range(self.held.symbols), moved))
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
            if is_stored(message.payload):
                continue
            batch = decode_batch(message.payload)
            if not batch.frames:
                continue
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
    async with EmbeddedServer() as server:
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

"""What each process receives from one feed of all US stocks: `python -m benchmarks.full_feed --json`.

A simulated Alpaca trades 11,000 symbols. One consumer, calculators, servers with clients and a cluster are
processes of their own. This program plays the symbol collector: it has written the records, which is all that
the others ever hear of a collector while nothing is booked. The first half of the time counts bytes (the
kernel's, of each socket) and processor time; in the second half one more follower counts messages.
"""

import asyncio
import contextlib
import os
import re
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import httpx
import msgspec
import typer

from benchmarks.compare import usage
from benchmarks.compare.load import PROCESSES, TOKEN_S, Used
from benchmarks.provenance import provenance
from benchmarks.scaleout.arrangement import SHARDS, Arrangement, services, valkey
from benchmarks.valuation import Holdings, holdings
from portfolio_harness.client_processes import ClientProcesses, allow_files
from portfolio_harness.progress import say
from portfolio_harness.system import (
    SIMULATOR_KEY,
    SIMULATOR_SECRET,
    settings_for,
    simulator_options,
    start_simulator,
    token,
    wait_ready,
)
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.errors import PortfolioRealtimeError
from portfolio_realtime.model import US_EQUITY, Account
from portfolio_realtime.processes import end_all
from portfolio_realtime.state import State, feeds, keys, open_state
from portfolio_realtime.state.connection import Message
from portfolio_realtime.state.interest import server_name
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.state.marks import decode_marks
from portfolio_realtime.state.valuations import decode_batch, is_stored

COLLECTOR: Final = "symbol_collector"  # its lease
POSITIONS: Final = 10
WRITE_ACCOUNTS: Final = 1000
LEASE_MS: Final = 3_600_000  # of this program, which renews none
LIFE_S: Final = 1.0
SETTLE_S: Final = 3.0
READ_S_MAX: Final = 300.0
WHOLE: Final = "portfolio_realtime_accounts_read_ratio 1.0\n"
ALPACA: Final = "Alpaca"
FEW_ACCOUNTS: Final = 10  # of the simulator, which nobody asks about
MEASURED: Final = ("market_data_consumer", "portfolio_calculator", "websocket_server", "valkey")
SOCKETS: Final = ("ss", "--tcp", "--info", "--numeric", "--processes", "--no-header", "--oneline")
PID: Final = re.compile(r"pid=(\d+)")
RECEIVED: Final = re.compile(r"bytes_received:(\d+)")

Socket = tuple[int, str, str]
"""Process, own address, the other's address."""


@dataclass(frozen=True)
class Feed:
    """What is asked of the system."""

    symbols: int
    trades_per_s: float
    accounts: int
    viewers: int
    duration_s: float  # of each half
    seed: int


def received() -> dict[Socket, int]:
    """Bytes that each open socket of this machine has received."""
    text = subprocess.run([*SOCKETS, "state", "established"], capture_output=True, text=True, check=True)
    found: dict[Socket, int] = {}
    for line in text.stdout.splitlines():
        _, _, own, other, *_ = line.split()
        if (pid := PID.search(line)) and (size := RECEIVED.search(line)):
            found[int(pid[1]), own, other] = int(size[1])
    return found


@dataclass(frozen=True)
class Sample:
    """Processor seconds, and bytes of each socket, until a moment."""

    cpu_s: Mapping[int, float]
    sizes: Mapping[Socket, int]

    @classmethod
    def now(cls, pids: Sequence[int]) -> "Sample":
        """Until now, of these processes."""
        return cls({pid: usage.cpu_s([pid]) for pid in pids}, received())


def by_process(names: Mapping[int, str], before: Sample, after: Sample, seconds: float) -> dict[str, Any]:
    """Name of a process -> its busy cores, and kilobytes a second from each kind of neighbour."""
    kinds = {own: names[pid] for pid, own, _ in after.sizes if pid in names}
    found: dict[str, Any] = {}
    for pid, name in sorted(names.items(), key=lambda one: one[1]):
        if name == ALPACA:
            continue
        sources = Counter[str]()
        for (owner, own, other), size in after.sizes.items():
            if owner == pid:
                grown = size - before.sizes.get((owner, own, other), 0)
                sources[kinds.get(other, "outside").partition("-")[0]] += grown
        found[name] = {
            "cores": round((after.cpu_s[pid] - before.cpu_s.get(pid, 0.0)) / seconds, 3),
            "kbyte_per_s": {kind: round(size / seconds / 1000, 1) for kind, size in sources.items() if size},
        }
    return found


class Collector:
    """Plays the symbol collector: the records of all accounts, the universe, and a sign of life."""

    def __init__(self, state: State, lease: Lease, held: Holdings, symbols: Sequence[str]) -> None:
        self._state = state
        self._lease = lease
        self._held = held
        self._symbols = symbols

    def account(self, index: int) -> Account:
        """A record with the simulator's symbols."""
        made = self._held.account(index)
        places = self._held.columns[index].tolist()
        positions = tuple(
            msgspec.structs.replace(position, symbol=self._symbols[place])
            for position, place in zip(made.positions, places, strict=True)
        )
        return msgspec.structs.replace(made, positions=positions)

    async def fill(self) -> None:
        """Write everything."""
        for at in range(0, self._held.accounts, WRITE_ACCOUNTS):
            indices = range(at, min(at + WRITE_ACCOUNTS, self._held.accounts))
            await self._state.accounts.write(self._lease, [self.account(index) for index in indices])
        await self._state.accounts.write_listed(self._lease, range(SHARDS))
        universe = dict.fromkeys(self._symbols, US_EQUITY)
        await self._state.accounts.write_universe(self._lease, universe, [])

    async def live(self) -> None:
        """Say for ever that the broker can be followed."""
        while True:
            await self._state.feeds.keep(feeds.ACCOUNTS)
            await asyncio.sleep(LIFE_S)


@contextlib.asynccontextmanager
async def collected(url: str, feed: Feed, symbols: Sequence[str]) -> AsyncGenerator[tuple[State, Collector]]:
    """The records are there, and somebody says that they are current."""
    state = open_state(url, holder="benchmark", shards=SHARDS, lease_ms=LEASE_MS)
    living: asyncio.Task[None] | None = None
    try:
        await state.connection.wait_ready(SETTLE_S)
        lease = await state.leases.acquire(COLLECTOR)
        assert lease is not None
        collector = Collector(
            state, lease, holdings(feed.accounts, POSITIONS, len(symbols), feed.seed), symbols
        )
        living = asyncio.create_task(collector.live())
        await collector.fill()
        say(f"{feed.accounts:,} records are written")
        yield state, collector
    finally:
        if living is not None:
            await cancel_until_ended([living])
        await state.close()


async def wait_read(state: State, calculators: int) -> None:
    """Wait until the calculators have read all records: until then they hear these, too."""
    async with asyncio.timeout(READ_S_MAX):
        while True:
            found = await state.metrics.read_all()
            if sum(WHOLE in text for _, _, text in found) == calculators:
                return
            await asyncio.sleep(LIFE_S)


async def symbols_of(simulator_url: str) -> list[str]:
    """The stocks that the simulator trades."""
    login = (SIMULATOR_KEY, SIMULATOR_SECRET)
    async with httpx.AsyncClient(base_url=simulator_url, auth=login, trust_env=False) as http:
        answer = await http.get("/v1/assets", params={"asset_class": "us_equity"})
        return sorted(one["symbol"] for one in answer.raise_for_status().json())


async def messages(state: State, duration_s: float) -> dict[str, Any]:
    """Kind of channel -> messages and kilobytes a second, and what is in a message of it."""
    found = await state.metrics.read_all()
    servers = [
        server_name(f"{service}:{instance}")
        for service, instance, _ in found
        if service == "websocket_server"
    ]
    kinds = {keys.marks(): "marks", keys.universe(): "universe"}
    for shard in range(SHARDS):
        kinds |= {keys.accounts(shard): "accounts", keys.interest(shard): "interest"}
        kinds[keys.valuations(shard)] = "signs of life"
        for server in servers:
            kinds[keys.server_valuations(shard, server)] = "publications"
    counts, sizes, items = Counter[str](), Counter[str](), Counter[str]()

    async def count() -> None:
        async for event in state.connection.follow(*kinds):
            if not isinstance(event, Message):
                continue
            kind = kinds[event.channel]
            counts[kind] += 1
            sizes[kind] += len(event.payload)
            if kind == "marks":
                items[kind] += len(decode_marks(event.payload).marks)
            elif kind == "publications" and not is_stored(event.payload):
                items[kind] += len(decode_batch(event.payload).frames)

    counting = asyncio.create_task(count())
    await asyncio.sleep(SETTLE_S)
    for counter in (counts, sizes, items):
        counter.clear()
    await asyncio.sleep(duration_s)
    seen = {
        kind: {
            "messages_per_s": round(counts[kind] / duration_s, 1),
            "kbyte_per_s": round(sizes[kind] / duration_s / 1000, 1),
            "items_per_s": round(items[kind] / duration_s, 1),
        }
        for kind in sorted(set(kinds.values()))
    }
    await cancel_until_ended([counting])
    return seen


def numbered(pid: int, simulator_pid: int) -> dict[int, str]:
    """Process id -> name and number, of the product's processes and the simulator."""
    names, numbers = {simulator_pid: ALPACA}, Counter[str]()
    for one, command in sorted(usage.tree(pid).items()):
        name = next((name for part, name in PROCESSES.items() if part in command), None)
        if name in MEASURED:
            numbers[name] += 1
            names[one] = f"{name}-{numbers[name]}"
    return names


async def measure(feed: Feed, arrangement: Arrangement) -> dict[str, Any]:
    """Bring everything up and measure it. Raises SystemFailed, ClientsFailed."""
    options = simulator_options(FEW_ACCOUNTS, feed.symbols, feed.trades_per_s, feed.seed)
    simulator, simulator_url = await start_simulator(options)
    secret = secrets.token_urlsafe(48)
    try:
        symbols = await symbols_of(simulator_url)
        async with (
            valkey(arrangement.primaries) as url,
            collected(url, feed, symbols) as (state, collector),
        ):
            settings = {
                **settings_for(simulator_url, 0, secret),
                "REDIS_URL": url,
                "SHARDS": str(SHARDS),
                "LOG_LEVEL": "warning",
                "ALPACA_DATA_FEED": "sip",
            }
            async with services(arrangement, settings, collectors=0) as servers:
                await asyncio.gather(*map(wait_ready, servers))
                await wait_read(state, arrangement.calculators)
                every = max(1, feed.accounts // feed.viewers)
                watched = [collector.account(place * every).account_id for place in range(feed.viewers)]
                return await watch(feed, servers, watched, secret, simulator.pid, state)
    finally:
        await end_all([simulator])


async def watch(
    feed: Feed, urls: Sequence[str], watched: Sequence[str], secret: str, simulator_pid: int, state: State
) -> dict[str, Any]:
    """Connect the clients and measure, first processes, then channels."""
    async with contextlib.AsyncExitStack() as ended:
        for place, url in enumerate(urls):
            own = watched[place :: len(urls)]
            clients = await ended.enter_async_context(
                ClientProcesses(
                    url, own, lambda one: token(secret, f"client of {one}", [one], TOKEN_S), interval_s=1.0
                )
            )
            await clients.start(len(own))
        say(f"{len(watched):,} clients have a value")
        await asyncio.sleep(SETTLE_S)
        names, used = numbered(os.getpid(), simulator_pid), Used.now()
        before = Sample.now(list(names))
        await asyncio.sleep(feed.duration_s)
        after = Sample.now(list(names))
        others_share = used.others_share()
        return {
            "processes": by_process(names, before, after, feed.duration_s),
            "channels": await messages(state, feed.duration_s),
            "others_share": round(others_share, 3),
        }


def main(
    symbols: Annotated[int, typer.Option(min=1)] = 11_000,
    trades: Annotated[float, typer.Option(min=1, help="Trades a second, over all symbols.")] = 5_000,
    accounts: Annotated[int, typer.Option(min=1)] = 100_000,
    viewers: Annotated[int, typer.Option(min=1, help="Clients, each of an account of its own.")] = 1_000,
    calculators: Annotated[int, typer.Option(min=1)] = 2,
    servers: Annotated[int, typer.Option(min=1)] = 2,
    primaries: Annotated[int, typer.Option(min=1, help="1: a single server.")] = 3,
    duration: Annotated[float, typer.Option(min=1, help="Seconds of each half.")] = 20.0,
    seed: int = 7,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure, and print a table or one JSON object."""
    feed = Feed(symbols, trades, accounts, viewers, duration, seed)
    arrangement = Arrangement("full feed", calculators=calculators, servers=servers, primaries=primaries)
    try:
        allow_files(viewers)
        found = asyncio.run(measure(feed, arrangement))
    except PortfolioRealtimeError as error:
        sys.exit(str(error))
    if as_json:
        asked = {"feed": msgspec.to_builtins(feed), "arrangement": msgspec.to_builtins(arrangement)}
        print(msgspec.json.format(msgspec.json.encode({**provenance(), **asked, **found})).decode())
        return
    for name, one in found["processes"].items():
        print(f"{name:26}{one['cores']:7.3f} cores  from {one['kbyte_per_s']} KB/s")
    for kind, one in found["channels"].items():
        print(f"{kind:26}{one['messages_per_s']:9.1f} messages/s {one['kbyte_per_s']:9.1f} KB/s {one}")


if __name__ == "__main__":
    typer.run(main)

"""Does memory grow? An hour of a broker's coming and going, in minutes.

`python -m benchmarks.churn --duration 180 --json --chart docs/images/churn.svg`

Accounts are opened and closed, trade, and are watched by clients that come and go, as often as in HOUR; a
real calculator, a real WebSocket server and a real Valkey serve them. This program plays the symbol collector
and the feed, through the product's own writers, and the clients. Afterwards everybody leaves, and what is
then left of the guests is counted. `benchmarks.churn_whole` does the same with all four services.

The verdict is the slope of the memory after a third of the time, by the median of all pairs (Theil and Sen),
which a few odd samples do not move: what an hour adds. Exit code 1 if it is too much.
"""

import asyncio
import contextlib
import random
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from benchmarks.service import START_S_MAX
from benchmarks.service_world import COMPLETE, Process, World, read_metrics, show, world
from benchmarks.valuation import holdings
from portfolio_harness.progress import say
from portfolio_realtime.model import Account
from portfolio_realtime.state import State, keys
from portfolio_realtime.state.interest import INTEREST_MS

SYMBOLS: Final = 500
SESSION_S: Final = 5.0  # a client stays so long
SAMPLE_S: Final = 1.0
WARM_UP_SHARE: Final = 1 / 3
LEAVE_S: Final = INTEREST_MS / 1000 + 10  # interest has run out and the calculator has looked
GROWTH_SHARE_MAX: Final = 0.03  # an hour may add so much of the memory, or …
GROWTH_MB_MAX: Final = 3.0  # … so much: allocators breathe
COLOURS: Final = ("#2fb985", "#4a90d9", "#d98a2b", "#b06fd0", "#d0506f")


@dataclass(frozen=True)
class Hour:
    """How often things happen in an hour, for each account that there is."""

    trades: float = 10.0
    sessions: float = 3.0  # of clients; every second with positions
    opened: float = 0.2  # accounts opened, and as many closed


HOUR: Final = Hour()


Look = Callable[[], Awaitable[dict[str, float]]]  # memory in MB now, by what uses it


@dataclass
class Sampled:
    """Memory over time, in MB, by what uses it."""

    at_s: list[float] = field(default_factory=list[float])
    memory: dict[str, list[float]] = field(default_factory=dict[str, list[float]])


class Churn:
    """A broker's population in motion."""

    def __init__(self, others: World, url: str, accounts: int, duration_s: float, hours: float) -> None:
        self.counts = {"trades": 0, "opened": 0, "closed": 0, "sessions": 0, "messages": 0, "broken": 0}
        self._others = others
        self._url = url.replace("http", "ws", 1)
        self._duration_s = duration_s
        self._per_s = accounts * hours / duration_s  # what happens once an hour and account
        self._rng = random.Random(3)
        self._version = 1
        self._oldest = 0  # accounts are numbers; those from here to before `_next` are open
        self._next = accounts
        self._clients: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """The hours' events, evenly spread over the duration; then everybody leaves."""
        await asyncio.gather(
            self._repeat(HOUR.trades * self._per_s, self._trade),
            self._repeat(HOUR.opened * self._per_s, self._replace),
            self._repeat(HOUR.sessions * self._per_s, self._visit),
        )
        await asyncio.gather(*self._clients)

    async def _repeat(self, per_s: float, act: Any) -> None:
        began_s, done = time.monotonic(), 0
        while (elapsed_s := time.monotonic() - began_s) < self._duration_s:
            for _ in range(int(elapsed_s * per_s) - done):
                await act()
                done += 1
            await asyncio.sleep(0.02)

    def _record(self, number: int) -> Account:
        """The newest record of an account: another quantity and cash, sometimes a position more."""
        self._version += 1
        account = self._others.held.account(number)
        first, *rest = account.positions
        changed = msgspec.structs.replace(first, quantity=Decimal(self._rng.randrange(-500, 500)))
        kept = rest[: self._rng.randrange(5, len(rest) + 1)]
        return msgspec.structs.replace(
            account,
            version=self._version,
            cash=Decimal(self._rng.randrange(10**8)) / 100,
            positions=(changed, *kept),
            as_of_ns=time.time_ns(),
        )

    async def _trade(self) -> None:
        number = self._rng.randrange(self._oldest, self._next)
        await self._others.state.accounts.write(self._others.lease, [self._record(number)])
        self.counts["trades"] += 1

    async def _replace(self) -> None:
        """The oldest account is closed, a new one is opened."""
        state, lease = self._others.state, self._others.lease
        await state.accounts.write(lease, [self._record(self._next)])
        await state.accounts.remove(lease, [self._others.held.account(self._oldest).account_id])
        self._next += 1
        self._oldest += 1
        self.counts["opened"] += 1
        self.counts["closed"] += 1

    async def _visit(self) -> None:
        self.counts["sessions"] += 1
        task = asyncio.create_task(self._session(self.counts["sessions"]))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _session(self, number: int) -> None:
        """One client: connect, read for a while, leave."""
        account_id = self._others.held.account(self._rng.randrange(self._oldest, self._next)).account_id
        await visit(self._url, account_id, self.counts, has_detail=bool(number % 2))


async def visit(url: str, account_id: str, counts: dict[str, int], *, has_detail: bool) -> None:
    """One client: connect, read for SESSION_S, leave. Its messages and a broken connection are counted."""
    detail = "?detail=positions" if has_detail else ""
    try:
        async with connect(f"{url}/ws/portfolio/{account_id}{detail}", compression=None) as client:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SESSION_S):
                    async for _ in client:
                        counts["messages"] += 1
    except (OSError, WebSocketException, TimeoutError):
        counts["broken"] += 1


async def used_mb(state: State) -> float:
    """What Valkey's contents take."""
    return round((await state.connection.commands.info("memory"))["used_memory"] / 2**20, 2)


async def sample(look: Look, sampled: Sampled, duration_s: float) -> None:
    """Memory of everything once a second, with a line now and then."""
    began_s = time.monotonic()
    while True:
        now = await look()
        sampled.at_s.append(time.monotonic() - began_s)
        for name, megabytes in now.items():
            sampled.memory.setdefault(name, []).append(megabytes)
        if len(sampled.at_s) % 15 == 0:
            say(f"{sampled.at_s[-1]:4.0f} of {duration_s:.0f} s: {now} MB")
        await asyncio.sleep(SAMPLE_S)


def growth_mb(
    at_s: Sequence[float], megabytes: Sequence[float], duration_s: float, warm_up_share: float
) -> float:
    """What the duration adds, by the median slope of all pairs of samples after warming up."""
    first = next(index for index, second in enumerate(at_s) if second >= duration_s * warm_up_share)
    points = list(zip(at_s[first:], megabytes[first:], strict=True))
    slopes = [(later[1] - one[1]) / (later[0] - one[0]) for one, later in combinations(points, 2)]
    return statistics.median(slopes) * duration_s


def judged(
    sampled: Sampled, duration_s: float, hours: float, warm_up_share: float = WARM_UP_SHARE
) -> dict[str, Any]:
    """Memory at the end, what an hour adds, and whose is too much."""
    last = {name: megabytes[-1] for name, megabytes in sampled.memory.items()}
    growth = {
        name: round(growth_mb(sampled.at_s, megabytes, duration_s, warm_up_share) / hours, 2)
        for name, megabytes in sampled.memory.items()
    }
    too_much = [
        name for name, added in growth.items() if added > max(GROWTH_MB_MAX, GROWTH_SHARE_MAX * last[name])
    ]
    return {"memory_mb": last, "added_by_an_hour_mb": growth, "grows": too_much}


async def left(state: State, shards: int) -> dict[str, int]:
    """What remains in Valkey and in the services when everybody has gone."""
    of_services = await read_metrics(state)
    every, commands = range(shards), state.connection.commands
    return {
        "records": await state.accounts.count(every),
        "stored_publications": sum([len(await state.valuations.read_ids(shard)) for shard in every]),
        "interest": sum([await commands.zcard(keys.interest(shard)) for shard in every]),
        "accounts_in_book": int(of_services["valued_accounts"]),
        "watched": int(of_services["watched_accounts"]),
        "connections": int(of_services["connections"]),
    }


@contextlib.asynccontextmanager
async def serving(others: World) -> AsyncGenerator[tuple[dict[str, Process], str]]:
    """A calculator and a WebSocket server at work; where the server is."""
    async with (
        others.process("portfolio_calculator", RECALCULATION_INTERVAL=1) as calculator,
        others.process("websocket_server", WEBSOCKET_PORT=0, JWT_SECRET="") as server,
    ):
        async with asyncio.timeout(START_S_MAX):
            await calculator.wait_for(COMPLETE)
            said = await server.wait_for("serving")
        yield {"portfolio_calculator": calculator, "websocket_server": server}, said["url"]


async def measure(
    accounts: int, positions: int, duration_s: float, hours: float, chart: Path | None
) -> dict[str, object]:
    """The hours; their figures."""
    guests = int(accounts * hours * HOUR.opened) + 2
    held = holdings(accounts + guests, positions, SYMBOLS, 7)
    async with world(held, watched=1, records=accounts, clients=False) as others:
        sampled = Sampled()
        async with contextlib.AsyncExitStack() as stack:
            processes, url = await stack.enter_async_context(serving(others))
            churn = Churn(others, url, accounts, duration_s, hours)

            async def look() -> dict[str, float]:
                now = {name: process.memory_mb("VmRSS") for name, process in processes.items()}
                return {**now, "valkey": await used_mb(others.state)}

            helpers = [
                asyncio.create_task(others.feed()),
                asyncio.create_task(sample(look, sampled, duration_s)),
            ]
            await churn.run()
            helpers[1].cancel()
            say(f"everybody has left; looking again in {LEAVE_S:.0f} s")
            await asyncio.sleep(LEAVE_S)
            remains = await left(others.state, others.shards)
            helpers[0].cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
    if chart is not None:
        draw(sampled, duration_s, hours, chart)
    memory = judged(sampled, duration_s, hours)
    expected = {"records": accounts, "accounts_in_book": accounts}
    forgotten = all(count == expected.get(name, 0) for name, count in remains.items())
    return {
        "accounts": accounts,
        "hours": hours,
        "duration_s": duration_s,
        **churn.counts,
        **memory,
        "left": remains,
        "is_steady": not memory["grows"] and forgotten,
    }


def draw(
    sampled: Sampled, duration_s: float, hours: float, path: Path, warm_up_share: float = WARM_UP_SHARE
) -> None:
    """Memory over time; readable on light and dark ground."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    grey = "#808080"
    with pyplot.rc_context({"text.color": grey, "axes.labelcolor": grey, "svg.hashsalt": "churn"}):
        figure, axes = pyplot.subplots(figsize=(7, 3.2))
        for colour, (name, megabytes) in zip(COLOURS, sampled.memory.items(), strict=False):
            axes.plot(sampled.at_s, megabytes, color=colour, label=name)
        axes.axvspan(0, duration_s * warm_up_share, color=grey, alpha=0.12, linewidth=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(f"seconds; {duration_s / hours:.0f} are an hour's worth, the grey part is warming up")
        axes.set_ylabel("MB")
        axes.tick_params(colors=grey)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.legend(frameon=False)
        figure.tight_layout()
        figure.savefig(path, transparent=True, metadata={"Date": None})


def main(
    accounts: Annotated[int, typer.Option(min=10)] = 2_000,
    positions: Annotated[int, typer.Option(help="Per account", min=7)] = 10,
    duration: Annotated[float, typer.Option(help="Seconds in all", min=10)] = 180,
    hours: Annotated[float, typer.Option(help="Hours' worth in that time", min=0.1)] = 1,
    chart: Annotated[Path | None, typer.Option(help="Draw memory over time into this SVG")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line")] = False,
) -> None:
    """Does memory grow? An hour of coming and going, in minutes."""
    result = asyncio.run(measure(accounts, positions, duration, hours, chart))
    show(result, as_json=as_json)
    sys.exit(0 if result["is_steady"] else 1)


if __name__ == "__main__":
    typer.run(main)

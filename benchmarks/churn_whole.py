"""Does memory grow anywhere? An hour of a broker's coming and going in minutes, with the whole system.

`python -m benchmarks.churn_whole --duration 360 --json --chart docs/images/churn-whole.svg`

A simulated Alpaca, Valkey and all four services. Accounts are opened with a symbol of their own, trade, are
paid, are watched by clients that come and go, and are closed, as often as in HOUR: all accounts are replaced
three times. So everything that is kept for an account, a symbol held or a day's booking must be level once
the first accounts have gone, and what still grows then is kept for nothing.

The clocks run as ever: an hour's events come in minutes, an hour itself does not. What is kept by the clock
(minute marks for 36 hours, the mark of a symbol that nobody holds for 15 minutes) still grows within the run.
The simulator keeps every activity by design; it is shown and not judged.
"""

import asyncio
import random
import sys
import time
from collections import deque
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer

from benchmarks.churn import Hour, Sampled, draw, judged, left, sample, used_mb, visit
from benchmarks.service_world import SHARDS, memory_mb, show
from portfolio_harness.progress import say
from portfolio_harness.system import System, running, wait_known
from portfolio_realtime.state import State, open_state

HOUR: Final = Hour(trades=30.0, sessions=10.0, opened=3.0)
SYMBOLS: Final = 100  # that are listed all the time
COMMON: Final = 5  # of these, in a new account
PAID_SHARE: Final = 0.2  # of the activities are deposits, withdrawals and fees
NEW_COUNT: Final = 10  # the newest accounts are not visited: they may not be known yet
COLLECTION_S: Final = 20.0  # the collector's interval: a closed account is gone after twice that
WARM_UP_SHARE: Final = 1 / 2  # the first accounts have gone after a third, and are forgotten soon after
FORMER: Final = 1000  # clients who left long ago: Alpaca lists 1000 accounts a page, and this one is full
LEAVE_S_MAX: Final = 120.0
RATE_LIMIT: Final = 100_000
NOT_JUDGED: Final = "simulator"


class Broker:
    """The simulated broker's clients and their guests, moved through the simulator's levers."""

    def __init__(self, system: System, client: httpx.AsyncClient, held: dict[str, list[str]]) -> None:
        self.open: deque[str] = deque(held)
        self.counts = {"activities": 0, "opened": 0, "closed": 0, "sessions": 0, "messages": 0, "broken": 0}
        self._url = system.url.replace("http", "ws", 1)
        self._client = client
        self._common = sorted({symbol for symbols in held.values() for symbol in symbols})
        self._rng = random.Random(5)
        self._guests: set[asyncio.Task[None]] = set()

    async def run(self, accounts: int, duration_s: float, hours: float) -> None:
        """The hours' events, evenly spread over the duration; then everybody leaves."""
        per_s = accounts * hours / duration_s
        await asyncio.gather(
            self._repeat(HOUR.trades * per_s, duration_s, self._act),
            self._repeat(HOUR.opened * per_s, duration_s, self._replace),
            self._repeat(HOUR.sessions * per_s, duration_s, self._visit),
        )
        await asyncio.gather(*self._guests)

    async def remember_former(self) -> None:
        """Accounts that were closed before we looked: they stay in the broker's list for ever."""
        for _ in range(FORMER):
            answer = await self._pull("accounts", cash="0", positions={})
            await self._pull("status", account_id=answer["account_id"], status="ACCOUNT_CLOSED")

    async def _repeat(self, per_s: float, duration_s: float, act: Any) -> None:
        began_s, done = time.monotonic(), 0
        while (elapsed_s := time.monotonic() - began_s) < duration_s:
            for _ in range(int(elapsed_s * per_s) - done):
                await act()
                done += 1
            await asyncio.sleep(0.02)

    async def _pull(self, lever: str, **body: object) -> Any:
        answer = await self._client.post(f"/_sim/{lever}", json=body)
        answer.raise_for_status()
        return answer.json()

    async def _act(self) -> None:
        account_id = self._rng.choice(self.open)
        self.counts["activities"] += 1
        if self._rng.random() < PAID_SHARE:
            kind = self._rng.choice(("CSD", "CSW", "FEE"))
            amount = f"{self._rng.randrange(1, 10**5) / 100:.2f}"
            await self._pull("cash", account_id=account_id, activity_type=kind, amount=amount)
        else:
            quantity = self._rng.choice((-3, -2, -1, 1, 2, 3))
            symbol = self._rng.choice(self._common)
            await self._pull("trade", account_id=account_id, symbol=symbol, quantity=str(quantity))

    async def _replace(self) -> None:
        """A new account with a symbol that nobody has held before; the oldest account is closed."""
        self.counts["opened"] += 1
        own = f"ZZ{self.counts['opened']:05d}"
        await self._pull("symbols", symbol=own, price="10")
        positions = dict.fromkeys([own, *self._rng.sample(self._common, COMMON)], "7")
        answer = await self._pull("accounts", cash="1000", positions=positions)
        self.open.append(answer["account_id"])
        await self._pull("status", account_id=self.open.popleft(), status="ACCOUNT_CLOSED")
        self.counts["closed"] += 1

    async def _visit(self) -> None:
        self.counts["sessions"] += 1
        task = asyncio.create_task(self._session(self.counts["sessions"]))
        self._guests.add(task)
        task.add_done_callback(self._guests.discard)

    async def _session(self, number: int) -> None:
        """One client: connect, read for a while, leave."""
        account_id = self.open[self._rng.randrange(max(1, len(self.open) - NEW_COUNT))]
        await visit(self._url, account_id, self.counts, has_detail=bool(number % 2))


async def all_left(state: State, accounts: int) -> tuple[dict[str, int], bool]:
    """Wait until all traces of those who have gone are gone; what is there then, and whether it is right."""
    give_up_s = time.monotonic() + LEAVE_S_MAX
    while True:
        remains = await left(state, SHARDS)
        expected = {"records": accounts, "accounts_in_book": accounts}
        is_forgotten = all(count == expected.get(name, 0) for name, count in remains.items())
        if is_forgotten or time.monotonic() > give_up_s:
            return remains, is_forgotten
        say(f"everybody has left: {remains}")


async def churn(
    system: System, state: State, accounts: int, duration_s: float, hours: float, sampled: Sampled
) -> dict[str, object]:
    """The hours on a running system; counts, and what is left of them."""
    pids = system.pids

    async def look() -> dict[str, float]:
        now = {name: memory_mb(pid, "VmRSS") for name, pid in pids.items() if name != "valkey"}
        return {**now, "valkey": await used_mb(state)}

    await wait_known(system.url, accounts, lambda known: say(f"{known} of {accounts} accounts known"))
    truth = await system.oracle.truth()
    held = {account_id: list(one.market_values) for account_id, one in truth.items()}
    async with httpx.AsyncClient(base_url=system.simulator_url, timeout=60) as client:
        broker = Broker(system, client, held)
        await broker.remember_former()
        sampling = asyncio.create_task(sample(look, sampled, duration_s))
        await broker.run(accounts, duration_s, hours)
    sampling.cancel()
    await asyncio.gather(sampling, return_exceptions=True)
    remains, is_forgotten = await all_left(state, accounts)
    restarted = [name for name, pid in system.pids.items() if pids[name] != pid]
    return {**broker.counts, "left": remains, "is_forgotten": is_forgotten, "restarted": restarted}


async def measure(
    accounts: int, duration_s: float, hours: float, trades_per_second: float, chart: Path | None
) -> dict[str, object]:
    """The hours on a system of its own; their figures."""
    options = (
        *("--accounts", str(accounts), "--symbols", str(SYMBOLS), "--activities-per-second", "0"),
        *("--trades-per-second", str(trades_per_second), "--rate-limit", str(RATE_LIMIT)),
    )
    overrides = {
        "JWT_SECRET": "",
        "LOG_LEVEL": "warning",
        "SHARDS": str(SHARDS),
        "SYMBOL_COLLECTION_INTERVAL": str(COLLECTION_S),
        "RECALCULATION_INTERVAL": "1",
    }
    sampled = Sampled()
    async with running(options, port=0, overrides=overrides) as system:
        url = system.supervisor.environment["REDIS_URL"]
        state = open_state(url, holder="benchmark", shards=SHARDS, lease_ms=4000)
        try:
            counts = await churn(system, state, accounts, duration_s, hours, sampled)
        finally:
            await state.close()
    simulator_mb = sampled.memory.pop(NOT_JUDGED)
    if chart is not None:
        draw(sampled, duration_s, hours, chart, WARM_UP_SHARE)
    memory = judged(sampled, duration_s, hours, WARM_UP_SHARE)
    return {
        "accounts": accounts,
        "hours": hours,
        "duration_s": duration_s,
        **counts,
        "simulator_mb": (simulator_mb[0], simulator_mb[-1]),
        **memory,
        "is_steady": not memory["grows"] and counts["is_forgotten"] and not counts["restarted"],
    }


def main(
    accounts: Annotated[int, typer.Option(min=NEW_COUNT + 1)] = 200,
    duration: Annotated[float, typer.Option(help="Seconds in all", min=10)] = 360,
    hours: Annotated[float, typer.Option(help="Hours' worth in that time", min=0.1)] = 1,
    trades_per_second: Annotated[float, typer.Option(help="Of the market", min=0)] = 200,
    chart: Annotated[Path | None, typer.Option(help="Draw memory over time into this SVG")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line")] = False,
) -> None:
    """Does memory grow anywhere? An hour of coming and going, in minutes, with the whole system."""
    result = asyncio.run(measure(accounts, duration, hours, trades_per_second, chart))
    show(result, as_json=as_json)
    sys.exit(0 if result["is_steady"] else 1)


if __name__ == "__main__":
    typer.run(main)

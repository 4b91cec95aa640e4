"""Fault trials: fault plans against the real services, each followed by a comparison with the ledger.

When a plan has ended, the market is stopped and every client must show the ledger's value to the cent. Every
OUTAGE_EVERY-th trial is an outage of market data instead: it measures how long it takes until every client is
told that its prices are stale. The same seed makes the same plan.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from rich.table import Table

from portfolio_harness.clients import Clients
from portfolio_harness.convergence import converge, until_unmarked
from portfolio_harness.judgement import PROPAGATION_S, STATEMENT_S_MAX, Judge, held_back_s, judging
from portfolio_harness.progress import say
from portfolio_harness.system import System, SystemFailed, running

CONVERGE_S_MAX: Final = 120.0  # after an outage, a contradicting statement is accepted only after a minute
REFUSAL: Final = "rest.429"
ON_THEIR_WAY_MAX: Final = 10  # requests under way when that fault begins, which are refused as well
OUTAGE_EVERY: Final = 10
OUTAGE_KINDS: Final = ("market.mute", "market.half_open", "market.ghosts")
OUTAGE_S: Final = 10.0
PRICED_S_MAX: Final = 60.0  # for a new system, until every account has an equity
WARM_UP_S: Final = 2.0  # of market data before an outage, so that its silence can be noticed
MARKED_S_MAX: Final = 5.0  # promise P4
FAULTS: Final = 4  # in each plan
POLL_S: Final = 0.1
UPDATE_S: Final = 0.1
RATE_LIMIT: Final = 1_000  # requests a minute
ACCOUNTS: Final = 20
OVERRIDES: Final = {
    "MIN_UPDATE_INTERVAL": str(UPDATE_S),
    "SYMBOL_COLLECTION_INTERVAL": "5",
    "LOG_LEVEL": "error",
}
SIMULATOR: Final = (
    *("--accounts", str(ACCOUNTS), "--symbols", "24", "--rate-limit", str(RATE_LIMIT)),
    *("--trades-per-second", "60", "--activities-per-second", "3", "--heartbeat", "1"),
)


@dataclass(frozen=True)
class Trial:
    """The result of one fault plan."""

    seed: int
    kinds: tuple[str, ...]
    converged_s: float | None  # from the stop of the market until all were equal; None: not all were
    mismatches: int
    still_marked: int  # accounts that are right and that no statement has confirmed in time
    regressions: int
    leaks: int
    rejected: int  # requests that were answered with 429
    requests_per_s: float
    handshakes: int  # with the market-data stream
    wrong: int = 0  # records and prices that were wrong without a mark for longer than allowed
    overmarked: int = 0  # records that were right and marked for longer than allowed
    wrong_s: float = 0.0  # the longest time for which a record was wrong without a mark
    price_wrong_s: float = 0.0  # the same for prices
    right_marked_s: float = 0.0  # the longest time for which a right record was marked
    looks: int = 0  # comparisons of the judge
    marked_s: float | None = None  # from an outage of market data until every client was told
    is_outage: bool = False

    @property
    def is_clean(self) -> bool:
        """Whether every check passed."""
        is_told = not self.is_outage or (
            self.marked_s is not None and self.marked_s <= MARKED_S_MAX + UPDATE_S
        )
        rejected_max = ON_THEIR_WAY_MAX if REFUSAL in self.kinds else 0
        wrong = self.mismatches + self.still_marked + self.regressions + self.leaks
        is_polite = self.rejected <= rejected_max
        is_honest = self.wrong + self.overmarked == 0 and self.looks > 0
        return wrong == 0 and is_honest and is_polite and self.converged_s is not None and is_told


async def hold(count: int, *, seed: int, duration_s: float, systems: int) -> list[Trial]:
    """Run `count` trials with the seeds `seed`, `seed + 1`, …, in `systems` systems side by side.

    Each lasts about `duration_s` seconds. Returns them in the order of their seeds. Raises SystemFailed,
    SettingsError, ClientsFailed.
    """
    seeds = iter(range(seed, seed + count))
    trials: list[Trial] = []

    async def work(number: int) -> None:
        async for trial in _in_turn(seeds, number, duration_s):
            trials.append(trial)
            _report(trial, len(trials), count)

    await asyncio.gather(*(work(number) for number in range(systems)))
    return sorted(trials, key=lambda trial: trial.seed)


async def _in_turn(seeds: Iterator[int], number: int, duration_s: float) -> AsyncIterator[Trial]:
    """Run trials in one system until one fails, then in a new system: a failure must not affect the next."""
    for first in seeds:
        async with _priced_system(number) as (system, clients):
            for seed in itertools.chain([first], seeds):
                trial = await _hold_one(system, clients, seed, duration_s)
                yield trial
                if not trial.is_clean:
                    break


@contextlib.asynccontextmanager
async def _priced_system(number: int) -> AsyncGenerator[tuple[System, Clients]]:
    """A running system whose clients all have an equity. `number` chooses its accounts and prices."""
    options = [*SIMULATOR, "--seed", str(number + 1)]
    async with running(options, port=0, overrides=OVERRIDES) as system:
        account_ids = await system.oracle.account_ids()
        clients = Clients(system.url, account_ids, system.token_for, interval_s=UPDATE_S, detail=True)
        await clients.start()
        try:
            await _until_priced(clients)
            yield system, clients
        finally:
            await clients.stop()


async def _until_priced(clients: Clients) -> None:
    """Wait until every client's value has an equity, so that a plan begins on a complete system."""
    give_up_s = time.monotonic() + PRICED_S_MAX
    while lacking := sum(client.newest is None or client.newest["equity"] is None for client in clients.all):
        if time.monotonic() > give_up_s:
            raise SystemFailed(f"{lacking} accounts have no equity after {PRICED_S_MAX:.0f} s")
        await asyncio.sleep(POLL_S)


async def until_fresh(clients: Clients) -> None:
    """Wait until no price is stale: a client that is always told of stale prices is not told of an outage."""
    give_up_s = time.monotonic() + PRICED_S_MAX
    while stale := sum(client.newest is None or bool(client.newest["stale"]) for client in clients.all):
        if time.monotonic() > give_up_s:
            raise SystemFailed(f"{stale} accounts have stale prices or records without any fault")
        await asyncio.sleep(POLL_S)


async def _hold_one(system: System, clients: Clients, seed: int, duration_s: float) -> Trial:
    oracle = system.oracle
    is_outage = seed % OUTAGE_EVERY == 0
    if is_outage:
        await asyncio.sleep(WARM_UP_S)
        await until_fresh(clients)
    before, counts_before, started_s = await oracle.state(), dict(clients.counts), time.monotonic()
    plan = await oracle.install(_outage(seed) if is_outage else _plan(seed, duration_s))
    held_s = held_back_s(plan)
    async with judging(Judge(PROPAGATION_S + held_s, STATEMENT_S_MAX + held_s), oracle, clients) as judge:
        marked_s = await _until_marked(clients, started_s) if is_outage else None
        while await oracle.faults_remaining_s() > 0:
            await asyncio.sleep(POLL_S)
        await oracle.pause()
        differing, converged_s = await converge(oracle, clients, CONVERGE_S_MAX)
        still_marked = {} if differing else await until_unmarked(clients)
    after, elapsed_s = await oracle.state(), time.monotonic() - started_s
    await oracle.resume()
    return Trial(
        seed=seed,
        kinds=tuple(sorted({fault["kind"] for fault in plan["faults"]})),
        converged_s=converged_s,
        mismatches=len(differing),
        still_marked=len(still_marked),
        regressions=clients.counts["regressions"] - counts_before.get("regressions", 0),
        leaks=clients.counts["leaks"] - counts_before.get("leaks", 0),
        rejected=after["rejected_429"] - before["rejected_429"],
        requests_per_s=round((after["requests"] - before["requests"]) / elapsed_s, 1),
        handshakes=after["market_handshakes"] - before["market_handshakes"],
        wrong=judge.wrong,
        overmarked=judge.overmarked,
        wrong_s=round(judge.wrong_s, 2),
        price_wrong_s=round(judge.price_wrong_s, 2),
        right_marked_s=round(judge.marked_s, 2),
        looks=judge.looks,
        marked_s=marked_s,
        is_outage=is_outage,
    )


def _plan(seed: int, duration_s: float) -> dict[str, Any]:
    return {"seed": seed, "duration_s": duration_s, "count": FAULTS}


def _outage(seed: int) -> dict[str, Any]:
    kind = OUTAGE_KINDS[seed // OUTAGE_EVERY % len(OUTAGE_KINDS)]
    return {"seed": seed, "faults": [{"kind": kind, "for_s": OUTAGE_S}]}


async def _until_marked(clients: Clients, since_s: float) -> float | None:
    """Seconds until every client is told that its prices are stale; None: not within OUTAGE_S."""
    while (waited_s := time.monotonic() - since_s) < OUTAGE_S:
        if all(_is_marked(client.newest) for client in clients.all):
            return round(waited_s, 2)
        await asyncio.sleep(POLL_S)
    return None


def _is_marked(newest: dict[str, Any] | None) -> bool:
    """Whether the client is told of stale prices. An account without positions has no prices."""
    return newest is not None and (bool(newest["stale"]) or newest["equity"] == newest["cash"])


def _report(trial: Trial, done: int, count: int) -> None:
    outcome = f"equal after {trial.converged_s:.2f} s" if trial.converged_s is not None else "NOT EQUAL"
    told = f", told after {trial.marked_s} s" if trial.is_outage else ""
    honest = (
        f", wrong unmarked {trial.wrong_s} s (prices {trial.price_wrong_s} s), "
        f"right and marked {trial.right_marked_s} s"
    )
    verdict = "" if trial.is_clean else f"  FAILED: {trial}"
    say(f"{done}/{count} seed {trial.seed}: {', '.join(trial.kinds)}: {outcome}{told}{honest}{verdict}")


def table(trials: Sequence[Trial]) -> Table:
    """One row for each kind of fault, and one for all trials."""
    shown = Table("fault", "trials", "failed", "equal after: median", "worst", "told after: worst", box=None)
    # Wrong without a mark: a record, a price; then marked though right.
    for name in ("wrong: record", "price", "marked"):
        shown.add_column(name)
    for column in shown.columns[1:]:
        column.justify = "right"
    kinds = sorted({kind for trial in trials for kind in trial.kinds})
    for kind in kinds:
        shown.add_row(kind, *_row([trial for trial in trials if kind in trial.kinds]))
    shown.add_section()
    shown.add_row("all", *_row(trials))
    return shown


def _row(trials: Sequence[Trial]) -> list[str]:
    waits = [trial.converged_s for trial in trials if trial.converged_s is not None]
    told = [trial.marked_s for trial in trials if trial.marked_s is not None]
    return [
        str(len(trials)),
        str(sum(not trial.is_clean for trial in trials)),
        f"{median(waits):.2f} s" if waits else "",
        f"{max(waits):.2f} s" if waits else "",
        f"{max(told):.1f} s" if told else "",
        *(f"{worst:.1f} s" for worst in _worst(trials)),
    ]


def _worst(trials: Sequence[Trial]) -> tuple[float, float, float]:
    return (
        max((trial.wrong_s for trial in trials), default=0.0),
        max((trial.price_wrong_s for trial in trials), default=0.0),
        max((trial.right_marked_s for trial in trials), default=0.0),
    )

"""The demo: a simulated Alpaca, the whole system, and a page in the browser.

With `--duration`, a client watches every account. At the end the market stops, and the newest value of each
client is compared with the oracle to the cent.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from portfolio_harness.clients import Clients
from portfolio_harness.convergence import converge, until_unmarked
from portfolio_harness.judgement import Judge, judging
from portfolio_harness.progress import say
from portfolio_harness.system import System, running
from portfolio_harness.valkey_kinds import ValkeyKind

PROGRESS_S: Final = 5.0
STARTING: Final = "starting a simulated Alpaca, Valkey and the four services ..."
DEMO_INTERVAL_S: Final = 0.5  # production uses 1 to 2 s
CORPORATE: Final = ("ledger.group", "ledger.exercise")  # while a proof runs …
CORPORATE_COUNT: Final = 4  # … so many, of both kinds


@dataclass(frozen=True)
class Proof:
    """The outcome of a demo with a duration."""

    accounts: int
    compared: int
    mismatches: int  # accounts that differ from the oracle in any figure once the market has stopped
    still_marked: int  # accounts that are right and that no statement has confirmed in time
    wrong: int  # records and prices that were wrong without a mark for longer than allowed
    overmarked: int  # records that were right and marked for longer than allowed
    wrong_s: float  # the longest time for which a record was wrong without a mark
    price_wrong_s: float  # the same for prices
    right_marked_s: float  # the longest time for which a right record was marked
    looks: int  # comparisons of the judge
    regressions: int  # frames whose (epoch, sequence) went back
    gaps: int  # sequences that a connected client did not receive
    leaks: int  # frames of another account
    unpriced: int  # accounts whose last value has no equity, because a price is missing
    messages: int
    trades: int
    duration_s: float
    converged_s: float | None  # from the stop of the market until all were equal; None: not all were
    seed: int
    differing: dict[str, list[str]]  # account id -> figures that differ, at most DIFFERING_MAX accounts

    @property
    def is_clean(self) -> bool:
        """Whether every check passed."""
        marks = self.still_marked + self.wrong + self.overmarked
        wrong = self.mismatches + marks + self.regressions + self.gaps + self.leaks + self.unpriced
        return wrong == 0 and self.looks > 0 and self.compared == self.accounts


DIFFERING_MAX: Final = 20


async def demonstrate(
    simulator_options: Sequence[str], *, port: int, valkey: ValkeyKind = ValkeyKind.EMBEDDED
) -> None:
    """Start everything, print the page's URL, and run until cancelled. Raises SystemFailed, SettingsError."""
    say(STARTING)
    async with running(simulator_options, port=port, overrides=_overrides(), valkey=valkey) as system:
        print(f"\n  Open {system.url}/ in a browser. Press Ctrl-C to stop.\n", flush=True)
        await asyncio.Event().wait()


async def prove(
    simulator_options: Sequence[str],
    *,
    port: int,
    duration_s: float,
    seed: int,
    valkey: ValkeyKind = ValkeyKind.EMBEDDED,
) -> Proof:
    """Run for `duration_s` seconds, stop the market, and compare every account with the oracle.

    Raises SystemFailed, SettingsError, ClientsFailed.
    """
    say(STARTING)
    async with running(simulator_options, port=port, overrides=_overrides(), valkey=valkey) as system:
        say(f"\n  Open {system.url}/ in a browser. It runs for {duration_s:g} s.\n")
        return await _watch(system, duration_s, seed)


def _overrides() -> dict[str, str]:
    quiet = {} if "LOG_LEVEL" in os.environ else {"LOG_LEVEL": "error"}  # warnings are for who runs a system
    return {"DEMO_PAGE": "true", "MIN_UPDATE_INTERVAL": str(DEMO_INTERVAL_S), **quiet}


async def _watch(system: System, duration_s: float, seed: int) -> Proof:
    account_ids = await system.oracle.account_ids()
    clients = Clients(system.url, account_ids, system.token_for, interval_s=DEMO_INTERVAL_S, detail=True)
    try:
        started_s = time.monotonic()
        await clients.start()
        say(f"{len(account_ids)} accounts watched after {time.monotonic() - started_s:.1f} s")
        async with judging(Judge(), system.oracle, clients) as judge:
            await system.oracle.install(
                {"seed": seed, "duration_s": duration_s, "kinds": [*CORPORATE], "count": CORPORATE_COUNT}
            )
            await _let_run(system, clients, duration_s)
            await system.oracle.pause()
            differing, converged_s = await converge(system.oracle, clients)
            still_marked = {} if differing else await until_unmarked(clients)
        state = await system.oracle.state()
        lacking = sum(bool(client.newest and client.newest["equity"] is None) for client in clients.all)
    finally:
        await clients.stop()
    counts = clients.counts
    return Proof(
        accounts=len(account_ids),
        compared=sum(client.newest is not None for client in clients.all),
        mismatches=len(differing),
        still_marked=len(still_marked),
        wrong=judge.wrong,
        overmarked=judge.overmarked,
        wrong_s=round(judge.wrong_s, 2),
        price_wrong_s=round(judge.price_wrong_s, 2),
        right_marked_s=round(judge.marked_s, 2),
        looks=judge.looks,
        regressions=counts["regressions"],
        gaps=counts["gaps"],
        leaks=counts["leaks"],
        unpriced=lacking,
        messages=counts["messages"],
        trades=state["trades"],
        duration_s=duration_s,
        converged_s=converged_s,
        seed=seed,
        differing=dict(list(differing.items())[:DIFFERING_MAX]),
    )


async def _let_run(system: System, clients: Clients, duration_s: float) -> None:
    end_s = time.monotonic() + duration_s
    while (left_s := end_s - time.monotonic()) > 0:
        await asyncio.sleep(min(PROGRESS_S, left_s))
        state = await system.oracle.state()
        left_s = max(0.0, end_s - time.monotonic())
        say(f"{left_s:4.0f} s to go, {state['trades']} trades, {clients.counts['messages']} messages")

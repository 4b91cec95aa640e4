"""A session of chaos: one nemesis after the other; after each, every client is compared with the ledger.

The same seed plans the same nemeses with the same victims and durations. What happens then also depends on
the timing of real processes.
"""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final, cast

from rich.table import Table

from portfolio_harness.chaos import disturbances
from portfolio_harness.chaos.chaos_step import ChaosStep
from portfolio_harness.chaos.place import Place
from portfolio_harness.chaos.witnesses import (
    LoopWitness,
    RevokedWitness,
    ShownClient,
    ShownClients,
    WriterWitness,
    holdings,
)
from portfolio_harness.clients import Clients
from portfolio_harness.judgement import PROPAGATION_S, Judge, judging
from portfolio_harness.lags import percentile_s
from portfolio_harness.oracle import Oracle
from portfolio_harness.progress import say
from portfolio_harness.valkey_kinds import ValkeyKind
from portfolio_realtime.cancellation import cancel_until_ended

UPDATE_S: Final = 1.0
ACCOUNTS_MAX: Final = 100  # the first client of each is judged all the time, the others after each nemesis
SETTLE_S: Final = 6.0  # after the clients have connected
MOVING_S: Final = 3.0  # for which the market moves before the next nemesis
RECOVERED_S_MAX: Final = 10.0  # from the end of a nemesis, on a machine that starts programs at once
DEADLINE_S: Final = 120.0
POLL_S: Final = 0.1
START_SHARE: Final = 0.2  # of the services' start time: how much later a mark may come on a slow machine
LATE_FACTOR: Final = 8.0  # the delay over all processes, as a multiple of the delay of this process's loop
FILES_MORE_MAX: Final = 40
MEMORY_MORE_MB_MAX: Final = 60.0
EVICTS: Final = "keys evicted"
# During these, a former owner's write may be accepted: its fence is evicted, or a node that was stopped or
# cut off takes what was sent to it before it learns that another has its slots. Servers drop what is older.
UNFENCED: Final = frozenset({EVICTS, "node stopped", "node partitioned"})
# After these, an epoch may be lower: keys are gone, or a replica has not got the last ones.
LOSES_STATE: Final = frozenset(
    {
        *("flush", "Valkey killed, empty", "family deleted", EVICTS),
        *("node killed", "node stopped", "node partitioned", "node emptied"),
    }
)


@dataclass
class StepOutcome:
    """The result of one nemesis."""

    step: ChaosStep
    converged_s: float | None  # from its end until every client was right; None: not within DEADLINE_S
    allowed_s: float  # the limit of `converged_s`
    wrong: int  # records and prices that were wrong without a mark for longer than allowed
    wrong_s: float  # the longest time for which a record was wrong without a mark
    price_wrong_s: float  # the same for prices
    regressions: int  # frames whose (epoch, sequence) went back
    leaks: int  # frames of another account
    older: int  # publications of an owner that had lost its shard
    let_in: int  # requests with a revoked token that were answered
    lost: int  # connections that clients lost
    deaths: list[str]  # processes that ended by themselves
    complaints: list[str] = field(default_factory=list[str])

    @property
    def is_clean(self) -> bool:
        """Whether every promise held."""
        bad = self.wrong + self.regressions + self.leaks + self.older + self.let_in + len(self.deaths)
        return bad == 0 and self.converged_s is not None and self.converged_s <= self.allowed_s


@dataclass
class Chaos:
    """The result of a session."""

    seed: int
    clients: int
    seconds: float
    outcomes: list[StepOutcome]
    messages: int
    publications: int
    refused: dict[int, int]  # HTTP status -> how often a request with a revoked token got it
    grown: list[str]  # processes whose open files or memory grew too much
    machine_late_s: float  # the longest delay of this process's loop
    start_s: float  # how long the services took to start

    @property
    def is_clean(self) -> bool:
        """Whether every promise held."""
        return not self.grown and bool(self.outcomes) and all(one.is_clean for one in self.outcomes)


class _Session:
    """A running system with clients of both servers and witnesses."""

    def __init__(
        self, place: Place, oracle: Oracle, groups: list[Clients], account_ids: list[str], revoked: str
    ) -> None:
        self.place = place
        self.oracle = oracle
        self.groups = groups
        self.writers = WriterWitness(place)
        self.revoked = RevokedWitness(place, revoked)
        self.loop = LoopWitness()
        self.shown = [
            ShownClients([ShownClient(client, server) for client in group.all[: len(account_ids)]])
            for group, server in zip(groups, place.of("websocket_server"), strict=True)
        ]

    def count(self, name: str) -> int:
        """A count of the clients of both servers."""
        return sum(group.counts[name] for group in self.groups)

    async def hold(self, step: ChaosStep) -> StepOutcome:
        """Run one nemesis, stop the market, and wait until every client is right again."""
        before = {name: self.count(name) for name in ("regressions", "leaks", "reconnects")}
        older, let_in, self.loop.late_s = self.writers.older, self.revoked.let_in, 0.0
        judges = [Judge(PROPAGATION_S + self.place.start_s * START_SHARE) for _ in self.groups]
        async with contextlib.AsyncExitStack() as stack:
            for judge, shown in zip(judges, self.shown, strict=True):
                await stack.enter_async_context(judging(judge, self.oracle, cast("Clients", shown)))
            if step.name in LOSES_STATE:
                self.writers.forget()
            self.writers.is_fenced = step.name not in UNFENCED
            await disturbances.disturb(self.place, step)
            await self.revoked.ask()
            await self.oracle.pause()
            converged_s = await self._converged()
            self.writers.is_fenced = True
        await self.oracle.resume()
        for service in self.place.services.values():
            service.proxy.heal()
        slack_s = self.place.start_s + LATE_FACTOR * self.loop.late_s
        deaths = [death for one in self.place.services.values() for death in one.deaths]
        for service in self.place.services.values():
            service.deaths.clear()
        return StepOutcome(
            step=step,
            converged_s=converged_s,
            allowed_s=round(RECOVERED_S_MAX + slack_s, 1),
            wrong=sum(judge.wrong for judge in judges),
            wrong_s=round(max(judge.wrong_s for judge in judges), 2),
            price_wrong_s=round(max(judge.price_wrong_s for judge in judges), 2),
            regressions=self.count("regressions") - before["regressions"],
            leaks=self.count("leaks") - before["leaks"],
            older=self.writers.older - older,
            let_in=self.revoked.let_in - let_in,
            lost=self.count("reconnects") - before["reconnects"],
            deaths=deaths,
            complaints=[text for judge in judges for text in judge.complaints],
        )

    async def _converged(self) -> float | None:
        """Seconds until every client has a connection and the ledger's value; None: not within DEADLINE_S."""
        began_s, truths = time.monotonic(), await self.oracle.truth()
        while (waited_s := time.monotonic() - began_s) < DEADLINE_S:
            differing = [await group.mismatches(truths) for group in self.groups]
            away = sum(group.without_value for group in self.groups)
            if not away and not any(differing):
                return round(waited_s, 2)
            await asyncio.sleep(POLL_S)
        return None


@contextlib.asynccontextmanager
async def _session(seed: int, clients: int, *, is_cluster: bool) -> AsyncGenerator[_Session]:
    per_server = max(1, clients // 2)
    accounts = min(per_server, ACCOUNTS_MAX)
    with tempfile.TemporaryDirectory(prefix="portfolio-chaos-") as folder:
        place = Place(Path(folder), seed, accounts + 1, kind=ValkeyKind.packaged(is_cluster=is_cluster))
        limit = str(4 * clients + 1000)
        overrides = {
            "MIN_UPDATE_INTERVAL": str(UPDATE_S),
            "CONNECTIONS_PER_ADDRESS": limit,
            "CONNECTS_PER_MINUTE": limit,
        }
        async with place.running(overrides) as oracle:
            revoked, *account_ids = await oracle.account_ids()
            chosen = [account_ids[index % accounts] for index in range(per_server)]
            groups = [
                Clients(url, chosen, place.token_for, interval_s=UPDATE_S, detail=True) for url in place.urls
            ]
            session = _Session(place, oracle, groups, account_ids, revoked)
            await session.revoked.revoke()
            watching = [
                asyncio.create_task(session.writers.watch()),
                asyncio.create_task(session.loop.watch()),
                asyncio.create_task(session.revoked.watch()),
            ]
            try:
                for group in groups:
                    await group.start()
                yield session
            finally:
                for group in groups:
                    await group.stop()
                await cancel_until_ended(watching)


async def hold(
    *, seed: int, seconds: float, clients: int, only: str | None = None, is_cluster: bool = False
) -> Chaos:
    """Run nemeses for `seconds`, with `clients` spread over two servers; `only` limits them to one kind.

    Raises SystemFailed, SettingsError, ClientsFailed.
    """
    names = [name for name in disturbances.names_for(is_cluster=is_cluster) if only is None or name == only]

    def planned(services: list[str]) -> list[ChaosStep]:
        return disturbances.plan(seed, services, names)

    return await hold_steps(planned, seed=seed, seconds=seconds, clients=clients, is_cluster=is_cluster)


async def hold_steps(
    planned: Callable[[list[str]], list[ChaosStep]],
    *,
    seed: int,
    seconds: float,
    clients: int,
    is_cluster: bool = False,
) -> Chaos:
    """As `hold`, with the nemeses that `planned` makes for the names of all service processes."""
    async with _session(seed, clients, is_cluster=is_cluster) as session:
        await asyncio.sleep(SETTLE_S)
        outcomes: list[StepOutcome] = []
        young = holdings(session.place)
        began_s, late_s = time.monotonic(), 0.0
        for step in planned(session.place.names):
            if time.monotonic() - began_s > seconds:
                break
            outcome = await session.hold(step)
            outcomes.append(outcome)
            late_s = max(late_s, session.loop.late_s)
            _report(outcome)
            await asyncio.sleep(MOVING_S)
        return Chaos(
            seed=seed,
            clients=sum(len(group.all) for group in session.groups),
            seconds=round(time.monotonic() - began_s),
            outcomes=outcomes,
            messages=session.count("messages"),
            publications=session.writers.publications,
            refused=dict(session.revoked.answers),
            grown=_grown(young, holdings(session.place)),
            machine_late_s=round(late_s, 2),
            start_s=round(session.place.start_s, 1),
        )


def _grown(young: dict[str, Any], old: dict[str, Any]) -> list[str]:
    """The processes that were never restarted and have many more open files or much more memory now."""
    grown: list[str] = []
    for name, (pid, before) in young.items():
        now_pid, now = old.get(name, (0, None))
        if now_pid == pid and now is not None:
            more_mb = now.memory_mb - before.memory_mb
            if now.files - before.files > FILES_MORE_MAX or more_mb > MEMORY_MORE_MB_MAX:
                grown.append(f"{name}: from {before} to {now}")
    return grown


def _report(outcome: StepOutcome) -> None:
    after = "NOT RIGHT AGAIN" if outcome.converged_s is None else f"right after {outcome.converged_s:.1f} s"
    say(f"{outcome.step}: {after}" + ("" if outcome.is_clean else f"  FAILED: {outcome}"))


def table(chaos: Chaos) -> Table:
    """One row for each kind of nemesis, and one for all."""
    columns = (
        "times",
        "failed",
        "right after: median",
        "p99",
        "worst",
        "wrong unmarked",
        "back",
        "leaks",
        "cut",
    )
    shown = Table("nemesis", *columns, box=None)
    for column in shown.columns[1:]:
        column.justify = "right"
    for name in sorted({one.step.name for one in chaos.outcomes}):
        shown.add_row(name, *_row([one for one in chaos.outcomes if one.step.name == name]))
    shown.add_section()
    shown.add_row("all", *_row(chaos.outcomes))
    return shown


def _row(outcomes: list[StepOutcome]) -> list[str]:
    waits = [one.converged_s for one in outcomes if one.converged_s is not None]
    return [
        str(len(outcomes)),
        str(sum(not one.is_clean for one in outcomes)),
        f"{median(waits):.1f} s" if waits else "",
        f"{percentile_s(sorted(waits), 0.99):.1f} s" if waits else "",
        f"{max(waits):.1f} s" if waits else "",
        f"{max(max(one.wrong_s, one.price_wrong_s) for one in outcomes):.1f} s",
        str(sum(one.regressions for one in outcomes)),
        str(sum(one.leaks for one in outcomes)),
        str(sum(one.lost for one in outcomes)),
    ]

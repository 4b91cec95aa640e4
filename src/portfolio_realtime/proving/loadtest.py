"""The load test: many connections, each frame checked, lag measured from trade to client.

Lag is measured beyond the conflation wait: from the newest trade that a publication contains, or from the
moment the account was allowed to publish again, whichever is later, until the client has the frame. It still
contains the wait for the next flush of marks (MARK_FLUSH_INTERVAL, 0.1 s by default) and the calculator's
rest between two flushes (50 ms at most). Delivery is the part after the publication: from its timestamp,
taken before it is valued, until the client has the frame.

A number that a client did not see is explained when the server counted that it kept only the newest for a
client that could not take more; a gap beyond what the server counted is not.
"""

import asyncio
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from portfolio_realtime.errors import SettingsError
from portfolio_realtime.proving.crew import Crew, Seen, allow_files
from portfolio_realtime.proving.demo import converge, say
from portfolio_realtime.proving.fleet import Lags, TokenFor
from portfolio_realtime.proving.oracle import Oracle
from portfolio_realtime.proving.system import System, counted, running, wait_known

PROGRESS_S: Final = 2.0
CHART_STEPS: Final = 8
KNEE_MS: Final = 250.0
BACK_S_MAX: Final = 60.0  # until all clients of a storm are back
BACK_POLL_S: Final = 0.5  # each look costs for all clients; how long each was away its own process measures
RATE_LIMIT_MIN: Final = 10_000  # the simulator's default
REQUESTS_PER_ACCOUNT: Final = 6  # in a minute: state and positions at once take half a quota at most
CONFLATED: Final = "portfolio_realtime_conflated_total"
GROWTH_SHARE: Final = 0.25  # of the measured time, at its begin and at its end


@dataclass(frozen=True)
class Plan:
    """What is asked for."""

    connections: int
    rate: float  # messages per second and account that the server may send
    duration_s: float
    ramp_s: float = 0.0  # the connections are opened over this time
    stalled_share: float = 0.0  # of the clients read nothing after their first value
    is_storm: bool = False  # cut all at once at the end
    chart: Path | None = None

    @property
    def stalled(self) -> int:
        """How many clients stop reading."""
        return round(self.connections * self.stalled_share)


@dataclass(frozen=True)
class Step:
    """A part of the measured time with one number of connections."""

    connections: int
    messages_per_s: float
    lag_ms_p50: float
    lag_ms_p99: float


@dataclass(frozen=True)
class Storm:
    """All clients cut at once: how long each was without a value."""

    clients: int
    how: str
    back: int  # clients that got a value again within BACK_S_MAX
    back_s_p50: float
    back_s_p99: float
    back_s_max: float


@dataclass(frozen=True)
class Load:
    """The outcome of a load test; figures of the measured time, errors of the whole run."""

    connections: int
    client_processes: int
    accounts: int
    stalled: int
    rate: float  # messages per second and account that the server may send
    duration_s: float
    known_s: float  # from the start of the services until the collector had a record of each account
    connected_s: float  # until each client had its first value
    connects_per_s: float
    messages: int
    messages_per_s: float
    lag_ms_p50: float
    lag_ms_p99: float
    lag_ms_p99_first_quarter: float  # beside the last quarter: does lag grow?
    lag_ms_p99_last_quarter: float
    delivery_ms_p50: float  # the part of the lag after the publication
    delivery_ms_p99: float
    gaps: int  # numbers that a client did not see
    conflated: int  # numbers that the server left out because the client could not take them
    gaps_unexplained: int
    regressions: int
    leaks: int
    unreadable: int
    reconnects: int
    mismatches: int  # accounts that differ from the oracle at quiet
    converged_s: float | None
    close_codes: dict[str, int]
    cpu_cores: dict[str, float]  # process -> processor time per second of the measured time
    steps: list[Step] = field(default_factory=list)
    knee_messages_per_s: float | None = None  # the last step before p99 passed KNEE_MS; None: it never did
    storm: Storm | None = None

    @property
    def is_clean(self) -> bool:
        """Did everything hold?"""
        wrong = self.gaps_unexplained + self.regressions + self.leaks + self.unreadable + self.mismatches
        return wrong == 0 and (self.storm is None or self.storm.back == self.storm.clients)


async def on_own_system(
    plan: Plan, *, accounts: int, symbols: int, trades_per_second: float | None, seed: int
) -> Load:
    """Bring up a simulator and the services, load them, and take them down.

    Without `trades_per_second` each symbol trades once a second on average.
    """
    allow_files(plan.connections)
    rate_limit = max(RATE_LIMIT_MIN, REQUESTS_PER_ACCOUNT * accounts)
    trades = symbols if trades_per_second is None else trades_per_second
    say(f"simulator: {accounts} accounts, {trades:g} trades a second, {rate_limit} REST requests a minute")
    options = (
        *("--accounts", str(accounts), "--symbols", str(symbols), "--seed", str(seed)),
        *("--trades-per-second", str(trades), "--rate-limit", str(rate_limit)),
    )
    overrides = {"MIN_UPDATE_INTERVAL": str(1 / plan.rate), "LOG_LEVEL": "warning"}
    started_s = time.monotonic()
    async with running(options, port=0, overrides=overrides) as system:
        say(f"services ready after {time.monotonic() - started_s:.1f} s")
        started_s = time.monotonic()
        await wait_known(system.url, accounts, lambda known: say(f"{known} of {accounts} accounts known"))
        known_s = time.monotonic() - started_s
        say(f"all accounts known after {known_s:.1f} s")
        loading = Loading(plan, system.url, system.oracle, system.token_for, system)
        return replace(await loading.run(), known_s=round(known_s, 1))


async def on_running_system(url: str, simulator_url: str, token_for: TokenFor, plan: Plan) -> Load:
    """Load a system that runs already; its accounts and their truth come from its simulator."""
    oracle = Oracle(simulator_url)
    try:
        return await Loading(plan, url, oracle, token_for, None).run()
    finally:
        await oracle.resume()
        await oracle.close()


class Loading:
    """One load test on a system that runs."""

    def __init__(
        self, plan: Plan, url: str, oracle: Oracle, token_for: TokenFor, system: System | None
    ) -> None:
        self._plan = plan
        self._url = url
        self._oracle = oracle
        self._token_for = token_for
        self._system = system
        self._steps: list[Step] = []
        self._lags = Lags()
        self._deliveries = Lags()
        self._messages = 0
        self._measured_s = 0.0

    async def run(self) -> Load:
        """Connect, measure, bring to quiet, compare, and (if asked for) cut all at once."""
        plan = self._plan
        if plan.chart is not None:
            _plotting()  # before the work, not after it
        account_ids = await self._oracle.account_ids()
        chosen = [account_ids[index % len(account_ids)] for index in range(plan.connections)]
        interval_s = 1 / plan.rate
        options = {"interval_s": interval_s, "ramp_s": plan.ramp_s}
        async with Crew(self._url, chosen, self._token_for, stalled=plan.stalled, **options) as crew:
            conflated = await counted(self._url, CONFLATED)
            connected_s, cpu_s, wall_s = await self._measure(crew)
            storm = await self._storm(crew) if plan.is_storm else None
            await self._oracle.pause()
            differing, converged_s = await converge(self._oracle, crew)
            seen = await crew.seen()
            conflated = int(await counted(self._url, CONFLATED) - conflated)
            processes = len(crew.pids)
        load = Load(
            connections=plan.connections,
            client_processes=processes,
            accounts=len(set(chosen)),
            stalled=plan.stalled,
            rate=plan.rate,
            duration_s=round(self._measured_s, 2),
            known_s=0.0,
            connected_s=round(connected_s, 2),
            connects_per_s=round(seen.connects_per_s, 1),
            messages=self._messages,
            messages_per_s=round(self._messages / self._measured_s, 1),
            lag_ms_p50=self._lags.percentile_ms(0.5),
            lag_ms_p99=self._lags.percentile_ms(0.99),
            lag_ms_p99_first_quarter=self._lags.between(0, GROWTH_SHARE).percentile_ms(0.99),
            lag_ms_p99_last_quarter=self._lags.between(1 - GROWTH_SHARE, 1).percentile_ms(0.99),
            delivery_ms_p50=self._deliveries.percentile_ms(0.5),
            delivery_ms_p99=self._deliveries.percentile_ms(0.99),
            gaps=seen.counts["gaps"],
            conflated=conflated,
            gaps_unexplained=max(0, seen.counts["gaps"] - conflated),
            regressions=seen.counts["regressions"],
            leaks=seen.counts["leaks"],
            unreadable=seen.counts["unreadable"],
            reconnects=seen.counts["reconnects"],
            mismatches=len(differing),
            converged_s=converged_s,
            close_codes={str(code): count for code, count in seen.close_codes.items()},
            cpu_cores={name: round(used_s / wall_s, 3) for name, used_s in cpu_s.items()},
            steps=self._steps,
            knee_messages_per_s=knee(self._steps),
            storm=storm,
        )
        if plan.chart is not None:
            draw(load, plan.chart)
        return load

    async def _measure(self, crew: Crew) -> tuple[float, dict[str, float], float]:
        """All steps: seconds until all were connected, processor seconds used, seconds they took."""
        plan = self._plan
        steps = CHART_STEPS if plan.chart is not None else 1
        connected_s = wall_s = 0.0
        cpu_s: dict[str, float] = {}
        for step in range(1, steps + 1):
            count = plan.connections * step // steps
            started_s = time.monotonic()
            await crew.start(count)
            connected_s += time.monotonic() - started_s
            say(f"{count} connections, each with a value after {connected_s:.1f} s")
            await crew.measure()
            before, started_s = self._cpu_s(crew), time.monotonic()
            await self._let_run(crew, plan.duration_s / steps)
            cpu_s = _added(cpu_s, before, self._cpu_s(crew))
            wall_s += time.monotonic() - started_s
            self._take(await crew.seen(), count, time.monotonic() - started_s)
        return connected_s, cpu_s, wall_s

    def _take(self, seen: Seen, count: int, took_s: float) -> None:
        step = Step(
            count,
            round(seen.counts["messages"] / took_s, 1),
            seen.lags.percentile_ms(0.5),
            seen.lags.percentile_ms(0.99),
        )
        self._steps.append(step)
        self._lags = self._lags.merge([seen.lags])
        self._deliveries = self._deliveries.merge([seen.deliveries])
        self._messages += seen.counts["messages"]
        self._measured_s += took_s

    async def _let_run(self, crew: Crew, duration_s: float) -> None:
        end_s = time.monotonic() + duration_s
        while (left_s := end_s - time.monotonic()) > 0:
            await asyncio.sleep(min(PROGRESS_S, left_s))
            seen = await crew.seen()
            recent = seen.lags.between(0.5, 1)
            say(
                f"{max(0.0, end_s - time.monotonic()):4.0f} s to go, {seen.counts['messages']} messages, "
                f"lag p50 {recent.percentile_ms(0.5)} ms, p99 {recent.percentile_ms(0.99)} ms"
            )

    async def _storm(self, crew: Crew) -> Storm:
        """Cut all clients at once; wait until each has a value again."""
        await crew.measure()
        if self._system is not None:
            how = "the server is killed"
            os.kill(self._system.pids["websocket_server"], signal.SIGKILL)
        else:
            how = "the clients' sockets are reset"
            await crew.cut()
        clients = self._plan.connections - self._plan.stalled
        give_up_s = time.monotonic() + BACK_S_MAX
        seen = await crew.seen()
        while len(seen.outages_s) < clients and time.monotonic() < give_up_s:
            await asyncio.sleep(BACK_POLL_S)
            seen = await crew.seen()
        back_s = seen.outages_s
        say(f"storm: {len(back_s)} clients back, the last after {back_s[-1] if back_s else 0:.1f} s")
        return Storm(
            clients=clients,
            how=how,
            back=min(clients, len(back_s)),
            back_s_p50=_share(back_s, 0.5),
            back_s_p99=_share(back_s, 0.99),
            back_s_max=_share(back_s, 1),
        )

    def _cpu_s(self, crew: Crew) -> dict[str, float]:
        """Processor seconds so far of each process of the run that we may look at."""
        own = {} if self._system is None else self._system.pids
        used = {name: _process_cpu_s(pid) for name, pid in own.items()}
        return {**used, "clients": sum(_process_cpu_s(pid) for pid in crew.pids)}


def _added(
    total: Mapping[str, float], before: Mapping[str, float], after: Mapping[str, float]
) -> dict[str, float]:
    """What was used between two looks, added to a total."""
    return {name: total.get(name, 0.0) + used_s - before.get(name, used_s) for name, used_s in after.items()}


def _process_cpu_s(pid: int) -> float:
    """User and system seconds of a process (proc(5), fields 14 and 15 of stat); 0 where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _share(ordered: Sequence[float], share: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else 0.0


def knee(steps: Sequence[Step]) -> float | None:
    """Messages a second of the last step before p99 passed KNEE_MS; None when it never did."""
    for before, step in zip((None, *steps), steps, strict=False):
        if step.lag_ms_p99 > KNEE_MS:
            return 0.0 if before is None else before.messages_per_s
    return None


def _plotting() -> None:
    """Raises SettingsError where there is no matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise SettingsError("--chart needs matplotlib: pip install matplotlib") from None
    mpl.use("svg")


def draw(load: Load, path: Path) -> None:
    """Lag against messages a second, the knee marked, as SVG."""
    _plotting()
    from matplotlib import pyplot

    rates = [step.messages_per_s for step in load.steps]
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    axes.plot(rates, [step.lag_ms_p99 for step in load.steps], marker="o", label="p99")
    axes.plot(rates, [step.lag_ms_p50 for step in load.steps], marker="o", label="p50")
    axes.axhline(KNEE_MS, linestyle="--", linewidth=1, color="grey", label=f"{KNEE_MS:g} ms")
    if load.knee_messages_per_s is not None:
        axes.axvline(load.knee_messages_per_s, linestyle=":", color="red", label="knee")
    for step in load.steps:
        at = (step.messages_per_s, step.lag_ms_p99)
        axes.annotate(f"{step.connections}", at, (0, 6), textcoords="offset points", ha="center", fontsize=7)
    axes.set_xlabel("messages a second (at the points: connections)")
    axes.set_ylabel("ms from trade to client, beyond the conflation wait")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_title(f"{load.accounts} accounts, {load.rate:g} value messages a second each at most")
    axes.legend()
    figure.savefig(path, format="svg", bbox_inches="tight")
    pyplot.close(figure)

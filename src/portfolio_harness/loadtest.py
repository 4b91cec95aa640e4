"""The load test: many connections, every frame checked, and the lag from trade to client.

Lag excludes the conflation wait. It begins with the newest trade that a publication contains, or with the
time from which the account could be published again, whichever is later, and ends when the client has the
frame. It includes the waits of busy services: at most MARK_FLUSH_INTERVAL for marks, and less for values and
frames (`portfolio_realtime.pace`). Delivery is the part after the publication: from its timestamp, which is
taken before the valuation, until the client has the frame.

A gap is explained when the client was so far behind that the server may conflate for it, and the server has
counted that it did. The server's count cannot be used when clients stall, because it counts theirs as well,
nor after a storm that kills the server: then no gap is explained.
"""

import asyncio
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from portfolio_harness.chart import (
    BEYOND_MAX,
    STEPS_MAX,
    Chart,
    Step,
    beyond,
    draw,
    knee,
    need_plotting,
    save,
    today,
)
from portfolio_harness.client_processes import ClientProcesses, Seen, allow_files
from portfolio_harness.clients import TokenFor
from portfolio_harness.convergence import converge
from portfolio_harness.goals import P99_MS_MAX, STORM_BACK_S_MAX, Goal, failed, growth_max_ms, none
from portfolio_harness.lags import Lags, percentile_s
from portfolio_harness.oracle import Oracle
from portfolio_harness.process_usage import cpu_s
from portfolio_harness.progress import say
from portfolio_harness.system import (
    CONFLATED,
    DISCONNECTS,
    SLOW_CONSUMER,
    System,
    counted,
    running,
    simulator_options,
    wait_known,
)
from portfolio_harness.valkey_kinds import ValkeyKind

PROGRESS_S: Final = 2.0
SETTLE_SHARE: Final = 0.2  # of a chart's step is not measured: opening the connections causes lag
BACK_S_MAX: Final = 60.0  # the wait for the clients of a storm; longer if the goal is longer
BACK_POLL_S: Final = 0.5  # each look asks all clients; the outages are measured in their own processes
GROWTH_SHARE: Final = 0.25  # of the measured time, at its beginning and at its end
GROWTH_S_MIN: Final = 8.0  # a shorter measurement has no quarters to compare


@dataclass(frozen=True)
class Plan:
    """The options of a load test."""

    connections: int
    rate: float  # messages per second and account that the server may send
    duration_s: float
    ramp_s: float = 0.0  # the connections are opened over this time
    stalled_share: float = 0.0  # of the clients stop reading after their first value
    is_storm: bool = False  # cut all clients at once at the end
    chart: Path | None = None  # the SVG to draw: add connections step by step until p99 misses its goal
    chart_data: Path | None = None  # the file of its figures; None: beside the SVG
    p99_ms_max: float = P99_MS_MAX
    storm_back_s_max: float = STORM_BACK_S_MAX

    @property
    def stalled(self) -> int:
        """The number of clients that stop reading."""
        return round(self.connections * self.stalled_share)


@dataclass(frozen=True)
class Storm:
    """The result of a storm, in which all clients lose their connection at once. Times are in seconds."""

    clients: int  # that read
    how: str  # how they were cut
    cut: int  # of these lost their connection
    back: int  # of these have a value again
    back_s_p50: float
    back_s_p99: float
    back_s_max: float


@dataclass(frozen=True)
class Load:
    """The result of a load test: figures of the measured time, and errors of the whole run."""

    connections: int
    client_processes: int
    accounts: int
    stalled: int
    rate: float  # messages per second and account that the server may send
    duration_s: float
    known_s: float  # from the start of the services until the collector had a record of each account
    connected_s: float  # until every client had its first value
    connects_per_s: float
    messages: int
    messages_per_s: float
    lag_ms_p50: float
    lag_ms_p99: float
    lag_ms_p99_first_quarter: float  # compared with the last quarter, it shows whether lag grows
    lag_ms_p99_last_quarter: float
    delivery_ms_p50: float  # the part of the lag after the publication
    delivery_ms_p99: float
    first_value_ms_p50: float  # from the request of the account to its first value
    first_value_ms_p99: float
    gaps: int  # sequences that a reading client did not receive
    gaps_behind: int  # of these, while the client was so far behind that the server may conflate for it
    gaps_stalled: int  # sequences that stalled clients did not receive; they are not judged
    conflated: int  # sequences that the server counted as conflated, for any client
    gaps_unexplained: int
    regressions: int
    leaks: int
    unreadable: int
    reconnects: int  # of reading clients, before the storm
    reconnects_stalled: int
    slow_consumers: int  # connections that the server closed as slow consumers (4002)
    mismatches: int | None  # accounts that differ from the oracle after the market stopped; None: no oracle
    converged_s: float | None
    close_codes: dict[str, int]
    cpu_cores: dict[str, float]  # process -> processor time per second of the measured time
    steps: list[Step] = field(default_factory=list)
    knee_messages_per_s: float | None = None  # of a chart: see `chart.knee`
    storm: Storm | None = None
    failed: list[Goal] = field(default_factory=list[Goal])  # goals that were missed


def unexplained(gaps: int, behind: int, conflated: int | None) -> int:
    """The number of gaps that conflation does not explain.

    `conflated` is the server's count of conflated sequences; None: it cannot be used.
    """
    return gaps - min(behind, conflated or 0)


def goals(load: Load, plan: Plan) -> list[Goal]:
    """The goals of a load test. With a chart, lag is not a goal: the chart looks for its limit."""
    wanted = [Goal("messages", load.messages, 1, is_minimum=True)]
    wanted += none(
        gaps_unexplained=load.gaps_unexplained,
        regressions=load.regressions,
        leaks=load.leaks,
        unreadable=load.unreadable,
        reconnects=load.reconnects,
    )
    if load.mismatches is not None:
        wanted += none(mismatches=load.mismatches)
    if plan.chart is None:
        wanted.append(Goal("lag_ms_p99", load.lag_ms_p99 or None, plan.p99_ms_max))  # 0: nothing was measured
    if plan.chart is None and load.duration_s >= GROWTH_S_MIN:
        growth_ms = load.lag_ms_p99_last_quarter - load.lag_ms_p99_first_quarter
        growth_ms_max = growth_max_ms(load.lag_ms_p99_first_quarter, plan.p99_ms_max)
        wanted.append(Goal("lag_growth_ms_p99", round(growth_ms, 1), round(growth_ms_max, 1)))
    if load.storm is not None:
        storm = load.storm
        wanted += [
            Goal("storm_cut", storm.cut, storm.clients, is_minimum=True),
            Goal("storm_back", storm.back, storm.clients, is_minimum=True),
            Goal("storm_back_s", storm.back_s_max, plan.storm_back_s_max),
        ]
    return wanted


async def on_own_system(
    plan: Plan,
    *,
    accounts: int,
    symbols: int,
    trades_per_second: float | None,
    seed: int,
    valkey: ValkeyKind = ValkeyKind.EMBEDDED,
) -> Load:
    """Start a simulator and the services, load them, and stop them.

    Without `trades_per_second`, each symbol trades once a second on average. Raises SystemFailed,
    SettingsError, ClusterFailed, ClientsFailed.
    """
    allow_files(plan.connections)
    trades = symbols if trades_per_second is None else trades_per_second
    options = simulator_options(accounts, symbols, trades, seed)
    say(f"simulator: {' '.join(options)}")
    overrides = {"MIN_UPDATE_INTERVAL": str(1 / plan.rate), "LOG_LEVEL": "warning"}
    started_s = time.monotonic()
    async with running(options, port=0, overrides=overrides, valkey=valkey) as system:
        say(f"services ready after {time.monotonic() - started_s:.1f} s")
        started_s = time.monotonic()
        await wait_known(system.url, accounts, lambda known: say(f"{known} of {accounts} accounts known"))
        known_s = time.monotonic() - started_s
        say(f"all accounts known after {known_s:.1f} s")
        loading = Loading(plan, system.url, system.oracle, system.token_for, system)
        return replace(await loading.run(), known_s=round(known_s, 1))


async def on_running_system(
    url: str, simulator_url: str | None, account_ids: Sequence[str], token_for: TokenFor, plan: Plan
) -> Load:
    """Load a running system.

    With `simulator_url`, all of the simulator's accounts are watched and compared with its ledger. Without
    it, `account_ids` are watched and no value is compared. Raises ClientsFailed.
    """
    if simulator_url is None:
        say("no --simulator: order, gaps and lag are checked, values are not compared")
        return await Loading(plan, url, None, token_for, None, account_ids).run()
    oracle = Oracle(simulator_url)
    try:
        return await Loading(plan, url, oracle, token_for, None).run()
    finally:
        await oracle.resume()
        await oracle.close()


class Loading:
    """One load test on a running system."""

    def __init__(
        self,
        plan: Plan,
        url: str,
        oracle: Oracle | None,
        token_for: TokenFor,
        system: System | None,
        account_ids: Sequence[str] = (),
    ) -> None:
        self._plan = plan
        self._url = url
        self._oracle = oracle
        self._account_ids = account_ids
        self._token_for = token_for
        self._system = system
        self._steps: list[Step] = []
        self._opened = 0  # connections; a chart may stop before it has opened all
        self._reconnects = self._conflated = self._slow = 0  # since the beginning; see `_count`
        self._lags = Lags()
        self._deliveries = Lags()
        self._messages = 0
        self._measured_s = 0.0

    async def run(self) -> Load:
        """Connect, measure, cut all clients if asked for, then stop the market and compare."""
        plan = self._plan
        if plan.chart is not None:
            need_plotting()  # fails before the measurement instead of after it
        account_ids = self._account_ids if self._oracle is None else await self._oracle.account_ids()
        chosen = [account_ids[index % len(account_ids)] for index in range(plan.connections)]
        interval_s = 1 / plan.rate
        clients = ClientProcesses(
            *(self._url, chosen, self._token_for),
            interval_s=interval_s,
            stalled=plan.stalled,
            ramp_s=plan.ramp_s,
        )
        async with clients:
            begun = await self._server_counts()
            connected_s, cpu_s, wall_s = await self._measure(clients)
            storm = None
            if plan.is_storm:
                await self._count(clients, begun)
                storm = await self._storm(clients)
            mismatches, converged_s = await self._compare(clients)
            seen = await clients.seen()
            if storm is None:
                await self._count(clients, begun)
            processes = len(clients.pids)
        load = Load(
            connections=self._opened,
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
            first_value_ms_p50=seen.first_values.percentile_ms(0.5),
            first_value_ms_p99=seen.first_values.percentile_ms(0.99),
            gaps=seen.counts["gaps"],
            gaps_behind=seen.counts["gaps_behind"],
            gaps_stalled=seen.counts["gaps_stalled"],
            conflated=self._conflated,
            gaps_unexplained=unexplained(
                seen.counts["gaps"],
                seen.counts["gaps_behind"],
                None if plan.stalled or plan.is_storm else self._conflated,
            ),
            regressions=seen.counts["regressions"],
            leaks=seen.counts["leaks"],
            unreadable=seen.counts["unreadable"],
            reconnects=self._reconnects,
            reconnects_stalled=seen.counts["reconnects_stalled"],
            slow_consumers=self._slow,
            mismatches=mismatches,
            converged_s=converged_s,
            close_codes={str(code): count for code, count in seen.close_codes.items()},
            cpu_cores={name: round(used_s / wall_s, 3) for name, used_s in cpu_s.items()},
            steps=self._steps,
            knee_messages_per_s=None if plan.chart is None else knee(self._steps, plan.p99_ms_max),
            storm=storm,
        )
        if plan.chart is not None and self._steps:
            self._draw(plan.chart, load.accounts)
        return replace(load, failed=failed(goals(load, plan)))

    async def _compare(self, clients: ClientProcesses) -> tuple[int | None, float | None]:
        """Stop the market and compare: the number of accounts that differ, and seconds until none did."""
        if self._oracle is None:
            return None, None
        await self._oracle.pause()
        differing, converged_s = await converge(self._oracle, clients)
        return len(differing), converged_s

    async def _server_counts(self) -> tuple[int, int]:
        conflated = await counted(self._url, CONFLATED)
        return int(conflated), int(await counted(self._url, DISCONNECTS, SLOW_CONSUMER))

    async def _count(self, clients: ClientProcesses, begun: tuple[int, int]) -> None:
        """Read reconnects and the server's counters. A storm falsifies both, so it is called before one."""
        conflated, slow = await self._server_counts()
        self._conflated, self._slow = conflated - begun[0], slow - begun[1]
        self._reconnects = (await clients.seen()).counts["reconnects"]

    def _draw(self, picture: Path, accounts: int) -> None:
        plan = self._plan
        chart = Chart(today(), accounts, plan.rate, plan.p99_ms_max, self._steps)
        save(chart, plan.chart_data or picture.with_suffix(".json"))
        draw(chart, picture)

    async def _measure(self, clients: ClientProcesses) -> tuple[float, dict[str, float], float]:
        """Measure all steps: seconds of connecting, processor seconds by process, seconds of measuring."""
        plan = self._plan
        steps = STEPS_MAX if plan.chart is not None else 1
        connected_s = wall_s = 0.0
        cpu_s: dict[str, float] = {}
        for step in range(1, steps + 1):
            count = plan.connections * step // steps
            started_s = time.monotonic()
            await clients.start(count)
            self._opened = count
            connected_s += time.monotonic() - started_s
            say(f"{count} connections; each had a value after {connected_s:.1f} s")
            if plan.chart is not None:
                await asyncio.sleep(SETTLE_SHARE * plan.duration_s / steps)
            await clients.measure()
            before, started_s = self._cpu_s(clients), time.monotonic()
            await self._let_run(clients, plan.duration_s / steps)
            cpu_s = _added(cpu_s, before, self._cpu_s(clients))
            wall_s += time.monotonic() - started_s
            self._take(await clients.seen(), count, time.monotonic() - started_s)
            if plan.chart is not None and self._steps and self._is_past_knee():
                break
        return connected_s, cpu_s, wall_s

    def _is_past_knee(self) -> bool:
        last, past = self._steps[-1], beyond(self._steps, self._plan.p99_ms_max)
        held = "within the goal" if not past else f"{past} steps in a row missed the goal"
        say(f"step of {last.messages_per_s:g} messages a second: p99 {last.lag_ms_p99} ms; {held}")
        return past >= BEYOND_MAX

    def _take(self, seen: Seen, count: int, took_s: float) -> None:
        if seen.lags.counts:
            rate = round(seen.counts["messages"] / took_s, 1)
            lags_ms = (seen.lags.percentile_ms(share) for share in (0.5, 0.99))
            self._steps.append(Step(count, rate, *lags_ms))
        else:
            say(f"{count} connections received no value within {took_s:.1f} s: the step is left out")
        self._lags = self._lags.merge([seen.lags])
        self._deliveries = self._deliveries.merge([seen.deliveries])
        self._messages += seen.counts["messages"]
        self._measured_s += took_s

    async def _let_run(self, clients: ClientProcesses, duration_s: float) -> None:
        end_s = time.monotonic() + duration_s
        while (left_s := end_s - time.monotonic()) > 0:
            await asyncio.sleep(min(PROGRESS_S, left_s))
            seen = await clients.seen()
            recent = seen.lags.between(0.5, 1)
            say(
                f"{max(0.0, end_s - time.monotonic()):4.0f} s to go, {seen.counts['messages']} messages, "
                f"lag p50 {recent.percentile_ms(0.5)} ms, p99 {recent.percentile_ms(0.99)} ms"
            )

    async def _storm(self, clients: ClientProcesses) -> Storm:
        """Cut all clients at once, and wait until each has a value again."""
        await clients.measure()
        if self._system is not None:
            how = "the server is killed"
            os.kill(self._system.pids["websocket_server"], signal.SIGKILL)
        else:
            how = "the clients' sockets are reset"
            await clients.cut()
        reading = max(0, self._opened - self._plan.stalled)  # the first clients are the stalled ones
        give_up_s = time.monotonic() + max(BACK_S_MAX, self._plan.storm_back_s_max)
        seen = await clients.seen()
        while (seen.cut_off < reading or seen.without_value) and time.monotonic() < give_up_s:
            await asyncio.sleep(BACK_POLL_S)
            seen = await clients.seen()
        back_s, back = seen.outages_s, reading - seen.without_value
        say(f"storm: {back} of {reading} clients back, the last after {percentile_s(back_s, 1):.1f} s")
        return Storm(
            clients=reading,
            how=how,
            cut=seen.cut_off,
            back=back,
            back_s_p50=percentile_s(back_s, 0.5),
            back_s_p99=percentile_s(back_s, 0.99),
            back_s_max=percentile_s(back_s, 1),
        )

    def _cpu_s(self, clients: ClientProcesses) -> dict[str, float]:
        """Processor seconds so far by process: the system's, if it is our own, and all clients together."""
        own = {} if self._system is None else self._system.pids
        used = {name: _process_cpu_s(pid) for name, pid in own.items()}
        return {**used, "clients": sum(_process_cpu_s(pid) for pid in clients.pids)}


def _added(
    total: Mapping[str, float], before: Mapping[str, float], after: Mapping[str, float]
) -> dict[str, float]:
    """Add what was used between two readings to a total, by process."""
    return {name: total.get(name, 0.0) + used_s - before.get(name, used_s) for name, used_s in after.items()}


def _process_cpu_s(pid: int) -> float:
    """User and system seconds of a process; 0 when it has ended or there is no /proc."""
    try:
        return cpu_s(pid)
    except OSError:
        return 0.0

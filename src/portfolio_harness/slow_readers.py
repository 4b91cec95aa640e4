"""Isolation (promise P7): stalled clients do not slow others: `portfolio-realtime loadtest --isolation`.

The same clients run four times on one system: all of them read, then 1, 10 and 50 % stop reading. They watch
the positions of the accounts that have the most, so that the socket of a stalled client is full within
seconds. The other clients are measured from the time at which the server finds the first socket full. The
server's count of connections closed with 4002 shows that the stalled clients were too slow.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from portfolio_harness.client_processes import ClientProcesses, allow_files
from portfolio_harness.convergence import converge
from portfolio_harness.goals import RATIO_MAX, Goal, failed, none
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

SHARES: Final = (0.0, 0.01, 0.1, 0.5)
SETTLE_S: Final = 3.0  # at least, from the first values to the measurement
FULL_S_MAX: Final = 60.0  # until the first socket of a stalled client is full
CUT_S_MAX: Final = 60.0  # until every stalled client is disconnected
POLL_S: Final = 0.5
TRADES_PER_MESSAGE: Final = 2  # of each symbol: nearly every position is then in every message
SYMBOLS_MAX: Final = 50
# The server's memory may exceed that without stalled clients by this much, and by this much for each of them:
# four times its write buffer.
MEMORY_MB_MAX: Final = 8.0
STALLED_MB_MAX: Final = 0.125


@dataclass(frozen=True)
class Share:
    """The result for one share of stalled clients."""

    share: float
    stalled: int
    full_after_s: float | None  # until the server found the first socket full; None: it found none
    messages: int
    lag_ms_p50: float
    lag_ms_p99: float
    ratio: float | None  # p99 divided by the p99 without stalled clients; None: one of them is not known
    slow_consumers: int  # connections that the server closed with 4002
    rss_mb_start: float  # resident memory of the server
    rss_mb_peak: float
    rss_mb_end: float
    rss_mb_max: float  # the limit of the peak
    gaps: int  # this and the following: of the reading clients
    regressions: int
    leaks: int
    unreadable: int
    reconnects: int


@dataclass(frozen=True)
class Isolation:
    """The results of all shares."""

    connections: int
    accounts: int
    rate: float
    shares: list[Share]
    mismatches: int
    failed: list[Goal] = field(default_factory=list[Goal])  # goals that were missed


def goals(isolation: Isolation) -> list[Goal]:
    """The goals of the isolation test: promise P7, and no gaps, regressions, leaks or mismatches."""
    wanted = none(mismatches=isolation.mismatches)
    for one in isolation.shares:
        name = f"{one.share:.0%} stalled"
        wanted.append(Goal(f"messages, {name}", one.messages, 1, is_minimum=True))
        counts = ("gaps", "regressions", "leaks", "unreadable", "reconnects")
        wanted += none(**{f"{count}, {name}": getattr(one, count) for count in counts})
        if one.stalled:
            wanted += [
                Goal(f"p99 ratio, {name}", one.ratio, RATIO_MAX),
                Goal(f"4002 closings, {name}", one.slow_consumers, one.stalled, is_minimum=True),
                Goal(f"server's MB, {name}", one.rss_mb_peak, one.rss_mb_max),
            ]
    return wanted


def judged(isolation: Isolation) -> Isolation:
    """The same results with ratios and memory limits relative to the first share, and the missed goals."""
    base = isolation.shares[0]
    shares = [
        replace(
            one,
            ratio=round(one.lag_ms_p99 / base.lag_ms_p99, 3) if one.lag_ms_p99 and base.lag_ms_p99 else None,
            rss_mb_max=round(base.rss_mb_peak + MEMORY_MB_MAX + STALLED_MB_MAX * one.stalled, 1),
        )
        for one in isolation.shares
    ]
    compared = replace(isolation, shares=shares)
    return replace(compared, failed=failed(goals(compared)))


async def isolate(
    connections: int,
    accounts: int,
    *,
    symbols: int,
    rate: float,
    duration_s: float,
    trades_per_second: float | None,
    seed: int,
) -> Isolation:
    """Start a system, measure each share for `duration_s` seconds, and stop it.

    `rate` is in messages per second and account. Raises SystemFailed, SettingsError, ClientsFailed.
    """
    allow_files(connections)
    symbols = min(symbols, SYMBOLS_MAX)
    trades = TRADES_PER_MESSAGE * rate * symbols if trades_per_second is None else trades_per_second
    options = simulator_options(accounts, symbols, trades, seed)
    overrides = {"MIN_UPDATE_INTERVAL": str(1 / rate), "LOG_LEVEL": "warning"}
    async with running(options, port=0, overrides=overrides) as system:
        await wait_known(system.url, accounts, lambda known: say(f"{known} of {accounts} accounts known"))
        chosen = await _accounts(system, connections)
        shares: list[Share] = []
        mismatches = 0
        for share in SHARES:
            stalled = max(1, round(share * connections)) if share else 0
            clients = ClientProcesses(
                *(system.url, chosen, system.token_for), interval_s=1 / rate, detail=True, stalled=stalled
            )
            async with clients:
                shares.append(
                    await _Sharing(system, clients, share, stalled).measured(connections, duration_s)
                )
                await system.oracle.pause()
                differing, _ = await converge(system.oracle, clients)
                await system.oracle.resume()
                mismatches += len(differing)
    return judged(Isolation(connections, len(set(chosen)), rate, shares, mismatches))


async def _accounts(system: System, connections: int) -> list[str]:
    """The account of each client: those with the most positions first."""
    truths = await system.oracle.truth()
    ordered = sorted(truths, key=lambda account_id: -len(truths[account_id].market_values))
    return [ordered[index % len(ordered)] for index in range(connections)]


class _Sharing:
    """The measurement of one share."""

    def __init__(self, system: System, clients: ClientProcesses, share: float, stalled: int) -> None:
        self._system = system
        self._clients = clients
        self._share = share
        self._stalled = stalled
        self._peak_mb = 0.0

    async def measured(self, connections: int, duration_s: float) -> Share:
        """Connect all clients, wait until a socket is full, measure, and wait for the 4002 closings."""
        conflated, slow = await self._conflated(), await self._slow()
        await self._clients.start(connections)
        async with self._watching_memory():
            start_mb = self._resident_mb()
            began_s, full_after_s = time.monotonic(), None
            if self._stalled and await _until(self._has_more(self._conflated, conflated), FULL_S_MAX):
                full_after_s = round(time.monotonic() - began_s, 1)
            await asyncio.sleep(max(0.0, began_s + SETTLE_S - time.monotonic()))
            await self._clients.measure()
            await asyncio.sleep(duration_s)
            seen = await self._clients.seen()
            if self._stalled:
                await _until(self._has_more(self._slow, slow + self._stalled - 1), CUT_S_MAX)
            end_mb = self._resident_mb()
        one = Share(
            share=self._share,
            stalled=self._stalled,
            full_after_s=full_after_s,
            messages=seen.counts["messages"],
            lag_ms_p50=seen.lags.percentile_ms(0.5),
            lag_ms_p99=seen.lags.percentile_ms(0.99),
            ratio=None,
            slow_consumers=await self._slow() - slow,
            rss_mb_start=start_mb,
            rss_mb_peak=self._peak_mb,
            rss_mb_end=end_mb,
            rss_mb_max=0.0,
            gaps=seen.counts["gaps"],
            regressions=seen.counts["regressions"],
            leaks=seen.counts["leaks"],
            unreadable=seen.counts["unreadable"],
            reconnects=seen.counts["reconnects"],
        )
        say(
            f"{one.share:.0%} stalled: full after {one.full_after_s} s, others' p99 {one.lag_ms_p99} ms, "
            f"{one.slow_consumers} closed with 4002, server at most {one.rss_mb_peak} MB"
        )
        return one

    @contextlib.asynccontextmanager
    async def _watching_memory(self) -> AsyncGenerator[None]:
        async def watch() -> None:
            while True:
                self._resident_mb()
                await asyncio.sleep(POLL_S)

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()

    def _resident_mb(self) -> float:
        """The server's memory now in MB; keeps the peak."""
        now_mb = resident_mb(self._system.pids["websocket_server"])
        self._peak_mb = max(self._peak_mb, now_mb)
        return now_mb

    async def _conflated(self) -> int:
        return int(await counted(self._system.url, CONFLATED))

    async def _slow(self) -> int:
        return int(await counted(self._system.url, DISCONNECTS, SLOW_CONSUMER))

    @staticmethod
    def _has_more(count: Callable[[], Awaitable[int]], before: int) -> Callable[[], Awaitable[bool]]:
        async def has_more() -> bool:
            return await count() > before

        return has_more


async def _until(predicate: Callable[[], Awaitable[bool]], seconds_max: float) -> bool:
    """Wait until `predicate` is true; false after `seconds_max`."""
    give_up_s = time.monotonic() + seconds_max
    while not await predicate():
        if time.monotonic() > give_up_s:
            return False
        await asyncio.sleep(POLL_S)
    return True


def resident_mb(pid: int) -> float:
    """Resident memory of a process in MB (proc(5), VmRSS of status); 0 when there is no such file."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith("VmRSS")), 0.0)

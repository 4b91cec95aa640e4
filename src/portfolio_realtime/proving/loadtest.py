"""The load test: many connections, each frame checked, lag measured from trade to client.

Lag is measured beyond the conflation wait: from the newest trade that a publication contains, or from the
moment the account was allowed to publish again, whichever is later, until the client has the frame. It still
contains the wait for the next flush of marks (MARK_FLUSH_INTERVAL, 0.1 s by default).
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from portfolio_realtime.proving.demo import converge, say
from portfolio_realtime.proving.fleet import Fleet, TokenFor, percentile
from portfolio_realtime.proving.oracle import Oracle
from portfolio_realtime.proving.system import running

PROGRESS_S: Final = 2.0


@dataclass(frozen=True)
class Load:
    """The outcome of a load test; figures of the measured time, errors of the whole run."""

    connections: int
    accounts: int
    rate: float  # messages per second and account that the server may send
    duration_s: float
    connects_per_s: float
    messages: int
    messages_per_s: float
    lag_ms_p50: float
    lag_ms_p99: float
    lag_ms_p99_first_half: float  # beside the second half: does lag grow?
    lag_ms_p99_second_half: float
    gaps: int
    regressions: int
    leaks: int
    reconnects: int
    mismatches: int  # accounts that differ from the oracle at quiet
    converged_s: float | None

    @property
    def is_clean(self) -> bool:
        """Did everything hold?"""
        return self.gaps + self.regressions + self.leaks + self.mismatches == 0


async def on_own_system(
    *, connections: int, accounts: int, symbols: int, rate: float, duration_s: float, seed: int
) -> Load:
    """Bring up a simulator and the services, load them, and take them down."""
    options = ("--accounts", str(accounts), "--symbols", str(symbols), "--seed", str(seed))
    overrides = {"MIN_UPDATE_INTERVAL": str(1 / rate), "LOG_LEVEL": "warning"}
    async with running(options, port=0, overrides=overrides) as system:
        return await _load(
            system.url,
            system.oracle,
            system.token_for,
            connections=connections,
            rate=rate,
            duration_s=duration_s,
        )


async def on_running_system(
    url: str, simulator_url: str, token_for: TokenFor, *, connections: int, rate: float, duration_s: float
) -> Load:
    """Load a system that runs already; its accounts and their truth come from its simulator."""
    oracle = Oracle(simulator_url)
    try:
        return await _load(url, oracle, token_for, connections=connections, rate=rate, duration_s=duration_s)
    finally:
        await oracle.resume()
        await oracle.close()


async def _load(
    url: str, oracle: Oracle, token_for: TokenFor, *, connections: int, rate: float, duration_s: float
) -> Load:
    account_ids = await oracle.account_ids()
    chosen = [account_ids[index % len(account_ids)] for index in range(connections)]
    fleet = Fleet(url, chosen, token_for, interval_s=1 / rate, detail=False)
    try:
        await fleet.start()
        say(f"{connections} connections, {fleet.connects_per_s:.0f} a second")
        fleet.begin_measuring()
        started_s = time.monotonic()
        half = await _let_run(fleet, duration_s)
        measured_s = time.monotonic() - started_s
        lags = list(fleet.lags_ms)
        messages = fleet.counts["messages"]
        await oracle.pause()
        differing, converged_s = await converge(oracle, fleet)
    finally:
        await fleet.stop()
    return Load(
        connections=connections,
        accounts=len(set(chosen)),
        rate=rate,
        duration_s=round(measured_s, 2),
        connects_per_s=round(fleet.connects_per_s, 1),
        messages=messages,
        messages_per_s=round(messages / measured_s, 1),
        lag_ms_p50=percentile(lags, 0.5),
        lag_ms_p99=percentile(lags, 0.99),
        lag_ms_p99_first_half=percentile(lags[:half], 0.99),
        lag_ms_p99_second_half=percentile(lags[half:], 0.99),
        gaps=fleet.counts["gaps"],
        regressions=fleet.counts["regressions"],
        leaks=fleet.counts["leaks"],
        reconnects=fleet.counts["reconnects"],
        mismatches=len(differing),
        converged_s=converged_s,
    )


async def _let_run(fleet: Fleet, duration_s: float) -> int:
    """Let it run; the number of lag samples at half time."""
    end_s = time.monotonic() + duration_s
    half = 0
    while (left_s := end_s - time.monotonic()) > 0:
        await asyncio.sleep(min(PROGRESS_S, left_s))
        if end_s - time.monotonic() > duration_s / 2:
            half = len(fleet.lags_ms)
        recent = fleet.lags_ms[-5000:]
        say(
            f"{max(0.0, end_s - time.monotonic()):4.0f} s to go, {fleet.counts['messages']} messages, "
            f"lag p50 {percentile(recent, 0.5)} ms, p99 {percentile(recent, 0.99)} ms"
        )
    return half

"""A rolling restart of two servers behind HAProxy, under load: `portfolio-realtime loadtest --rolling`.

A whole system with a second WebSocket server; every client comes through HAProxy (`deploy/haproxy`). One
server is asked to end and is started again, then the other. Each client tells how long it was without a
connection that gives values, and, if it got values regularly before, for how long it had no newer one at all:
a connection can be alive and mute.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from portfolio_harness.client_processes import ClientProcesses, allow_files
from portfolio_harness.convergence import converge, say
from portfolio_harness.goals import STALE_S_MAX, Goal, failed, none
from portfolio_harness.lags import percentile_s
from portfolio_harness.system import System, free_port, running, simulator_options, wait_known, wait_ready
from portfolio_realtime.errors import SettingsError
from portfolio_realtime.processes import end_all
from portfolio_realtime.supervisor import Supervisor

CONFIG: Final = Path(__file__).parents[2] / "deploy" / "haproxy" / "haproxy.cfg"
SETTLE_S_MAX: Final = 30.0
REGULAR_S: Final = 5.0  # before the restarts it is seen for so long who gets values regularly
BETWEEN_S: Final = 2.0  # the restarted server stands in the line-up again
TRADES_PER_SYMBOL: Final = 5  # a second: then every account has a newer value nearly every second


@dataclass(frozen=True)
class Rolled:
    """What the clients of a rolling restart saw."""

    connections: int
    restarts: int
    restart_s: list[float]  # from the request to end until the server was ready again, each
    moved: int  # times that a client lost its connection and had a value on another one
    without_s_p50: float
    without_s_p99: float
    without_s_max: float
    regular: int  # clients that got values regularly before
    silence_s_max: (
        float | None
    )  # the longest time that one of these had no newer value; None: there were none
    never_back: int
    gaps: int
    regressions: int
    leaks: int
    mismatches: int
    close_codes: dict[str, int]
    failed: list[Goal] = field(default_factory=list[Goal])  # goals that were not reached


def goals(rolled: Rolled) -> list[Goal]:
    """P8, and what holds always."""
    return [
        Goal("moved", rolled.moved, rolled.connections, is_minimum=True),
        *none(
            never_back=rolled.never_back,
            gaps=rolled.gaps,
            regressions=rolled.regressions,
            leaks=rolled.leaks,
            mismatches=rolled.mismatches,
        ),
        Goal("without_s_max", rolled.without_s_max, STALE_S_MAX),
        Goal("silence_s_max", rolled.silence_s_max, STALE_S_MAX),
    ]


@contextlib.asynccontextmanager
async def _second_server(system: System, port: int) -> AsyncGenerator[Supervisor]:
    environment = {**system.supervisor.environment, "WEBSOCKET_PORT": str(port)}
    supervisor = Supervisor(environment, ["websocket_server"])
    try:
        await supervisor.start(is_embedded=False)
        yield supervisor
    finally:
        await supervisor.stop()


def haproxy_program() -> str:
    """Raises SettingsError naming the remedy."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        raise SettingsError("--rolling needs HAProxy, in Debian the package haproxy: apt-get install haproxy")
    if not CONFIG.exists():
        raise SettingsError(f"--rolling needs a checkout of the repository: there is no {CONFIG}")
    return program


@contextlib.asynccontextmanager
async def haproxy(port: int, *servers: int) -> AsyncGenerator[str]:
    """A HAProxy in front of two servers on loopback; its URL. Raises SettingsError, SystemFailed."""
    program = haproxy_program()
    one, two = (f"127.0.0.1:{server}" for server in servers)
    process = await asyncio.create_subprocess_exec(
        *(program, "-db", "-q", "-f", str(CONFIG)),
        env={**os.environ, "LISTEN": f"127.0.0.1:{port}", "SERVER_ONE": one, "SERVER_TWO": two},
        stdin=asyncio.subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        await wait_ready(url)
        yield url
    finally:
        await end_all([process])


async def _restart(supervisor: Supervisor, url: str) -> float:
    """Ask a server to end; its supervisor starts it again. How long until it was ready, in seconds."""
    before, started_s = supervisor.pids["websocket_server"], time.monotonic()
    os.kill(before, signal.SIGTERM)
    while supervisor.pids["websocket_server"] == before:
        await asyncio.sleep(0.05)
    await wait_ready(url)
    return round(time.monotonic() - started_s, 2)


@dataclass(frozen=True)
class Scene:
    """Two servers behind HAProxy, and the clients."""

    system: System
    crew: ClientProcesses
    servers: tuple[tuple[Supervisor, int], ...]  # who keeps it alive, its port
    connections: int


@contextlib.asynccontextmanager
async def behind_haproxy(
    connections: int,
    accounts: int,
    *,
    symbols: int = 200,
    rate: float = 1.0,
    trades_per_second: float | None = None,
    seed: int = 7,
) -> AsyncGenerator[Scene]:
    """Bring everything up; every client has its first value. Raises SettingsError, SystemFailed."""
    haproxy_program()  # before the work, not after it
    allow_files(3 * connections)  # HAProxy has two for each client
    trades = TRADES_PER_SYMBOL * symbols if trades_per_second is None else trades_per_second
    options = simulator_options(accounts, symbols, trades, seed)
    limit = str(max(1000, 4 * connections))  # all clients of this test come from one address
    overrides = {
        "MIN_UPDATE_INTERVAL": str(1 / rate),
        "LOG_LEVEL": "warning",
        "TRUSTED_PROXIES": "127.0.0.1",
        "CONNECTIONS_PER_ADDRESS": limit,
        "CONNECTS_PER_MINUTE": limit,
    }
    async with contextlib.AsyncExitStack() as stack:
        system = await stack.enter_async_context(running(options, port=0, overrides=overrides))
        await wait_known(system.url, accounts, lambda known: say(f"{known} of {accounts} accounts known"))
        first, second, front = (int(system.url.rpartition(":")[2]), free_port(0), free_port(0))
        other = await stack.enter_async_context(_second_server(system, second))
        await wait_ready(f"http://127.0.0.1:{second}")
        url = await stack.enter_async_context(haproxy(front, first, second))
        account_ids = await system.oracle.account_ids()
        chosen = [account_ids[index % len(account_ids)] for index in range(connections)]
        crew = await stack.enter_async_context(
            ClientProcesses(url, chosen, system.token_for, interval_s=1 / rate)
        )
        await crew.start(connections)
        say(f"{connections} clients behind HAProxy")
        yield Scene(system, crew, ((system.supervisor, first), (other, second)), connections)


async def rolling(connections: int, accounts: int, **options: Any) -> Rolled:
    """Bring everything up, restart both servers in turn, and take everything down."""
    async with behind_haproxy(connections, accounts, **options) as scene:
        return await roll(scene)


async def roll(scene: Scene) -> Rolled:
    """Restart both servers in turn, and ask the clients."""
    await _begin(scene)
    restart_s: list[float] = []
    for supervisor, port in scene.servers:
        restart_s.append(await _restart(supervisor, f"http://127.0.0.1:{port}"))
        say(f"the server on port {port} was ready again after {restart_s[-1]} s")
        await asyncio.sleep(BETWEEN_S)
    return await _ask(scene, restart_s)


async def storm(scene: Scene) -> Rolled:
    """Kill both servers at once, so that every client is cut, and ask the clients."""
    await _begin(scene)
    for supervisor, _ in scene.servers:
        os.kill(supervisor.pids["websocket_server"], signal.SIGKILL)
    give_up_s = time.monotonic() + SETTLE_S_MAX
    while (await scene.crew.seen()).cut_off < scene.connections and time.monotonic() < give_up_s:
        await asyncio.sleep(0.1)
    return await _ask(scene, [])


async def _begin(scene: Scene) -> None:
    """See for a while who gets values regularly, and measure from then on."""
    await scene.crew.measure()
    await asyncio.sleep(REGULAR_S)
    await scene.crew.measure()


async def _ask(scene: Scene, restart_s: list[float]) -> Rolled:
    crew, oracle = scene.crew, scene.system.oracle
    give_up_s = time.monotonic() + SETTLE_S_MAX
    while (moving := await crew.seen()).without_value and time.monotonic() < give_up_s:
        await asyncio.sleep(0.1)
    await oracle.pause()
    differing, _ = await converge(oracle, crew)
    await oracle.resume()
    seen = await crew.seen()
    rolled = Rolled(
        connections=scene.connections,
        restarts=len(restart_s),
        restart_s=restart_s,
        moved=len(seen.outages_s),
        without_s_p50=percentile_s(seen.outages_s, 0.5),
        without_s_p99=percentile_s(seen.outages_s, 0.99),
        without_s_max=percentile_s(seen.outages_s, 1),
        regular=moving.regular,
        silence_s_max=moving.silence_s if moving.regular else None,  # before the market stood still
        never_back=seen.without_value,
        gaps=seen.counts["gaps"],
        regressions=seen.counts["regressions"],
        leaks=seen.counts["leaks"],
        mismatches=len(differing),
        close_codes={str(code): count for code, count in seen.close_codes.items()},
    )
    return replace(rolled, failed=failed(goals(rolled)))

"""A rolling restart of two servers behind HAProxy, under load: `portfolio-realtime loadtest --rolling`.

The system has a second WebSocket server, and every client connects through HAProxy (`deploy/haproxy`). One
server is stopped with SIGTERM and started again, then the other. Each client measures how long it was without
a connection that has a value. If it got values regularly before, it also measures how long it received no
newer value: a connection can be open and silent.
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
from portfolio_harness.convergence import converge
from portfolio_harness.goals import STALE_S_MAX, Goal, failed, none
from portfolio_harness.lags import percentile_s
from portfolio_harness.progress import say
from portfolio_harness.system import System, running, simulator_options, wait_known, wait_ready
from portfolio_harness.valkey_kinds import ValkeyKind
from portfolio_realtime.errors import SettingsError
from portfolio_realtime.processes import end_all
from portfolio_realtime.state.embedded import free_port
from portfolio_realtime.supervisor import Supervisor

CONFIG: Final = Path(__file__).parents[2] / "deploy" / "haproxy" / "haproxy.cfg"
SETTLE_S_MAX: Final = 30.0
POLL_S: Final = 0.1
REGULAR_S: Final = 5.0  # before the restarts, to find the clients that get values regularly
BETWEEN_S: Final = 2.0  # for HAProxy to use the restarted server again
TRADES_PER_SYMBOL: Final = 5  # per second: nearly every account then has a newer value every second


@dataclass(frozen=True)
class Rolled:
    """The result of a rolling restart, as its clients saw it."""

    connections: int
    restarts: int
    restart_s: list[float]  # of each restart: from SIGTERM until the server was ready again
    moved: int  # how often a client lost its connection and got a value on another one
    without_s_p50: float
    without_s_p99: float
    without_s_max: float
    regular: int  # clients that got values regularly before
    silence_s_max: float | None  # the longest time without a newer value of a regular client; None: none
    never_back: int
    gaps: int
    regressions: int
    leaks: int
    mismatches: int
    close_codes: dict[str, int]
    failed: list[Goal] = field(default_factory=list[Goal])  # goals that were missed


def goals(rolled: Rolled) -> list[Goal]:
    """The goals of a rolling restart: promise P8, and no gaps, regressions, leaks or mismatches."""
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
    """The path of HAProxy's program. Raises SettingsError with the remedy when it is not installed."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        raise SettingsError("--rolling needs HAProxy: install it, on Debian with apt-get install haproxy")
    if not CONFIG.exists():
        raise SettingsError(f"--rolling needs a checkout of the repository: there is no {CONFIG}")
    return program


@contextlib.asynccontextmanager
async def haproxy(port: int, *servers: int) -> AsyncGenerator[str]:
    """Run HAProxy in front of two servers on loopback, given by port; yields its URL.

    Raises SettingsError, SystemFailed.
    """
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
    """Stop a server with SIGTERM; its supervisor starts it again. Returns the seconds until it was ready."""
    before, started_s = supervisor.pids["websocket_server"], time.monotonic()
    os.kill(before, signal.SIGTERM)
    while supervisor.pids["websocket_server"] == before:
        await asyncio.sleep(POLL_S)
    await wait_ready(url)
    return round(time.monotonic() - started_s, 2)


@dataclass(frozen=True)
class Scene:
    """Two servers behind HAProxy, and their clients."""

    system: System
    clients: ClientProcesses
    servers: tuple[tuple[Supervisor, int], ...]  # of each server: its supervisor and its port
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
    valkey: ValkeyKind = ValkeyKind.EMBEDDED,
) -> AsyncGenerator[Scene]:
    """Start everything; yields once every client has its first value.

    `rate` is in messages per second and account. Raises SettingsError, SystemFailed, ClientsFailed.
    """
    haproxy_program()  # fails before the start instead of after it
    allow_files(3 * connections)  # HAProxy has two connections per client
    trades = TRADES_PER_SYMBOL * symbols if trades_per_second is None else trades_per_second
    options = simulator_options(accounts, symbols, trades, seed)
    limit = str(max(1000, 4 * connections))  # all clients connect from one address
    overrides = {
        "MIN_UPDATE_INTERVAL": str(1 / rate),
        "LOG_LEVEL": "warning",
        "TRUSTED_PROXIES": "127.0.0.1",
        "CONNECTIONS_PER_ADDRESS": limit,
        "CONNECTS_PER_MINUTE": limit,
    }
    async with contextlib.AsyncExitStack() as stack:
        starting = running(options, port=0, overrides=overrides, valkey=valkey)
        system = await stack.enter_async_context(starting)
        await wait_known(system.url, accounts, lambda known: say(f"{known} of {accounts} accounts known"))
        first, second, front = (int(system.url.rpartition(":")[2]), free_port(), free_port())
        other = await stack.enter_async_context(_second_server(system, second))
        await wait_ready(f"http://127.0.0.1:{second}")
        url = await stack.enter_async_context(haproxy(front, first, second))
        account_ids = await system.oracle.account_ids()
        chosen = [account_ids[index % len(account_ids)] for index in range(connections)]
        clients = await stack.enter_async_context(
            ClientProcesses(url, chosen, system.token_for, interval_s=1 / rate)
        )
        await clients.start(connections)
        say(f"{connections} clients behind HAProxy")
        yield Scene(system, clients, ((system.supervisor, first), (other, second)), connections)


async def rolling(connections: int, accounts: int, **options: Any) -> Rolled:
    """Start everything, restart both servers in turn, and stop everything. See `behind_haproxy`."""
    async with behind_haproxy(connections, accounts, **options) as scene:
        return await roll(scene)


async def roll(scene: Scene) -> Rolled:
    """Restart both servers, one after the other, and return what the clients saw."""
    await _begin(scene)
    restart_s: list[float] = []
    for supervisor, port in scene.servers:
        restart_s.append(await _restart(supervisor, f"http://127.0.0.1:{port}"))
        say(f"the server on port {port} was ready again after {restart_s[-1]} s")
        await asyncio.sleep(BETWEEN_S)
    return await _ask(scene, restart_s)


async def storm(scene: Scene) -> Rolled:
    """Kill both servers at once, so that every client loses its connection; return what the clients saw."""
    await _begin(scene)
    for supervisor, _ in scene.servers:
        os.kill(supervisor.pids["websocket_server"], signal.SIGKILL)
    give_up_s = time.monotonic() + SETTLE_S_MAX
    while (await scene.clients.seen()).cut_off < scene.connections and time.monotonic() < give_up_s:
        await asyncio.sleep(POLL_S)
    return await _ask(scene, [])


async def _begin(scene: Scene) -> None:
    """Find the clients that get values regularly, and measure from then on."""
    await scene.clients.measure()
    await asyncio.sleep(REGULAR_S)
    await scene.clients.measure()


async def _ask(scene: Scene, restart_s: list[float]) -> Rolled:
    clients, oracle = scene.clients, scene.system.oracle
    give_up_s = time.monotonic() + SETTLE_S_MAX
    while (moving := await clients.seen()).without_value and time.monotonic() < give_up_s:
        await asyncio.sleep(POLL_S)
    await oracle.pause()
    differing, _ = await converge(oracle, clients)
    await oracle.resume()
    seen = await clients.seen()
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

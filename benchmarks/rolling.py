"""A rolling restart of two servers behind HAProxy, under load: `python -m benchmarks.rolling`.

A whole system with a second WebSocket server; every client comes through HAProxy (`deploy/haproxy`). One
server is asked to end and is started again, then the other. Each client tells how long it was without a
connection that gives values. Exit code 1 when one was for longer than P8 promises, or any frame was wrong.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import httpx
import uvloop

from portfolio_realtime.proving.crew import Crew, allow_files
from portfolio_realtime.proving.demo import converge, say
from portfolio_realtime.proving.system import System, running, wait_known
from portfolio_realtime.run_services import Supervisor, end_all

CONFIG: Final = Path(__file__).parents[1] / "deploy" / "haproxy" / "haproxy.cfg"
INTERVAL_S: Final = 1.0
WITHOUT_S_MAX: Final = 5.0  # P8
READY_S_MAX: Final = 60.0
SETTLE_S_MAX: Final = 30.0
BETWEEN_S: Final = 2.0  # the restarted server stands in the line-up again
REQUESTS_PER_ACCOUNT: Final = 6


class RollingFailed(Exception):
    """It could not be measured."""


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
    never_back: int
    gaps: int
    regressions: int
    leaks: int
    mismatches: int
    close_codes: dict[str, int]

    @property
    def is_clean(self) -> bool:
        """Did P8 hold, and everything else?"""
        wrong = self.never_back + self.regressions + self.leaks + self.mismatches
        return wrong == 0 and self.without_s_max <= WITHOUT_S_MAX


@contextlib.asynccontextmanager
async def _second_server(system: System, port: int) -> AsyncGenerator[Supervisor]:
    environment = {**system.supervisor.environment, "WEBSOCKET_PORT": str(port)}
    supervisor = Supervisor(environment, ["websocket_server"])
    try:
        await supervisor.start(is_embedded=False)
        yield supervisor
    finally:
        await supervisor.stop()


@contextlib.asynccontextmanager
async def haproxy(port: int, *servers: int) -> AsyncGenerator[str]:
    """A HAProxy in front of two servers on loopback; its URL. Raises RollingFailed."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        raise RollingFailed("no haproxy: apt-get install haproxy")
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


async def wait_ready(url: str) -> None:
    """Wait until a server says that it is ready. Raises RollingFailed."""
    give_up_s = time.monotonic() + READY_S_MAX
    async with httpx.AsyncClient(base_url=url, timeout=2.0) as client:
        while time.monotonic() < give_up_s:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get("/ready")).is_success:
                    return
            await asyncio.sleep(0.05)
    raise RollingFailed(f"{url}/ready did not answer yes within {READY_S_MAX:.0f} s")


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
    crew: Crew
    servers: tuple[tuple[Supervisor, int], ...]  # who keeps it alive, its port
    connections: int


@contextlib.asynccontextmanager
async def behind_haproxy(connections: int, accounts: int, *, seed: int = 7) -> AsyncGenerator[Scene]:
    """Bring everything up; every client has its first value. Raises RollingFailed."""
    allow_files(3 * connections)  # HAProxy has two for each client
    options = (
        *("--accounts", str(accounts), "--symbols", "200", "--seed", str(seed)),
        *("--rate-limit", str(max(10_000, REQUESTS_PER_ACCOUNT * accounts))),
    )
    limit = str(max(1000, 4 * connections))  # all clients of this test come from one address
    overrides = {
        "MIN_UPDATE_INTERVAL": str(INTERVAL_S),
        "LOG_LEVEL": "warning",
        "TRUSTED_PROXIES": "127.0.0.1",
        "CONNECTIONS_PER_ADDRESS": limit,
        "CONNECTS_PER_MINUTE": limit,
    }
    async with contextlib.AsyncExitStack() as stack:
        system = await stack.enter_async_context(running(options, port=0, overrides=overrides))
        await wait_known(system.url, accounts, lambda known: say(f"{known} of {accounts} accounts known"))
        first, second, front = (int(system.url.rpartition(":")[2]), _free_port(), _free_port())
        other = await stack.enter_async_context(_second_server(system, second))
        await wait_ready(f"http://127.0.0.1:{second}")
        url = await stack.enter_async_context(haproxy(front, first, second))
        account_ids = await system.oracle.account_ids()
        chosen = [account_ids[index % len(account_ids)] for index in range(connections)]
        crew = await stack.enter_async_context(Crew(url, chosen, system.token_for, interval_s=INTERVAL_S))
        await crew.start(connections)
        say(f"{connections} clients behind HAProxy")
        yield Scene(system, crew, ((system.supervisor, first), (other, second)), connections)


async def roll(scene: Scene) -> Rolled:
    """Restart both servers in turn, and ask the clients."""
    await scene.crew.measure()
    restart_s: list[float] = []
    for supervisor, port in scene.servers:
        restart_s.append(await _restart(supervisor, f"http://127.0.0.1:{port}"))
        say(f"the server on port {port} was ready again after {restart_s[-1]} s")
        await asyncio.sleep(BETWEEN_S)
    return await _ask(scene, restart_s)


async def storm(scene: Scene) -> Rolled:
    """Kill both servers at once, so that every client is cut, and ask the clients."""
    await scene.crew.measure()
    for supervisor, _ in scene.servers:
        os.kill(supervisor.pids["websocket_server"], signal.SIGKILL)
    give_up_s = time.monotonic() + SETTLE_S_MAX
    while len((await scene.crew.seen()).outages_s) < scene.connections and time.monotonic() < give_up_s:
        await asyncio.sleep(0.1)
    return await _ask(scene, [])


async def _ask(scene: Scene, restart_s: list[float]) -> Rolled:
    crew, oracle = scene.crew, scene.system.oracle
    give_up_s = time.monotonic() + SETTLE_S_MAX
    while (await crew.seen()).without_value and time.monotonic() < give_up_s:
        await asyncio.sleep(0.1)
    await oracle.pause()
    differing, _ = await converge(oracle, crew)
    await oracle.resume()
    seen = await crew.seen()
    without_s = seen.outages_s or [0.0]
    return Rolled(
        connections=scene.connections,
        restarts=len(restart_s),
        restart_s=restart_s,
        moved=len(seen.outages_s),
        without_s_p50=round(without_s[len(without_s) // 2], 2),
        without_s_p99=round(without_s[int(len(without_s) * 0.99)], 2),
        without_s_max=round(without_s[-1], 2),
        never_back=seen.without_value,
        gaps=seen.counts["gaps"],
        regressions=seen.counts["regressions"],
        leaks=seen.counts["leaks"],
        mismatches=len(differing),
        close_codes={str(code): count for code, count in seen.close_codes.items()},
    )


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main() -> None:
    """Roll, and print what the clients saw as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--accounts", type=int, default=1000)
    asked = parser.parse_args()

    async def rolling() -> Rolled:
        async with behind_haproxy(asked.connections, asked.accounts) as scene:
            return await roll(scene)

    rolled = uvloop.run(rolling())
    print(json.dumps(asdict(rolled)))
    sys.exit(0 if rolled.is_clean else 1)


if __name__ == "__main__":
    main()

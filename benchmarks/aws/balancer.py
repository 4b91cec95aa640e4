"""Clients behind a balancer with the template's settings: `.venv/bin/python -m benchmarks.aws.balancer`.

HAProxy stands for the load balancer: `/health` at the template's interval and thresholds, no retry, no other
server when one refuses, and it hears of a stop LATE_S after the server got SIGTERM, as users of ECS report.
First nobody trades for SILENT_S, with the balancer's shortest idle timeout. Then both servers are stopped and
replaced in turn while new clients come. Last the same with a grace of 2 s, which must show what the first
were spared. Prints what was seen as JSON; exit code 1 when a client was cut in silence or refused.
"""

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
import uvloop
from deploy.aws.checks.environment import environment
from deploy.aws.checks.template import Template
from deploy.aws.files import read
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from portfolio_harness.progress import say
from portfolio_harness.rolling_restart import haproxy_program
from portfolio_harness.system import System, running, simulator_options, wait_known, wait_ready
from portfolio_realtime.errors import PortfolioRealtimeError
from portfolio_realtime.processes import end_all, start_module
from portfolio_realtime.state.embedded import free_port

LATE_S: Final = 5.0
SILENT_S: Final = 130.0
SHORTEST_IDLE_S: Final = 60  # the balancer's default; the template's 300 would prove less
CLIENTS: Final = 50
NEWCOMERS_PER_S: Final = 20
STAY_S: Final = 1.0
ACCOUNTS: Final = 20
SHORT_GRACE_S: Final = 2

CONFIGURATION: Final = """
global
    stats socket {socket} level admin

defaults
    mode http
    timeout connect 5s
    timeout client {idle_s}s
    timeout server {idle_s}s
    timeout tunnel {idle_s}s
    retries 0
    option forwardfor

frontend clients
    bind 127.0.0.1:{port}
    http-request set-header X-Forwarded-Proto https
    default_backend servers

backend servers
    balance leastconn
    option httpchk
    http-check send meth GET uri {path} hdr Host 127.0.0.1
    http-check expect status 200
    timeout check {timeout_s}s
    default-server check inter {interval_s}s fall {fall} rise {rise}
"""


@dataclass
class Seen:
    """What clients saw."""

    silent_s: float = 0.0
    silent_clients: int = 0
    cut_in_silence: int = 0
    newcomers: int = 0
    refused: dict[str, int] = field(default_factory=dict[str, int])
    newcomers_with_short_grace: int = 0
    refused_with_short_grace: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def is_clean(self) -> bool:
        """Was nobody cut or refused, and did the drill see it where somebody was?"""
        seen = self.silent_clients and self.newcomers and self.refused_with_short_grace
        return bool(seen) and not self.cut_in_silence and not self.refused


class Balancer:
    """HAProxy before servers that come and go."""

    def __init__(self, folder: Path, port: int) -> None:
        self._socket = folder / "haproxy.sock"
        self.url = f"ws://127.0.0.1:{port}"
        self._file = folder / "haproxy.cfg"
        self._servers: list[int] = []
        target = Template(read("standard"), "standard", read("base")).one(
            "ElasticLoadBalancingV2::TargetGroup"
        )
        self._text = CONFIGURATION.format(
            socket=self._socket,
            idle_s=SHORTEST_IDLE_S,
            port=port,
            path=target.get("HealthCheckPath"),
            timeout_s=target.get("HealthCheckTimeoutSeconds"),
            interval_s=target.get("HealthCheckIntervalSeconds"),
            fall=target.get("UnhealthyThresholdCount"),
            rise=target.get("HealthyThresholdCount"),
        )

    @contextlib.asynccontextmanager
    async def before(self, *servers: int) -> AsyncGenerator[None]:
        """Run with these servers' ports; more may be told of."""
        self._servers = [*servers]
        lines = [f"    server s{port} 127.0.0.1:{port}" for port in servers]
        await asyncio.to_thread(self._file.write_text, self._text + "\n".join(lines) + "\n")
        process = await asyncio.create_subprocess_exec(haproxy_program(), "-db", "-q", "-f", str(self._file))
        try:
            yield
        finally:
            await end_all([process])

    async def tell(self, command: str) -> str:
        """One command to HAProxy's socket."""
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        writer.write(command.encode() + b"\n")
        answer = await reader.read()
        writer.close()
        return answer.decode().strip()

    async def register(self, port: int) -> None:
        """A new target, which is in use at once; a real one waits for its health checks."""
        await self.tell(f"add server servers/s{port} 127.0.0.1:{port}")
        await self.tell(f"enable server servers/s{port}")

    async def deregister(self, port: int) -> None:
        """No new clients for this one; those that are there may stay."""
        await self.tell(f"set server servers/s{port} state drain")


class Servers:
    """WebSocket servers with the template's settings, each a process as a task is."""

    def __init__(self, system: System) -> None:
        self._system = system
        template = Template(read("standard"), "standard", read("base"))
        told = environment(template.task("websocket_server"))
        names = ("DRAIN_GRACE_SECONDS", "DRAIN_SECONDS", "MAX_CONNECTION_AGE_SECONDS", "REQUIRE_TLS")
        self.settings: dict[str, str] = {name: told[name] for name in names}
        self._processes: dict[int, asyncio.subprocess.Process] = {}

    async def start(self, **settings: str) -> int:
        """Start one; its port, when it is ready."""
        port = free_port()
        told = {
            **self._system.supervisor.environment,
            **self.settings,
            **settings,
            "WEBSOCKET_PORT": str(port),
        }
        self._processes[port] = await start_module("portfolio_realtime.websocket_server", told)
        await wait_ready(f"http://127.0.0.1:{port}")
        return port

    def stop(self, port: int) -> "asyncio.Task[int]":
        """SIGTERM; the task ends with the process."""
        process = self._processes.pop(port)
        process.send_signal(signal.SIGTERM)
        return asyncio.create_task(process.wait())

    async def end(self) -> None:
        """End those that are left."""
        await end_all([*self._processes.values()])


async def drill(folder: Path) -> Seen:
    """Raises SettingsError, SystemFailed."""
    seen = Seen()
    trusted = {
        "TRUSTED_PROXIES": "127.0.0.1",
        "CONNECTS_PER_MINUTE": "100000",
        "CONNECTIONS_PER_ADDRESS": "10000",
    }
    async with running(simulator_options(ACCOUNTS, 50, 20, 7), port=0, overrides=trusted) as system:
        await wait_known(system.url, ACCOUNTS, lambda known: None)
        servers = Servers(system)
        try:
            await _silence(seen, system, servers, folder)
            seen.newcomers, seen.refused = await _stops(system, servers, folder)
            servers.settings["DRAIN_GRACE_SECONDS"] = str(SHORT_GRACE_S)
            counted = await _stops(system, servers, folder)
            seen.newcomers_with_short_grace, seen.refused_with_short_grace = counted
        finally:
            await servers.end()
    return seen


async def _silence(seen: Seen, system: System, servers: Servers, folder: Path) -> None:
    balancer, one = Balancer(folder, free_port()), await servers.start()
    account_ids = await system.oracle.account_ids()
    async with balancer.before(one), contextlib.AsyncExitStack() as stack:
        await _until_served(balancer)
        await system.oracle.pause()
        clients = [
            await stack.enter_async_context(_client(system, balancer, account_ids[index % len(account_ids)]))
            for index in range(CLIENTS)
        ]
        began_s = time.monotonic()
        readers = [asyncio.create_task(_read(client)) for client in clients]
        _, still_open = await asyncio.wait(readers, timeout=SILENT_S)
        seen.silent_s, seen.silent_clients = round(time.monotonic() - began_s, 1), len(clients)
        seen.cut_in_silence = len(readers) - len(still_open)
        for reader in still_open:
            reader.cancel()
        await system.oracle.resume()
    await servers.stop(one)
    say(f"{seen.silent_clients} silent clients for {seen.silent_s} s: {seen.cut_in_silence} were cut")


async def _read(client: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await client.recv()


async def _stops(system: System, servers: Servers, folder: Path) -> tuple[int, dict[str, int]]:
    """Two servers, replaced in turn as in a deployment; how many clients came, and how some were refused."""
    balancer = Balancer(folder, free_port())
    old = [await servers.start(), await servers.start()]
    outcomes: Counter[str] = Counter()
    async with balancer.before(*old):
        await _until_served(balancer)
        coming = asyncio.create_task(_come(system, balancer, outcomes))
        for port in old:
            await balancer.register(await servers.start())
            gone = servers.stop(port)
            await asyncio.sleep(LATE_S)
            await balancer.deregister(port)
            await gone
        coming.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await coming
    came = outcomes.total()
    del outcomes["let in"]
    grace_s = servers.settings["DRAIN_GRACE_SECONDS"]
    say(f"grace of {grace_s} s: of {came} new clients {outcomes.total()} were refused")
    return came, {**outcomes}


async def _come(system: System, balancer: Balancer, outcomes: "Counter[str]") -> None:
    account_ids = await system.oracle.account_ids()
    async with asyncio.TaskGroup() as group:
        for number in range(sys.maxsize):
            group.create_task(_visit(system, balancer, account_ids[number % len(account_ids)], outcomes))
            await asyncio.sleep(1 / NEWCOMERS_PER_S)


async def _visit(system: System, balancer: Balancer, account_id: str, outcomes: "Counter[str]") -> None:
    try:
        async with _client(system, balancer, account_id) as client:
            await client.recv()
            outcomes["let in"] += 1
            await asyncio.sleep(STAY_S)
    except ConnectionClosed as closed:
        code = closed.rcvd.code if closed.rcvd is not None else 1006
        outcomes["let in" if code == 4001 else f"closed with {code}"] += 1  # before its first value
    except (InvalidHandshake, OSError) as error:
        outcomes[
            type(error).__name__ + str(getattr(getattr(error, "response", None), "status_code", ""))
        ] += 1


def _client(system: System, balancer: Balancer, account_id: str) -> Any:
    return connect(
        f"{balancer.url}/ws/portfolio/{account_id}",
        additional_headers={"Authorization": f"Bearer {system.token_for(account_id)}"},
        ping_interval=None,  # only the server's pings keep it
        proxy=None,
    )


async def _until_served(balancer: Balancer) -> None:
    async with (
        httpx.AsyncClient(base_url=balancer.url.replace("ws", "http", 1)) as client,
        asyncio.timeout(60),
    ):
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get("/health")).is_success:
                    return
            await asyncio.sleep(0.1)


def main() -> None:
    """Run the drill."""
    with TemporaryDirectory(prefix="balancer-") as folder:
        try:
            seen = uvloop.run(drill(Path(folder)))
        except PortfolioRealtimeError as error:
            sys.exit(f"failed: {error}")
    print(json.dumps(asdict(seen), indent=2))
    sys.exit(not seen.is_clean)


if __name__ == "__main__":
    main()

"""Two of every service behind HAProxy, whose processes are replaced by those of another build."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final, NoReturn

from portfolio_harness.clients import CheckedClient, Clients
from portfolio_harness.convergence import converge
from portfolio_harness.oracle import Oracle
from portfolio_harness.rolling_restart import haproxy
from portfolio_harness.system import settings_for, simulator_options, start_simulator, wait_known, wait_ready
from portfolio_harness.valkey_kinds import Valkeys
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.processes import Process, end_all, end_with_parent
from portfolio_realtime.state import open_state
from portfolio_realtime.state.embedded import free_port
from tests.conftest import Until
from tests.faults.failover_stages import (
    CLIENTS,
    EQUAL_S_MAX,
    OPTIONS,
    SECRET,
    TOKEN_S,
    UPDATE_S,
    subject_of,
    token,
)
from tests.support.regular import until_regular

SHARDS: Final = 16
COLLECTOR, CONSUMER, CALCULATOR, SERVER = (
    "symbol_collector",
    "market_data_consumer",
    "portfolio_calculator",
    "websocket_server",
)
BEGIN_S_MAX: Final = 60.0
LOOK_S: Final = 0.1
REGULAR_S: Final = 15.0  # some accounts hold what is seldom traded
DRAIN: Final = {"DRAIN_GRACE_SECONDS": "1", "DRAIN_SECONDS": "2"}  # within the 4 s in which it must end
UNREAD: Final = ("could not be decoded", "unreadable entry")  # in a log: a message of another format


class Fleet:
    """The processes, each in its place: service and number, 0 or 1."""

    def __init__(self, valkey: Valkeys, environment: dict[str, str], logs: Path, until: Until) -> None:
        self.ports = (free_port(), free_port())
        self.state = open_state(valkey.url, holder="looks on", shards=SHARDS, lease_ms=1000)
        self._environment = {**os.environ, **environment, **DRAIN, "REDIS_URL": valkey.url}
        self._logs = logs
        self._until = until
        self._processes: dict[tuple[str, int], Process] = {}
        self._started = 0

    async def start(self, build: Path, service: str, number: int) -> None:
        """Start one; returns when it works."""
        self._started += 1
        own = {"PYTHONPATH": str(build), "WEBSOCKET_PORT": str(self.ports[number])}
        with (self._logs / f"{self._started:02d}-{service}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", f"portfolio_realtime.{service}"),
                env={**self._environment, **own},
                stderr=log,
                preexec_fn=end_with_parent,
                start_new_session=True,
            )
        self._processes[service, number] = process
        await self._until(lambda: self._has_begun(process), f"{service} begins", BEGIN_S_MAX)
        if service == SERVER:
            await wait_ready(f"http://127.0.0.1:{self.ports[number]}")

    async def replace(self, build: Path, service: str, number: int) -> None:
        """Once all servers are ready, end one with SIGTERM; then start its successor."""
        for port in self.ports:
            await wait_ready(f"http://127.0.0.1:{port}")
        await end_all([self._processes[service, number]])
        await self.start(build, service, number)

    async def writes(self) -> set[int]:
        """The versions of the wire that are written."""
        return {one.writes for one in await self.state.wire.read()}

    def read_nothing_unreadable(self) -> None:
        """Nobody met a message in a format that it does not know, and nobody failed."""
        for log in sorted(self._logs.iterdir()):
            text = log.read_text()
            assert not [word for word in (*UNREAD, "Traceback") if word in text], f"{log.name}: {text}"

    async def _has_begun(self, process: Process) -> bool:
        assert process.returncode is None
        found = await self.state.metrics.read_all()
        return any(f"-{process.pid}-" in instance for _, instance, _ in found)

    async def stop(self) -> None:
        """End everything."""
        await end_all(list(self._processes.values()))
        await self.state.close()


class Silences:
    """How long clients were without a newer value while they held anything that has a price."""

    def __init__(self, clients: Sequence[CheckedClient]) -> None:
        self._clients = clients
        self._orders = [client.order for client in clients]
        self._moved_s = [time.monotonic()] * len(clients)
        self._longest_s = 0.0

    async def watch(self) -> NoReturn:
        """Look at them until cancelled."""
        while True:
            now_s = time.monotonic()
            for place, client in enumerate(self._clients):
                if client.order != self._orders[place] or _holds_nothing(client):
                    self._orders[place], self._moved_s[place] = client.order, now_s
                self._longest_s = max(self._longest_s, now_s - self._moved_s[place])
            await asyncio.sleep(LOOK_S)

    def longest_s(self) -> float:
        """The longest one since this was asked last, in seconds."""
        longest_s, self._longest_s = self._longest_s, 0.0
        return longest_s


def _holds_nothing(client: CheckedClient) -> bool:
    return all(Decimal(row["quantity"]) == 0 for row in client.rows.values())


class Upgrade:
    """A fleet under clients."""

    def __init__(self, fleet: Fleet, clients: Clients, oracle: Oracle, until: Until) -> None:
        self.fleet = fleet
        self._clients = clients
        self._oracle = oracle
        self._until = until

    async def roll(self, name: str, build: Path, order: Sequence[tuple[str, int]]) -> float:
        """Replace these one by one, check what the clients saw, and print a row.

        Returns the longest time without a newer value, of clients that got values regularly before.
        """
        await until_regular(self._clients, self._until)
        await asyncio.sleep(REGULAR_S)
        self._clients.begin_measuring()
        regular = [client for client in self._clients.all if client.is_regular]
        silences_s: dict[str, float] = dict.fromkeys((COLLECTOR, CONSUMER, CALCULATOR, SERVER), 0.0)
        assert len(regular) > CLIENTS / 2, name
        cut = 0
        silences = Silences(regular)
        watching = asyncio.create_task(silences.watch())
        for service, number in order:
            await self.fleet.replace(build, service, number)
            silences_s[service] = max(silences_s[service], silences.longest_s())
            cut += self._clients.cut_off
            self._clients.begin_measuring()
        await cancel_until_ended([watching])
        await self._oracle.pause()
        differing, equal_s = await converge(self._oracle, self._clients, EQUAL_S_MAX)
        await self._oracle.resume()
        counts = self._clients.counts
        figures = [f"{silent_s:.1f}" for silent_s in silences_s.values()]
        print(f"| {name} | {' | '.join(figures)} | {equal_s} | {cut} |", flush=True)
        assert not differing, name
        assert (counts["regressions"], counts["leaks"], counts["gaps"], counts["unreadable"]) == (0, 0, 0, 0)
        self.fleet.read_nothing_unreadable()
        return max(silences_s.values())


@contextlib.asynccontextmanager
async def upgrading(valkey: Valkeys, build: Path, folder: Path, until: Until) -> AsyncGenerator[Upgrade]:
    """Start two of every service of a build; yields when every client has a value."""
    async with contextlib.AsyncExitStack() as stack:
        simulator, simulator_url = await start_simulator(simulator_options(CLIENTS, *OPTIONS))
        stack.push_async_callback(end_all, [simulator])
        oracle = Oracle(simulator_url)
        stack.push_async_callback(oracle.close)
        environment = {
            **settings_for(simulator_url, 0, SECRET),
            "SHARDS": str(SHARDS),
            "MIN_UPDATE_INTERVAL": str(UPDATE_S),
            "LOG_LEVEL": "info",
            "TRUSTED_PROXIES": "127.0.0.1",
            "CONNECTIONS_PER_ADDRESS": "1000",
            "CONNECTS_PER_MINUTE": "10000",
        }
        logs = folder / "logs"
        logs.mkdir()
        fleet = Fleet(valkey, environment, logs, until)
        stack.push_async_callback(fleet.stop)
        services = (COLLECTOR, CONSUMER, CALCULATOR, SERVER)
        await asyncio.gather(*(fleet.start(build, each, number) for each in services for number in (0, 1)))
        url = await stack.enter_async_context(haproxy(free_port(), *fleet.ports))
        await wait_known(f"http://127.0.0.1:{fleet.ports[0]}", CLIENTS, lambda _: None)

        def token_for(account_id: str) -> str:
            return token(SECRET, subject_of(account_id), [account_id], TOKEN_S)

        account_ids = (await oracle.account_ids())[:CLIENTS]
        clients = Clients(url, account_ids, token_for, interval_s=UPDATE_S, detail=True)
        stack.push_async_callback(clients.stop)
        await clients.start()
        yield Upgrade(fleet, clients, oracle, until)


def two_of(*services: str) -> list[tuple[str, int]]:
    """Both of each, one after the other."""
    return [(service, number) for service in services for number in (0, 1)]


def one_of_each(*services: str) -> list[tuple[str, int]]:
    """One of each, then the others."""
    return [(service, number) for number in (0, 1) for service in services]

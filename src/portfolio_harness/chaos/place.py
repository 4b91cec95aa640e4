"""The system under chaos: a simulator, a Valkey, and eight service processes, each behind its own proxy.

With a cluster there are no proxies: the nodes tell their clients their own addresses.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

from portfolio_harness.chaos.cut_proxy import CutProxy
from portfolio_harness.oracle import Oracle
from portfolio_harness.system import (
    settings_for,
    simulator_options,
    start_simulator,
    token,
    wait_known,
    wait_ready,
)
from portfolio_harness.valkey_cluster import ValkeyCluster
from portfolio_harness.valkey_kinds import ValkeyKind
from portfolio_harness.valkey_node import ValkeyNode
from portfolio_realtime.errors import SettingsError
from portfolio_realtime.processes import end_all, start_module
from portfolio_realtime.state import open_state
from portfolio_realtime.state.embedded import free_port

SERVICES: Final = ("symbol_collector", "market_data_consumer", "portfolio_calculator", "websocket_server")
FAKETIME: Final = tuple(
    Path(f"/usr/lib/{machine}-linux-gnu/faketime/libfaketime.so.1") for machine in ("x86_64", "aarch64")
)
TOKEN_S: Final = 24 * 3600
RESTARTS_MAX: Final = 60
KEEP_S: Final = 0.1  # between two looks whether a process is to be kept
SHARDS: Final = 16


def faketime() -> Path:
    """The path of libfaketime, which shifts a process's clock. Raises SettingsError with the remedy."""
    for path in FAKETIME:
        if path.exists():
            return path
    raise SettingsError("chaos needs libfaketime to shift clocks: apt-get install libfaketime")


class ServiceProcess:
    """One service process, which is restarted when it ends without an order."""

    def __init__(self, name: str, module: str, proxy: CutProxy, environment: dict[str, str]) -> None:
        self.name = name
        self.proxy = proxy
        self.began = 0  # how often it was started
        self.is_stopped = False  # by SIGSTOP
        self.deaths: list[str] = []  # ends that were not ordered
        self._module = module
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._is_wanted = False
        self._keeping: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The process id; 0 while it does not run."""
        return self._process.pid if self._process is not None and self._process.returncode is None else 0

    async def start(self) -> None:
        """Start it. When it ends by itself, `deaths` gets an entry and it is started again."""
        self.began += 1
        self._process = await start_module(self._module, self._environment)
        self._is_wanted, self.is_stopped = True, False
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(KEEP_S)
            process = self._process
            if process is None:
                continue
            code = await process.wait()
            if not self._is_wanted or process is not self._process:
                continue  # it was ended or replaced on purpose
            self.deaths.append(f"{self.name} ended by itself with code {code}")
            if len(self.deaths) < RESTARTS_MAX:
                await self.start()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self.pid:
            os.kill(self.pid, number)

    async def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it with a signal; it is not restarted until `start`."""
        self._is_wanted = False
        self.send(number)
        if self._process is not None:
            await self._process.wait()

    async def stop(self) -> None:
        """End it for good."""
        self._is_wanted = False
        if self._keeping is not None:
            self._keeping.cancel()
        self.send(signal.SIGCONT)
        if self._process is not None:
            await end_all([self._process])


class Place:
    """All processes of a session of chaos."""

    def __init__(
        self, folder: Path, seed: int, accounts: int, *, kind: ValkeyKind = ValkeyKind.EMBEDDED
    ) -> None:
        self.folder = folder
        self.cluster = ValkeyCluster(program=kind.program, is_debugged=True) if kind.is_cluster else None
        options = ("--dir", str(folder), "--dbfilename", "none.rdb", "--enable-protected-configs", "yes")
        self.valkey = ValkeyNode(free_port(), program=kind.program, options=options)  # started for one server
        self.services: dict[str, ServiceProcess] = {}
        self.urls: list[str] = []  # of the servers
        self.jwt_secret = secrets.token_urlsafe(48)
        self.start_s = 0.0  # how long the services took to start: a measure of this machine's speed
        self._seed = seed
        self._accounts = accounts

    @property
    def url(self) -> str:
        """The URL of Valkey, or of all nodes of the cluster, without a proxy."""
        return self.cluster.urls if self.cluster is not None else self.valkey.url

    @property
    def names(self) -> list[str]:
        """The names of all service processes."""
        return list(self.services)

    def of(self, kind: str) -> list[ServiceProcess]:
        """Both processes of a service."""
        return [one for one in self.services.values() if one.name.startswith(kind)]

    def token_for(self, account_id: str) -> str:
        """A token for one account, valid for a day."""
        return token(self.jwt_secret, f"client of {account_id}", [account_id], TOKEN_S)

    @contextlib.asynccontextmanager
    async def running(self, overrides: dict[str, str]) -> AsyncGenerator[Oracle]:
        """Start everything, yield the oracle, and end everything afterwards.

        `overrides` are settings by environment name. Raises SystemFailed, SettingsError.
        """
        library = faketime()
        trades = 2.0 * max(1, self._accounts)
        options = [*simulator_options(self._accounts, 40, min(200.0, trades), self._seed)]
        options += ["--activities-per-second", "2", "--heartbeat", "15"]  # as Alpaca's are said to come
        async with contextlib.AsyncExitStack() as stack:
            simulator, simulator_url = await start_simulator(options)
            stack.push_async_callback(end_all, [simulator])
            oracle = Oracle(simulator_url)
            stack.push_async_callback(oracle.close)
            if self.cluster is not None:
                await stack.enter_async_context(self.cluster)
            else:
                await self.valkey.start()
                stack.push_async_callback(self.valkey.kill)
            await self._confirm_revocations()
            began_s = time.monotonic()
            for module in SERVICES:
                for number in (1, 2):
                    await self._add(stack, module, number, simulator_url, library, overrides)
            for url in self.urls:
                await wait_ready(url)
            self.start_s = time.monotonic() - began_s
            await wait_known(self.urls[0], self._accounts, lambda _: None)
            yield oracle

    async def _add(
        self,
        stack: contextlib.AsyncExitStack,
        module: str,
        number: int,
        simulator_url: str,
        library: Path,
        overrides: dict[str, str],
    ) -> None:
        proxy = await stack.enter_async_context(CutProxy(self.valkey.port))
        name, port = f"{module}-{number}", free_port()
        self.set_clock(name, 0)
        environment = {
            **os.environ,
            **settings_for(simulator_url, port, self.jwt_secret),
            "REDIS_URL": f"redis://127.0.0.1:{proxy.port}/0" if self.cluster is None else self.url,
            "SHARDS": str(SHARDS),
            "SYMBOL_COLLECTION_INTERVAL": "5",
            "LOG_LEVEL": "error",
            "DRAIN_GRACE_SECONDS": "0",
            "DRAIN_SECONDS": "1",
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock_file(name)),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            **overrides,
        }
        service = self.services[name] = ServiceProcess(
            name, f"portfolio_realtime.{module}", proxy, environment
        )
        if module == "websocket_server":
            self.urls.append(f"http://127.0.0.1:{port}")
        await service.start()
        stack.push_async_callback(service.stop)

    def _clock_file(self, name: str) -> Path:
        return self.folder / f"{name}.clock"

    def set_clock(self, name: str, offset_s: float) -> None:
        """Shift a process's wall clock by `offset_s` seconds; its monotonic clock is not shifted."""
        written = self.folder / f"{name}.clock.new"
        written.write_text(f"{offset_s:+.3f}\n")
        written.replace(self._clock_file(name))

    async def _confirm_revocations(self) -> None:
        state = open_state(self.url, holder="chaos", shards=SHARDS, lease_ms=3000)
        await state.revocations.confirm()  # as in a system that has been running for long
        await state.close()

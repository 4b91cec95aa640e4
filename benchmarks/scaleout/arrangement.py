"""A system with so many of each process, under load, on one machine."""

import contextlib
import os
import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from benchmarks.compare.figures import Run
from benchmarks.compare.load import US, Load, Used, loaded, memory
from portfolio_harness.oracle import Oracle
from portfolio_harness.system import settings_for, simulator_options, start_simulator, wait_known, wait_ready
from portfolio_harness.valkey_cluster import ValkeyCluster
from portfolio_realtime.processes import end_all, start_module
from portfolio_realtime.state.embedded import EmbeddedServer, free_port

SHARDS: Final = 16


@dataclass(frozen=True)
class Arrangement:
    """How many of each there are; one collector and one consumer, which are never more at a time."""

    name: str
    calculators: int = 1
    servers: int = 1
    primaries: int = 1


async def run(arrangement: Arrangement, load: Load) -> Run:
    """Bring it up, load it, take it down. Raises SystemFailed, ClientsFailed."""
    options = simulator_options(load.accounts, load.symbols, load.trades_per_s, load.seed)
    simulator, simulator_url = await start_simulator(options)
    oracle, secret = Oracle(simulator_url), secrets.token_urlsafe(48)
    try:
        accounts = await oracle.account_ids()
        async with valkey(arrangement.primaries) as valkey_url:
            settings = {
                **settings_for(simulator_url, 0, secret),
                "REDIS_URL": valkey_url,
                "SHARDS": str(SHARDS),
                "MIN_UPDATE_INTERVAL": str(1 / load.rate),
                "LOG_LEVEL": "warning",
            }
            async with services(arrangement, settings) as urls:
                for url in urls:
                    await wait_ready(url)
                await wait_known(urls[0], len(accounts), lambda _: None)
                began = Used.now()
                figures = await loaded(urls, accounts, secret, os.getpid(), load)
                figures |= memory(os.getpid())
                others_share = began.others_share()
        figures["messages_per_core_s"] = US / figures["cpu_us_per_message"]
        return Run(figures, others_share)
    finally:
        await oracle.close()
        await end_all([simulator])


@contextlib.asynccontextmanager
async def valkey(primaries: int) -> AsyncGenerator[str]:
    """URL of a server, or of a cluster without replicas: what they cost is not asked here."""
    if primaries > 1:
        async with ValkeyCluster(primaries, replicas=0) as cluster:
            yield cluster.url
        return
    async with EmbeddedServer() as server:
        yield server.url


@contextlib.asynccontextmanager
async def services(
    arrangement: Arrangement, settings: dict[str, str], *, collectors: int = 1
) -> AsyncGenerator[list[str]]:
    """URLs of the servers."""
    ports = [free_port() for _ in range(arrangement.servers)]
    environment = {**os.environ, **settings}
    processes = [
        await start_module(f"portfolio_realtime.{name}", environment)
        for name in (
            *["symbol_collector"] * collectors,
            "market_data_consumer",
            *["portfolio_calculator"] * arrangement.calculators,
        )
    ]
    try:
        for port in ports:
            own = {**environment, "WEBSOCKET_PORT": str(port)}
            processes.append(await start_module("portfolio_realtime.websocket_server", own))
        yield [f"http://127.0.0.1:{port}" for port in ports]
    finally:
        await end_all(processes)

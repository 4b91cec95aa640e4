"""One run: a simulator and clients of this revision, the services of whichever."""

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from benchmarks.compare import usage
from benchmarks.compare.figures import Run
from benchmarks.compare.revisions import Revision
from portfolio_harness.client_processes import ClientProcesses
from portfolio_harness.lags import Lags
from portfolio_harness.oracle import Oracle
from portfolio_harness.system import (
    SystemFailed,
    settings_for,
    simulator_options,
    start_simulator,
    token,
    wait_known,
    wait_ready,
)
from portfolio_realtime.processes import end_all, end_with_parent
from portfolio_realtime.state.embedded import free_port

PROCESSES: Final = {  # part of a command line -> how its figures are named
    "portfolio_realtime.symbol_collector": "symbol_collector",
    "portfolio_realtime.market_data_consumer": "market_data_consumer",
    "portfolio_realtime.portfolio_calculator": "portfolio_calculator",
    "portfolio_realtime.websocket_server": "websocket_server",
    "portfolio_realtime.preloaded": "preloaded",  # the others' share of common memory is in theirs
    "portfolio_realtime.run_services": "supervisor",
    "valkey": "valkey",
    "redis-server": "valkey",
}
FIRST_VALUE_S_MAX: Final = 120.0
TRY_S: Final = 0.02
TOKEN_S: Final = 3600
US: Final = 1_000_000
# After a client has gone its account stays watched for half a minute, and later nobody knows it at once.
UNWATCHED_S: Final = 60.0


@dataclass(frozen=True)
class Load:
    """The same for both revisions."""

    connections: int  # 0: nobody watches
    accounts: int
    symbols: int
    trades_per_s: float  # over all symbols
    rate: float  # messages a second and account that the server may send
    warm_up_s: float
    duration_s: float
    seed: int
    stops_at_start: bool = False  # measure the start and the memory at rest, and open no connections


async def run(revision: Revision, load: Load, slower_ratio: float = 0.0) -> Run:
    """Bring it up, load it, take it down. Raises SystemFailed, ClientsFailed."""
    options = simulator_options(load.accounts, load.symbols, load.trades_per_s, load.seed)
    simulator, simulator_url = await start_simulator(options)
    oracle = Oracle(simulator_url)
    port, secret = free_port(), secrets.token_urlsafe(48)
    url = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ,
        **settings_for(simulator_url, port, secret),
        **revision.environment(slower_ratio),
        "RUN_SERVICES_PORT": str(port),
        "MIN_UPDATE_INTERVAL": str(1 / load.rate),
        "LOG_LEVEL": "warning",
    }
    try:
        accounts = await oracle.account_ids()
        began = Used.now()
        async with _services(revision, environment) as product:
            figures = await _start(url, accounts, secret, product.pid)
            if not load.stops_at_start:
                if load.connections:
                    figures |= await loaded([url], accounts, secret, product.pid, load)
                else:
                    figures |= await unwatched(product.pid, load)
            others_share = began.others_share()
        return Run(figures, others_share)
    finally:
        await oracle.close()
        await end_all([simulator])


@contextlib.asynccontextmanager
async def _services(
    revision: Revision, environment: Mapping[str, str]
) -> AsyncGenerator[asyncio.subprocess.Process]:
    with (revision.python.parents[2] / "services.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(str(revision.python), "-m", "portfolio_realtime.run_services"),
            env=environment,
            cwd=revision.source.parent,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=end_with_parent,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        await end_all([process])


async def _start(url: str, accounts: list[str], secret: str, pid: int) -> dict[str, float]:
    """From the start of the services: to the first value, and until all accounts are known; memory then."""
    started_s = time.monotonic()
    first_value = asyncio.create_task(_first_value_s(url, accounts[0], secret, started_s))
    await wait_ready(url)
    await wait_known(url, len(accounts), lambda _: None)
    known_s = time.monotonic() - started_s
    figures = {"first_value_s": await first_value, "known_s": known_s}
    by_name = pids_by_name(pid)
    collector_s = usage.cpu_s(by_name.get("symbol_collector", []))
    figures["collector_us_per_account"] = collector_s * US / len(accounts)
    figures |= memory(pid)
    services = [name for name in figures if name.startswith("proportional_mb.")]
    figures["proportional_mb"] = sum(figures[name] for name in services)
    return figures


async def _first_value_s(url: str, account_id: str, secret: str, started_s: float) -> float:
    """Dial until a value comes. Raises SystemFailed."""
    headers = {"Authorization": f"Bearer {token(secret, 'first', [account_id], TOKEN_S)}"}
    address = f"{url.replace('http', 'ws', 1)}/ws/portfolio/{account_id}"
    while time.monotonic() - started_s < FIRST_VALUE_S_MAX:
        with contextlib.suppress(OSError, WebSocketException, TimeoutError):
            async with connect(address, additional_headers=headers, proxy=None) as client:
                async for message in client:
                    if b'"equity"' in (message if isinstance(message, bytes) else message.encode()):
                        return time.monotonic() - started_s
        await asyncio.sleep(TRY_S)
    raise SystemFailed(f"no value within {FIRST_VALUE_S_MAX:.0f} s")


async def unwatched(pid: int, load: Load) -> dict[str, float]:
    """Prices move, and nobody watches; `pid` has started the product.

    `busy_ms_per_s` is the processor time of the services and Valkey, and `busy_ms_per_s.NAME` that of one.
    """
    await asyncio.sleep(UNWATCHED_S + load.warm_up_s)
    before = {name: usage.cpu_s(pids) for name, pids in pids_by_name(pid).items()}
    await asyncio.sleep(load.duration_s)
    after = {name: usage.cpu_s(pids) for name, pids in pids_by_name(pid).items()}
    spent = {name: (after[name] - before.get(name, 0.0)) * 1000 / load.duration_s for name in after}
    return {
        "busy_ms_per_s": sum(spent.values()),
        **{f"busy_ms_per_s.{name}": spent_ms for name, spent_ms in spent.items()},
    }


async def loaded(
    urls: Sequence[str], accounts: Sequence[str], secret: str, pid: int, load: Load
) -> dict[str, float]:
    """The load on servers at these URLs, each with its share of the clients; `pid` has started the product.

    `cores.NAME`: processor time of a service, or Valkey, in a second. Raises SystemFailed, ClientsFailed.
    """
    chosen = [accounts[index % len(accounts)] for index in range(load.connections)]
    async with contextlib.AsyncExitStack() as ended:
        groups = [
            await ended.enter_async_context(
                ClientProcesses(
                    url,
                    chosen[index :: len(urls)],
                    lambda account: token(secret, f"client of {account}", [account], TOKEN_S),
                    interval_s=1 / load.rate,
                )
            )
            for index, url in enumerate(urls)
        ]
        sizes = [len(chosen[index :: len(urls)]) for index in range(len(urls))]
        await asyncio.gather(*(group.start(size) for group, size in zip(groups, sizes, strict=True)))
        await asyncio.sleep(load.warm_up_s)
        before = {name: usage.cpu_s(pids) for name, pids in pids_by_name(pid).items()}
        await asyncio.gather(*(group.measure() for group in groups))
        await asyncio.sleep(load.duration_s)
        seen = await asyncio.gather(*(group.seen() for group in groups))
        after = {name: usage.cpu_s(pids) for name, pids in pids_by_name(pid).items()}
    messages = sum(one.counts["messages"] for one in seen)
    if not messages:
        raise SystemFailed("no message came while it was measured")
    used = {name: after[name] - before.get(name, 0.0) for name in after}
    spent = {name: used_s * US / messages for name, used_s in used.items()}
    lags = Lags().merge(one.lags for one in seen)
    return {
        "lag_ms_p50": lags.percentile_ms(0.5),
        "lag_ms_p99": lags.percentile_ms(0.99),
        "messages_per_s": messages / load.duration_s,
        "bytes_per_message": sum(one.counts["payload_bytes"] for one in seen) / messages,
        "cpu_us_per_message": sum(spent.values()),
        **{f"cpu_us_per_message.{name}": spent_us for name, spent_us in spent.items()},
        **{f"cores.{name}": used_s / load.duration_s for name, used_s in used.items()},
    }


def pids_by_name(pid: int) -> dict[str, list[int]]:
    """The product's processes that descend from this one, by the name of their figures."""
    found: dict[str, list[int]] = {}
    for one, command in usage.tree(pid).items():
        name = next((name for part, name in PROCESSES.items() if part in command), None)
        if name is not None:
            found.setdefault(name, []).append(one)
    return found


def memory(pid: int) -> dict[str, float]:
    """Resident and proportional MB of the product's processes that descend from this one, by kind."""
    figures = dict[str, float]()
    for name, pids in pids_by_name(pid).items():
        sizes = [usage.memory_mb(one) for one in pids]
        figures[f"resident_mb.{name}"] = sum(resident for resident, _ in sizes)
        figures[f"proportional_mb.{name}"] = sum(proportional for _, proportional in sizes)
    return figures


@dataclass(frozen=True)
class Used:
    """Processor time until a moment: of the machine, and of this process with all that it has started."""

    machine: usage.Machine
    own_s: float

    @classmethod
    def now(cls) -> Self:
        """Until now."""
        return cls(usage.machine(), usage.cpu_s(usage.tree(os.getpid())))

    def others_share(self) -> float:
        """The share of the machine's processor time since then that nothing of ours has used."""
        now = self.now()
        others_s = now.machine.busy_s - self.machine.busy_s - (now.own_s - self.own_s)
        return max(0.0, others_s / (now.machine.all_s - self.machine.all_s))

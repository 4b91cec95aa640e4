"""The four services and their clients, for drills in which Valkey's primary changes."""

import contextlib
import os
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from portfolio_harness.clients import Clients
from portfolio_harness.convergence import converge
from portfolio_harness.oracle import Oracle
from portfolio_harness.system import (
    settings_for,
    simulator_options,
    start_simulator,
    token,
    wait_known,
    wait_ready,
)
from portfolio_realtime.processes import end_all
from portfolio_realtime.run_services import SERVICES
from portfolio_realtime.state.embedded import free_port
from portfolio_realtime.supervisor import Supervisor

CLIENTS: Final = 40  # each of an account of its own
SYMBOLS: Final = 20
TRADES_PER_SYMBOL: Final = 5  # a second: every account has a newer value at each update
UPDATE_S: Final = 0.5
SECRET: Final = secrets.token_urlsafe(48)
TOKEN_S: Final = 3600
SILENT_S_MAX: Final = 30.0  # 10 s on a machine that has time
EQUAL_S_MAX: Final = 90.0
OPTIONS: Final = (SYMBOLS, TRADES_PER_SYMBOL * SYMBOLS, 5)  # of the simulator: symbols, trades a second, seed
Change = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Stage:
    """Everything that runs: after each change, `judge`."""

    supervisors: Sequence[Supervisor]
    oracle: Oracle
    clients: Clients
    account_ids: list[str]  # of all clients, then those that nobody watches
    url: str

    @property
    def pids(self) -> list[dict[str, int]]:
        """The process ids of all services: one that has ended would have another."""
        return [supervisor.pids for supervisor in self.supervisors]

    async def judge(self, name: str, *seen: str, silent_s_max: float = SILENT_S_MAX) -> None:
        """Stop the market until all clients are right, and print a row: name, `seen`, silence, wait, cut.

        Nobody may be silent for longer, cut off or go back, and none may differ in the end.
        """
        silent_s = self.clients.silence_s
        await self.oracle.pause()
        differing, equal_s = await converge(self.oracle, self.clients, EQUAL_S_MAX)
        await self.oracle.resume()
        figures = (name, *seen, f"{silent_s:.1f}", str(equal_s), str(self.clients.cut_off))
        print(f"| {' | '.join(figures)} |", flush=True)
        assert not differing, name
        assert silent_s <= silent_s_max, name
        counts = self.clients.counts
        assert (self.clients.cut_off, counts["regressions"], counts["leaks"]) == (0, 0, 0), name


def subject_of(account_id: str) -> str:
    """Whose token shows an account."""
    return f"client of {account_id}"


@contextlib.asynccontextmanager
async def staged(
    settings_of: Callable[[str], dict[str, str]],
    *,
    spare: int = 0,
    admit: Callable[[list[str]], Awaitable[None]] | None = None,
) -> AsyncGenerator[Stage]:
    """Each service under a supervisor of its own; yields when every client has a value.

    `settings_of`: name of a service -> its settings of Valkey and others. `spare`: accounts that nobody
    watches. `admit` is awaited with the clients' accounts before they connect.
    """
    async with contextlib.AsyncExitStack() as stack:
        simulator, simulator_url = await start_simulator(simulator_options(CLIENTS + spare, *OPTIONS))
        stack.push_async_callback(end_all, [simulator])
        oracle = Oracle(simulator_url)
        stack.push_async_callback(oracle.close)
        port = free_port()
        common = {
            **os.environ,
            **settings_for(simulator_url, port, SECRET),
            "MIN_UPDATE_INTERVAL": str(UPDATE_S),
            "LOG_LEVEL": "error",
        }
        supervisors: list[Supervisor] = []
        for service in SERVICES:
            supervisors.append(Supervisor({**common, **settings_of(service)}, [service]))
            stack.push_async_callback(supervisors[-1].stop)
            await supervisors[-1].start(is_embedded=False)
        url = f"http://127.0.0.1:{port}"
        await wait_ready(url)
        await wait_known(url, CLIENTS + spare, lambda _: None)
        account_ids = await oracle.account_ids()
        if admit is not None:
            await admit(account_ids[:CLIENTS])

        def token_for(account_id: str) -> str:
            return token(SECRET, subject_of(account_id), [account_id], TOKEN_S)

        clients = Clients(url, account_ids[:CLIENTS], token_for, interval_s=UPDATE_S, detail=True)
        stack.push_async_callback(clients.stop)
        await clients.start()
        yield Stage(supervisors, oracle, clients, account_ids, url)

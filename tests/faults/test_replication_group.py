"""The guide's ElastiCache on one machine: a primary, two replicas, TLS, least rights, an endpoint that moves.

The four services, each with its own user and kept by a supervisor, and 40 clients. The primary changes in
every way that there is; the one before lives on as a replica and keeps what was open, unless it is killed.
`python -m pytest -s -m drill tests/faults/test_replication_group.py` prints the table of docs/reliability.md.
"""

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest

from portfolio_harness.clients import Clients
from portfolio_harness.convergence import converge
from portfolio_harness.oracle import Oracle
from portfolio_harness.system import (
    free_port,
    settings_for,
    simulator_options,
    start_simulator,
    token,
    wait_known,
    wait_ready,
)
from portfolio_realtime.processes import end_all
from portfolio_realtime.run_services import SERVICES
from portfolio_realtime.state import State, open_state, rights
from portfolio_realtime.state.revocations import SubjectRevocation
from portfolio_realtime.supervisor import Supervisor
from tests.conftest import LEASE_MS, Until
from tests.support.authority import make_certificates
from tests.support.regular import until_regular
from tests.support.replication import ReplicationGroup, replication_group

CLIENTS: Final = 40
SYMBOLS: Final = 20
SHARDS: Final = 16
TRADES_PER_SYMBOL: Final = 5  # a second: every account has a newer value at each update
UPDATE_S: Final = 0.5
BEHIND_S: Final = 5.0  # by which the promoted replica is behind
LATE_S: Final = 15.0  # so long a name is believed to lead where it led
SECRET: Final = secrets.token_urlsafe(48)
TOKEN_S: Final = 3600
SILENT_S_MAX: Final = 30.0  # 10 s on a machine that has time
MARKED_S_MAX: Final = 30.0  # 5 s on a machine that has time
EQUAL_S_MAX: Final = 60.0
ASKED: Final = ("", "/explain", "/history?range=1d")
Change = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Stage:
    """Everything that runs."""

    group: ReplicationGroup
    supervisors: Sequence[Supervisor]
    oracle: Oracle
    operator: State
    clients: Clients
    account_ids: list[str]
    url: str

    @property
    def pids(self) -> list[dict[str, int]]:
        """Of every service: a service that ended would have another one."""
        return [supervisor.pids for supervisor in self.supervisors]

    async def answers(self, subject: str, account_id: str, path: str = "") -> int:
        """The status of a request of somebody who has a token."""
        headers = {"Authorization": f"Bearer {token(SECRET, subject, [account_id], TOKEN_S)}"}
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=EQUAL_S_MAX) as client:
            return (await client.get(f"/v1/portfolio/{account_id}{path}", headers=headers)).status_code

    async def settled(self, subject: str, account_id: str) -> int:
        """The same once the server knows what was revoked: until then it lets nobody in."""
        async with asyncio.timeout(SILENT_S_MAX):
            while (status := await self.answers(subject, account_id)) == 503:
                await asyncio.sleep(UPDATE_S)
            return status


@contextlib.asynccontextmanager
async def staged(folder: Path) -> AsyncGenerator[Stage]:
    """Started, with a value at every client."""
    async with contextlib.AsyncExitStack() as stack:
        group = await stack.enter_async_context(replication_group(folder, make_certificates(folder)))
        simulator, simulator_url = await start_simulator(
            simulator_options(CLIENTS + 2, SYMBOLS, TRADES_PER_SYMBOL * SYMBOLS, seed=5)
        )
        stack.push_async_callback(end_all, [simulator])
        oracle = Oracle(simulator_url)
        stack.push_async_callback(oracle.close)
        operator = open_state(group.url("operator"), holder="operator", shards=SHARDS, lease_ms=LEASE_MS)
        stack.push_async_callback(operator.close)
        await operator.revocations.confirm()  # a system that has been running for long
        port = free_port(0)
        common = {
            **os.environ,
            **settings_for(simulator_url, port, SECRET),
            "MIN_UPDATE_INTERVAL": str(UPDATE_S),
            "LOG_LEVEL": "error",
            "SHARDS": str(SHARDS),
            "ACCOUNT_ACCESS": "entitlements",
            "AUTHZ_INTERVAL": "0.5",
        }
        supervisors: list[Supervisor] = []
        for service in SERVICES:
            one = Supervisor({**common, **group.settings(rights.USER_OF[service])}, [service])
            stack.push_async_callback(one.stop)
            await one.start(is_embedded=False)
            supervisors.append(one)
        url = f"http://127.0.0.1:{port}"
        await wait_ready(url)
        await wait_known(url, CLIENTS + 2, lambda _: None)
        account_ids = await oracle.account_ids()
        for account_id in account_ids[:CLIENTS]:
            await operator.entitlements.write(subject_of(account_id), [account_id])
        clients = Clients(
            url,
            account_ids[:CLIENTS],
            lambda account_id: token(SECRET, subject_of(account_id), [account_id], TOKEN_S),
            interval_s=UPDATE_S,
            detail=True,
        )
        stack.push_async_callback(clients.stop)
        await clients.start()
        yield Stage(group, supervisors, oracle, operator, clients, account_ids, url)


def subject_of(account_id: str) -> str:
    """Whose token shows an account."""
    return f"client of {account_id}"


@pytest.mark.drill
async def test_the_primary_changes_and_nobody_is_cut_off_or_goes_back(tmp_path: Path, until: Until) -> None:
    """Handed over, reassigned with an endpoint that moves late, killed: silence, closes, order, promises."""
    async with staged(tmp_path) as stage:
        group, clients, spare = stage.group, stage.clients, stage.account_ids[CLIENTS:]
        pids = stage.pids

        async def hold(name: str, change: Change, *, moves_after_s: float = 0.0) -> None:
            await until_regular(clients, until)
            revoked, entitled = f"revoked before {name}", f"entitled before {name}"
            for subject in (revoked, entitled):
                await stage.operator.entitlements.write(subject, [spare[0]])
            await stage.operator.revocations.write(SubjectRevocation(revoked, int(time.time()) + 60), TOKEN_S)
            await group.whole()
            await change()
            marked = ""
            if moves_after_s:
                began_s = time.monotonic()
                await until(lambda: all(one.stale_hops for one in clients.all), "told", MARKED_S_MAX)
                marked = f"{time.monotonic() - began_s:.1f}"
                await asyncio.sleep(max(0.0, moves_after_s - (time.monotonic() - began_s)))
            group.move()
            await until(lambda: not any(one.stale_hops for one in clients.all), "live", SILENT_S_MAX)
            await asyncio.sleep(2 * UPDATE_S)
            silent_s = clients.silence_s
            await stage.oracle.pause()
            differing, equal_s = await converge(stage.oracle, clients, EQUAL_S_MAX)
            await stage.oracle.resume()
            print(f"| {name} | {marked} | {silent_s:.1f} | {equal_s} | {clients.cut_off} |", flush=True)
            assert not differing
            assert silent_s <= SILENT_S_MAX + moves_after_s
            assert (clients.cut_off, clients.counts["regressions"], clients.counts["leaks"]) == (0, 0, 0)
            assert stage.pids == pids, "a service has ended"
            assert await stage.settled(revoked, spare[0]) == 401
            for path in ASKED:
                assert await stage.answers(entitled, spare[0], path) == 200
            assert await stage.answers(entitled, spare[1]) == 404
            assert await group.denied() == []

        print("\n| the primary | all told after s | worst silence s | all equal after s | cut |")
        await hold("hands over (FAILOVER TO)", group.fail_over)
        await hold("is reassigned (REPLICAOF)", group.reassign)
        await hold("hands over, the name lags by 15 s", group.fail_over, moves_after_s=LATE_S)
        lost = group.primary
        await hold("is killed (SIGKILL)", group.lose_primary)
        await group.bring_back(lost)
        lost, late = group.primary, "revoked within the lost seconds"
        await stage.operator.entitlements.write(late, [spare[0]])

        async def lose_what_was_written() -> None:
            await group.detach()
            await stage.operator.revocations.write(SubjectRevocation(late, int(time.time()) + 60), TOKEN_S)
            await asyncio.sleep(BEHIND_S)
            await group.lose_primary()

        await hold(f"is killed, its replica {BEHIND_S:.0f} s behind", lose_what_was_written)
        assert await stage.settled(late, spare[0]) == 401
        await group.bring_back(lost)
        await hold("is killed, the name lags by 15 s", group.lose_primary, moves_after_s=LATE_S)

"""The guide's ElastiCache on one machine: a primary, two replicas, TLS, least rights, an endpoint that moves.

The four services, each with its own user and kept by a supervisor, and 40 clients. The primary changes in
every way that there is; the one before lives on as a replica and keeps what was open, unless it is killed.
`python -m pytest -s -m drill tests/faults/test_replication_group.py` prints the table of docs/reliability.md.
"""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Final

import httpx
import pytest

from portfolio_harness.system import token
from portfolio_realtime.state import open_state, rights
from portfolio_realtime.state.revocations import SubjectRevocation
from tests.conftest import LEASE_MS, Until
from tests.support.authority import make_certificates
from tests.support.regular import until_regular
from tests.support.replication import replication_group

from .failover_stages import (
    CLIENTS,
    EQUAL_S_MAX,
    SECRET,
    SILENT_S_MAX,
    TOKEN_S,
    UPDATE_S,
    Change,
    Stage,
    staged,
    subject_of,
)

SHARDS: Final = 16
SPARE: Final = 2  # accounts that nobody watches
BEHIND_S: Final = 5.0  # by which the promoted replica is behind
LATE_S: Final = 15.0  # so long a name is believed to lead where it led
MARKED_S_MAX: Final = 30.0  # 5 s on a machine that has time
ASKED: Final = ("", "/explain", "/history?range=1d")
ENTITLED: Final = {"SHARDS": str(SHARDS), "ACCOUNT_ACCESS": "entitlements", "AUTHZ_INTERVAL": "0.5"}


async def answers(stage: Stage, subject: str, account_id: str, path: str = "") -> int:
    """The status of a request of somebody who has a token."""
    headers = {"Authorization": f"Bearer {token(SECRET, subject, [account_id], TOKEN_S)}"}
    async with httpx.AsyncClient(base_url=stage.url, trust_env=False, timeout=EQUAL_S_MAX) as client:
        return (await client.get(f"/v1/portfolio/{account_id}{path}", headers=headers)).status_code


async def settled(stage: Stage, subject: str, account_id: str) -> int:
    """The same once the server knows what was revoked: until then it lets nobody in."""
    async with asyncio.timeout(SILENT_S_MAX):
        while (status := await answers(stage, subject, account_id)) == 503:
            await asyncio.sleep(UPDATE_S)
        return status


@pytest.mark.drill
async def test_the_primary_changes_and_nobody_is_cut_off_or_goes_back(tmp_path: Path, until: Until) -> None:
    """Handed over, reassigned with an endpoint that moves late, killed: silence, closes, order, promises."""
    async with contextlib.AsyncExitStack() as stack:
        group = await stack.enter_async_context(replication_group(tmp_path, make_certificates(tmp_path)))
        operator = open_state(group.url("operator"), holder="operator", shards=SHARDS, lease_ms=LEASE_MS)
        stack.push_async_callback(operator.close)
        await operator.revocations.confirm()  # a system that has been running for long

        async def admit(account_ids: list[str]) -> None:
            for account_id in account_ids:
                await operator.entitlements.write(subject_of(account_id), [account_id])

        stage = await stack.enter_async_context(
            staged(
                lambda service: {**ENTITLED, **group.settings(rights.USER_OF[service])},
                spare=SPARE,
                admit=admit,
            )
        )
        clients, spare, pids = stage.clients, stage.account_ids[CLIENTS:], stage.pids

        async def hold(name: str, change: Change, *, moves_after_s: float = 0.0) -> None:
            await until_regular(clients, until)
            revoked, entitled = f"revoked before {name}", f"entitled before {name}"
            for subject in (revoked, entitled):
                await operator.entitlements.write(subject, [spare[0]])
            await operator.revocations.write(SubjectRevocation(revoked, int(time.time()) + 60), TOKEN_S)
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
            await stage.judge(name, marked, silent_s_max=SILENT_S_MAX + moves_after_s)
            assert stage.pids == pids, "a service has ended"
            assert await settled(stage, revoked, spare[0]) == 401
            for path in ASKED:
                assert await answers(stage, entitled, spare[0], path) == 200
            assert await answers(stage, entitled, spare[1]) == 404
            assert await group.denied() == []

        print("\n| the primary | all told after s | worst silence s | all equal after s | cut |")
        await hold("hands over (FAILOVER TO)", group.fail_over)
        await hold("is reassigned (REPLICAOF)", group.reassign)
        await hold("hands over, the name lags by 15 s", group.fail_over, moves_after_s=LATE_S)
        lost = group.primary
        await hold("is killed (SIGKILL)", group.lose_primary)
        await group.bring_back(lost)
        lost, late = group.primary, "revoked within the lost seconds"
        await operator.entitlements.write(late, [spare[0]])

        async def lose_what_was_written() -> None:
            await group.detach()
            await operator.revocations.write(SubjectRevocation(late, int(time.time()) + 60), TOKEN_S)
            await asyncio.sleep(BEHIND_S)
            await group.lose_primary()

        await hold(f"is killed, its replica {BEHIND_S:.0f} s behind", lose_what_was_written)
        assert await settled(stage, late, spare[0]) == 401
        await group.bring_back(lost)
        await hold("is killed, the name lags by 15 s", group.lose_primary, moves_after_s=LATE_S)

"""Snapshot and restore, by a real RDB file and by none: every account again, and the time it takes."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from portfolio_harness.clients import Clients
from portfolio_harness.convergence import converge
from portfolio_harness.oracle import Oracle
from portfolio_harness.system import settings_for, start_simulator, token, wait_ready
from portfolio_harness.valkey_node import ValkeyNode
from portfolio_realtime.processes import end_all
from portfolio_realtime.run_services import SERVICES
from portfolio_realtime.state.embedded import free_port
from portfolio_realtime.supervisor import Supervisor
from tests.conftest import ONE_KIND, Until

SECRET = "9f1b8a7c-restore-drill-5d2e4f60-only-for-this-test"
MARKET = ("--accounts", "20", "--symbols", "40", "--seed", "5", "--activities-per-second", "1")


@pytest.mark.parametrize("has_snapshot", [True, False], ids=["from a snapshot", "from nothing"])
async def test_valkey_is_lost_and_comes_back(
    has_snapshot: bool, tmp_path: Path, until: Until, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under clients: all are right again without a hand, none goes back, and nobody has to reconnect."""
    simulator, simulator_url = await start_simulator(MARKET)
    port, oracle = free_port(), Oracle(simulator_url)
    options = ("--dir", str(tmp_path), "--dbfilename", "dump.rdb")
    valkey = ValkeyNode(program=ONE_KIND.program, options=options)
    await valkey.start()
    environment = {**os.environ, **settings_for(simulator_url, port, SECRET), "REDIS_URL": valkey.url}
    supervisor = Supervisor({**environment, "MIN_UPDATE_INTERVAL": "0.2", "LOG_LEVEL": "error"}, SERVICES)
    try:
        await supervisor.start(is_embedded=False)
        url = f"http://127.0.0.1:{port}"
        await wait_ready(url)
        clients = Clients(
            url,
            await oracle.account_ids(),
            lambda account_id: token(SECRET, f"client of {account_id}", [account_id], 600),
            interval_s=0.2,
            detail=True,
        )
        await clients.start()
        await until(lambda: clients.counts["messages"] > 100, "values move")
        if has_snapshot:
            await valkey.do("SAVE")
        messages = clients.counts["messages"]
        await until(lambda: clients.counts["messages"] > messages + 100, "the snapshot is old")
        await valkey.kill()
        await asyncio.sleep(1)
        began_s = time.monotonic()
        await valkey.start()
        messages = clients.counts["messages"]
        await until(lambda: clients.counts["messages"] > messages + 20, "values move again", 90)
        moved_s = time.monotonic() - began_s
        await oracle.pause()
        differing, converged_s = await converge(oracle, clients)
        await clients.stop()
    finally:
        await supervisor.stop()
        await oracle.close()
        await end_all([simulator])
        await valkey.kill()
    with capsys.disabled():
        print(
            f"\nvalues moved {moved_s:.1f} s after Valkey was started {'again' if has_snapshot else 'empty'}"
        )
    assert not differing and converged_s is not None
    assert [clients.counts[name] for name in ("regressions", "leaks", "reconnects")] == [0, 0, 0]

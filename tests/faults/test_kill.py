"""Promise P1 after a kill: each process in turn is killed -9 under clients; values converge again."""

from decimal import Decimal

import httpx
import pytest

from portfolio_harness.clients import Clients
from portfolio_harness.convergence import converge
from portfolio_harness.system import System, running
from tests.conftest import KIND, Until
from tests.support.processes import are_back, kill

INTERVAL_S = 0.2
BACK_S_MAX = 20.0  # restart, lease and reading again, on a busy machine
VICTIMS = ("websocket_server", "symbol_collector", "market_data_consumer", "portfolio_calculator", "valkey")
OPTIONS = ("--accounts", "12", "--symbols", "30", "--seed", "11", "--activities-per-second", "3")
OVERRIDES = {"MIN_UPDATE_INTERVAL": str(INTERVAL_S), "LOG_LEVEL": "warning"}


@pytest.mark.parametrize("victim", VICTIMS)
async def test_values_converge_after_a_kill(victim: str, until: Until) -> None:
    """A killed process is back by itself; what happened meanwhile is in the values, and none went back."""
    async with running(OPTIONS, port=0, overrides=OVERRIDES, valkey=KIND) as system:
        clients = await _clients(system)
        killed = kill(system, victim)
        await _deposit(system, clients.all[0].account_id, "1234.56")
        await until(lambda: are_back(system, killed), f"{victim} is back", BACK_S_MAX)
        await until(lambda: _shows_deposit(clients), "the deposit is shown", BACK_S_MAX)
        messages = clients.counts["messages"]
        await until(lambda: clients.counts["messages"] > messages + 50, "values move again", BACK_S_MAX)
        await system.oracle.pause()

        differing, converged_s = await converge(system.oracle, clients)
        await clients.stop()

    assert not differing
    assert converged_s is not None
    assert clients.counts["regressions"] == 0
    assert clients.counts["leaks"] == 0


async def test_values_converge_after_everything_was_killed(until: Until) -> None:
    """Even when all of it is killed at once, nobody needs to lift a hand."""
    async with running(OPTIONS, port=0, overrides=OVERRIDES, valkey=KIND) as system:
        clients = await _clients(system)
        killed = kill(system, *VICTIMS)
        await _deposit(system, clients.all[0].account_id, "1234.56")
        await until(lambda: are_back(system, killed), "all are back", BACK_S_MAX)
        await until(lambda: _shows_deposit(clients), "the deposit is shown", BACK_S_MAX)
        await system.oracle.pause()

        differing, _ = await converge(system.oracle, clients)
        await clients.stop()

    assert not differing
    assert clients.counts["regressions"] == 0


async def _clients(system: System) -> Clients:
    account_ids = await system.oracle.account_ids()
    clients = Clients(system.url, account_ids, system.token_for, interval_s=INTERVAL_S, detail=True)
    await clients.start()
    return clients


async def _deposit(system: System, account_id: str, amount: str) -> None:
    body = {"account_id": account_id, "activity_type": "CSD", "amount": amount}
    async with httpx.AsyncClient(base_url=system.simulator_url, timeout=10) as simulator:
        (await simulator.post("/_sim/cash", json=body)).raise_for_status()


def _shows_deposit(clients: Clients) -> bool:
    newest = clients.all[0].newest
    return newest is not None and Decimal(newest["external_cash_flow"]) >= Decimal("1234.56")

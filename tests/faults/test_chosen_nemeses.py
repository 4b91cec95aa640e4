"""Nemeses of `make chaos` one by one: each way to evict, each link narrow,
each clock drifting, each process starved, each family of keys deleted.

`python -m pytest -s -m drill tests/faults/test_chosen_nemeses.py` prints a table of each. After every nemesis
each client shows the ledger's value; meanwhile nothing is wrong and unmarked for longer than allowed, nobody
goes back in (epoch, sequence), nobody sees somebody else's account, and a revoked token is not let in.
"""

from typing import Final

import pytest
from rich.console import Console

from portfolio_harness.chaos import session
from portfolio_harness.chaos.chaos_step import ChaosStep
from portfolio_harness.chaos.disturbances import POLICIES
from portfolio_harness.chaos.place import SERVICES

CLIENTS: Final = 20
SEED: Final = 3
EVICTS_S: Final = 5.0
NARROW_S: Final = 8.0
DRIFTS_S: Final = 6.0
STARVED_S: Final = 8.0
FAMILIES: Final = 26  # at least as many as there are: then it begins again
TABLE_WIDTH: Final = 160


def evictions() -> list[ChaosStep]:
    """Memory that is full under each policy; after each, a server that restarts."""
    steps: list[ChaosStep] = []
    for policy in POLICIES:
        steps.append(ChaosStep("keys evicted", "symbol_collector-1", EVICTS_S, 0, policy))
        steps.append(ChaosStep("kill -9", "websocket_server-1", 1.0, 0))
    return [*steps, ChaosStep("memory full", "symbol_collector-1", EVICTS_S, 0, "noeviction")]


def narrow_links() -> list[ChaosStep]:
    """A few KB a second between each process and Valkey."""
    return [
        ChaosStep("narrow link", f"{name}-{number}", NARROW_S, 0) for name in SERVICES for number in (1, 2)
    ]


def drifts() -> list[ChaosStep]:
    """Each process's clock, fast and slow."""
    return [ChaosStep("clock drifts", f"{name}-1", DRIFTS_S, skew) for name in SERVICES for skew in (1, -1)]


def starved() -> list[ChaosStep]:
    """A tenth of a core for each process."""
    return [ChaosStep("a tenth of a core", f"{name}-1", STARVED_S, 0) for name in SERVICES]


def families() -> list[ChaosStep]:
    """All keys of each family at once, one family after the other."""
    return [ChaosStep("family deleted", "symbol_collector-1", number / 1000, 0) for number in range(FAMILIES)]


PLANS: Final = {
    "evicted": evictions(),
    "narrow": narrow_links(),
    "drifting": drifts(),
    "starved": starved(),
    "families": families(),
}


@pytest.mark.drill
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", PLANS)
async def test_every_promise_holds(name: str) -> None:
    """While it lasts, and afterwards."""
    steps = PLANS[name]
    held = await session.hold_steps(lambda _: steps, seed=SEED, seconds=1000, clients=CLIENTS)

    Console(width=TABLE_WIDTH).print(session.table(held))
    assert [outcome.step for outcome in held.outcomes] == steps
    assert [outcome for outcome in held.outcomes if not outcome.is_clean] == []
    assert held.refused

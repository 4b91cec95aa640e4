"""Clients that get values regularly: only their silence says anything about a fault."""

import asyncio
from typing import Final

from portfolio_harness.clients import REGULAR_S_MAX, Clients
from tests.conftest import Until

LOOK_S: Final = 2 * REGULAR_S_MAX  # for which values must come
SHARE_MIN: Final = 0.75  # of the clients: an account may have sold everything, or hold what nobody trades
STEADY_S_MAX: Final = 90.0


async def until_regular(clients: Clients, until: Until) -> None:
    """Most clients get values regularly; from here on their silence is counted."""

    async def is_regular() -> bool:
        clients.begin_measuring()
        await asyncio.sleep(LOOK_S)
        clients.begin_measuring()
        return clients.regular >= SHARE_MIN * len(clients.all)

    await until(is_regular, "clients get values regularly", STEADY_S_MAX)

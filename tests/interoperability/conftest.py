"""One running server for all tests of a file: what one does to it must not disturb the next."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

import pytest_asyncio

from portfolio_realtime.state import open_state
from tests.conftest import SHARDS, own_valkey
from tests.support.websocket_servers import Calculator, Served, serving, write_accounts

ACCOUNT_ID = "a"
LEASE_MS = 600_000  # the calculator of these tests does not renew


@dataclass
class Running:
    """A server, and the calculator behind it."""

    served: Served
    calculator: Calculator
    sequence: int = 0

    async def publish(self) -> int:
        """A new value of the account; its sequence, which is also its equity in dollars."""
        self.sequence += 1
        quantities = {"AAPL": str(self.sequence), "BTC/USD": "0.5"}
        await self.calculator.publish(ACCOUNT_ID, self.sequence, quantities, equity=f"{self.sequence}.00")
        return self.sequence


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncGenerator[Running]:
    """A server whose account has a value, on a Valkey of its own: other tests empty theirs."""
    async with own_valkey() as valkey:
        state = open_state(valkey.url, holder="calculator", shards=SHARDS, lease_ms=LEASE_MS)
        try:
            await write_accounts(state, ACCOUNT_ID)
            async with serving(valkey.url) as served:
                running = Running(served, Calculator(state))
                await running.publish()
                yield running
        finally:
            await state.close()

"""A running server with three accounts, for the tests on real sockets."""

from collections.abc import AsyncGenerator

import pytest

from portfolio_realtime.state import State
from tests.support.websocket_servers import Calculator, Served, serving, write_accounts


@pytest.fixture
async def calculator(state: State) -> Calculator:
    """Publishes for the accounts a, ab and b, which have records."""
    await write_accounts(state, "a", "ab", "b")
    return Calculator(state)


@pytest.fixture
async def server(calculator: Calculator, valkey_url: str) -> AsyncGenerator[Served]:
    """A server with a JWT secret and an API key."""
    async with serving(valkey_url) as served:
        yield served

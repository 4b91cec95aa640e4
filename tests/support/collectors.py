"""Symbol collectors against a simulated broker, and whether they know everything."""

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from typing import Any

from prometheus_client import CollectorRegistry

from portfolio_realtime import config
from portfolio_realtime.clock import SystemClock
from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.service import Context
from portfolio_realtime.state import State
from portfolio_realtime.symbol_collector import collector
from tests.conftest import (
    LEASE_MS,
    SHARDS,
    Simulator,
    Until,
    running_service,
)

SETTINGS: dict[str, Any] = {
    "lease_ms": LEASE_MS,
    "lease_renew_ms": LEASE_MS // 3,
    "shards": SHARDS,
    "symbol_collection_interval": 3,
}


def context_of(simulator: Simulator, state: State, **settings: Any) -> Context:
    """A context as `service.main` makes it, pointed at the simulator."""
    values = {name.lower(): value for name, value in simulator.environment.items()}
    loaded = config.load(**{**values, **SETTINGS, **settings})
    return Context(loaded, state, SystemClock(), CollectorRegistry(), "test")


def running(context: Context) -> AbstractAsyncContextManager[asyncio.Task[None]]:
    """The collector as a task; it must not have failed when the test ends it."""
    return running_service(collector.run(context))


async def difference(simulator: Simulator, state: State) -> list[str]:
    """What of the records differs from the truth, account by account."""
    truth = (await simulator.get("/_sim/truth"))["accounts"]
    found: list[str] = []
    for account_id, true in truth.items():
        account = await state.accounts.read_one(account_id)
        if account is None:
            found.append(f"{account_id} has no record")
            continue
        held = {position.symbol: position.quantity for position in account.positions if position.quantity}
        wanted = {position["symbol"]: Decimal(position["quantity"]) for position in true["positions"]}
        numbers = (account.cash, account.last_equity, account.external_cash_flow)
        true_numbers = tuple(Decimal(true[name]) for name in ("cash", "last_equity", "external_cash_flow"))
        if numbers != true_numbers or held != wanted:
            found.append(f"{account_id}: {numbers} is not {true_numbers}, or {held} is not {wanted}")
    return found


def exact(simulator: Simulator, state: State) -> Callable[[], Any]:
    """A predicate: every record is exactly the truth."""

    async def check() -> bool:
        return not await difference(simulator, state)

    return check


async def wait_exact(simulator: Simulator, state: State, until: Until, deadline_s: float = 20) -> None:
    """Wait until every record is exactly the truth."""
    try:
        await until(exact(simulator, state), "every record is exact", deadline_s)
    except AssertionError as error:
        raise AssertionError(f"{error}: {await difference(simulator, state)}") from None


def all_known(simulator: Simulator, state: State) -> Callable[[], Any]:
    """A predicate: every account has a record."""

    async def check() -> bool:
        listed = (await simulator.get("/_sim/accounts"))["accounts"]
        with contextlib.suppress(StateUnavailable):
            return set(listed) == set(await state.accounts.ids())
        return False

    return check


async def learn_no_names(*_: object) -> None:
    """In place of asking the broker for names of assets, where requests are counted."""
    await asyncio.Event().wait()

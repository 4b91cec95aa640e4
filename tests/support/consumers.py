"""Market data consumers against a simulated market, and the marks that are right."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from typing import Any

from prometheus_client import CollectorRegistry

from portfolio_realtime import config
from portfolio_realtime.clock import SystemClock
from portfolio_realtime.market_data_consumer import consumer
from portfolio_realtime.model import Mark, exact
from portfolio_realtime.service import Context
from portfolio_realtime.state import State
from portfolio_realtime.state.connection import Message
from portfolio_realtime.state.marks import decode_marks
from tests.conftest import LEASE_MS, Simulator, running_service


def context_of(simulator: Simulator, state: State, **settings: Any) -> Context:
    """A context as `service.main` makes it, pointed at the simulator."""
    values = {name.lower(): value for name, value in simulator.environment.items()}
    merged = {"lease_ms": LEASE_MS, "lease_renew_ms": LEASE_MS // 3, "mark_flush_interval": 0.05}
    return Context(
        config.load(**{**values, **merged, **settings}), state, SystemClock(), CollectorRegistry(), "test"
    )


def running(context: Context) -> AbstractAsyncContextManager[asyncio.Task[None]]:
    """The consumer as a task; it must not have failed when the test ends it."""
    return running_service(consumer.run(context))


async def held_symbols(simulator: Simulator) -> dict[str, str]:
    """Symbol -> asset class of everything that an account holds."""
    truth = await simulator.get("/_sim/truth")
    return {
        position["symbol"]: position["asset_class"]
        for account in truth["accounts"].values()
        for position in account["positions"]
    }


async def true_marks(simulator: Simulator) -> dict[str, tuple[Decimal, Decimal]]:
    """Symbol -> mark and previous close, as the simulator's ledger has them."""
    truth = await simulator.get("/_sim/truth")
    return {
        position["symbol"]: (Decimal(position["mark"]), Decimal(position["previous_close"]))
        for account in truth["accounts"].values()
        for position in account["positions"]
    }


async def write_universe(state: State, added: dict[str, str], removed: list[str] | None = None) -> None:
    """What the symbol collector does."""
    lease = await state.leases.acquire("symbol_collector")
    assert lease is not None
    await state.accounts.write_universe(lease, added, removed or [])
    await state.leases.release(lease)


async def marks_of(state: State) -> dict[str, Mark]:
    """The marks in Valkey."""
    return {mark.symbol: mark for mark in await state.marks.read_all()}


def all_true(state: State, truth: dict[str, tuple[Decimal, Decimal]]) -> Callable[[], Any]:
    """A predicate: every mark in Valkey is exactly the true one."""

    async def check() -> bool:
        marks = await marks_of(state)
        return all(
            symbol in marks
            and exact(marks[symbol].price) == mark
            and marks[symbol].previous_close is not None
            and exact(marks[symbol].previous_close or 0.0) == close
            for symbol, (mark, close) in truth.items()
        )

    return check


async def announced(batches: Any, symbol: str, last: Decimal) -> list[Decimal]:
    """The prices announced for a symbol, up to and including `last`."""
    seen: list[Decimal] = []
    async with asyncio.timeout(10):
        async for message in batches:
            if isinstance(message, Message):
                seen += [
                    exact(mark.price) for mark in decode_marks(message.payload).marks if mark.symbol == symbol
                ]
                if seen[-1:] == [last]:
                    break
    await batches.aclose()
    return seen


def reconnect_count(context: Context, reason: str | None = None) -> float:
    """How often any feed has been lost, for a reason or for any."""
    name = "portfolio_realtime_feed_reconnects_total"
    return sum(
        sample.value
        for family in context.registry.collect()
        for sample in family.samples
        if sample.name == name and reason in (None, sample.labels["reason"])
    )

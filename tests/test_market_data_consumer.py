"""The market data consumer against a simulated Alpaca and a real Valkey: every mark is the venue's own."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from portfolio_realtime import config, market_data_consumer
from portfolio_realtime.clock import SystemClock
from portfolio_realtime.model import Mark, exact
from portfolio_realtime.service import Context
from portfolio_realtime.state import State
from tests.conftest import LEASE_MS, Simulator, StartSimulator, Until

ENDS_S_MAX = 5.0


def context_of(simulator: Simulator, state: State, **settings: Any) -> Context:
    """A context as `service.main` makes it, pointed at the simulator."""
    values = {name.lower(): value for name, value in simulator.environment.items()}
    merged = {"lease_ms": LEASE_MS, "lease_renew_ms": LEASE_MS // 3, "mark_flush_interval": 0.05}
    return Context(
        config.load(**values, **{**merged, **settings}), state, SystemClock(), CollectorRegistry(), "test"
    )


@contextlib.asynccontextmanager
async def running(context: Context) -> AsyncGenerator[asyncio.Task[None]]:
    """The consumer as a task; it must not have failed when the test ends it."""
    task = asyncio.create_task(market_data_consumer.run(context))
    try:
        yield task
        assert not task.done(), task
    finally:
        task.cancel()
        async with asyncio.timeout(ENDS_S_MAX):
            with contextlib.suppress(asyncio.CancelledError):
                await task


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


@pytest.fixture
async def market(simulator: StartSimulator) -> Simulator:
    """A small busy market with stocks, crypto and options."""
    return await simulator(accounts=20, symbols=60, trades_per_second=400, activities_per_second=0)


async def test_every_mark_is_the_venues_own(market: Simulator, state: State, until: Until) -> None:
    """Every held symbol gets a mark, and when the market pauses all are exact, with their previous close."""
    symbols = await held_symbols(market)
    assert set(symbols.values()) == {"us_equity", "us_option", "crypto"}
    await write_universe(state, symbols)
    async with running(context_of(market, state)):

        async def every_symbol_is_marked() -> bool:
            return symbols.keys() <= (await marks_of(state)).keys()

        await until(every_symbol_is_marked, "every symbol is marked")
        await market.post("/_sim/pause")
        await until(all_true(state, await true_marks(market)), "every mark is exact")


async def test_event_loop_in_market_data_consumer(market: Simulator, state: State, until: Until) -> None:
    """The consumer starts and stops inside a loop that is already running, and ends at once when asked."""
    await write_universe(state, await held_symbols(market))
    started_s = time.monotonic()
    async with running(context_of(market, state)):
        await until(lambda: marks_of(state), "the first marks are there")
    assert time.monotonic() - started_s < 4 * ENDS_S_MAX

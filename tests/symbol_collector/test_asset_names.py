"""Names of what is held: each symbol is asked about once, after everything else."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest

from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.clock import SystemClock
from portfolio_realtime.errors import BrokerUnavailable
from portfolio_realtime.model import CRYPTO, US_EQUITY, US_OPTION
from portfolio_realtime.state import State
from portfolio_realtime.symbol_collector.sources import asset_names
from portfolio_realtime.symbol_collector.sources.asset_names import learn_names, name_of
from tests.conftest import Until

OPTION = "AAPL261218C00150000"
UNIVERSE = {"AAPL": US_EQUITY, "BTC/USD": CRYPTO, OPTION: US_OPTION, "NEWCO": US_EQUITY}


class Broker:
    """Knows two names; what is asked is in `asked`."""

    def __init__(self, failures: int = 0) -> None:
        self.asked: list[str] = []
        self._failures = failures

    async def asset(self, symbol: str) -> Any:
        """As the broker's client answers."""
        self.asked.append(symbol)
        if len(self.asked) <= self._failures:
            raise BrokerUnavailable("tired")
        names = {"AAPL": "Apple Inc. Common Stock", "BTC/USD": "Bitcoin / US Dollar"}
        return {"symbol": symbol, "name": names[symbol]} if symbol in names else None


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses to wait for."""
    for name in ("POLL_S", "PAUSE_S", "BROKER_PAUSE_S"):
        monkeypatch.setattr(asset_names, name, 0.01)


@contextlib.asynccontextmanager
async def learning(state: State, broker: Broker, universe: Mapping[str, str]) -> AsyncGenerator[None]:
    """`learn_names` at work."""
    task = asyncio.create_task(learn_names(state, broker, lambda: universe, SystemClock()))
    try:
        yield
    finally:
        await cancel_until_ended([task])


async def test_each_symbol_is_asked_about_once_and_options_never(state: State, until: Until) -> None:
    """Also one that the broker has no name of; what is bought later is asked about then."""
    broker, universe = Broker(), dict(UNIVERSE)

    async def is_known() -> bool:
        return await state.asset_names.symbols() == {"AAPL", "BTC/USD"}

    async with learning(state, broker, universe):
        await until(is_known, "both names are there")
        await until(lambda: "NEWCO" in broker.asked, "the third is asked about")
        universe["LATER"] = US_EQUITY
        await until(lambda: "LATER" in broker.asked, "the new one is asked about")
    assert sorted(broker.asked) == ["AAPL", "BTC/USD", "LATER", "NEWCO"]
    assert await state.asset_names.read(["BTC/USD", "NEWCO", "AAPL"]) == {
        "AAPL": "Apple Inc. Common Stock",
        "BTC/USD": "Bitcoin / US Dollar",
    }
    assert await state.asset_names.read([]) == {}


async def test_a_name_that_is_there_is_not_asked_for_again(state: State, until: Until) -> None:
    """Another collector has found it."""
    await state.asset_names.write("AAPL", "Apple Inc.")
    broker = Broker()
    async with learning(state, broker, UNIVERSE):
        await until(lambda: "NEWCO" in broker.asked, "the others are asked about")
    assert "AAPL" not in broker.asked


async def test_a_broker_that_does_not_answer_is_asked_later(state: State, until: Until) -> None:
    """Nothing ends, and nothing is taken for nameless."""
    broker = Broker(failures=3)

    async def is_known() -> bool:
        return len(await state.asset_names.symbols()) == 2

    async with learning(state, broker, UNIVERSE):
        await until(is_known, "both names are there")


@pytest.mark.parametrize(
    ("asset", "name"),
    [
        ({"name": "Apple Inc."}, "Apple Inc."),
        ({"name": " two\n lines\u202e "}, "two lines"),
        ({"name": "x" * 300}, "x" * 200),
        ({"name": ""}, None),
        ({"name": 7}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_a_name_is_one_line_of_text(asset: Any, name: str | None) -> None:
    """What else may stand there is no name."""
    assert name_of(asset) == name

"""Names of what is held: each symbol is asked about once, after everything else."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.clock import SystemClock
from portfolio_realtime.errors import BrokerError, BrokerRefused, BrokerUnavailable
from portfolio_realtime.model import CRYPTO, US_EQUITY, US_OPTION
from portfolio_realtime.state import State, keys
from portfolio_realtime.symbol_collector.sources import asset_names
from portfolio_realtime.symbol_collector.sources.asset_names import learn_names, name_of
from portfolio_realtime.symbol_collector.sources.parse import PayloadRefused
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


async def test_a_name_that_valkey_loses_is_asked_for_again(state: State, until: Until) -> None:
    """Evicted, or all is lost: not only after a day."""
    broker = Broker()

    async def is_known() -> bool:
        return len(await state.asset_names.symbols()) == 2

    async with learning(state, broker, UNIVERSE):
        await until(is_known, "both names are there")
        await state.connection.commands.delete(keys.asset_names())
        await until(is_known, "both names are there again")
    assert broker.asked.count("NEWCO") == 1  # it has none


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


LEARN_S_MAX = 60.0
REFUSALS: list[BrokerError] = [BrokerUnavailable("HTTP 500"), BrokerRefused("403"), PayloadRefused("null")]
ODD_NAMES: list[Any] = [
    None,
    "",
    " \n",
    7,
    True,
    1e308,
    [],
    {},
    [None],
    "\x00\x1b[31m",
    "\ud83d",
    "a" * 100_000,
]
ANSWERS: list[Any] = [*REFUSALS, None, 7, "text", [], {}, [[]], *({"name": one} for one in ODD_NAMES)]


@settings(
    max_examples=80,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.sampled_from(ANSWERS), st.integers(0, 3))
def test_answers_about_assets(odd: Any, place: int) -> None:
    """Every other symbol gets its name; the odd one gets none, or one line of readable text."""
    good = ["AAPL", "BTC/USD", "KO"]
    universe = dict.fromkeys([*good[:place], f"{'AMZ'[place % 3]}ODD", *good[place:]], "us_equity")
    written: dict[str, str] = {}

    class Names:
        async def symbols(self) -> set[str]:
            return set(written)

        async def write(self, symbol: str, name: str) -> None:
            written[symbol] = name

    class Assets:
        async def asset(self, symbol: str) -> Any:
            if symbol in good:
                return {"name": f"Name of {symbol}"}
            if isinstance(odd, BrokerError):
                raise odd
            return odd

    async def learn() -> None:
        state = cast("State", SimpleNamespace(asset_names=Names()))
        task = asyncio.create_task(learn_names(state, Assets(), lambda: universe, SystemClock()))
        async with asyncio.timeout(LEARN_S_MAX):
            while not written.keys() >= set(good):
                await asyncio.sleep(0)
        await cancel_until_ended([task])

    with pytest.MonkeyPatch.context() as patch:
        for pause in ("POLL_S", "PAUSE_S", "BROKER_PAUSE_S"):
            patch.setattr(asset_names, pause, 0.0)
        asyncio.run(learn())
    assert {symbol: written.pop(symbol) for symbol in good} == {one: f"Name of {one}" for one in good}
    for name in written.values():
        assert 0 < len(name) <= asset_names.NAME_LENGTH_MAX
        assert name.isprintable()

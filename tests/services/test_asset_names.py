"""The symbol collector against a simulated Alpaca: names of companies and coins reach the shared state."""

from portfolio_realtime.model import CRYPTO, US_OPTION
from portfolio_realtime.state import State
from tests.conftest import StartSimulator, Until
from tests.support.collectors import context_of, running


async def test_what_is_held_gets_its_name(simulator: StartSimulator, state: State, until: Until) -> None:
    """As soon as its account is known; also a coin, whose symbol has a slash."""
    broker = await simulator(accounts=6, symbols=24, activities_per_second=0)

    async def are_there() -> bool:
        universe = await state.accounts.read_universe()
        held = {symbol for symbol, asset_class in universe.items() if asset_class != US_OPTION}
        return bool(held) and held == await state.asset_names.symbols()

    async with running(context_of(broker, state)):
        await until(are_there, "every symbol that is no option has a name", 30)
    universe = await state.accounts.read_universe()
    names = await state.asset_names.read(universe)
    assert all(names.values())
    assert CRYPTO in universe.values(), "the seed has no coin: choose another"

"""The symbol collector against a simulated Alpaca: the numbers of accounts reach the shared state."""

from portfolio_realtime.state import State
from tests.conftest import StartSimulator, Until
from tests.support.collectors import context_of, running


async def test_every_listed_account_gets_its_number(
    simulator: StartSimulator, state: State, until: Until
) -> None:
    """As the broker's list tells it."""
    broker = await simulator(accounts=3, symbols=4, activities_per_second=0)

    async def are_there() -> bool:
        return await state.account_numbers.count() == 3

    async with running(context_of(broker, state)):
        await until(are_there, "each account has a number", 30)
    numbers = await state.account_numbers.read((await broker.get("/_sim/truth"))["accounts"])
    assert sorted(numbers.values()) == ["900000000", "900000001", "900000002"]

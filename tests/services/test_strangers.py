"""A second system on the same Valkey is refused by name, and harms nobody's records."""

import asyncio

import pytest

from portfolio_realtime.errors import SettingsError
from portfolio_realtime.state import State, open_state
from portfolio_realtime.symbol_collector import collector
from tests.conftest import LEASE_MS, SHARDS, StartSimulator, Until
from tests.support.collectors import all_known, context_of, running, wait_exact

ENDS_S_MAX = 60.0


async def test_a_collector_of_other_accounts_is_refused(
    simulator: StartSimulator, valkey_url: str, state: State, until: Until
) -> None:
    """While the first one lives; the second ends with the remedy, before it has written anything."""
    broker, other_broker = await simulator(seed=7), await simulator(seed=8)
    other = open_state(valkey_url, holder="other", shards=SHARDS, lease_ms=LEASE_MS)
    async with running(context_of(broker, state)):
        await until(all_known(broker, state), "all accounts are known")
        ids = await state.accounts.ids()
        with pytest.raises(SettingsError, match=r"none of its 20 accounts is among the 20 .* KEY_PREFIX"):
            await asyncio.wait_for(collector.run(context_of(other_broker, other)), ENDS_S_MAX)
        assert await state.accounts.ids() == ids
        await broker.post("/_sim/pause")
        await wait_exact(broker, state, until)
    async with running(context_of(other_broker, other)):
        await until(all_known(other_broker, other), "it takes over what nobody keeps any more")
    await other.close()


async def test_a_standby_of_the_same_accounts_stands_by(
    simulator: StartSimulator, valkey_url: str, state: State, until: Until
) -> None:
    """Whichever key it has; it looks once."""
    broker = await simulator()
    other = open_state(valkey_url, holder="other", shards=SHARDS, lease_ms=LEASE_MS)
    async with running(context_of(broker, state, symbol_collection_interval=300)):
        await until(all_known(broker, state), "all accounts are known")
        standby = context_of(broker, other)
        async with running(standby):
            name = "portfolio_realtime_broker_requests_total"

            def asked() -> float:
                return standby.registry.get_sample_value(name, {"status": "200"}) or 0.0

            await until(lambda: asked() == 1, "it has listed the accounts")
            await asyncio.sleep(3 * LEASE_MS / 1000)
            assert asked() == 1
    await other.close()

"""A second system on the same Valkey is refused by name, and harms nobody's records."""

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable

import pytest

from portfolio_harness import system
from portfolio_realtime.errors import SettingsError
from portfolio_realtime.exit_codes import SETTINGS
from portfolio_realtime.processes import end_all
from portfolio_realtime.state import State, keys, open_state
from portfolio_realtime.state.embedded import free_port
from portfolio_realtime.symbol_collector import collector
from tests.conftest import LEASE_MS, SHARDS, StartSimulator, Until
from tests.support.collectors import all_known, context_of, running, wait_exact

ENDS_S_MAX = 60.0
# The list twice, the live stream, one statement (two requests), the day's events, the rows of REST.
AHEAD = 7


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


@pytest.mark.timeout(300)
async def test_a_second_system_is_refused_before_it_takes_anything(until: Until) -> None:
    """All four services of it: each shard of the first one keeps its owner, and values go on."""
    options = ("--accounts", "6", "--symbols", "10", "--seed")
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(system.running((*options, "7"), port=0, overrides={}))
        await system.wait_known(first.url, 6, lambda _: None)
        other, other_url = await system.start_simulator((*options, "8"))
        stack.push_async_callback(end_all, [other])
        environment = first.supervisor.environment
        port = free_port()
        second = system.settings_for(other_url, port, first.jwt_secret)
        second |= {
            "REDIS_URL": environment["REDIS_URL"],
            "REDIS_IS_EMBEDDED": "false",
            "RUN_SERVICES_PORT": str(port),
        }
        state = open_state(environment["REDIS_URL"], holder="test", shards=16, lease_ms=LEASE_MS)
        stack.push_async_callback(state.close)
        shards = [keys.shard_lease(shard) for shard in range(16)]

        async def owners() -> dict[str, str | None]:
            return await state.leases.holders(shards)

        await until(lambda: all_are_owned(owners), "each shard has an owner")
        before, members = await owners(), keys.members("portfolio_calculators")
        refused = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "portfolio_realtime.run_services"),
            env={**environment, **second},
            stderr=asyncio.subprocess.PIPE,
        )
        stack.push_async_callback(end_all, [refused])
        while refused.returncode is None:
            assert await owners() == before
            assert await state.connection.commands.zcard(members) == 1
            await asyncio.sleep(0.1)
        assert refused.returncode == SETTINGS
        assert refused.stderr is not None
        assert b"another system runs in this Valkey" in await refused.stderr.read()


async def all_are_owned(owners: Callable[[], Awaitable[dict[str, str | None]]]) -> bool:
    """Whether no lease is free."""
    return None not in (await owners()).values()


async def test_a_standby_of_the_same_accounts_stands_by(
    simulator: StartSimulator, valkey_url: str, state: State, until: Until
) -> None:
    """Whichever key it has; it looks once, and then only at what a takeover needs."""
    broker = await simulator()
    other = open_state(valkey_url, holder="other", shards=SHARDS, lease_ms=LEASE_MS)
    async with running(context_of(broker, state, symbol_collection_interval=300)):
        await until(all_known(broker, state), "all accounts are known")
        standby = context_of(broker, other)
        async with running(standby):
            name = "portfolio_realtime_broker_requests_total"

            def asked() -> float:
                return standby.registry.get_sample_value(name, {"status": "200"}) or 0.0

            await until(lambda: asked() >= AHEAD, "it has read the list and the day, to be ready")
            await asyncio.sleep(3 * LEASE_MS / 1000)
            assert asked() == AHEAD
    await other.close()

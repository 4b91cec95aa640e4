"""How a calculator reads the records that are announced."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock, Mock

from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.model import Account
from portfolio_realtime.portfolio_calculator.account_loader import READ_STEP, AccountLoader
from portfolio_realtime.state import State, keys
from portfolio_realtime.valuation.valuer import Valuer
from tests.conftest import SHARDS, Until
from tests.state.records import account
from tests.support.leases import lease_of

NAMES = [f"account-{index}" for index in range(READ_STEP + 50)]  # of every shard


async def test_what_is_announced_while_records_are_read_is_read_together(state: State, until: Until) -> None:
    """A collector that takes over writes all records: one round trip for each shard took 5 s once."""
    shards = range(SHARDS)
    owner = SimpleNamespace(
        leases=dict.fromkeys(shards),
        wanted={shard: dict[str, Any]() for shard in shards},
        shard_of=partial(keys.shard_of, shards=SHARDS),
    )
    valuer, settings = Valuer(price_ttl_s=60, min_update_interval_s=1), SimpleNamespace(shards=SHARDS)
    context = cast("Any", SimpleNamespace(state=state, clock=None, settings=settings))
    loader = AccountLoader(context, Mock(), valuer, cast("Any", owner), Mock(forget=AsyncMock()))
    asked, goes_on, read = list[dict[int, int]](), asyncio.Event(), state.accounts.read_parts

    async def slow(wanted: Mapping[int, Sequence[str]]) -> dict[int, list[Account] | StateUnavailable]:
        asked.append({shard: len(account_ids) for shard, account_ids in wanted.items()})
        if any(asked[-1].values()):
            await goes_on.wait()
        return await read(wanted)

    cast("Any", state.accounts).read_parts = slow
    lease = await lease_of(state, "symbol_collector")
    tasks = [asyncio.create_task(loader.follow()), asyncio.create_task(loader.read_announced())]
    await until(loader.is_following.is_set, "announcements are followed")
    asked.clear()
    await state.accounts.write(lease, [account(NAMES[0])])
    await until(lambda: asked, "the first is being read")
    await state.accounts.write(lease, [account(name, 2) for name in NAMES])
    await until(lambda: sum(map(len, loader._announced.values())) == len(NAMES), "all are announced")
    goes_on.set()
    await until(lambda: len(valuer.book) == len(NAMES), "all are read")
    assert [sum(step.values()) for step in asked] == [1, READ_STEP, len(NAMES) - READ_STEP]
    assert set().union(*asked[1:]) == set(shards)
    await cancel_until_ended(tasks)

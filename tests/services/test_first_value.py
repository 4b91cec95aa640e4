"""The first value of an account that nobody watched yet comes because somebody asks, and for no other reason.

A real server and a real calculator. Nothing else happens: no price moves, and whatever either does by the
clock is years away. So between question and answer there are only the announcement, the reading and one
flush.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest

from portfolio_realtime.portfolio_calculator import calculator, interest_follower, publisher, totals_refresh
from portfolio_realtime.state import State
from portfolio_realtime.websocket_server.fanout import publication_follower
from tests.conftest import SHARDS, Until
from tests.support.calculators import NAMES, World, calculating
from tests.support.websocket_servers import Served, bearer, serving

NEVER_S = 1e8
FIRST_VALUE_S_MAX = 30.0  # a busy machine; what is not asked for by somebody would come after NEVER_S
# The calculator publishes an account once, and then never of its own accord.
ONCE = {"lease_renew_ms": 300, "min_update_interval": NEVER_S, "recalculation_interval": NEVER_S}


def asking() -> dict[str, str]:
    """A token of this moment that may see every account."""
    return bearer(accounts=["*"])


@pytest.fixture(autouse=True)
def nothing_comes_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither service looks again by itself for what it has missed."""
    monkeypatch.setattr(interest_follower, "SWEEP_S", NEVER_S)
    monkeypatch.setattr(publisher, "QUIET_S", NEVER_S)
    monkeypatch.setattr(calculator, "FEEDS_S", NEVER_S)
    monkeypatch.setattr(calculator, "FEEDS_AWAY_S", NEVER_S)
    monkeypatch.setattr(totals_refresh, "TOTALS_S", NEVER_S)
    monkeypatch.setattr(publication_follower, "RENEW_S", NEVER_S)


@pytest.fixture
async def quiet(valkey_url: str, state: State, until: Until) -> AsyncGenerator[Served]:
    """A server and a calculator that owns every shard, records and one price; nobody watches anything."""
    world = World(state)
    await world.mark(100.0)
    await world.write(*NAMES)
    async with calculating(valkey_url, **ONCE), serving(valkey_url) as server:

        async def are_owned() -> bool:
            return len(await world.holders()) == SHARDS

        await until(are_owned, "the calculator owns every shard")
        yield server
    await world.close()


async def first_value(server: Served, account_id: str, detail: str = "value") -> dict[str, Any]:
    """What the first message of a new connection says."""
    async with (
        asyncio.timeout(FIRST_VALUE_S_MAX),
        server.open(f"/ws/portfolio/{account_id}?detail={detail}", asking()) as client,
    ):
        while (message := msgspec.json.decode(await client.recv()))["type"] != "portfolio":
            pass  # a word about freshness: there is no collector here
        return message


async def test_an_account_that_nobody_watched_has_its_value_at_once(quiet: Served) -> None:
    """Of each shard, one after the other: none waits for the market, nor for another account's flush."""
    for account_id in NAMES:
        value = await first_value(quiet, account_id)

        assert (value["account_id"], value["equity"], value["sequence"]) == (account_id, "2000.00", 1)


async def test_many_that_nobody_watched_have_theirs_at_once(quiet: Served) -> None:
    """All together, as after a deploy."""
    values = await asyncio.gather(*(first_value(quiet, account_id) for account_id in NAMES))

    assert {value["account_id"]: value["equity"] for value in values} == dict.fromkeys(NAMES, "2000.00")


async def test_positions_that_nobody_watched_come_at_once_and_so_does_what_is_stored(quiet: Served) -> None:
    """Somebody watches the value already; the next one wants the positions, and one more the value alone."""
    async with quiet.open(f"/ws/portfolio/{NAMES[0]}", asking()) as early, asyncio.timeout(FIRST_VALUE_S_MAX):
        await early.recv()

        detailed = await first_value(quiet, NAMES[0], "positions")
        plain = await first_value(quiet, NAMES[0])

    assert [row["quantity"] for row in detailed["positions"]] == ["10"]
    assert plain["equity"] == "2000.00"

"""Marks are written by a transaction where that is possible, with the same result as by the script."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from portfolio_harness.valkey_cluster import ValkeyCluster
from portfolio_harness.valkey_kinds import Valkeys
from portfolio_realtime.errors import LeaseLost
from portfolio_realtime.state import State, keys
from portfolio_realtime.state.connection import Connection
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.state.marks import decode_marks
from tests.conftest import DEADLINE_S

from .conftest import Followed
from .records import mark

CRYPTO = "market_data:crypto"


@pytest.fixture
async def lease(session_valkey: Valkeys, state: State) -> Lease:
    """A feed's, whose next marks need no script: the shared connection opens meanwhile."""
    if isinstance(session_valkey, ValkeyCluster):
        pytest.skip("a transaction is of one slot")
    lease = await state.leases.acquire("market_data:stocks")
    assert lease is not None
    await write_until_watched(state, lease)
    return lease


async def write_until_watched(state: State, lease: Lease) -> None:
    """Write marks until the fence is watched."""
    watched = state.marks._watched  # pyright: ignore[reportPrivateUsage]
    async with asyncio.timeout(DEADLINE_S):
        while watched._watched is None:  # pyright: ignore[reportPrivateUsage]
            await state.marks.write(lease, [mark("FIRST")])


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens with which the script has been called."""
    called: list[int] = []
    by_script = Connection.fenced_write

    async def counted(connection: Connection, fence: str, key: str, token: int, *rest: object) -> None:
        called.append(token)
        await by_script(connection, fence, key, token, *rest)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Connection, "fenced_write", counted)
    return called


async def stored(state: State, symbols: Sequence[str]) -> dict[str, float]:
    """Symbol -> price."""
    return {symbol: one.price for symbol, one in (await state.marks.read(list(symbols))).items()}


async def test_marks_are_stored_and_announced_without_the_script(
    state: State, lease: Lease, scripts: list[int], followed: Followed
) -> None:
    """Again and again, each batch once."""
    batches = followed(state.marks.batches())
    await anext(batches)
    for price in (1.5, 2.5):
        await state.marks.write(lease, [mark("A", price), mark("B", price)])
        message = await asyncio.wait_for(anext(batches), DEADLINE_S)
        assert [one.price for one in decode_marks(getattr(message, "payload", b"")).marks] == [price, price]
        assert await stored(state, "AB") == {"A": price, "B": price}
    assert scripts == []


async def test_a_consumer_that_has_lost_its_feed_writes_no_mark(state: State, lease: Lease) -> None:
    """Whoever writes first after the handover, and by whatever way."""
    newer = replace(lease, fencing_token=lease.fencing_token + 1)
    await state.marks.write(newer, [mark("A", 2.0)])
    for _ in range(2):
        with pytest.raises(LeaseLost):
            await state.marks.write(lease, [mark("A", 1.0)])
    await state.marks.write(newer, [mark("B", 2.0)])
    assert await stored(state, "AB") == {"A": 2.0, "B": 2.0}


async def test_a_consumer_elsewhere_that_takes_the_feed_over_refuses_a_transaction(
    state: State, lease: Lease
) -> None:
    """Its fence changes after it was read as ours."""
    fence = keys.fence(f"{keys.marks()}:{lease.name}")
    await state.connection.commands.set(fence, str(lease.fencing_token + 1))
    with pytest.raises(LeaseLost):
        await state.marks.write(lease, [mark("A", 1.0)])
    assert await stored(state, "A") == {}


async def test_feeds_that_write_at_once_lose_nothing_and_soon_need_no_script(
    state: State, lease: Lease, scripts: list[int]
) -> None:
    """They share the connection: one of two at once is left to the script."""
    crypto = await state.leases.acquire(CRYPTO)
    assert crypto is not None
    for price in (1.0, 2.0, 3.0):
        await asyncio.gather(
            state.marks.write(lease, [mark("A", price)]), state.marks.write(crypto, [mark("B", price)])
        )
        assert await stored(state, "AB") == {"A": price, "B": price}
    scripts.clear()
    for one in (lease, crypto, lease, crypto):
        await state.marks.write(one, [mark("A", 4.0)])
    assert len(scripts) <= 1

"""One holder at a time, tokens that only grow, and writes that an older owner cannot make."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Sequence

import pytest

from portfolio_harness.valkey_kinds import Valkeys
from portfolio_realtime.errors import LeaseLost
from portfolio_realtime.state import State, keys, open_state
from portfolio_realtime.state.connection import Message, Subscribed
from tests.conftest import DEADLINE_S, SHARDS, Until, opened
from tests.support.leases import lease_of

from .conftest import Followed

LEASE_MS = 300


@pytest.fixture
async def other(valkey_url: str) -> AsyncGenerator[State]:
    """The state as another process sees it, with short leases."""
    async with opened(valkey_url, "other", LEASE_MS) as state:
        yield state


async def test_a_lease_has_one_holder(state: State, other: State) -> None:
    """While one holds it nobody else gets it; once released it is free at once."""
    lease = await lease_of(state)
    assert await other.leases.acquire("work") is None
    await state.leases.release(lease)
    assert await other.leases.acquire("work") is not None
    assert await state.leases.acquire("work") is None


async def test_of_many_who_try_at_once_one_wins(valkey_url: str) -> None:
    """Twenty processes start together; one of them holds the lease."""
    states = [open_state(valkey_url, holder=f"p{i}", shards=SHARDS, lease_ms=5000) for i in range(20)]
    leases = await asyncio.gather(*(one.leases.acquire("work") for one in states))
    assert sum(lease is not None for lease in leases) == 1
    for one in states:
        await one.close()


async def test_a_lease_that_is_not_renewed_ends(state: State, other: State, until: Until) -> None:
    """A dead owner's lease goes to the next; the dead owner cannot renew or release it any more."""
    old = await lease_of(other)
    new = await until(lambda: state.leases.acquire("work"), "the lease has run out")
    assert new.fencing_token > old.fencing_token
    assert not await other.leases.renew(old)
    await other.leases.release(old)
    assert await other.leases.acquire("work") is None
    assert await state.leases.renew(new)


async def test_a_renewed_lease_stays(valkey_url: str) -> None:
    """Renewing sets the whole lease time again."""
    long_ms, left_ms = 90_000, 30_000
    async with opened(valkey_url, "other", long_ms) as state:
        lease = await lease_of(state)
        key = keys.lease("work")
        await state.connection.commands.pexpire(key, left_ms)
        assert await state.leases.renew(lease)
        assert left_ms < await state.connection.commands.pttl(key) <= long_ms


async def test_a_holder_may_take_its_own_lease_again(state: State) -> None:
    """A restarted attempt of the same process need not wait; the older grant is void."""
    first = await lease_of(state)
    second = await lease_of(state)
    assert second.fencing_token > first.fencing_token
    assert not await state.leases.renew(first)
    assert await state.leases.renew(second)


async def test_a_holder_whose_name_begins_alike_is_somebody_else(valkey_url: str) -> None:
    """`calculator-1` does not hold what `calculator-11` holds."""
    eleven = open_state(valkey_url, holder="calculator-11", shards=SHARDS, lease_ms=5000)
    one = open_state(valkey_url, holder="calculator-1", shards=SHARDS, lease_ms=5000)
    await lease_of(eleven)
    assert await one.leases.acquire("work") is None
    await eleven.close()
    await one.close()


async def test_tokens_grow_with_every_grant(state: State) -> None:
    """Also many grants in one millisecond."""
    tokens = [(await lease_of(state)).fencing_token for _ in range(50)]
    assert tokens == sorted(set(tokens))


async def test_tokens_grow_across_a_lost_server(state: State, session_valkey: Valkeys) -> None:
    """Everything is forgotten: the wall clock is the floor of the next token."""
    before = await lease_of(state)
    await session_valkey.flush()
    await asyncio.sleep(0.002)  # no server is lost and back within one millisecond
    after = await lease_of(state)
    assert after.fencing_token > before.fencing_token
    assert abs(after.fencing_token - time.time_ns() // 1_000_000) < 60_000


async def test_a_token_never_falls_behind_one_granted_before(state: State) -> None:
    """A server whose clock is behind still grants greater tokens."""
    await state.connection.commands.set(keys.granted("work"), str(4_000_000_000_000))
    assert (await lease_of(state)).fencing_token == 4_000_000_000_001


async def test_an_older_owner_cannot_write(state: State, followed: Followed) -> None:
    """Refused as a whole: no field, no deletion, no announcement; the newer owner's write stands."""
    old, new = await lease_of(state), await lease_of(state)
    write = state.connection.fenced_write
    fence = keys.fence(keys.universe())
    await write(fence, keys.universe(), new.fencing_token, [("A", b"new"), ("B", b"new")], [], None)
    messages = followed(state.connection.follow(keys.universe()))
    assert await anext(messages) == Subscribed()
    with pytest.raises(LeaseLost):
        await write(
            fence, keys.universe(), old.fencing_token, [("A", b"old")], ["B"], (keys.universe(), b"old")
        )
    assert await state.connection.commands.hgetall(keys.universe()) == {b"A": b"new", b"B": b"new"}
    await write(fence, keys.universe(), new.fencing_token, [], ["B"], (keys.universe(), b"still new"))
    assert await asyncio.wait_for(anext(messages), DEADLINE_S) == Message(keys.universe(), b"still new")


async def test_members_are_counted_until_they_are_silent(state: State, other: State, until: Until) -> None:
    """Each member counts once; who leaves or falls silent counts no more."""
    assert len((await state.leases.enlist("group")).running) == 1
    assert len((await other.leases.enlist("group")).running) == 2
    assert len((await state.leases.enlist("group")).running) == 2
    await other.leases.leave("group")
    assert len((await state.leases.enlist("group")).running) == 1
    await other.leases.enlist("group")

    async def is_alone() -> bool:
        return len((await state.leases.enlist("group")).running) == 1

    await until(is_alone, "the silent member is not counted")


async def test_who_counts_the_living_is_one_of_them(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry is evicted, flushed or has run out before the living are counted."""
    prolong = state.leases._prolong  # pyright: ignore[reportPrivateUsage]  # nobody else stands between the two steps

    async def prolong_and_lose(keys: Sequence[str], args: Sequence[str | bytes | int]) -> None:
        await prolong(keys=keys, args=args)
        await state.connection.commands.delete(*keys)

    monkeypatch.setattr(state.leases, "_prolong", prolong_and_lose)
    assert len((await state.leases.enlist("group")).running) == 1


async def test_a_member_knows_when_the_next_one_ends(state: State, other: State) -> None:
    """Unless it prolongs; our own end does not count."""
    assert (await other.leases.enlist("group")).next_end_s == math.inf
    (_, next_end_s) = await state.leases.enlist("group")
    assert 0 < next_end_s <= LEASE_MS / 1000

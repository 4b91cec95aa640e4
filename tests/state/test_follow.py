"""Subscribe first, read second: nothing is missed, also across a killed server."""

import asyncio
from typing import NoReturn

import pytest

from portfolio_harness.valkey_kinds import Valkeys
from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.model import Mark
from portfolio_realtime.state import State, open_state
from portfolio_realtime.state.connection import Connection, Message, Subscribed
from portfolio_realtime.state.marks import decode_marks
from tests.conftest import SHARDS, Until

from .conftest import Followed, Messages
from .records import mark

DEADLINE_S = 10.0


async def following(messages: Messages) -> Message | Subscribed:
    """The next one, or a failure."""
    return await asyncio.wait_for(anext(messages), DEADLINE_S)


async def written(state: State, *marks: Mark) -> None:
    """Write marks as a consumer does."""
    lease = await state.leases.acquire("feed")
    assert lease is not None
    await state.marks.write(lease, list(marks))


async def test_subscribed_comes_first(state: State, followed: Followed) -> None:
    """Before any message the reader is told to read; each channel's messages follow in order."""
    one, two = "{news}:one", "{news}:two"  # on a cluster at one node: between nodes there is no order
    messages = followed(state.connection.follow(one, two))
    assert await following(messages) == Subscribed()
    for number in range(3):
        await state.connection.publish(one, b"%d" % number)
    await state.connection.publish(two, b"last")
    got = [await following(messages) for _ in range(4)]
    assert got == [Message(one, b"0"), Message(one, b"1"), Message(one, b"2"), Message(two, b"last")]


async def test_nothing_is_missed_between_subscribing_and_reading(state: State, followed: Followed) -> None:
    """Marks written at any moment are in what was read or in a message after it."""

    async def write_many() -> None:
        for number in range(200):
            await written(state, mark(f"S{number}"))

    writing = asyncio.create_task(write_many())
    while not await state.marks.read_all():
        await asyncio.sleep(0)
    messages = followed(state.marks.batches())
    assert await following(messages) == Subscribed()
    seen = {one.symbol for one in await state.marks.read_all()}
    assert len(seen) < 200, "the writer was done too early for this test to say anything"
    while "S199" not in seen:
        message = await following(messages)
        assert isinstance(message, Message)
        seen |= {one.symbol for one in decode_marks(message.payload).marks}
    await writing
    assert seen == {f"S{number}" for number in range(200)}


async def test_subscribed_comes_again_after_a_killed_server(
    mortal_valkey: Valkeys, until: Until, followed: Followed
) -> None:
    """The server is killed and comes back empty on its port: read again, then messages flow."""
    state = open_state(mortal_valkey.url, holder="test", shards=SHARDS, lease_ms=1000)
    messages = followed(state.marks.batches())
    assert await following(messages) == Subscribed()
    await mortal_valkey.kill()
    with pytest.raises(StateUnavailable):
        await state.connection.ping()
    again = asyncio.create_task(following(messages))
    await mortal_valkey.start()
    assert await again == Subscribed()
    await state.connection.wait_ready(DEADLINE_S)
    assert await state.marks.read_all() == []
    await written(state, mark("A"))
    message = await following(messages)
    assert isinstance(message, Message)
    assert decode_marks(message.payload).marks == [mark("A")]
    await state.close()


async def test_a_server_that_cannot_be_reached_is_reported() -> None:
    """Nobody listens: every call says StateUnavailable, and waiting ends."""
    connection = Connection("redis://127.0.0.1:1/0")
    with pytest.raises(StateUnavailable):
        await connection.ping()
    with pytest.raises(StateUnavailable):
        await connection.wait_ready(0.0)
    await connection.close()


async def test_closing_ends_though_a_cancellation_is_lost(valkey_url: str) -> None:
    """As `wait_for` of Python 3.11 loses one: what looks at the nodes would be awaited for ever."""
    lost_count = 0

    async def watch() -> NoReturn:
        nonlocal lost_count
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if lost_count:
                    raise
                lost_count += 1

    connection = Connection(valkey_url)
    connection._nodes._watching = asyncio.ensure_future(watch())  # pyright: ignore[reportPrivateUsage]
    await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE_S):
        await connection.close()
    assert lost_count == 1

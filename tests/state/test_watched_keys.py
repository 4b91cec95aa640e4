"""A transaction is done while the watched keys are as expected, and never otherwise."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import pytest
from redis import exceptions

from portfolio_harness.valkey_node import ValkeyNode
from portfolio_realtime.state.client.lean_client import LeanClient
from portfolio_realtime.state.client.watched_keys import WatchedKeys
from portfolio_realtime.state.clients import command_client
from tests.conftest import DEADLINE_S

FENCE, OTHER, DONE = "fence", "other", "done"
OWN = {FENCE: b"7"}
WRITE = [("SET", DONE, "yes")]


@dataclass
class Writer:
    """A client whose shared connection is open, its watched keys, and a client of somebody else."""

    client: LeanClient
    keys: WatchedKeys
    else_: LeanClient

    async def write(self) -> list[object] | None:
        """Do the transaction."""
        return await self.keys.transact(OWN, WRITE, [FENCE, OTHER])

    async def is_done(self) -> bool:
        """Whether anything was written."""
        return bool(await self.else_.exists(DONE))

    async def share(self) -> None:
        """Give short commands until they share a connection."""
        async with asyncio.timeout(DEADLINE_S):
            while self.client.shared_connection() is None:
                await self.client.ping()
                await asyncio.sleep(0.01)


@pytest.fixture
async def writer(mortal_server: ValkeyNode) -> AsyncGenerator[Writer]:
    """Its fence is written, and nothing is watched yet."""
    client, else_ = command_client(mortal_server.url), command_client(mortal_server.url)
    made = Writer(client, WatchedKeys(lambda: client), else_)
    await made.else_.set(FENCE, "7")
    await made.share()
    yield made
    await client.aclose()
    await else_.aclose()


async def test_it_is_done_again_and_again_while_nobody_changes_a_key(writer: Writer) -> None:
    """Its answers are those of its own commands."""
    assert await writer.write() is None
    await writer.keys.watch([FENCE, OTHER])
    for _ in range(3):
        assert await writer.write() == [b"OK"]


@pytest.mark.parametrize("changed", [FENCE, OTHER])
async def test_a_change_between_refuses_it(writer: Writer, changed: str) -> None:
    """Also one that brings back what was there, and one of a key that did not exist."""
    await writer.keys.watch([FENCE, OTHER])
    await writer.else_.set(changed, "8")
    await writer.else_.set(changed, "7")
    assert await writer.write() is None
    assert not await writer.is_done()
    assert await writer.write() == [b"OK"], "it watches what is there now"


async def test_another_value_than_the_expected_one_refuses_it(writer: Writer) -> None:
    """The key was changed before it was watched."""
    await writer.else_.set(FENCE, "8")
    await writer.keys.watch([FENCE])
    assert await writer.write() is None
    assert not await writer.is_done()


async def test_a_lost_connection_watches_nothing_any_more(writer: Writer) -> None:
    """The next one knows nothing of what was watched."""
    await writer.keys.watch([FENCE])
    lost = writer.client.shared_connection()
    assert lost is not None
    lost.raw.connection_lost(None)
    await writer.else_.set(FENCE, "8")
    await writer.share()
    assert await writer.write() is None
    assert not await writer.is_done()


async def test_of_two_at_once_one_is_left_to_its_caller(writer: Writer) -> None:
    """The first one's EXEC ends all that is watched."""
    await writer.keys.watch([FENCE])
    both = await asyncio.gather(writer.write(), writer.write())
    assert both == [[b"OK"], None]
    assert await writer.write() == [b"OK"]


async def test_of_two_writers_on_one_connection_the_last_one_watches(writer: Writer) -> None:
    """The other's EXEC has ended what the first one watched: a change of its fence would pass."""
    second = WatchedKeys(lambda: writer.client)
    await writer.keys.watch([FENCE])
    await second.watch([OTHER])
    await writer.else_.set(FENCE, "8")
    assert await writer.write() is None
    assert not await writer.is_done()


async def test_of_two_writers_one_begins_while_the_others_answers_are_on_their_way(writer: Writer) -> None:
    """What the first one's transaction has watched again is ended by the second's."""
    second = WatchedKeys(lambda: writer.client)
    await writer.keys.watch([FENCE])
    done, _ = await asyncio.gather(writer.write(), second.watch([OTHER]))
    assert done == [b"OK"]
    await writer.else_.delete(DONE)
    await writer.else_.set(FENCE, "8")
    assert await writer.write() is None
    assert not await writer.is_done()


@pytest.mark.parametrize("missing", ["multi", "exec", "watch"])
async def test_a_user_without_the_right_to_transactions_writes_nothing_by_them(
    writer: Writer, mortal_server: ValkeyNode, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """Without MULTI, the commands behind it would be done under no condition.

    Other commands go on, as they would not on a connection with a transaction that cannot end.
    """
    await mortal_server.do("ACL", "SETUSER", "default", f"-{missing}")
    await writer.keys.watch([FENCE])
    assert await writer.write() is None
    assert not await writer.is_done()
    await writer.share()
    assert await writer.client.get(FENCE) == b"7"
    await mortal_server.do("ACL", "SETUSER", "default", "+@all")
    await writer.keys.watch([FENCE])
    assert await writer.write() is None, "it is not tried again at once"
    monkeypatch.setattr(writer.keys, "_again_s", 0.0)
    await writer.keys.watch([FENCE])
    assert await writer.write() == [b"OK"]


async def test_an_error_within_it_is_raised(writer: Writer) -> None:
    """As that of a command."""
    await writer.else_.set("text", "no hash")
    await writer.keys.watch([FENCE])
    with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
        await writer.keys.transact(OWN, [("HSET", "text", "field", "value")], [FENCE])
    assert await writer.write() == [b"OK"]

"""Each server hears what its clients watch; one that begins to watch misses nothing, whatever comes between.

A test has a calculator and two servers. `Watching` is a calculator's knowledge of interest, which may be old.
Each is made with both ways in which a calculator writes: a call of a script, and a transaction.
"""

import asyncio
import functools
import itertools
import random
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from unittest.mock import AsyncMock

import msgspec
import pytest

from portfolio_harness.valkey_cluster import ValkeyCluster
from portfolio_harness.valkey_kinds import Valkeys
from portfolio_realtime.errors import LeaseLost
from portfolio_realtime.model import Publication, Publications
from portfolio_realtime.state import State, interest, keys, valuations
from portfolio_realtime.state.client.watched_keys import WatchedKeys
from portfolio_realtime.state.connection import Message
from portfolio_realtime.state.interest import UNREAD, Servers, only_server, server_name
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.state.valuations import KnownInterest, decode_batch, is_stored
from portfolio_realtime.wire.frames import text_of
from tests.conftest import DEADLINE_S, SHARDS, Until, opened

from .conftest import Followed, Messages
from .records import accounts_of

SHARD = 3
END = "end"  # a publication that every server hears, after all others


class Listener:
    """A server: what it has heard on its channels, and what it shows of each account."""

    def __init__(self, state: State, messages: Messages) -> None:
        self.state = state
        self._messages = messages
        self.heard: list[tuple[str, int]] = []  # account, sequence
        self.shows: dict[str, int] = {}  # account -> sequence

    async def begin(self, *account_ids: str) -> None:
        """Watch: what is stored is shown at once."""
        for account_id, stored in (await self.state.interest.begin(account_ids)).items():
            self._show(account_id, msgspec.json.decode(stored.message)["sequence"])

    async def hear(self) -> None:
        """Read what has been published, up to END."""
        async for message in self._messages:
            if not isinstance(message, Message):
                continue
            if is_stored(message.payload):
                value = msgspec.json.decode(message.payload)
                if not value:  # of the fixture, to see whether anybody hears
                    continue
                self._take(value["account_id"], value["sequence"])
                continue
            batch = decode_batch(message.payload)
            for account_id, sequence, frame in zip(
                batch.account_ids, batch.sequences, batch.frames, strict=True
            ):
                if account_id == END:
                    return
                assert msgspec.json.decode(text_of(frame))["sequence"] == sequence
                self._take(account_id, sequence)

    def _take(self, account_id: str, sequence: int) -> None:
        self.heard.append((account_id, sequence))
        self._show(account_id, sequence)

    def _show(self, account_id: str, sequence: int) -> None:
        self.shows[account_id] = max(sequence, self.shows.get(account_id, 0))


class Watching:
    """A calculator as far as publishing goes: what it knows of interest, and the newest sequences."""

    def __init__(self, state: State, lease: Lease) -> None:
        self.state = state
        self.lease = lease
        self.known: dict[str, Servers] = {}
        self.accounts_of = Counter[str]()
        self.until = UNREAD
        self.newest: dict[str, int] = {}

    async def learn(self) -> None:
        """Read what has changed."""
        found = await self.state.interest.read_changes(SHARD, self.until)
        self.until = found.until
        found.apply_to(self.known, self.accounts_of)

    async def publish(self, *account_ids: str) -> None:
        """Publish the next value of each to the servers that are known."""
        made: list[Publication] = []
        for account_id in account_ids:
            sequence = self.newest[account_id] = self.newest.get(account_id, 0) + 1
            value = {"account_id": account_id, "epoch": self.lease.fencing_token, "sequence": sequence}
            made.append(Publication(account_id, sequence, msgspec.json.encode(value)))
        assert await self.write(made) == [None]

    async def write(self, made: Sequence[Publication]) -> list[object]:
        """As the calculator's publisher."""
        known = {SHARD: KnownInterest(self.known, self.until, only_server(self.accounts_of))}
        flush = [(SHARD, self.lease, Publications.of(made))]
        return list(await self.state.valuations.publish_all(flush, interest=known))

    async def end(self) -> None:
        """Publish END to all servers."""
        value = msgspec.json.encode({"account_id": END})
        await self.state.valuations.publish(self.lease, SHARD, [Publication(END, 1, value)])


@pytest.fixture(params=["script", "transaction"])
async def calculator(
    request: pytest.FixtureRequest, session_valkey: Valkeys, state: State, monkeypatch: pytest.MonkeyPatch
) -> Watching:
    """A calculator that owns SHARD."""
    lease = await state.leases.acquire(keys.shard_lease(SHARD))
    assert lease is not None
    if request.param == "script":
        monkeypatch.setattr(WatchedKeys, "watch", AsyncMock())
    elif isinstance(session_valkey, ValkeyCluster):
        pytest.skip("a transaction is of one slot")
    else:
        await _write_by_transactions(state, lease)
    return Watching(state, lease)


async def _write_by_transactions(state: State, lease: Lease) -> None:
    """Give signs of life until the next one needs no script: the shared connection opens meanwhile."""
    watched = state.valuations._watched  # pyright: ignore[reportPrivateUsage]
    async with asyncio.timeout(DEADLINE_S):
        while watched._watched is None:  # pyright: ignore[reportPrivateUsage]
            await state.valuations.publish(lease, SHARD, [])


@pytest.fixture
async def servers(
    valkey_url: str, followed: Followed, until: Until
) -> AsyncGenerator[tuple[Listener, Listener]]:
    """Two servers that follow their channels."""
    listeners: list[Listener] = []
    async with opened(valkey_url, "one", 4000) as one, opened(valkey_url, "two", 4000) as two:
        for state in (one, two):
            messages = followed(state.valuations.batches())
            await anext(messages)
            await until(functools.partial(_is_followed, state), "the channels of the shard are followed")
            listeners.append(Listener(state, messages))
        yield listeners[0], listeners[1]


async def _is_followed(state: State, shard: int = SHARD) -> bool:
    """On a cluster, the node of this shard may be the last that is asked."""
    channel = next(name for name, one in reversed(state.valuations.channels().items()) if one == shard)
    word = await state.connection.publish_word()
    return bool(await state.connection.commands.execute_command(word, channel, b"{}"))


async def test_each_server_hears_each_publication_of_what_it_watches_once_and_nothing_else(
    calculator: Watching, servers: tuple[Listener, Listener]
) -> None:
    """An account that both watch goes to both."""
    one, two = servers
    alice, bob, both = accounts_of(SHARD, 3)
    await one.begin(alice, both)
    await two.begin(bob, both)
    await calculator.learn()
    await calculator.publish(alice, bob, both)
    await calculator.publish(both)
    await calculator.end()
    await one.hear()
    await two.hear()
    assert sorted(one.heard) == sorted([(alice, 1), (both, 1), (both, 2)])
    assert sorted(two.heard) == sorted([(bob, 1), (both, 1), (both, 2)])


async def test_a_value_published_between_a_servers_beginning_and_the_calculators_knowing_reaches_it(
    calculator: Watching, servers: tuple[Listener, Listener]
) -> None:
    """And rests from then on: nothing else would ever tell the second server."""
    one, two = servers
    alice, bob = accounts_of(SHARD, 2)
    await one.begin(alice, bob)
    await calculator.learn()
    await calculator.publish(alice, bob)
    await two.begin(alice)
    assert two.shows == {alice: 1}
    await calculator.publish(alice, bob)  # it does not know of the second server
    await calculator.learn()
    await calculator.end()
    await one.hear()
    await two.hear()
    assert sorted(one.heard) == sorted([(alice, 1), (alice, 2), (bob, 1), (bob, 2)])
    assert two.shows == {alice: 2}
    assert two.heard == [(alice, 2)]


@pytest.mark.parametrize("way", ["a new calculator", "too many changes", "the stream is gone"])
async def test_a_calculator_that_cannot_tell_who_has_begun_tells_everybody(
    state: State,
    calculator: Watching,
    servers: tuple[Listener, Listener],
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    """It has read nothing yet, or the changes since are not all there."""
    one, two = servers
    alice, *others = accounts_of(SHARD, 6)
    await one.begin(alice)
    await calculator.learn()
    monkeypatch.setattr(interest, "CHANGES_MAX", 3)
    if way == "a new calculator":
        calculator.until = UNREAD
    elif way == "the stream is gone":
        await state.connection.commands.delete(keys.interest_changes(SHARD))
    await two.begin(alice)
    if way == "too many changes":
        for other in others:
            await one.begin(other)
    await calculator.publish(alice)
    await calculator.end()
    await two.hear()
    assert two.shows == {alice: 1}


async def test_interest_that_ended_and_begins_again_by_renewal_misses_nothing(
    state: State, calculator: Watching, servers: tuple[Listener, Listener]
) -> None:
    """A server was paused for longer than its interest lasts; the other server's stays."""
    one, two = servers
    (alice,) = accounts_of(SHARD, 1)
    await one.begin(alice)
    await two.begin(alice)
    await calculator.learn()
    pair = f"{alice} {server_name('two')}"
    await state.connection.commands.zadd(keys.interest(SHARD), {pair: 1}, xx=True)
    await calculator.learn()
    await calculator.publish(alice)
    again = await two.state.interest.renew([alice], [])
    assert again == {alice}
    await calculator.publish(alice)  # it does not know that the second server is back
    await calculator.end()
    await two.hear()
    assert two.heard == [(alice, 2)]


async def test_a_refused_calculator_tells_nobody(
    calculator: Watching, servers: tuple[Listener, Listener], state: State
) -> None:
    """A newer owner has written."""
    one, _ = servers
    (alice,) = accounts_of(SHARD, 1)
    await one.begin(alice)
    await calculator.learn()
    await calculator.publish(alice)
    await state.valuations.insist(SHARD, calculator.lease.fencing_token + 1)
    (refusal,) = await calculator.write([Publication(alice, 9, b'{"account_id":"x","sequence":9}')])
    assert isinstance(refusal, LeaseLost)
    assert await state.valuations.read(alice) is not None
    calculator.lease = calculator.lease.__class__(
        calculator.lease.name, calculator.lease.holder, calculator.lease.fencing_token + 1
    )
    await calculator.end()
    await one.hear()
    assert one.heard == [(alice, 1)]


@pytest.mark.parametrize("steps_of", [2000, 3])
async def test_of_many_shards_in_one_flush_only_those_of_a_newer_owner_are_refused(
    state: State, followed: Followed, until: Until, monkeypatch: pytest.MonkeyPatch, steps_of: int
) -> None:
    """Each shard has its own fence, epoch and messages, however many of them are one step."""
    monkeypatch.setattr(valuations, "WRITE_FIELDS_MAX", steps_of)
    heard = followed(state.valuations.batches())
    await anext(heard)
    for shard in range(SHARDS):
        await until(functools.partial(_is_followed, state, shard), "each shard is followed")
    flush: list[tuple[int, Lease, Publications]] = []
    for shard in range(SHARDS):
        lease = await state.leases.acquire(keys.shard_lease(shard))
        assert lease is not None
        names = accounts_of(shard, shard % 5)  # of some shards a sign of life
        made = [Publication(name, 7, msgspec.json.encode({"account_id": name})) for name in names]
        flush.append((shard, lease, Publications.of(made)))
    lost = {1, SHARDS - 1}
    for shard in lost:
        await state.valuations.insist(shard, flush[shard][1].fencing_token + 1)
    refusals = await state.valuations.publish_all(flush)
    assert {shard for shard, refusal in enumerate(refusals) if isinstance(refusal, LeaseLost)} == lost
    kept = [one for one in flush if one[0] not in lost]
    for shard, _, made in flush:
        stored = [await state.valuations.read(one.account_id) for one in made]
        assert stored == [None if shard in lost else one.value for one in made]
    expected = sorted((lease.fencing_token, one.account_id) for _, lease, made in kept for one in made)
    found: list[tuple[int, str]] = []
    while len(found) < len(expected):
        message = await anext(heard)
        if isinstance(message, Message) and not is_stored(message.payload):
            batch = decode_batch(message.payload)
            found += [(batch.epoch, account_id) for account_id in batch.account_ids]
    assert sorted(found) == expected


@pytest.mark.parametrize("seed", range(15))
async def test_no_server_ever_rests_on_an_old_value(
    calculator: Watching, servers: tuple[Listener, Listener], seed: int
) -> None:
    """Servers begin and renew, interest runs out, the calculator learns and publishes, in any order.

    At the end each server shows the newest value of all that it watches; nobody says anything more.
    """
    rng, names = random.Random(seed), accounts_of(SHARD, 4)
    watched: list[set[str]] = [set(), set()]
    for _, number in itertools.product(range(6), range(2)):
        server, chosen = servers[number], rng.sample(names, rng.randint(1, 3))
        match rng.randrange(4):
            case 0:
                await server.begin(*chosen)
                watched[number].update(chosen)
            case 1:
                ended = await server.state.interest.renew(sorted(watched[number]), [])
                await server.begin(*sorted(ended))
            case 2:
                await calculator.learn()
            case _:
                if any(name in calculator.known for name in chosen):
                    await calculator.publish(*(name for name in chosen if name in calculator.known))
    await calculator.end()
    for number, server in enumerate(servers):
        await server.hear()
        assert {name: server.shows.get(name, 0) for name in watched[number]} == {
            name: calculator.newest.get(name, 0) for name in watched[number]
        }

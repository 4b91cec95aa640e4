"""On a real cluster: keys find their nodes, nodes are lost, slots move, and who follows hears it all."""

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from portfolio_harness.valkey_cluster import ValkeyCluster
from portfolio_harness.valkey_node import ValkeyNode
from portfolio_realtime import config, service
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.cli import wire
from portfolio_realtime.errors import StateRefused, StateUnavailable
from portfolio_realtime.state import State, keys, nodes, open_state, rights
from portfolio_realtime.state.clients import subscription_client
from portfolio_realtime.state.connection import Connection, Message, Subscribed
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.state.nodes import Hello, Node, Nodes
from portfolio_realtime.state.server import examine
from tests.conftest import KIND, Until
from tests.support.access import words_of

from .valkey_proxy import ValkeyProxy

SHARDS = 16
HEAL_S = 60.0
SIGNS_S = 0.05


@pytest.fixture
async def cluster() -> AsyncGenerator[ValkeyCluster]:
    """Three primaries with a replica each."""
    async with ValkeyCluster(program=KIND.program) as running:
        yield running


class Publisher:
    """Owns all shards and says that it lives; `heard` is what a follower of all shards has heard of each."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.heard = dict.fromkeys(map(keys.valuations, range(SHARDS)), 0)
        self.readings = 0  # how often the follower was told to read
        self._leases: dict[int, Lease] = {}

    async def own(self) -> None:
        """Acquire every shard."""
        for shard in range(SHARDS):
            lease = await self.state.leases.acquire(keys.shard_lease(shard))
            assert lease is not None
            self._leases[shard] = lease

    async def say(self, shard: int) -> None:
        """A sign of life of one shard, forever; what fails is tried again."""
        while True:
            with contextlib.suppress(StateUnavailable):
                await self.state.valuations.publish(self._leases[shard], shard, [])
            await asyncio.sleep(SIGNS_S)

    async def hear(self) -> None:
        """Follow all shards."""
        async for event in self.state.valuations.batches():
            if isinstance(event, Message):
                self.heard[event.channel] += 1
            else:
                self.readings += 1

    async def all_heard(self, until: Until, *, of: set[str] | None = None) -> None:
        """Return when every shard, or each of these, is heard from now on."""
        before = dict(self.heard)
        names = self.heard.keys() if of is None else of
        await until(lambda: all(self.heard[name] > before[name] for name in names), "all are heard", HEAL_S)


@contextlib.asynccontextmanager
async def published(url: str) -> AsyncGenerator[Publisher]:
    """A publisher of all shards, and a follower."""
    state = open_state(url, holder="test", shards=SHARDS, lease_ms=60_000)
    publisher = Publisher(state)
    await publisher.own()
    tasks = [asyncio.create_task(publisher.say(shard)) for shard in range(SHARDS)]
    tasks.append(asyncio.create_task(publisher.hear()))
    yield publisher
    failed = [task for task in tasks if task.done()]
    await cancel_until_ended(tasks)
    await state.close()
    assert not failed, "a part has ended with an error that is none of the world's"


async def test_nodes_are_lost_and_slots_move(cluster: ValkeyCluster, until: Until) -> None:
    """A primary killed, one failed over, a shard's slot moved key by key: every shard is heard again.

    Shards of nodes that are well are heard all the time, and each change is told to who follows.
    """
    async with published(cluster.url) as publisher:
        await publisher.all_heard(until)
        primaries = await cluster.primaries()
        lost = await cluster.slots_of(primaries[0])
        well = {name for name in publisher.heard if key_slot(name.encode()) not in lost}
        assert 0 < len(well) < SHARDS
        await primaries[0].kill()
        await publisher.all_heard(until, of=well)
        readings = publisher.readings
        await publisher.all_heard(until)
        assert publisher.readings > readings
        await cluster.fail_over(primaries[1])
        await publisher.all_heard(until)
        readings = publisher.readings
        moved = keys.valuations(3)
        source = await cluster.primary_of(moved)
        target = next(node for node in await cluster.primaries() if node is not source)
        await cluster.move_slots([key_slot(moved.encode())], target)
        await publisher.all_heard(until)
        await until(lambda: publisher.readings > readings, "the change is told", HEAL_S)


async def test_a_stopped_primary_holds_up_nobody_who_has_another_one(
    cluster: ValkeyCluster, until: Until
) -> None:
    """It answers nothing and closes nothing: who waits goes to its replica once that has taken over."""
    async with published(cluster.url) as publisher:
        await publisher.all_heard(until)
        (first, *_) = await cluster.primaries()
        first.pause()
        await cluster.wait_taken_over(first, frozenset({key_slot(keys.valuations(0).encode())}))
        await publisher.all_heard(until)
        first.resume()
        await publisher.all_heard(until)


async def test_who_waits_for_a_turn_is_woken_when_slots_have_another_node(cluster: ValkeyCluster) -> None:
    """Calculators take their shards, and the collector writes its records again, without a pause."""
    connection = Connection(cluster.url)
    await connection.ping()
    turns = connection.turns
    waiting = asyncio.create_task(connection.wait_turn(math.inf, turns))
    (first, *_) = await cluster.primaries()
    await cluster.fail_over(first)
    async with asyncio.timeout(HEAL_S):
        await waiting
        await connection.wait_turn(math.inf, turns)  # what has turned meanwhile counts, too
        await connection.wait_turn(0.0, connection.turns)
    await connection.close()


async def test_the_doctor_tries_out_a_cluster(cluster: ValkeyCluster) -> None:
    """It writes, runs a script, publishes and hears; a place that is none, or database 1, is refused."""
    assert (await examine(cluster.url)).is_cluster
    with pytest.raises(StateRefused, match="REDIS_DB=0"):
        await examine(cluster.url.removesuffix("/0") + "/1")
    with pytest.raises(StateRefused, match="unset REDIS_CLUSTER"):
        await examine(cluster.url, is_cluster=False)


async def test_several_nodes_may_be_named(cluster: ValkeyCluster) -> None:
    """The first that answers tells of the others."""
    first, second, *_ = (node.url.removeprefix("redis://") for node in cluster.nodes)
    await cluster.nodes[0].kill()
    connection = Connection(f"redis://{first.removesuffix('/0')},{second}", is_cluster=True)
    await connection.ping()
    await connection.close()


async def test_what_is_no_cluster_is_refused(mortal_server: ValkeyNode) -> None:
    """Where one is expected, because it was said or several nodes are named."""
    place = f"127.0.0.1:{mortal_server.port}"
    for url, is_cluster in ((f"redis://{place}/0", True), (f"redis://{place},{place}/0", None)):
        with pytest.raises(StateRefused, match=f"{place} is not a node of a cluster: unset REDIS_CLUSTER"):
            await examine(url, is_cluster=is_cluster)


async def test_subscribed_is_told_once_for_all_nodes_that_come_together(cluster: ValkeyCluster) -> None:
    """A reader that has not read yet need not read twice."""
    state = open_state(cluster.url, holder="test", shards=SHARDS, lease_ms=4000)
    told: list[object] = []

    async def read_slowly() -> None:
        async for event in state.valuations.batches():
            told.append(event)
            await asyncio.sleep(1)  # all three come meanwhile

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(4):
            await read_slowly()
    assert told in (
        [Subscribed()],
        [Subscribed(), Subscribed()],
    )  # at once, or those that came after the first
    await state.close()


async def test_a_connection_that_hears_nothing_is_given_up(
    cluster: ValkeyCluster, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of the subscriptions to one primary dies without a word: nothing is closed, commands pass."""
    fronts: dict[str, ValkeyProxy] = {}

    def through_front(url: str) -> Redis:
        return subscription_client(fronts[url].url)

    monkeypatch.setattr(nodes, "subscription_client", through_front)
    async with contextlib.AsyncExitStack() as stack:
        for node in cluster.nodes:
            url = node.url.removesuffix("/0")
            fronts[url] = fronts[node.url] = await stack.enter_async_context(ValkeyProxy(node.port))
        publisher = await stack.enter_async_context(published(cluster.url))
        await publisher.all_heard(until)
        readings = publisher.readings
        fronts[(await cluster.primary_of(keys.valuations(0))).url].lose_open_flows()
        await until(
            lambda: publisher.readings > readings, "it is noticed, and its reader reads again", HEAL_S
        )
        await publisher.all_heard(until)


@pytest.mark.parametrize("user", ["collector", "consumer", "calculator", "server"])
async def test_the_rights_that_are_listed_are_enough(cluster: ValkeyCluster, user: rights.User) -> None:
    """Without the right to ask who holds what it is refused with the remedy; no node has refused anything."""
    granted = words_of(rights.access_string(user))
    url = cluster.url.replace("redis://", f"redis://{user}:secret@")
    for node in cluster.nodes:
        await node.do("ACL", "SETUSER", user, "reset", ">secret", *granted)
    assert (await examine(url)).is_cluster
    for node in cluster.nodes:
        assert not [one for one in await node.do("ACL LOG") if "info" not in str(one)]
        await node.do("ACL", "SETUSER", user, "-cluster|slots")
    with pytest.raises(StateRefused, match=r"NOPERM.*docs/security\.md"):
        await examine(url)


async def test_a_name_that_no_machine_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the settings to look at; a new start cannot help."""
    monkeypatch.setattr(service, "STATE_WAIT_S", 0.0)
    settings = config.load(redis_host="nobody.invalid", _env_file=None)
    with pytest.raises(StateRefused, match="No machine has that name: check REDIS_HOST"):
        await service.with_state("test", settings, nothing, asyncio.Event())
    with pytest.raises(StateRefused, match="No machine has that name: check REDIS_HOST"):
        await wire.processes(settings)


async def nothing(_: service.Context) -> None:
    """Be a service."""


async def test_an_old_cluster_is_refused() -> None:
    """Version 6 cannot publish to the nodes of one slot only."""
    old = Hello("redis", "6.2.14", "cluster", "master")
    with pytest.raises(StateRefused, match=r"cluster of version 6\.2\.14: use Valkey, or Redis 7"):
        Nodes("redis://127.0.0.1:1/0", None).check_kind(old, Node("redis://127.0.0.1:1/0"))

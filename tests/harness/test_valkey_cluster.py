"""The cluster of the harness, broken in every way that it offers: a real one each time."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio
from redis import exceptions
from redis.asyncio.cluster import RedisCluster
from redis.crc import key_slot

from portfolio_harness import valkey_cluster
from portfolio_harness.valkey_cluster import ClusterFailed, ValkeyCluster
from portfolio_harness.valkey_node import ValkeyNode, redis_program
from portfolio_realtime.errors import SettingsError
from tests.conftest import Until
from tests.interoperability.programs import need
from tests.support.processes import is_running

pytestmark = pytest.mark.drill  # a cluster is broken in tests/faults/test_cluster.py, too
KEYS = 100
of_the_module = pytest.mark.asyncio(
    loop_scope="module"
)  # one cluster for several tests, each leaves it whole
PARENT = """
import asyncio
from portfolio_harness.valkey_cluster import ValkeyCluster

async def main():
    async with ValkeyCluster() as cluster:
        print(*(node.pid for node in cluster.nodes), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest_asyncio.fixture(params=["embedded", "redis"], scope="module", loop_scope="module")
async def cluster(request: pytest.FixtureRequest) -> AsyncGenerator[ValkeyCluster]:
    """Three primaries with a replica each."""
    program = need("redis-server") if request.param == "redis" else ""
    async with ValkeyCluster(program=program) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def keys(cluster: ValkeyCluster) -> AsyncGenerator[RedisCluster]:
    """A client; KEYS keys are written."""
    async with RedisCluster.from_url(cluster.url) as client:
        for number in range(KEYS):
            await client.set(f"key:{number}", number)
        yield client
    await cluster.wait_whole()


async def found(client: RedisCluster) -> int:
    """How many of the keys are there."""
    return sum([await client.get(f"key:{number}") == b"%d" % number for number in range(KEYS)])


@of_the_module
async def test_it_is_whole(cluster: ValkeyCluster, keys: RedisCluster) -> None:
    """Three share all slots evenly, each has a replica, and every key is where its slot is."""
    primaries = await cluster.primaries()
    assert [len(await cluster.slots_of(node)) for node in primaries] == [5461, 5461, 5462]
    assert [len(await cluster.replicas_of(node)) for node in primaries] == [1, 1, 1]
    assert len(cluster.nodes) == 6
    assert await found(keys) == KEYS
    owner = await cluster.primary_of("key:1")
    assert await owner.do("GET", "key:1") == b"1"


@of_the_module
async def test_a_planned_failover_loses_nothing(
    cluster: ValkeyCluster, keys: RedisCluster, until: Until
) -> None:
    """The replica has the slots, the old primary follows it."""
    old = await cluster.primary_of("key:1")
    new = await cluster.fail_over(old)
    assert await cluster.primary_of("key:1") is new
    await cluster.wait_whole()

    async def follows() -> bool:
        return await cluster.replicas_of(new) == [old]

    await until(follows, "the old primary follows, as the others have heard")
    assert await found(keys) == KEYS


@of_the_module
async def test_a_killed_primary_is_taken_over_and_comes_back(
    cluster: ValkeyCluster, keys: RedisCluster
) -> None:
    """Its replica has the data; started again it follows."""
    old = await cluster.primary_of("key:1")
    await cluster.kill_primary(old)
    new = await cluster.primary_of("key:1")
    assert new is not old
    assert await found(keys) == KEYS
    await old.start()
    await cluster.wait_whole()
    assert await cluster.replicas_of(new) == [old]


@of_the_module
async def test_a_paused_primary_is_taken_over(cluster: ValkeyCluster) -> None:
    """It answers nothing, and finds out when it goes on."""
    old = await cluster.primary_of("key:1")
    slots = await cluster.slots_of(old)
    old.pause()
    await cluster.wait_taken_over(old, slots)
    old.resume()
    await cluster.wait_whole()
    assert await cluster.slots_of(old) == frozenset()


@of_the_module
async def test_slots_move_with_their_keys(cluster: ValkeyCluster, keys: RedisCluster) -> None:
    """Key by key, while a client goes on."""
    first, _, third = await cluster.primaries()
    owned = await cluster.slots_of(first)
    slots = sorted({key_slot(f"key:{number}".encode()) for number in range(KEYS)})
    slots = [slot for slot in slots if slot in owned]
    assert slots
    await cluster.move_slots(slots, third)
    assert await cluster.slots_of(first) == owned - frozenset(slots)
    assert frozenset(slots) <= await cluster.slots_of(third)
    assert await found(keys) == KEYS


async def test_slots_move_whole() -> None:
    """All of a primary's at once."""
    async with ValkeyCluster(replicas=0) as cluster, RedisCluster.from_url(cluster.url) as client:
        for number in range(KEYS):
            await client.set(f"key:{number}", number)
        first, second, _ = await cluster.primaries()
        owned = await cluster.slots_of(first)
        await cluster.move_slots_whole(owned, second)
        assert await found(client) == KEYS
        await cluster.remove(first)
        await cluster.wait_whole()
        assert len(cluster.nodes) == len(await cluster.view()) == 2
        assert not is_running(first.pid)
        assert await found(client) == KEYS


@of_the_module
async def test_nodes_join_and_leave(cluster: ValkeyCluster) -> None:
    """A primary without slots, and its replica; what has slots cannot leave."""
    old = (await cluster.primaries())[0]
    primary = await cluster.add_primary()
    replica = await cluster.add_replica(primary)
    await cluster.move_slots([0], primary)
    await cluster.wait_whole()
    assert await cluster.slots_of(primary) == {0}
    assert await cluster.replicas_of(primary) == [replica]
    assert len(await cluster.view(replica)) == 8
    with pytest.raises(ClusterFailed, match="still owns 1 slots: move them first"):
        await cluster.remove(primary)
    await cluster.move_slots([0], old)
    await cluster.remove(replica)
    await cluster.remove(primary)
    await cluster.wait_whole()
    assert len(await cluster.view()) == len(cluster.nodes) == 6
    assert not any(is_running(node.pid) for node in (primary, replica))


@pytest.mark.parametrize("needs_all_slots", [False, True])
async def test_a_shard_without_nodes(needs_all_slots: bool, until: Until) -> None:
    """The others go on, or all refuse: as it was asked for."""
    async with ValkeyCluster(replicas=0, needs_all_slots=needs_all_slots) as cluster:
        dead, alive, _ = await cluster.primaries()
        slot = min(await cluster.slots_of(alive))
        key = next(key for number in range(10**6) if key_slot((key := f"k{number}").encode()) == slot)
        await dead.kill()

        async def serves() -> bool:
            with contextlib.suppress(exceptions.ClusterDownError):
                return await alive.do("SET", key, 1)
            return False

        await until(lambda: _has_failed(cluster, alive, dead), "its death is noticed")

        async def is_as_asked() -> bool:
            return await serves() is not needs_all_slots

        await until(is_as_asked, "the other shards go on, or refuse")


async def _has_failed(cluster: ValkeyCluster, node: ValkeyNode, dead: ValkeyNode) -> bool:
    return not (await cluster.view(node))[dead.port].is_well


async def test_what_does_not_happen_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes over from a primary without a replica."""
    async with ValkeyCluster(replicas=0) as cluster:
        monkeypatch.setattr(valkey_cluster, "WAIT_S_MAX", 0.3)
        with pytest.raises(ClusterFailed, match="waiting until another node has taken over"):
            await cluster.kill_primary((await cluster.primaries())[0])


async def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SettingsError, match="apt-get install redis-server"):
        redis_program()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has died")
async def test_it_ends_with_its_parent(number: signal.Signals, tmp_path: Path, until: Until) -> None:
    """Ctrl-C leaves no process and no file; SIGKILL no process."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert parent.stdout is not None
    with parent.stdout:
        pids = [int(word) for word in (await asyncio.to_thread(parent.stdout.readline)).split()]
    assert len(pids) == 6
    assert all(map(is_running, pids))
    parent.send_signal(number)
    await asyncio.to_thread(parent.wait, 30)
    await until(lambda: not any(map(is_running, pids)), "all nodes have ended")
    assert number is signal.SIGKILL or list(tmp_path.iterdir()) == []

"""Nodes of a cluster: one that stands still is waited for once; tags lie evenly over primaries."""

import asyncio
from collections import Counter

import pytest
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from portfolio_harness.valkey_node import ValkeyNode
from portfolio_realtime.state import keys, nodes
from portfolio_realtime.state.nodes import Node
from portfolio_realtime.state.routing import key_of

ANSWER_S = 0.5  # for a server that stands still
PATIENT_S = 60.0  # for one that answers, on a machine of any speed


async def test_a_silent_node_is_asked_by_nobody_until_it_answers_a_ping(
    mortal_server: ValkeyNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for it is told at once, with the others; when it answers again, it says so and serves all."""
    back = asyncio.Event()
    server, node = mortal_server, Node(mortal_server.url, back.set)
    monkeypatch.setattr(nodes, "ANSWER_S_MAX", PATIENT_S)
    assert await node.answer(lambda commands: commands.set("key", "value"))
    monkeypatch.setattr(nodes, "ANSWER_S_MAX", ANSWER_S)
    server.pause()
    asked = [node.answer(lambda commands: commands.get("key")) for _ in range(10)]
    told = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(one, TimeoutError) and "does not answer" in str(one) for one in told)
    assert node.is_silent
    with pytest.raises(TimeoutError):  # at once
        await node.answer(lambda _: pytest.fail("a silent node is asked"))
    assert not back.is_set()
    server.resume()
    monkeypatch.setattr(nodes, "ANSWER_S_MAX", PATIENT_S)
    async with asyncio.timeout(PATIENT_S):
        await back.wait()
    assert await node.answer(lambda commands: commands.get("key")) == b"value"
    await node.close()


@pytest.mark.parametrize("primaries", [1, 2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("shards", [16, 32, 99])
def test_tags_lie_evenly_over_equal_primaries(shards: int, primaries: int) -> None:
    """No primary has two shards more than its share; each tag has its number in it."""
    tags = [keys.tag(shard) for shard in range(shards)]
    assert len(set(tags)) == shards
    assert all(f"{shard:02d}" in tag for shard, tag in enumerate(tags))
    owned = Counter(key_slot(tag.encode()) * primaries // REDIS_CLUSTER_HASH_SLOTS for tag in tags)
    assert all(abs(owned[primary] - shards / primaries) <= 2 for primary in range(primaries))


def test_what_a_script_touches_has_one_home() -> None:
    """All keys of a shard, its lease and channels; a hash and its fence; a probe and what it is for."""
    for shard in range(16):
        lease = keys.shard_lease(shard)
        home = {
            *(keys.accounts(shard), keys.bookings(shard), keys.pending(shard), keys.valuations(shard)),
            *(keys.interest(shard), keys.position_interest(shard), keys.fence(keys.valuations(shard))),
            *(keys.lease(lease), keys.granted(lease), keys.probe(keys.interest(shard), "word")),
        }
        assert len({key_slot(key.encode()) for key in home}) == 1
    minute = keys.minute(0)
    for pair in (
        (keys.universe(), keys.fence(keys.universe())),
        (keys.marks(), keys.fence(f"{keys.marks()}:market_data:stocks")),
        (minute, keys.fence(f"{minute}:market_data:stocks")),
        (keys.lease("symbol_collector"), keys.granted("symbol_collector")),
        (keys.revocations(), keys.revocations_known()),
        (keys.feed("iex"), keys.feed("accounts")),
        (keys.metrics("a", "1"), keys.metrics_pattern()),
        ("untagged", keys.probe("untagged", "word")),
    ):
        assert len({key_slot(key.encode()) for key in pair}) == 1, pair


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("HGET", "hash", "field"), b"hash"),
        (("EVALSHA", "digest", 2, "first", "second", "argument"), b"first"),
        (("EVAL", "text", 0), None),
        (("XREAD", "BLOCK", 1000, b"STREAMS", "stream", "0"), b"stream"),
        (("SCAN", 0, b"MATCH", "{metrics}:*", b"COUNT", 1000), b"{metrics}:*"),
        (("SPUBLISH", "{marks}", b""), b"{marks}"),
        (("PING",), None),
        (("CONFIG GET", "save"), None),
    ],
)
def test_a_command_goes_by_its_key(command: tuple[object, ...], key: bytes | None) -> None:
    """None: any node will do."""
    assert key_of(command) == key

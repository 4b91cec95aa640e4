"""What the client library does not do yet on a cluster; each test fails with a sentence when it does.

See docs/decisions/0026-our-own-way-to-the-nodes-of-a-cluster.md.
"""

import asyncio
import contextlib

import pytest
from redis import exceptions
from redis.asyncio.cluster import RedisCluster

from portfolio_harness.valkey_cluster import ValkeyCluster
from tests.conftest import KIND

LISTENED_S = 5.0
CHANNEL = "{marks}"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves connections open
async def test_its_subscriptions_stay_deaf_after_a_failover() -> None:
    """Nothing is heard, though another client publishes all the time, until some command is sent."""
    async with (
        ValkeyCluster(program=KIND.program) as cluster,
        RedisCluster.from_url(cluster.url) as deaf,
        deaf.pubsub() as subscription,
    ):
        await subscription.ssubscribe(CHANNEL)
        new = await cluster.fail_over(await cluster.primary_of(CHANNEL))
        heard = 0
        give_up_s = asyncio.get_running_loop().time() + LISTENED_S
        while asyncio.get_running_loop().time() < give_up_s:
            await new.do("SPUBLISH", CHANNEL, "here")
            with contextlib.suppress(exceptions.RedisError):
                told = await subscription.get_sharded_message(ignore_subscribe_messages=True, timeout=0.1)
                heard += told is not None
        assert not heard, "the library's subscriptions hear again by themselves: review decision 26"

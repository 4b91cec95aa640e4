"""E25: tenants on one Valkey, each under a prefix of its own, never see each other."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Generator

import httpx
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect

from portfolio_harness.valkey_node import ValkeyNode
from portfolio_realtime.state.embedded import free_port
from tests.conftest import SHARDS, Until, end
from tests.support.websocket_servers import SECRET, bearer, receive

pytestmark = pytest.mark.asyncio(loop_scope="package")

EQUITIES = {"bank-a:": "11111.11", "bank-b:": "22222.22"}
START_S_MAX = 120.0  # two servers and two calculators on a busy machine
MESSAGES = 4


@contextlib.contextmanager
def tenant(url: str, prefix: str, equity: str) -> Generator[int]:
    """A server and a calculator of one tenant; the server's port."""
    port = free_port()
    environment = {
        **os.environ,
        "REDIS_URL": url,
        "KEY_PREFIX": prefix,
        "SHARDS": str(SHARDS),
        "JWT_SECRET": SECRET,
        "WEBSOCKET_HOST": "127.0.0.1",
        "WEBSOCKET_PORT": str(port),
        "DRAIN_GRACE_SECONDS": "0",
        "DRAIN_SECONDS": "0",
    }
    modules = (("portfolio_realtime.websocket_server",), ("tests.security.tenant", url, prefix, equity))
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", *words],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for words in modules
    ]
    try:
        yield port
    finally:
        for process in processes:
            end(process)


async def is_ready(port: int) -> bool:
    """Can the server serve?"""
    with contextlib.suppress(httpx.HTTPError):
        async with httpx.AsyncClient(trust_env=False) as http:
            return (await http.get(f"http://127.0.0.1:{port}/ready")).status_code == 200
    return False


async def test_e25_tenants_with_the_same_account_id_see_only_their_own(until: Until) -> None:
    """The first value and what is published later; and no key or channel is anybody else's."""
    async with ValkeyNode() as valkey, Redis.from_url(valkey.url, decode_responses=True) as admin:
        with contextlib.ExitStack() as stack:
            ports = {
                prefix: stack.enter_context(tenant(valkey.url, prefix, equity))
                for prefix, equity in EQUITIES.items()
            }
            for port in ports.values():
                await until(lambda port=port: is_ready(port), "the tenant's server is ready", START_S_MAX)
            seen = {prefix: await values(port) for prefix, port in ports.items()}
            assert seen == {prefix: {equity} for prefix, equity in EQUITIES.items()}
            keys = [str(key) async for key in admin.scan_iter(count=1000)]
            channels = [str(channel) for channel in await admin.pubsub_channels()]
        for name in keys + channels:
            assert name.startswith(tuple(EQUITIES)), name
        for prefix in EQUITIES:
            assert any(name.startswith(prefix) for name in keys)
            assert any(name.startswith(prefix) for name in channels)


async def values(port: int) -> set[str]:
    """What a client of the tenant is shown, at first and later."""
    url = f"ws://127.0.0.1:{port}/ws/portfolio/a"
    async with connect(url, additional_headers=bearer(), compression=None) as client:
        shown: list[str] = []
        while len(shown) < MESSAGES:
            message = await receive(client)
            if message["type"] == "portfolio":  # a calculator that has just started is told as silent first
                shown.append(message["equity"])
        return set(shown)

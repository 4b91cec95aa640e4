"""Sentinels say where the primary is: commands and subscriptions follow it to another server."""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Final

import pytest

from portfolio_harness.valkey_node import ValkeyNode
from portfolio_realtime import config
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.errors import StateRefused, StateUnavailable
from portfolio_realtime.state.connection import Connection, Message, Subscribed
from tests.conftest import ONE_KIND, Until
from tests.support.sentinels import NAME, watched

MOVED_S_MAX: Final = 60.0


def url_by(places: str, name: str = NAME) -> str:
    """What a service is given."""
    settings = config.load(redis_sentinels=places, redis_sentinel_master=name, _env_file=None)
    assert not settings.is_embedded
    assert settings.is_cluster is False
    return settings.state_url


async def test_commands_and_subscriptions_follow_the_primary(tmp_path: Path, until: Until) -> None:
    """Handed over, the old one lives on; then killed, and with it the Sentinel that is asked first."""
    async with watched(tmp_path) as group:
        connection, heard = Connection(url_by(group.places), is_cluster=False), list[Message | Subscribed]()

        async def hear() -> None:
            async for event in connection.follow("news"):
                heard.append(event)

        async def is_written() -> bool:
            with contextlib.suppress(StateUnavailable):
                await connection.fenced_write("{t}:fence", "{t}", 1, [("field", b"value")], [], None)
                return True
            return False

        async def is_here() -> bool:
            return await is_written() and await port_here() == await group.primary_port()

        async def is_heard() -> bool:
            seen = len(heard)
            with contextlib.suppress(StateUnavailable):
                await connection.publish("news", b"here")
            await asyncio.sleep(0.1)
            return any(isinstance(event, Message) for event in heard[seen:])

        async def port_here() -> int:
            return (await connection.commands.info("server"))["tcp_port"]

        following = asyncio.create_task(hear())
        try:
            await connection.wait_ready(MOVED_S_MAX)
            await until(is_heard, "heard", MOVED_S_MAX)
            for do in (group.hand_over, group.kill_primary):
                before, began_s = await group.primary_port(), time.monotonic()
                assert await port_here() == before
                await do()

                async def has_moved(before: int = before) -> bool:
                    return await group.primary_port() != before

                await until(has_moved, "the Sentinels have another primary", MOVED_S_MAX)
                moved_s = time.monotonic() - began_s
                await until(is_here, "written at the new primary", MOVED_S_MAX)
                await until(is_heard, "heard", MOVED_S_MAX)
                print(
                    f"{do.__name__}: elected {moved_s:.1f} s, ours {time.monotonic() - began_s:.1f} s after"
                )
                if do == group.hand_over:
                    await group.kill_first_sentinel()
                    await until(is_written, "another Sentinel is asked", MOVED_S_MAX)
                    await asyncio.sleep(2)  # the old primary is a replica that can be promoted
        finally:
            await cancel_until_ended([following])
            await connection.close()


async def test_wrong_settings_are_told(tmp_path: Path, mortal_server: ValkeyNode) -> None:
    """An unknown name, a server that is no Sentinel, a Sentinel as the server, and nobody there."""
    async with watched(tmp_path) as group:
        sentinel = group.places.split(",")[0]
        for url, is_cluster, remedy in (
            (url_by(group.places, "another"), False, "check REDIS_SENTINEL_MASTER"),
            (url_by(f"127.0.0.1:{mortal_server.port}"), False, "is not a Sentinel"),
            (f"redis://{sentinel}/0", None, "name it in REDIS_SENTINELS"),
        ):
            connection = Connection(url, is_cluster=is_cluster)
            with pytest.raises(StateRefused, match=remedy):
                await connection.wait_ready(1)
            await connection.close()
    connection = Connection(url_by("127.0.0.1:1"), is_cluster=False)
    with pytest.raises(StateUnavailable, match="no Sentinel answers"):
        await connection.wait_ready(0.1)
    await connection.close()


async def test_a_socket_of_the_file_system_is_as_good(tmp_path: Path) -> None:
    """`unix://` in REDIS_URL."""
    path = tmp_path / "valkey.sock"
    url = config.load(redis_url=f"unix://{path}?db=1", _env_file=None).state_url
    connection = Connection(url)
    async with ValkeyNode(program=ONE_KIND.program, options=("--unixsocket", str(path))) as server:
        await connection.wait_ready(MOVED_S_MAX)
        assert await connection.written_once("here", "1") == "1"
        async with server.client() as commands:
            await commands.select(1)
            assert await commands.get("here") == b"1"
        await connection.close()

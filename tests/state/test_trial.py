"""The doctor tries out what services do, with the rights that they have: `ok` means that it works."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from redis import exceptions

from portfolio_harness.valkey_node import ValkeyNode
from portfolio_realtime.errors import StateRefused, StateUnavailable
from portfolio_realtime.state import rights
from portfolio_realtime.state.embedded import free_port
from portfolio_realtime.state.error_answers import state_error
from portfolio_realtime.state.server import examine
from tests.conftest import ONE_KIND
from tests.support.access import words_of

SERVICES = [user for user in rights.COMMANDS if user != "operator"]


async def url_of(valkey: ValkeyNode, user: str, access: str) -> str:
    """A user with these rights."""
    await valkey.do("ACL", "SETUSER", user, "reset", ">secret", *words_of(access))
    return valkey.url.replace("redis://", f"redis://{user}:secret@")


@pytest.mark.parametrize("user", SERVICES)
async def test_the_least_rights_of_each_service_are_enough(mortal_server: ValkeyNode, user: str) -> None:
    """Nothing is left behind, and nobody needs INFO for it."""
    server = await examine(await url_of(mortal_server, user, rights.access_string(user)))  # type: ignore[arg-type]  # one of the users
    assert server.major_version >= 7
    assert await mortal_server.do("KEYS", "*") == []
    assert [rights.USER_OF[service] for service, lacking in server.lacking.items() if not lacking] == [user]


async def test_what_a_user_lacks_is_named(mortal_server: ValkeyNode) -> None:
    """Commands, keys to read and to write, channels; nothing for somebody who may do all."""
    access = rights.access_string("server").split()
    for missing in ("+hscan", "+hmget", "%R~{marks}", "~ticket:*", "&{s????}:valuations:*"):
        if missing in access:
            access.remove(missing)
    server = await examine(await url_of(mortal_server, "server", " ".join(access)))
    lacking = server.lacking["websocket_server"]
    assert lacking == ("+hmget", "%R~{marks}", "%R~ticket:*", "%W~ticket:*", "&{s????}:valuations:*")
    assert not any((await examine(mortal_server.url)).lacking.values())


@pytest.mark.parametrize(
    ("missing", "step"),
    [
        ("~settings", "writing is refused"),
        ("+evalsha", "a script is refused"),
        ("+publish", "publishing is refused"),
        ("&{*}:probe:*", "is refused"),
        ("+subscribe", "subscribing is refused"),
    ],
)
async def test_each_right_that_is_missing_is_named(
    mortal_server: ValkeyNode, missing: str, step: str
) -> None:
    """With the step and the remedy; a server that only answers PING is not ok."""
    access = rights.access_string("server").split()
    assert missing in access
    access.remove(missing)
    with pytest.raises(StateRefused, match=f"{step}.*docs/security.md"):
        await examine(await url_of(mortal_server, "server", " ".join(access)))


@pytest.mark.parametrize(
    "lacking",
    ["-set", "resetkeys ~settings", "resetchannels &{*}:probe:*"],
    ids=["command", "key", "channel"],
)
async def test_a_right_that_a_script_lacks_is_named(mortal_server: ValkeyNode, lacking: str) -> None:
    """What it runs is refused within it, by a plain error that Valkey and Redis word differently."""
    await mortal_server.do("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", *lacking.split())
    async with mortal_server.client() as client:
        await client.execute_command("AUTH", "app", "secret")
        writes = client.register_script("redis.call('PUBLISH', 'x', '1'); redis.call('SET', 'lease', '1')")
        with pytest.raises(exceptions.RedisError) as refused:
            await writes()
    meaning = state_error(refused.value)
    assert isinstance(meaning, StateRefused)
    assert "docs/security.md" in str(meaning)


@pytest.fixture
async def cluster_url(tmp_path: Path) -> AsyncGenerator[str]:
    """A node with cluster mode on."""
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--dir", str(tmp_path))
    async with ValkeyNode(program=ONE_KIND.program, options=options) as node:
        yield node.url


async def test_a_cluster_without_slots_is_waited_for(cluster_url: str) -> None:
    """It passes, as somebody is setting it up."""
    with pytest.raises(StateUnavailable, match=r"CLUSTERDOWN.* not complete: redis-cli --cluster check"):
        await examine(cluster_url)

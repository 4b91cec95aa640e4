"""A password in a file may be renewed while services run: connections made afterwards use the new one."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from portfolio_harness.valkey_node import ValkeyNode
from portfolio_realtime import config, redaction
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.errors import StateRefused
from portfolio_realtime.state.connection import Connection, Message, Subscribed
from portfolio_realtime.state.password_file import PasswordFile
from tests.conftest import ONE_KIND, Until

USER, FIRST, SECOND = "service", "first-password", "second-password"


@pytest.fixture
async def server() -> AsyncGenerator[ValkeyNode]:
    """A server with a user of our own; nobody else is let in."""
    async with ValkeyNode(program=ONE_KIND.program) as node:
        await node.do("ACL", "SETUSER", USER, "on", f">{FIRST}", "allkeys", "allchannels", "+@all")
        yield node


def url_of(server: ValkeyNode, path: Path) -> str:
    """What a service is given."""
    settings = config.load(
        redis_host="127.0.0.1",
        redis_port=server.port,
        redis_user=USER,
        redis_password=path.read_text().strip(),
        redis_password_file=str(path),
        _env_file=None,
    )
    return settings.state_url


async def test_commands_and_subscriptions_go_on_with_a_renewed_password(
    server: ValkeyNode, tmp_path: Path, until: Until
) -> None:
    """All connections are cut, as ElastiCache does after 12 hours; the former password is worth nothing."""
    path = tmp_path / "password"
    path.write_text(f"{FIRST}\n")
    connection = Connection(url_of(server, path), is_cluster=False)
    heard: list[Message | Subscribed] = []

    async def hear() -> None:
        async for event in connection.follow("news"):
            heard.append(event)  # noqa: PERF401  # it never ends

    following = asyncio.create_task(hear())
    try:
        await connection.ping()
        await until(lambda: heard, "it is subscribed")
        path.write_text(SECOND)
        await server.do("ACL", "SETUSER", USER, f">{SECOND}", f"<{FIRST}")
        await server.do("CLIENT", "KILL", "USER", USER)
        await connection.ping()

        async def is_heard() -> bool:
            await connection.publish("news", b"here")
            return any(isinstance(event, Message) for event in heard)

        await until(is_heard, "it is subscribed again")
    finally:
        await cancel_until_ended([following])
        await connection.close()


async def test_a_password_that_has_ended_is_refused(server: ValkeyNode, tmp_path: Path) -> None:
    """Whoever renews the file too late reads why."""
    path = tmp_path / "password"
    path.write_text(FIRST)
    connection = Connection(url_of(server, path), is_cluster=False)
    await connection.ping()
    await server.do("ACL", "SETUSER", USER, f">{SECOND}", f"<{FIRST}")
    await server.do("CLIENT", "KILL", "USER", USER)
    with pytest.raises(StateRefused, match="WRONGPASS"):
        await connection.ping()
    await connection.close()


def test_a_file_that_is_away_for_a_moment_ends_nothing(tmp_path: Path) -> None:
    """As while it is replaced; the last password is used, it is told, and no password is shown."""
    path = tmp_path / "password"
    path.write_text(FIRST)
    password = PasswordFile("", str(path))
    assert password.get_credentials() == (FIRST,)
    path.unlink()
    with capture_logs() as lines:
        assert password.get_credentials() == (FIRST,)
    assert [line["reason"] for line in lines] == ["No such file or directory"]
    assert FIRST not in redaction.clean(f"as {FIRST}")

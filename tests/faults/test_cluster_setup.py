"""A cluster that cannot be used, and what is none, x four services x doctor: one line with the remedy.

What passes is waited for: somebody may be setting the cluster up.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import NoReturn

import pytest

from portfolio_harness.valkey_cluster import ValkeyCluster
from portfolio_harness.valkey_node import ValkeyNode
from portfolio_realtime import logs, service
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.cli.doctor import machine, records
from portfolio_realtime.cli.doctor.findings import Status
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import StateRefused
from portfolio_realtime.state import keys, nodes, rights
from portfolio_realtime.state.embedded import free_port
from portfolio_realtime.state.nodes import Hello
from tests.conftest import KIND, ONE_KIND, Until
from tests.support.access import words_of

from .lone_services import SERVICES, settings_of

WAITED_S = 2.0  # a service tries every 0.5 s
ENDED_S_MAX = 30.0
CHECK = "redis-cli --cluster check HOST:PORT says what is missing"


async def refused(settings: Settings, told: str, remedy: str) -> None:
    """Every service ends with this one line, and the doctor says the same."""
    for name, run in SERVICES.items():
        with pytest.raises(StateRefused) as ended:
            async with asyncio.timeout(ENDED_S_MAX):
                await service.with_state(name, settings, run, asyncio.Event())
        line = str(ended.value)
        assert told in line, name
        assert remedy in line, name
        assert "\n" not in line, name
    found = await machine.state(settings)
    assert found.status is Status.FAIL
    assert told in found.found
    assert remedy in found.remedy


@contextlib.asynccontextmanager
async def all_services(settings: Settings) -> AsyncGenerator[dict[str, asyncio.Task[None]]]:
    """The four services as tasks."""
    running = {
        name: asyncio.create_task(service.with_state(name, settings, run, asyncio.Event()))
        for name, run in SERVICES.items()
    }
    try:
        yield running
    finally:
        await cancel_until_ended(list(running.values()))


async def waited_for(settings: Settings, told: str, capfd: pytest.CaptureFixture[str], until: Until) -> None:
    """Every service goes on waiting and says so in one line; the doctor names the remedy."""
    logs.configure("test", "info", "json")
    said = list[str]()

    def is_said() -> bool:
        said.extend(capfd.readouterr().err.splitlines())
        return any("waiting for Valkey" in line for line in said)

    async with all_services(settings) as running:
        await until(is_said, "they wait")
        await asyncio.sleep(WAITED_S)
        assert [name for name, task in running.items() if task.done()] == []
    is_said()
    (line,) = [line for line in said if "waiting for Valkey" in line]  # the four of them share a log here
    assert told in line
    assert CHECK in line
    assert not [line for line in said if "Traceback" in line]
    found = await machine.state(settings)
    assert found.status is Status.FAIL
    assert told in found.found
    assert CHECK in found.found


async def test_a_single_server_where_a_cluster_is_expected(mortal_server: ValkeyNode) -> None:
    """REDIS_CLUSTER=true; the doctor does not say that rights are missing."""
    settings = settings_of(mortal_server.url, redis_cluster="true")
    await refused(
        settings, f"127.0.0.1:{mortal_server.port} is not a node of a cluster", "unset REDIS_CLUSTER"
    )
    assert "is not a node of a cluster" in (await records.examine(settings)).found


async def test_a_cluster_of_version_6(mortal_server: ValkeyNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Redis 6.2 describes itself: it has no SPUBLISH."""

    async def says_6(_: object) -> Hello:
        return Hello("redis", "6.2.14", "cluster", "master")

    monkeypatch.setattr(nodes, "hello", says_6)
    place = f"127.0.0.1:{mortal_server.port}"
    await refused(
        settings_of(mortal_server.url), f"{place} is a cluster of version 6.2.14", "use Valkey, or Redis 7"
    )


async def test_a_user_who_may_not_ask_who_holds_what() -> None:
    """The right that only a cluster needs."""
    granted = set(rights.access_string("server").split()) - {"+cluster|slots"}
    async with ValkeyCluster(replicas=0, program=KIND.program) as cluster:
        for node in cluster.nodes:
            words = words_of(" ".join(granted))
            await node.do("ACL", "SETUSER", "server", "reset", ">secret", *words)
        settings = settings_of(cluster.url.replace("redis://", "redis://server:secret@"))
        await refused(settings, "NOPERM", "give its user the rights that docs/security.md lists")
        assert "may not read them" in (await records.examine(settings)).found


def known_to_nobody(*_: object, **__: object) -> NoReturn:
    """A resolver that knows no name."""
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.parametrize("host", ["nobody.invalid", "nobody.invalid,neither.invalid"])
async def test_a_name_that_no_machine_has(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One, or several of which none is known; the resolver says so at once, however busy this machine is."""
    monkeypatch.setattr(socket, "getaddrinfo", known_to_nobody)
    monkeypatch.setattr(service, "STATE_WAIT_S", 0.0)
    settings = settings_of(f"redis://{host}/0")
    for name, run in SERVICES.items():
        with pytest.raises(StateRefused, match="No machine has that name: check REDIS_HOST"):
            await service.with_state(name, settings, run, asyncio.Event())
    found = await machine.state(settings)
    assert found.status is Status.FAIL
    assert "No machine has that name: check REDIS_HOST" in found.found


async def test_a_cluster_without_slots(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], until: Until
) -> None:
    """Nobody has given its nodes any."""
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--dir", str(tmp_path))
    async with ValkeyNode(program=ONE_KIND.program, options=options) as node:
        await waited_for(settings_of(node.url), "CLUSTERDOWN", capfd, until)


async def test_a_cluster_of_which_a_part_is_away(capfd: pytest.CaptureFixture[str], until: Until) -> None:
    """The part in which the services agree, before they begin: without replicas, nobody replaces it."""
    async with ValkeyCluster(replicas=0, program=KIND.program) as cluster:
        lost = await cluster.primary_of(keys.settings())
        rest = next(node for node in await cluster.primaries() if node is not lost)
        await lost.kill()
        await waited_for(settings_of(rest.url), f"127.0.0.1:{lost.port}", capfd, until)

"""One connection for the short commands of a client, with the library's pool behind it."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import hiredis
import pytest
from redis import exceptions

from portfolio_harness.valkey_node import ValkeyNode
from portfolio_realtime.state.client import lean_client
from portfolio_realtime.state.client.lean_client import LeanClient
from portfolio_realtime.state.client.raw_connection import pack
from portfolio_realtime.state.clients import command_client
from tests.conftest import Until
from tests.faults.valkey_proxy import ValkeyProxy

LATE_S = 0.3


@pytest.fixture
async def client(mortal_server: ValkeyNode) -> AsyncGenerator[LeanClient]:
    """A client whose shared connection is open."""
    opened = command_client(mortal_server.url)
    await _share(opened)
    yield opened
    await opened.aclose()


async def _share(client: LeanClient) -> None:
    """Give short commands until they share a connection."""
    async with asyncio.timeout(10):
        while not _is_shared(client):
            await client.ping()
            await asyncio.sleep(0.01)


def _shared(client: LeanClient) -> Any:
    return client._lane._shared  # pyright: ignore[reportPrivateUsage]


def _is_shared(client: LeanClient) -> bool:
    return _shared(client) is not None and _shared(client).is_usable()


def _forbid_pool(client: LeanClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forbidden() -> None:
        raise AssertionError("the pool was used")

    monkeypatch.setattr(client.connection_pool, "get_connection", forbidden)


async def test_short_commands_need_no_connection_of_the_pool(
    client: LeanClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many at once and in a pipeline: each gets its own answer, an error in its place among others."""
    _forbid_pool(client, monkeypatch)
    sent = [client.execute_command("GET", "{a}nobody"), *(client.ping() for _ in range(50))]
    assert await asyncio.gather(*sent) == [None, *([True] * 50)]
    pipeline = client.pipeline(transaction=False)
    pipeline.evalsha("0" * 40, 0)
    pipeline.get("{a}nobody")
    failed, empty = await pipeline.execute(raise_on_error=False)
    assert isinstance(failed, exceptions.NoScriptError)
    assert empty is None
    pipeline.evalsha("0" * 40, 0)
    with pytest.raises(exceptions.NoScriptError):
        await pipeline.execute()


async def test_a_lost_connection_costs_no_command(
    client: LeanClient, mortal_server: ValkeyNode, until: Until
) -> None:
    """It ends with commands on their way: they are repeated, and it is opened again."""
    mortal_server.pause()
    asked = [asyncio.ensure_future(client.ping()) for _ in range(20)]
    await asyncio.sleep(0)
    _shared(client).raw.connection_lost(None)
    mortal_server.resume()
    assert all(await asyncio.gather(*asked))

    async def is_open_again() -> bool:
        return await client.ping() and _is_shared(client)

    await until(is_open_again, "shared again")


async def test_a_cancelled_caller_takes_nobody_elses_answer(mortal_server: ValkeyNode, until: Until) -> None:
    """Its answer comes later, and belongs to nobody; those who wait behind it get their own."""
    client = command_client(mortal_server.url)
    await client.set("key", "value")
    await _share(client)
    mortal_server.pause()
    impatient = asyncio.ensure_future(client.ping())
    await asyncio.sleep(0)
    waiting = [asyncio.ensure_future(client.get("key")) for _ in range(3)]
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.wait([impatient])
    assert not _is_shared(client), "nothing is sent behind a command that did not answer in time"
    mortal_server.resume()
    assert await asyncio.gather(*waiting) == [b"value"] * 3

    async def is_open_again() -> bool:
        return await client.get("key") == b"value" and _is_shared(client)

    await until(is_open_again, "shared again")
    await client.aclose()


async def test_a_silent_server_is_given_up(
    mortal_server: ValkeyNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits gets the library's error, and what waits is not asked again behind it."""
    client = command_client(mortal_server.url)
    await _share(client)
    monkeypatch.setattr(lean_client, "ANSWER_S_MAX", LATE_S)
    mortal_server.pause()
    with pytest.raises(exceptions.TimeoutError):
        async with asyncio.timeout(10):
            await client.ping()
    mortal_server.resume()
    assert await client.ping()
    await client.aclose()


async def test_after_quiet_a_ping_goes_first(
    client: LeanClient, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    """A connection that may have died unseen carries no command until it has answered."""
    heard_s = _shared(client).raw.heard_s
    monkeypatch.setattr(lean_client, "FRESH_S", -1.0)
    with pytest.raises(AssertionError, match="the pool was used"), monkeypatch.context() as there:
        _forbid_pool(client, there)
        await client.ping()
    await until(lambda: _shared(client).raw.heard_s > heard_s, "the PING is answered")
    monkeypatch.setattr(lean_client, "FRESH_S", 60.0)
    _forbid_pool(client, monkeypatch)
    assert await client.ping()


async def test_an_error_means_the_same_on_both_ways(mortal_server: ValkeyNode) -> None:
    """What the pool raises for an answer is what the shared connection raises."""
    async with ValkeyProxy(mortal_server.port) as proxy:
        pooled = command_client(proxy.url)
        for text in (b"-OOM memory", b"-READONLY replica", b"-NOPERM rights", b"-BUSY script", b"-odd"):
            shared = command_client(proxy.url)
            await _share(shared)
            proxy.answer = text
            errors = [await _error_of(client) for client in (pooled, shared)]
            assert type(errors[0]) is type(errors[1])
            assert str(errors[0]) == str(errors[1])
            assert errors[0].status_code == errors[1].status_code
            proxy.answer = b""
            await shared.aclose()
        await pooled.aclose()


async def _error_of(client: LeanClient) -> Any:
    with pytest.raises(exceptions.RedisError) as told:
        await client.get("key")
    return told.value


def test_numbers_and_texts_are_packed_as_the_library_packs_them() -> None:
    """The same bytes for all kinds of arguments that we send."""
    arguments = ("SET", "é", b"\x00\r\n", 7, -3, 0.1, 1e300)
    client = command_client("redis://127.0.0.1:1/0")
    library = client.connection_pool.make_connection().pack_command(*arguments)
    assert pack(arguments) == b"".join(library)
    reader = hiredis.Reader()
    reader.feed(pack(arguments))
    assert reader.gets() == [b"SET", "é".encode(), b"\x00\r\n", b"7", b"-3", b"0.1", b"1e+300"]

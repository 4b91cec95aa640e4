"""E06, E14, E16: clients that read nothing are disconnected and cost little, on real sockets."""

import contextlib
import gc
import os
import re
import socket
from collections.abc import Generator
from unittest.mock import Mock

import pytest
from websockets.exceptions import ConnectionClosed

from portfolio_harness.slow_readers import resident_mb
from portfolio_realtime.state import State
from portfolio_realtime.websocket_server.access.identity import Identity
from portfolio_realtime.websocket_server.clients import connection as connection_limits
from portfolio_realtime.websocket_server.clients import http_protocol
from portfolio_realtime.websocket_server.clients.connection import ClientConnection as ServedConnection
from portfolio_realtime.websocket_server.clients.gateway import Gateway
from portfolio_realtime.websocket_server.http_api import portfolios
from portfolio_realtime.wire.messages import Disconnect
from tests.conftest import Until
from tests.security.hostile_clients import (
    conflated,
    disconnects,
    publish_much,
    reading_nothing,
    ready,
    rest_of,
    unread_events,
)
from tests.support.websocket_servers import (
    Calculator,
    Served,
    bearer,
    serving,
)

pytestmark = pytest.mark.asyncio(loop_scope="package")

QUEUED, QUEUED_MB_MAX = 400, 15  # publications of 100 KB for who does not read, and what they may cost


async def test_e16_a_client_that_does_not_read_is_cut_and_costs_little(
    own: Served, shared: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its deadline is counted from when its socket is full; nothing is queued for it meanwhile."""
    monkeypatch.setattr(connection_limits, "UNSENT_S_MAX", 0.5)
    calculator = Calculator(shared)
    async with reading_nothing(own):
        sequence = 1

        async def is_cut() -> bool:
            nonlocal sequence
            sequence += 1
            await publish_much(calculator, sequence)
            return 'disconnects_total{code="4002"' in (await own.http.get("/metrics")).text

        await until(is_cut, "the server cuts who does not read", 90)


async def test_e16_who_does_not_read_is_cut_after_10_s() -> None:
    """The deadline itself; the test above shortens it. An unanswered ping has the same."""
    stalled, mute = ServedConnection(0.0), ServedConnection(0.0)
    for connection in (stalled, mute):
        connection.authenticated(Identity("alice", frozenset({"a"})), 0.0, None)
    stalled.pause(100.0)
    assert stalled.disconnect_due(110.0) is None
    assert stalled.disconnect_due(110.1) is Disconnect.SLOW_CONSUMER
    assert mute.is_ping_due(100.0)
    assert mute.disconnect_due(110.0) is None
    assert mute.disconnect_due(110.1) is Disconnect.NO_PONG


async def test_e16_nothing_is_queued_for_a_client_that_does_not_read(
    own: Served, shared: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server, which is in this process, keeps the newest for it and not the forty megabytes before."""
    monkeypatch.setattr(connection_limits, "UNSENT_S_MAX", 600.0)
    calculator = Calculator(shared)
    async with reading_nothing(own):
        before, sequence = await conflated(own), 10_000

        async def conflates() -> bool:
            nonlocal sequence
            sequence += 1
            await publish_much(calculator, sequence)
            return await conflated(own) > before

        await until(conflates, "its socket is full")
        before, before_mb = await conflated(own), resident_mb(os.getpid())
        for _ in range(QUEUED):
            sequence += 1
            await publish_much(calculator, sequence)

        async def has_heard_all() -> bool:
            return await conflated(own) >= before + QUEUED

        await until(has_heard_all, "the server has had them all")
        assert resident_mb(os.getpid()) - before_mb < QUEUED_MB_MAX


@pytest.fixture
def no_collector() -> Generator[None]:
    """Nothing ends because it is collected."""
    gc.disable()
    yield
    gc.enable()


async def test_e16_events_that_nobody_reads_are_cut(
    own: Served, shared: State, until: Until, monkeypatch: pytest.MonkeyPatch, no_collector: None
) -> None:
    """As a WebSocket is."""
    monkeypatch.setattr(portfolios, "UNSENT_S_MAX", 0.5)
    before = await disconnects(own, "4002")
    async with unread_events(own, Calculator(shared), "unread") as client:

        async def is_cut() -> bool:
            return await disconnects(own, "4002") > before

        await until(is_cut, "the server cuts who does not read")
        assert b"event: close" not in await rest_of(client)


async def test_e06_events_that_nobody_reads_end_with_their_token(
    own: Served, shared: State, until: Until, monkeypatch: pytest.MonkeyPatch, no_collector: None
) -> None:
    """Cut: it would not take the word of it."""
    monkeypatch.setattr(portfolios, "UNSENT_S_MAX", 1000.0)
    monkeypatch.setattr(http_protocol, "UNREAD_S_MAX", 1000.0)
    before = await disconnects(own, "4004")
    async with unread_events(own, Calculator(shared), "unread") as client:
        assert await disconnects(own, "4004") == before
        monkeypatch.setattr(Gateway, "valid_for_s", Mock(return_value=0.0))  # much later

        async def is_cut() -> bool:
            return await disconnects(own, "4004") > before

        await until(is_cut, "the token has expired")
        assert b"event: close" not in await rest_of(client)


async def test_e14_events_that_nobody_reads_give_their_place_back_when_the_client_goes(
    shared: State, until: Until, no_collector: None
) -> None:
    """At once, not when the collector comes."""
    async with serving(shared.connection.url, connections_per_user=1) as server:

        async def has_place() -> bool:
            async with server.open("/ws", bearer(subject="gone")) as client:
                with contextlib.suppress(ConnectionClosed):
                    await ready(client)
                    return True
                return False

        async with unread_events(server, Calculator(shared), "gone"):
            assert not await has_place()
        await until(has_place, "the place is free")
        assert await disconnects(server, "1006") == 1


async def test_e16_an_answer_that_nobody_reads_is_cut(
    own: Served, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any route: many requests, and nothing is read. Who reads late gets all of it."""
    monkeypatch.setattr(http_protocol, "UNREAD_S_MAX", 0.3)
    lost: list[http_protocol.BoundedHttp] = []
    connection_lost = http_protocol.BoundedHttp.connection_lost

    def noted(self: http_protocol.BoundedHttp, exc: Exception | None) -> None:
        lost.append(self)
        connection_lost(self, exc)

    monkeypatch.setattr(http_protocol.BoundedHttp, "connection_lost", noted)
    script = re.findall(r'src="(assets/[^"]+)"', (await own.http.get("/")).text)[0]
    size = len((await own.http.get(f"/{script}")).content)
    request = f"GET /{script} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    count = 16_000_000 // size  # more than the system's buffers hold
    with socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(("127.0.0.1", own.port))
        stalled.sendall(count * request)
        await until(lambda: lost, "the server cuts who does not read")
        assert len(await rest_of(stalled)) < count * size


async def test_e16_nobody_is_connected_for_ever(shared: State) -> None:
    """At MAX_CONNECTION_AGE_SECONDS a client is asked to come again, whichever way it came."""
    async with serving(shared.connection.url, max_connection_age_seconds=1) as brief:
        answer = await brief.http.get("/v1/portfolio/a/stream", headers=bearer())
        assert answer.text.endswith('event: close\ndata: {"code":4005,"reason":"lifetime reached"}\n\n')
        async with brief.open("/ws/portfolio/a", bearer()) as client:
            with pytest.raises(ConnectionClosed):
                while True:
                    await client.recv()
            assert client.close_code == Disconnect.LIFETIME.code

"""Who is let in by the real server, by which credentials, and who is not."""

import asyncio
import json
from collections.abc import Callable

import pytest
from benchmarks.raw_websocket import HEADERS, TEXT, RawClient, frame, upgrade_request
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from portfolio_realtime.websocket_server.clients import connection as limits
from tests.support.websocket_servers import (
    API_KEY,
    Calculator,
    Served,
    bearer,
    closed,
    receive,
    refused_handshake,
    serving,
    token,
)


async def test_the_first_message_may_say_who_it_is(server: Served, calculator: Calculator) -> None:
    """As a browser does."""
    await calculator.publish("a", 1)
    async with server.open("/ws/portfolio/a", {}) as client:
        await client.send(json.dumps({"type": "auth", "token": token()}))
        assert (await receive(client))["sequence"] == 1


async def test_a_subprotocol_may_carry_the_token(server: Served, calculator: Calculator) -> None:
    """`bearer, <token>` is answered with `bearer`."""
    await calculator.publish("a", 1)
    offered = [Subprotocol("bearer"), Subprotocol(token())]
    async with server.open("/ws/portfolio/a", {}, subprotocols=offered) as client:
        assert client.subprotocol == "bearer"
        assert (await receive(client))["sequence"] == 1


async def test_the_api_key_opens_every_account(server: Served, calculator: Calculator) -> None:
    """A trusted back end."""
    await calculator.publish("b", 1)
    async with server.open("/ws/portfolio/b", {"X-API-Key": API_KEY}) as client:
        assert (await receive(client))["account_id"] == "b"


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Basic YTph"},
        {"X-API-Key": "nonsense"},
        bearer(lifetime_s=-10),
    ],
)
async def test_bad_credentials_are_closed_with_4500(server: Served, headers: dict[str, str]) -> None:
    """P10."""
    async with server.open("/ws/portfolio/a", headers) as client:
        assert await closed(client) == 4500


async def test_a_token_in_the_url_is_refused_unless_it_is_allowed(
    server: Served, calculator: Calculator, valkey_url: str
) -> None:
    """URLs end up in logs."""
    await calculator.publish("a", 1)
    assert await refused_handshake(server.open(f"/ws/portfolio/a?token={token()}", {})) == 401
    async with (
        serving(valkey_url, allow_token_in_url=True) as allowing,
        allowing.open(f"/ws/portfolio/a?token={token()}", {}) as client,
    ):
        assert (await receive(client))["sequence"] == 1


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        (lambda: token(), 101),
        (lambda: token(accounts=["b"]), 403),
        (lambda: token(lifetime_s=-10), 401),
        (lambda: "nonsense", 401),
    ],
)
async def test_credentials_in_the_url_are_judged_before_the_upgrade(
    calculator: Calculator, valkey_url: str, shown: Callable[[], str], status: int
) -> None:
    """A client that takes an open socket for success is not misled; what it sends early is not lost."""
    await calculator.publish("a", 1)
    async with serving(valkey_url, allow_token_in_url=True) as server:
        path = f"/ws/portfolio/a?token={shown()}"
        assert await refused_handshake(server.open(path, {})) == status
        request = upgrade_request(path, {"Host": "127.0.0.1", **HEADERS})
        async with RawClient(server.port) as client:
            await client.send(request + frame(TEXT, b'{"type":"heartbeat","timestamp":"early"}'))
            assert (await client.response())[0] == status
            if status == 101:
                told = [await client.read(), await client.read()]
                assert any(b"early" in message.payload for message in told if message is not None)
        metrics = (await server.http.get("/metrics")).text
        assert (
            "connects_total" in metrics
        ) and f'result="{status if status != 101 else "accepted"}"' in metrics


async def test_a_user_with_too_many_connections_is_refused_before_the_upgrade(
    calculator: Calculator, valkey_url: str
) -> None:
    """429 with Retry-After where the credentials are in the URL; the place is given back."""
    async with serving(valkey_url, allow_token_in_url=True, connections_per_user=1) as server:
        path = f"/ws?token={token()}"
        async with server.open(path, {}):
            with pytest.raises(InvalidStatus) as refused:
                async with server.open(path, {}):
                    pass
        assert (refused.value.response.status_code, refused.value.response.headers["Retry-After"]) == (
            429,
            "10",
        )
        async with asyncio.timeout(5):
            while await refused_handshake(server.open(path, {})) != 101:
                await asyncio.sleep(0.02)


async def test_who_does_not_say_who_it_is_is_closed(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """No auth message in time: 4007, for a slow client, or a busy server, must come again."""
    monkeypatch.setattr(limits, "AUTH_S_MAX", 0.0)
    async with server.open("/ws/portfolio/a", {}) as client:
        assert await closed(client) == 4007


@pytest.mark.parametrize("account_id", ["b", "nothing", "a.b", "%7Bs01%7D:accounts", "a%2F", "x" * 65])
async def test_an_account_of_another_and_one_that_does_not_exist_get_the_same_answer(
    server: Served, account_id: str
) -> None:
    """4503, whichever it is."""
    async with server.open(f"/ws/portfolio/{account_id}") as client:
        assert await closed(client) == 4503
        assert client.close_reason == "forbidden"


async def test_a_ticket_opens_one_connection(server: Served, calculator: Calculator) -> None:
    """Single use: the second use is refused."""
    await calculator.publish("a", 1)
    answer = await server.http.post("/v1/tickets", headers=bearer())
    assert answer.json()["expires_in_s"] == 30
    path = f"/ws/portfolio/a?ticket={answer.json()['ticket']}"
    async with server.open(path, {}) as client:
        assert (await receive(client))["sequence"] == 1
    assert await refused_handshake(server.open(path, {})) == 401


async def test_of_two_that_use_a_ticket_at_once_one_wins(server: Served, calculator: Calculator) -> None:
    """Also on two connections in the same moment."""
    await calculator.publish("a", 1)
    answer = await server.http.post("/v1/tickets", headers=bearer())
    path = f"/ws/portfolio/a?ticket={answer.json()['ticket']}"

    used = [refused_handshake(server.open(path, {})) for _ in range(2)]
    assert sorted(await asyncio.gather(*used)) == [101, 401]


async def test_a_ticket_sees_only_what_its_user_may_see(server: Served) -> None:
    """It is bound to the subject and the accounts."""
    answer = await server.http.post("/v1/tickets", headers=bearer(accounts=["a"]))
    path = f"/ws/portfolio/ab?ticket={answer.json()['ticket']}"
    assert await refused_handshake(server.open(path, {})) == 403


async def test_a_token_that_expires_ends_the_connection_with_4004(server: Served) -> None:
    """Also in the middle of a connection, after a notice."""
    async with server.open("/ws/portfolio/a", bearer(lifetime_s=2)) as client:
        assert (await receive(client))["type"] == "token_expiring"
        assert await closed(client) == 4004


async def test_a_refreshed_token_keeps_the_connection(server: Served, calculator: Calculator) -> None:
    """The old token's end comes and goes."""
    async with server.open("/ws/portfolio/a", bearer(lifetime_s=2)) as client:
        assert (await receive(client))["type"] == "token_expiring"
        await client.send(json.dumps({"type": "auth", "token": token(lifetime_s=2.9)}))
        assert (await receive(client))["type"] == "token_expiring"
        await client.send(json.dumps({"type": "auth", "token": token(lifetime_s=600)}))
        await client.send(json.dumps({"type": "heartbeat"}))
        assert (await receive(client))["type"] == "heartbeat_ack"


async def test_a_refresh_by_another_subject_is_refused(server: Served) -> None:
    """A connection belongs to one user."""
    async with server.open("/ws/portfolio/a") as client:
        await client.send(json.dumps({"type": "auth", "token": token(subject="mallory")}))
        assert await closed(client) == 4500


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [("http://localhost:3000", True), ("https://evil.example", False), ("null", False)],
)
async def test_pages_of_other_sites_are_refused(server: Served, origin: str, is_allowed: bool) -> None:
    """403 before the WebSocket is open."""
    if is_allowed:
        async with server.open("/ws/portfolio/a", origin=Origin(origin)):
            return
    with pytest.raises(InvalidStatus) as refused:
        async with server.open("/ws/portfolio/a", origin=Origin(origin)):
            pass
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    ("path", "status"),
    [("/ws/other", 404), ("/ws/portfolio/a?detail=all", 400), ("/ws/portfolio/a?max_frequency_hz=x", 400)],
)
async def test_a_wrong_address_is_refused(server: Served, path: str, status: int) -> None:
    """Before the WebSocket is open."""
    with pytest.raises(InvalidStatus) as refused:
        async with server.open(path):
            pass
    assert refused.value.response.status_code == status


async def test_a_user_may_not_open_connections_without_end(calculator: Calculator, valkey_url: str) -> None:
    """4501; one that ends makes room."""
    async with serving(valkey_url, connections_per_user=2) as server, server.open("/ws"), server.open("/ws"):
        async with server.open("/ws") as third:
            assert await closed(third) == 4501
        async with server.open("/ws", bearer(subject="bob")) as other:
            await other.send(json.dumps({"type": "heartbeat"}))
            assert (await receive(other))["type"] == "heartbeat_ack"

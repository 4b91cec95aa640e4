"""The server on real sockets and a real Valkey: what clients get, and how connections end."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from portfolio_realtime.state import State, keys, open_state
from portfolio_realtime.websocket import connection as limits
from portfolio_realtime.websocket import follower
from tests.conftest import LEASE_MS, SHARDS, Until, ValkeyServer
from tests.websocket.served import (
    API_KEY,
    Calculator,
    Served,
    bearer,
    closed,
    receive,
    receive_until,
    remove_account,
    serving,
    token,
    write_accounts,
)


@pytest.fixture
async def calculator(state: State) -> Calculator:
    """Publishes for the accounts a, ab and b, which have records."""
    await write_accounts(state, "a", "ab", "b")
    return Calculator(state)


@pytest.fixture
async def server(calculator: Calculator, valkey_url: str) -> AsyncGenerator[Served]:
    """A server with a JWT secret and an API key."""
    async with serving(valkey_url) as served:
        yield served


async def watched(state: State, account_id: str) -> bool:
    return account_id in (await state.interest.read(keys.shard_of(account_id, SHARDS))).account_ids


# What a client gets


async def test_the_first_message_is_the_stored_value_whole_then_come_changes(
    server: Served, calculator: Calculator
) -> None:
    """P3: a snapshot first, then only the rows that changed."""
    await calculator.publish("a", 1, {"A": "1", "B": "2"})
    async with server.open("/ws/portfolio/a?detail=positions") as client:
        first = await receive(client)
        assert [(row["symbol"], row["quantity"]) for row in first["positions"]] == [("A", "1"), ("B", "2")]
        await calculator.publish("a", 2, {"A": "1", "B": "3"}, equity="101.00")
        second = await receive(client)
        assert (second["sequence"], second["equity"]) == (2, "101.00")
        assert [(row["symbol"], row["quantity"]) for row in second["positions"]] == [("B", "3")]
        await calculator.publish("a", 3, {"B": "3"})
        assert (await receive(client))["positions"] == [{"symbol": "A", "quantity": "0"}]


async def test_without_detail_a_client_gets_no_positions(server: Served, calculator: Calculator) -> None:
    """Whoever wants the value alone gets the value alone."""
    await calculator.publish("a", 1, {"A": "1"})
    async with server.open("/ws/portfolio/a") as client:
        assert "positions" not in await receive(client)


async def test_the_calculators_are_told_when_somebody_begins_to_watch(
    server: Served, calculator: Calculator, state: State, until: Until
) -> None:
    """Interest is announced for the account, with positions only where they are wanted."""
    shard = keys.shard_of("a", SHARDS)
    async with server.open("/ws/portfolio/a"):
        await until(lambda: watched(state, "a"), "a is watched")
        assert not (await state.interest.read(shard)).with_positions
        async with server.open("/ws/portfolio/a?detail=positions"):

            async def has_positions() -> bool:
                return "a" in (await state.interest.read(shard)).with_positions

            await until(has_positions, "a is watched with positions")


async def test_no_client_gets_a_byte_of_another_account(server: Served, calculator: Calculator) -> None:
    """P5: also where one id is the beginning of another."""
    canaries = {"a": "111.11", "ab": "222.22", "b": "333.33"}
    headers = bearer(accounts=["*"])
    async with (
        server.open("/ws/portfolio/a", headers) as a,
        server.open("/ws/portfolio/ab", headers) as ab,
        server.open("/ws/portfolio/b", headers) as b,
    ):
        for sequence in range(1, 20):
            for account_id, equity in canaries.items():
                await calculator.publish(account_id, sequence, equity=equity)
        for account_id, client in (("a", a), ("ab", ab), ("b", b)):
            for message in await receive_until(client, 19):
                assert message["account_id"] == account_id
                assert message["equity"] == canaries[account_id]


async def test_one_connection_may_hold_several_accounts_by_message(
    server: Served, calculator: Calculator
) -> None:
    """`/ws` takes subscribe and unsubscribe; another's account is refused without ending the connection."""
    await calculator.publish("a", 1)
    await calculator.publish("ab", 1)
    async with server.open("/ws") as client:
        await client.send(json.dumps({"type": "subscribe", "account_id": "a"}))
        assert (await receive(client))["account_id"] == "a"
        await client.send(json.dumps({"type": "subscribe", "account_id": "ab"}))
        assert (await receive(client))["account_id"] == "ab"
        await client.send(json.dumps({"type": "subscribe", "account_id": "b"}))
        assert (await receive(client))["code"] == "forbidden"
        await client.send(json.dumps({"type": "unsubscribe", "account_id": "a"}))
        await client.send(json.dumps({"type": "heartbeat"}))
        assert (await receive(client))["type"] == "heartbeat_ack"
        await calculator.publish("a", 2)
        await calculator.publish("ab", 2)
        assert (await receive(client))["account_id"] == "ab"


async def test_a_heartbeat_is_answered_with_its_own_timestamp(server: Served) -> None:
    """So that a client can tell the round trip."""
    async with server.open("/ws/portfolio/a") as client:
        await client.send(json.dumps({"type": "heartbeat", "timestamp": 1763822405123}))
        assert await receive(client) == {"type": "heartbeat_ack", "timestamp": 1763822405123}


async def test_a_client_that_does_not_read_gets_only_the_newest_and_delays_nobody(
    server: Served, calculator: Calculator
) -> None:
    """P7: what it missed is conflated; another client gets every value meanwhile."""
    positions = {f"SYMBOL{index}": "1" for index in range(100)}
    url = "/ws/portfolio/a?detail=positions"
    rounds = 300
    small = socket.create_connection(("127.0.0.1", server.port))
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    async with server.open(url, sock=small, max_queue=1) as stalled, server.open(url) as reading:
        await calculator.publish("a", 1, positions)
        await receive_until(stalled, 1)
        await receive_until(reading, 1)
        stalled.transport.pause_reading()
        for sequence in range(2, rounds + 1):
            changed = {symbol: str(sequence) for symbol in positions}
            await calculator.publish("a", sequence, changed)
            assert (await receive(reading))["sequence"] == sequence
        stalled.transport.resume_reading()
        messages = await receive_until(stalled, rounds)
        sequences = [message["sequence"] for message in messages]
        assert sequences == sorted(set(sequences))
        assert len(sequences) < rounds / 2
        assert {row["quantity"] for row in messages[-1]["positions"]} == {str(rounds)}


async def test_an_older_publication_is_never_sent(server: Served, calculator: Calculator) -> None:
    """P2: what comes late, or twice, is dropped."""
    async with server.open("/ws/portfolio/a") as client:
        for sequence in (5, 4, 5, 3, 6):
            await calculator.publish("a", sequence)
        assert [message["sequence"] for message in await receive_until(client, 6)] in ([5, 6], [6])


# Who is let in


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
    async with server.open(f"/ws/portfolio/a?token={token()}", {}) as client:
        assert await closed(client) == 4500
    async with (
        serving(valkey_url, allow_token_in_url=True) as allowing,
        allowing.open(f"/ws/portfolio/a?token={token()}", {}) as client,
    ):
        assert (await receive(client))["sequence"] == 1


async def test_who_does_not_say_who_it_is_is_closed(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """No auth message in time: 4500."""
    monkeypatch.setattr(limits, "AUTH_S_MAX", 0.0)
    async with server.open("/ws/portfolio/a", {}) as client:
        assert await closed(client) == 4500


@pytest.mark.parametrize("account_id", ["b", "nothing", "a.b", "%7Bs01%7D:accounts", "a%2F", "x" * 65])
async def test_an_account_of_another_and_one_that_does_not_exist_get_the_same_answer(
    server: Served, account_id: str
) -> None:
    """4503, whichever it is."""
    async with server.open(f"/ws/portfolio/{account_id}") as client:
        assert await closed(client) == 4503
        assert client.close_reason == "forbidden"


async def test_a_back_end_learns_that_an_account_does_not_exist(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4503 for the path; an error for a message, and that connection lives."""
    monkeypatch.setattr(follower, "UNKNOWN_S_MAX", 0.2)
    async with server.open("/ws/portfolio/nothing", {"X-API-Key": API_KEY}) as client:
        assert await closed(client) == 4503
    async with server.open("/ws", {"X-API-Key": API_KEY}) as client:
        await client.send(json.dumps({"type": "subscribe", "account_id": "nothing"}))
        assert (await receive(client))["code"] == "forbidden"
        await client.send(json.dumps({"type": "heartbeat"}))
        assert (await receive(client))["type"] == "heartbeat_ack"


async def test_who_watches_an_account_that_is_closed_is_told(
    server: Served, calculator: Calculator, state: State
) -> None:
    """4503 for the path; an error for a message. Other accounts of that connection go on."""
    await calculator.publish("a", 1)
    await calculator.publish("ab", 1)
    async with server.open("/ws/portfolio/a") as by_path, server.open("/ws") as by_message:
        assert (await receive(by_path))["sequence"] == 1
        for account_id in ("a", "ab"):
            await by_message.send(json.dumps({"type": "subscribe", "account_id": account_id}))
            assert (await receive(by_message))["account_id"] == account_id
        await remove_account(state, "a")
        assert await closed(by_path) == 4503
        assert (await receive(by_message))["code"] == "forbidden"
        await calculator.publish("a", 2)
        await calculator.publish("ab", 2)
        assert (await receive(by_message))["account_id"] == "ab"


async def test_what_cannot_be_read_is_counted_and_the_service_goes_on(
    server: Served, calculator: Calculator, state: State
) -> None:
    """A batch that is no batch, a value that is no JSON, a stored value that is torn, an odd announcement."""
    commands, shard = state.connection.commands, keys.shard_of("a", SHARDS)
    await commands.hset(keys.valuations(shard), "a", b'{"type":"portf')  # type: ignore[misc]  # a coroutine
    async with server.open("/ws/portfolio/a") as client:
        await commands.publish(keys.valuations(shard), b"\xc1nonsense")
        await commands.publish(keys.accounts(shard), b"nonsense")
        await calculator.publish("a", 1)
        assert (await receive(client))["sequence"] == 1
        text = (await server.http.get("/metrics", headers={"Host": "127.0.0.1"})).text
        lines = [line for line in text.splitlines() if line.startswith("portfolio_realtime_malformed")]
        assert sum(float(line.split()[-1]) for line in lines if "_total" in line) >= 2


async def test_an_account_whose_record_is_on_its_way_is_waited_for(
    server: Served, calculator: Calculator, state: State, until: Until
) -> None:
    """Records come one by one when the collector starts: nobody is refused for good meanwhile."""
    async with server.open("/ws/portfolio/late", {"X-API-Key": API_KEY}) as client:
        await until(lambda: watched(state, "late"), "the account is announced")
        await write_accounts(state, "late")
        await calculator.publish("late", 1)
        assert (await receive(client))["sequence"] == 1


async def test_a_client_may_ask_for_fewer_values_and_gets_the_last(
    server: Served, calculator: Calculator
) -> None:
    """Two a second: what lies between is conflated, the trailing value comes."""
    async with server.open("/ws/portfolio/a?max_frequency_hz=2") as client:
        for sequence in range(1, 11):
            await calculator.publish("a", sequence)
        messages = await receive_until(client, 10)
        assert len(messages) <= 3


async def test_interest_is_renewed_for_as_long_as_somebody_watches(
    calculator: Calculator, valkey_url: str, state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when Valkey has forgotten it without the server noticing."""
    monkeypatch.setattr(follower, "RENEW_S", 0.1)
    async with serving(valkey_url) as served, served.open("/ws/portfolio/a"):
        await until(lambda: watched(state, "a"), "a is watched")
        await state.connection.commands.flushall()
        await until(lambda: watched(state, "a"), "a is watched again")


async def test_before_any_account_is_loaded_a_client_waits(state: State, valkey_url: str) -> None:
    """A server that starts before the collector refuses nobody."""
    async with serving(valkey_url) as served, served.open("/ws/portfolio/a") as client:
        calculator = Calculator(state)
        await client.send(json.dumps({"type": "heartbeat"}))
        assert (await receive(client))["type"] == "heartbeat_ack"
        await calculator.publish("a", 1)
        assert (await receive(client))["sequence"] == 1


async def test_a_ticket_opens_one_connection(server: Served, calculator: Calculator) -> None:
    """Single use: the second use is refused."""
    await calculator.publish("a", 1)
    answer = await server.http.post("/v1/tickets", headers=bearer())
    assert answer.json()["expires_in_s"] == 30
    path = f"/ws/portfolio/a?ticket={answer.json()['ticket']}"
    async with server.open(path, {}) as client:
        assert (await receive(client))["sequence"] == 1
    async with server.open(path, {}) as client:
        assert await closed(client) == 4500


async def test_of_two_that_use_a_ticket_at_once_one_wins(server: Served, calculator: Calculator) -> None:
    """Also on two connections in the same moment."""
    await calculator.publish("a", 1)
    answer = await server.http.post("/v1/tickets", headers=bearer())
    path = f"/ws/portfolio/a?ticket={answer.json()['ticket']}"

    async def use() -> int | None:
        async with server.open(path, {}) as client:
            await client.send(json.dumps({"type": "heartbeat"}))
            while True:
                try:
                    message = await receive(client)
                except Exception:
                    return client.close_code
                if message["type"] == "portfolio":
                    return 0

    assert sorted(await asyncio.gather(use(), use()), key=str) == [0, 4500]


async def test_a_ticket_sees_only_what_its_user_may_see(server: Served) -> None:
    """It is bound to the subject and the accounts."""
    answer = await server.http.post("/v1/tickets", headers=bearer(accounts=["a"]))
    async with server.open(f"/ws/portfolio/ab?ticket={answer.json()['ticket']}", {}) as client:
        assert await closed(client) == 4503


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


# What a client may send


async def test_an_oversized_message_is_closed_with_1009(server: Served) -> None:
    """4 KiB, whole or in pieces."""
    async with server.open("/ws/portfolio/a") as client:
        await client.send("x" * 5000)
        assert await closed(client) == 1009
    async with server.open("/ws/portfolio/a") as client:
        await client.send(["x" * 1000] * 5)
        assert await closed(client) == 1009


async def test_a_message_may_come_in_pieces(server: Served) -> None:
    """Fragments are put together."""
    async with server.open("/ws/portfolio/a") as client:
        await client.send(['{"type":', '"heart', 'beat"}'])
        assert (await receive(client))["type"] == "heartbeat_ack"


async def test_a_binary_message_is_closed_with_4505(server: Served) -> None:
    """The protocol is text."""
    async with server.open("/ws/portfolio/a") as client:
        await client.send(b"{}")
        assert await closed(client) == 4505


async def test_a_bad_message_gets_an_error_and_the_connection_lives(server: Served) -> None:
    """Until there are too many of them."""
    async with server.open("/ws/portfolio/a") as client:
        for _ in range(limits.BAD_MESSAGES_MAX):
            await client.send("nonsense")
            assert (await receive(client))["code"] == "bad_message"
        await client.send("nonsense")
        assert await closed(client) == 4505


async def test_a_ping_is_answered(server: Served) -> None:
    """By the protocol itself."""
    async with server.open("/ws/portfolio/a") as client:
        await asyncio.wait_for(await client.ping(b"hello"), 5)


async def test_the_server_pings_and_ends_who_does_not_answer(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that answers stays; a socket that is silent is closed."""
    monkeypatch.setattr(limits, "PING_S", 0.2)
    monkeypatch.setattr(limits, "PONG_S_MAX", 0.7)
    async with server.open("/ws/portfolio/a") as living:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        lines = [
            "GET /ws/portfolio/a HTTP/1.1",
            "Host: 127.0.0.1",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            f"Authorization: Bearer {token()}",
        ]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        received = await asyncio.wait_for(reader.read(-1), 10)
        assert b"101 Switching Protocols" in received
        assert b"no pong" in received
        writer.close()
        await living.send(json.dumps({"type": "heartbeat"}))
        assert (await receive(living))["type"] == "heartbeat_ack"


# How it ends, and what it survives


async def test_a_server_that_ends_asks_everybody_to_reconnect(
    calculator: Calculator, valkey_url: str
) -> None:
    """P8: 4001, and it ends in time."""
    async with serving(valkey_url) as served:
        clients = [await served.open("/ws/portfolio/a") for _ in range(20)]
        async with asyncio.timeout(5):
            served.work.cancel()
            assert [await closed(client) for client in clients] == [4001] * 20
            await asyncio.gather(served.work, return_exceptions=True)
        for client in clients:
            await client.close()


async def test_when_valkey_dies_clients_stay_and_converge_when_it_is_back(
    mortal_valkey: ValkeyServer, until: Until
) -> None:
    """P1: nothing is lost but time, though Valkey has lost everything."""
    state = open_state(mortal_valkey.url, holder="test", shards=SHARDS, lease_ms=LEASE_MS)
    calculator = Calculator(state)
    await write_accounts(state, "a")
    await calculator.publish("a", 7, {"A": "1"}, equity="1.00")
    async with (
        serving(mortal_valkey.url) as served,
        served.open("/ws/portfolio/a?detail=positions") as client,
    ):
        before = await receive(client)
        mortal_valkey.kill()

        async def unready() -> bool:
            return not await served.ready()

        await until(unready, "the server says that it is not ready")
        assert (await served.http.get("/health")).status_code == 200
        answer = await served.http.get("/v1/portfolio/a", headers=bearer())
        assert (answer.status_code, answer.headers.get("retry-after")) in ((503, "2"), (200, None))
        mortal_valkey.start()
        await until(served.ready, "the server is ready again", 15)
        later = open_state(mortal_valkey.url, holder="later", shards=SHARDS, lease_ms=LEASE_MS)
        await until(lambda: watched(later, "a"), "the server has announced again what is watched", 15)
        await write_accounts(later, "a")
        await Calculator(later).publish("a", 1, {"A": "2"}, equity="2.00")
        after = await receive(client)
        assert (after["equity"], after["positions"][0]["quantity"]) == ("2.00", "2")
        assert (after["epoch"], after["sequence"]) > (before["epoch"], before["sequence"])
        await later.close()
    await state.close()


# HTTP


async def test_http_gives_the_same_object(server: Served, calculator: Calculator) -> None:
    """For clients without WebSocket, while somebody watches."""
    await calculator.publish("a", 1, {"A": "1"})
    async with server.open("/ws/portfolio/a?detail=positions") as client:
        await receive(client)
        await calculator.publish("a", 2, {"A": "1"})
        message = await receive(client)
        del message["positions"]
        answer = await server.http.get("/v1/portfolio/a", headers=bearer())
        assert answer.json() == message
        alias = await server.http.get("/api/portfolio/value?accountId=a", headers=bearer())
        assert alias.json() == message
        detailed = await server.http.get("/v1/portfolio/a?detail=positions", headers=bearer())
        assert detailed.json()["positions"][0]["symbol"] == "A"


async def test_http_serves_a_stored_value_that_a_calculator_keeps(
    server: Served, calculator: Calculator
) -> None:
    """A quiet account has nothing new to wait for."""
    await calculator.publish("a", 1)

    answer = await server.http.get("/v1/portfolio/a", headers=bearer())

    assert (answer.status_code, answer.json()["sequence"]) == (200, 1)


async def test_http_waits_for_a_live_value_and_does_not_serve_an_old_one(
    server: Served, calculator: Calculator, state: State, until: Until
) -> None:
    """Without a calculator a stored value may be from long ago: one has to speak first."""
    await calculator.publish("a", 1)
    await calculator.die()
    request = asyncio.create_task(server.http.get("/v1/portfolio/a", headers=bearer()))
    await until(lambda: watched(state, "a"), "the request has announced its interest")
    await calculator.publish("a", 2)
    assert (await request).json()["sequence"] == 2
    answer = await server.http.get("/v1/portfolio/ab", headers=bearer())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


async def test_server_sent_events_carry_the_same_messages(server: Served, calculator: Calculator) -> None:
    """First all of it, then what changed; the end is said."""
    await calculator.publish("a", 1, {"A": "1"})
    path = "/v1/portfolio/a/stream?detail=positions"
    async with server.http.stream("GET", path, headers=bearer(lifetime_s=2)) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.aiter_lines()
        assert await anext(lines) == "event: portfolio"
        first = json.loads((await anext(lines)).removeprefix("data: "))
        assert (first["sequence"], first["positions"][0]["symbol"]) == (1, "A")
        await calculator.publish("a", 2, {"A": "1"})
        rest = [line async for line in lines if line]
    assert rest[0] == "event: portfolio"
    assert json.loads(rest[1].removeprefix("data: "))["positions"] == []
    assert rest[2:] == ["event: close", 'data: {"code":4004,"reason":"token expired"}']
    assert (await server.http.get("/v1/portfolio/b/stream", headers=bearer())).status_code == 404


async def test_the_reference_page_names_every_route_message_and_close_code(server: Served) -> None:
    """Made from the types, with nothing from elsewhere."""
    text = (await server.http.get("/docs")).text
    for expected in ("/v1/portfolio/{account_id}", "token_expiring", "known_equity", "4503", "forbidden"):
        assert expected in text
    assert "http://" not in text
    assert "https://" not in text
    document = (await server.http.get("/openapi.json")).json()
    assert "known_equity" in document["components"]["schemas"]["PortfolioMessage"]["properties"]


async def test_http_refuses_as_the_websocket_does(server: Served) -> None:
    """401 without credentials; 404 with one body for unknown and another's."""
    assert (await server.http.get("/v1/portfolio/a")).status_code == 401
    assert (await server.http.post("/v1/tickets")).status_code == 401
    answers: list[Any] = []
    for account_id, headers in (
        ("b", bearer()),
        ("nothing", bearer()),
        ("nothing", {"X-API-Key": API_KEY}),
        ("a.b", {"X-API-Key": API_KEY}),
    ):
        answer = await server.http.get(f"/v1/portfolio/{account_id}", headers=headers)
        answers.append((answer.status_code, answer.text))
    assert set(answers) == {(404, '{"detail":"no such account, or not yours"}')}


async def test_metrics_of_all_services_are_for_this_machine_and_for_the_api_key(
    server: Served, calculator: Calculator, state: State
) -> None:
    """One text, told apart by labels; no account id in it."""
    await state.metrics.write("portfolio_calculator", "other", b"# TYPE x gauge\nx 1.0\n")
    async with server.open("/ws/portfolio/a") as client:
        await calculator.publish("a", 1)
        await receive(client)
        answer = await server.http.get("/metrics", headers={"Host": "127.0.0.1"})
        text = answer.text
        assert 'x{instance="other",service="portfolio_calculator"} 1.0' in text
        assert (
            'portfolio_realtime_connections{instance="test-instance",service="websocket_server"} 1.0' in text
        )
        assert "portfolio_realtime_connects_total{" in text
        assert 'portfolio_realtime_fan_out_lag_seconds_count{instance="test-instance",' in text
    forwarded = {"X-Forwarded-For": "127.0.0.1"}
    assert (await server.http.get("/metrics", headers=forwarded)).status_code == 403
    assert (await server.http.get("/metrics", headers={"X-API-Key": "x"})).status_code == 403
    assert (await server.http.get("/metrics", headers={**forwarded, "X-API-Key": API_KEY})).status_code == 200


async def test_every_answer_carries_security_headers(server: Served) -> None:
    """Nothing from elsewhere, nothing kept, no version told."""
    for path in ("/health", "/", "/app.js", "/v1/portfolio/a", "/nothing"):
        answer = await server.http.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


async def test_without_a_secret_a_client_on_this_machine_needs_no_token(
    calculator: Calculator, valkey_url: str
) -> None:
    """And one behind a proxy is refused."""
    await calculator.publish("a", 1)
    async with serving(valkey_url, jwt_secret="", api_key_secret="") as served:
        async with served.open("/ws/portfolio/a", {}) as client:
            assert (await receive(client))["sequence"] == 1
        async with served.open("/ws/portfolio/a", {"X-Forwarded-For": "10.0.0.1"}) as client:
            assert await closed(client) == 4500
        assert (await served.http.get("/demo/session")).status_code == 404


async def test_the_demo_session_names_the_accounts_and_gives_a_token(
    calculator: Calculator, valkey_url: str
) -> None:
    """Only with DEMO_PAGE, only on this machine."""
    async with serving(valkey_url, demo_page=True) as served:
        session = (await served.http.get("/demo/session")).json()
        assert session["accounts"] == ["a", "ab", "b"]
        await calculator.publish("b", 1)
        async with served.open("/ws/portfolio/b", {"Authorization": f"Bearer {session['token']}"}) as client:
            assert (await receive(client))["account_id"] == "b"
        refused = await served.http.get("/demo/session", headers={"Host": "evil.example"})
        assert refused.status_code == 404

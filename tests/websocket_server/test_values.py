"""What a client gets, on real sockets and a real Valkey: whole first, newest only, nobody else's."""

import json
import socket

from tests.support.websocket_servers import Calculator, Served, bearer, receive, receive_until


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
    rounds = 100
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
        await calculator.publish("a", 5)
        await receive_until(client, 5)
        for sequence in (4, 5, 3, 6):
            await calculator.publish("a", sequence)
        assert [message["sequence"] for message in await receive_until(client, 6)] == [6]


async def test_a_client_may_ask_for_fewer_values_and_gets_the_last(
    server: Served, calculator: Calculator
) -> None:
    """Two a second: what lies between is conflated, the trailing value comes."""
    async with server.open("/ws/portfolio/a?max_frequency_hz=2") as client:
        for sequence in range(1, 11):
            await calculator.publish("a", sequence)
        messages = await receive_until(client, 10)
        assert len(messages) <= 3

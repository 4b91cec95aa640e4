"""What is watched and followed on a real Valkey: accounts that come and go, restarts, losses."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from portfolio_harness.valkey_kinds import Valkeys
from portfolio_realtime.errors import LeaseLost, StateUnavailable
from portfolio_realtime.state import State, keys, open_state
from portfolio_realtime.state.interest import Interest, StoredPublication
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.websocket_server.fanout import publication_follower
from portfolio_realtime.wire.frames import text_frame
from tests.conftest import LEASE_MS, SHARDS, Until
from tests.support.publications import publication
from tests.support.websocket_servers import (
    API_KEY,
    Calculator,
    Served,
    bearer,
    closed,
    receive,
    remove_account,
    serving,
    watched,
    write_accounts,
)


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


async def test_a_back_end_learns_that_an_account_does_not_exist(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4503 for the path; an error for a message, and that connection lives."""
    monkeypatch.setattr(publication_follower, "UNKNOWN_S_MAX", 0.2)
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
    server: Served, calculator: Calculator, state: State, until: Until
) -> None:
    """What is no batch, columns that do not match, torn values, positions too large, an odd announcement."""
    commands, shard = state.connection.commands, keys.shard_of("a", SHARDS)
    frame = text_frame(b'{"account_id":"b"}')
    await commands.hset(keys.valuations(shard), "a", b'{"type":"portf')  # type: ignore[misc]  # a coroutine
    async with server.open("/ws/portfolio/a") as client:
        await state.connection.publish(keys.valuations(shard), b"\xc1nonsense")
        await state.connection.publish(keys.accounts(shard), b"nonsense")
        for torn in (["a", "a"], [1], [frame]), (["a"], [1, 2], [frame]), (["a"], [2**63], [frame]):
            await state.connection.publish(keys.valuations(shard), msgspec.msgpack.encode([1, *torn, {}]))
        await state.connection.publish(
            keys.valuations(shard), b'{"account_id":"a","epoch":1,"sequence":9223372036854775808}'
        )

        async def all_are_counted() -> bool:
            text = (await server.http.get("/metrics", headers={"Host": "127.0.0.1"})).text
            lines = [line for line in text.splitlines() if line.startswith("portfolio_realtime_malformed")]
            return sum(float(line.split()[-1]) for line in lines if "_total" in line) >= 7

        await until(all_are_counted, "the torn value and the six messages are counted")
        await calculator.publish("a", 1)
        assert (await receive(client))["sequence"] == 1


async def test_an_account_whose_record_is_on_its_way_is_waited_for(
    server: Served, calculator: Calculator, state: State, until: Until
) -> None:
    """Records come one by one when the collector starts: nobody is refused for good meanwhile."""
    async with server.open("/ws/portfolio/late", {"X-API-Key": API_KEY}) as client:
        await until(lambda: watched(state, "late"), "the account is announced")
        await write_accounts(state, "late")
        await calculator.publish("late", 1)
        assert (await receive(client))["sequence"] == 1


async def test_interest_is_renewed_for_as_long_as_somebody_watches(
    calculator: Calculator, valkey_url: str, state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when Valkey has forgotten it without the server noticing."""
    monkeypatch.setattr(publication_follower, "RENEW_S", 0.1)
    async with serving(valkey_url) as served, served.open("/ws/portfolio/a"):
        await until(lambda: watched(state, "a"), "a is watched")
        await state.connection.commands.flushall()
        await until(lambda: watched(state, "a"), "a is watched again")


@pytest.mark.parametrize("lost", ["all", "interest", "interest in positions"])
async def test_interest_that_is_lost_is_announced_again(
    state: State, valkey_url: str, until: Until, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """All keys or interest alone are gone while everybody is connected: noticed before it is renewed."""

    async def is_watched() -> bool:
        return "a" in (await state.interest.read(shard)).with_positions

    monkeypatch.setattr(publication_follower, "RENEW_S", 1e6)
    await write_accounts(state, "a")
    shard, commands = keys.shard_of("a", SHARDS), state.connection.commands
    gone = [keys.position_interest(shard), keys.interest_changes(shard)]
    async with serving(valkey_url) as server, server.open("/ws/portfolio/a?detail=positions"):
        await until(is_watched, "interest")
        await until(lambda: commands.exists(keys.life()), "a life with a name")
        gone += [keys.interest(shard)] if lost == "interest" else []
        assert await (commands.flushall() if lost == "all" else commands.delete(*gone))
        await until(is_watched, "interest again")


async def test_what_is_watched_is_announced_soon_after_an_outage(
    state: State, valkey_url: str, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the outage was: the pauses between the attempts do not grow."""
    monkeypatch.setattr(publication_follower, "RENEW_S", 1e6)
    monkeypatch.setattr(publication_follower, "AGAIN_S", 0.01)
    begin, failures = Interest.begin, iter(range(50))

    async def begin_late(self: Interest, *wanted: Any) -> dict[str, StoredPublication]:
        if next(failures, None) is not None:
            raise StateUnavailable("away")
        return await begin(self, *wanted)

    monkeypatch.setattr(Interest, "begin", begin_late)
    await write_accounts(state, "a")
    async with serving(valkey_url) as server, server.open("/ws/portfolio/a"):
        await until(lambda: watched(state, "a"), "a is watched")
    assert next(failures, None) is None


async def test_before_any_account_is_loaded_a_client_waits(state: State, valkey_url: str) -> None:
    """A server that starts before the collector refuses nobody."""
    async with serving(valkey_url) as served, served.open("/ws/portfolio/a") as client:
        calculator = Calculator(state)
        await client.send(json.dumps({"type": "heartbeat"}))
        assert (await receive(client))["type"] == "heartbeat_ack"
        await calculator.publish("a", 1)
        assert (await receive(client))["sequence"] == 1


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
    mortal_valkey: Valkeys, until: Until
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
        await mortal_valkey.kill()

        async def unready() -> bool:
            return not await served.ready()

        await until(unready, "the server says that it is not ready")
        assert (await served.http.get("/health")).status_code == 200
        answer = await served.http.get("/v1/portfolio/a", headers=bearer())
        assert (answer.status_code, answer.headers.get("retry-after")) in ((503, "2"), (200, None))
        await mortal_valkey.start()
        await until(served.ready, "the server is ready again", 15)
        later = open_state(mortal_valkey.url, holder="later", shards=SHARDS, lease_ms=LEASE_MS)
        await until(lambda: watched(later, "a"), "the server has announced again what is watched", 15)
        await write_accounts(later, "a")
        await Calculator(later).publish("a", 1, {"A": "2"}, equity="2.00")
        # An outage that lasts long enough is told first.
        while (after := await receive(client))["type"] == "freshness":
            pass
        assert (after["equity"], after["positions"][0]["quantity"]) == ("2.00", "2")
        assert (after["epoch"], after["sequence"]) > (before["epoch"], before["sequence"])
        await later.close()
    await state.close()


async def test_an_epoch_that_is_too_low_is_answered_at_the_fence(
    server: Served, state: State, until: Until
) -> None:
    """Valkey lost its data and an hour at once. Clients would drop all that comes: its owner is refused."""
    await write_accounts(state, "a")
    shard = keys.shard_of("a", SHARDS)
    high = Lease("any", "old", 4_000_000_000_000)
    async with server.open("/ws/portfolio/a") as client:
        await state.valuations.publish(high, shard, [publication("a", high.fencing_token, 1)])
        assert (await receive(client))["epoch"] == high.fencing_token
        await state.connection.commands.delete(keys.fence(keys.valuations(shard)))
        low = await state.leases.acquire(keys.shard_lease(shard))
        assert low is not None
        await state.valuations.publish(low, shard, [publication("a", low.fencing_token, 1)])

        async def is_refused() -> bool:
            try:
                await state.valuations.publish(low, shard, [])
            except LeaseLost:
                return True
            return False

        await until(is_refused, "the owner learns of it")
        new = await state.leases.acquire(keys.shard_lease(shard))
        assert new is not None
        await state.valuations.publish(new, shard, [publication("a", new.fencing_token, 1, equity="7.00")])
        after = await receive(client)
        assert (after["epoch"] > high.fencing_token, after["equity"]) == (True, "7.00")

"""No clock is believed but Valkey's; an unreadable entry is ignored; who disagrees is refused."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import structlog
from prometheus_client import CollectorRegistry

from portfolio_harness.valkey_kinds import Valkeys
from portfolio_realtime import config, service, telemetry
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.errors import LeaseLost, SettingsError
from portfolio_realtime.state import State, keys, open_state
from portfolio_realtime.state.accounts import readable_changes
from portfolio_realtime.state.agreement import AGREED_MS
from portfolio_realtime.state.interest import decode_begun
from portfolio_realtime.state.marks import NO_BATCH, decode_marks, encode_marks
from portfolio_realtime.state.revocations import FIELD
from portfolio_realtime.symbol_collector import record_writer, stored_records
from portfolio_realtime.symbol_collector.pending_accounts import PendingAccounts
from portfolio_realtime.symbol_collector.record_writer import RecordWriter
from portfolio_realtime.symbol_collector.records.account_records import AccountRecords
from tests.conftest import LEASE_MS, SHARDS, Until
from tests.support.leases import lease_of
from tests.symbol_collector.bookings import at_s, statement

from .records import mark

HOUR_NS = 3600 * 1_000_000_000
AWAY = pytest.mark.parametrize("away_ns", [HOUR_NS, -HOUR_NS])


@AWAY
async def test_a_clock_that_is_off_does_no_harm_to_interest(
    state: State, away_ns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is an hour ahead deletes nobody's interest; whoever is behind keeps its own."""
    right = time.time_ns
    await state.interest.begin(["a"])
    shard = keys.shard_of("a", SHARDS)
    monkeypatch.setattr(time, "time_ns", lambda: right() + away_ns)
    await state.interest.begin(["b"])
    await state.interest.renew(["b"], [])
    assert "a" in (await state.interest.read(shard)).account_ids
    monkeypatch.setattr(time, "time_ns", right)
    assert "b" in (await state.interest.read(keys.shard_of("b", SHARDS))).account_ids


@AWAY
async def test_a_clock_that_is_off_leaves_no_ghost(
    state: State, valkey_url: str, away_ns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member is one for as long as it says so, by Valkey's time, not until a time of its own."""
    other = open_state(valkey_url, holder="other", shards=SHARDS, lease_ms=LEASE_MS)
    right = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: right() + away_ns)
    assert len((await other.leases.enlist("group")).running) == 1
    monkeypatch.setattr(time, "time_ns", right)
    assert len((await state.leases.enlist("group")).running) == 2
    expiry_ms = await state.connection.commands.zscore(keys.members("group"), "other")
    assert expiry_ms is not None
    seconds, _ = await state.connection.commands.time()
    assert abs(expiry_ms - LEASE_MS - 1000 * seconds) < 60_000
    await other.close()
    await state.connection.commands.delete(keys.members("group"))


async def test_what_cannot_be_read_is_left_out(state: State) -> None:
    """One mark, one message, one revocation: the others are served."""
    lease = await state.leases.acquire("feed")
    assert lease is not None
    await state.marks.write(lease, [mark("A"), mark("B")])
    await state.connection.commands.hset(keys.marks(), "C", "{no mark")
    assert {one.symbol for one in await state.marks.read_all()} == {"A", "B"}
    assert set(await state.marks.read(["A", "C"])) == {"A"}
    columns = msgspec.msgpack.decode(encode_marks([mark("A"), mark("B")], []))
    for odd in (b"[{", msgspec.msgpack.encode([*columns[:1], ["A"], *columns[2:]])):
        assert decode_marks(odd) == NO_BATCH
    assert readable_changes(b'[["a"]]') == []
    assert decode_begun(b"\xff") == []
    await state.connection.commands.xadd(keys.revocations(), {FIELD: b"{"})
    _, found = await state.revocations.read_after("0", waits=False)
    assert found == []
    await state.connection.commands.delete(keys.revocations())


async def test_who_divides_accounts_otherwise_is_refused(state: State, valkey_url: str) -> None:
    """Half of the accounts would have no calculator: it is said at the start."""

    async def run(_: service.Context) -> None:
        return

    def settings(shards: int) -> config.Settings:
        return config.load(redis_url=valkey_url, shards=shards, _env_file=None)

    await service.with_state("test", settings(8), run, asyncio.Event())
    with pytest.raises(SettingsError, match="set SHARDS=8"):
        await service.with_state("test", settings(32), run, asyncio.Event())
    await service.with_state("test", settings(8), run, asyncio.Event())


async def test_the_number_of_shards_that_was_lost_is_written_again(
    state: State, valkey_url: str, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evicted while services run: a process that divides accounts otherwise would be let in."""
    monkeypatch.setattr(service, "AGREE_S", 0.01)
    ending, commands = asyncio.Event(), state.connection.commands

    async def run(_: service.Context) -> None:
        await ending.wait()

    settings = config.load(redis_url=valkey_url, shards=8, _env_file=None)
    running = asyncio.create_task(service.with_state("test", settings, run, ending))
    await until(lambda: commands.exists(keys.shards()), "it runs")
    await commands.delete(keys.shards())
    await until(lambda: commands.exists(keys.shards()), "the number is there again")
    assert await commands.get(keys.shards()) == b"8"
    ending.set()
    await running


async def test_what_living_processes_must_agree_on_can_be_changed_by_stopping_all(
    state: State, valkey_url: str
) -> None:
    """LEASE_MS and HISTORY_INTERVAL: refused where they differ, and forgotten some time after the last."""

    async def run(_: service.Context) -> None:
        return

    async def start(**others: int) -> None:
        values: dict[str, Any] = {"redis_url": valkey_url, "_env_file": None, **others}
        await service.with_state("test", config.load(**values), run, asyncio.Event())

    await start()
    await start()
    with pytest.raises(SettingsError, match=r"LEASE_MS=9000, but .* LEASE_MS=4000"):
        await start(lease_ms=9000)
    with pytest.raises(SettingsError, match=r"HISTORY_INTERVAL=300, but .* HISTORY_INTERVAL=60"):
        await start(history_interval=300)
    assert 0 < await state.connection.commands.pttl(keys.settings()) <= AGREED_MS
    await state.connection.commands.delete(keys.settings())
    await start(lease_ms=9000)
    await start(lease_ms=9000)


@AWAY
async def test_a_process_says_that_its_clock_is_off(
    state: State, away_ns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured against Valkey's, as a metric and as a line."""
    right, gauge = time.time, telemetry.clock_ahead(CollectorRegistry())
    with structlog.testing.capture_logs() as lines:
        service.tell_clock(await state.connection.clock_ahead_s(), gauge)
        assert not lines
        monkeypatch.setattr(time, "time", lambda: right() + away_ns / 1e9)
        ahead_s = await state.connection.clock_ahead_s()
        service.tell_clock(ahead_s, gauge)
    assert abs(ahead_s - away_ns / 1e9) < 60
    assert [(line["log_level"], line["ahead_of_valkey_s"]) for line in lines] == [
        ("error", round(ahead_s, 1))
    ]


async def test_a_shard_goes_on_although_valkeys_clock_went_back_and_all_was_lost(state: State) -> None:
    """The old owner's last write has left a fence an hour ahead: the next owner is refused once."""
    await state.connection.commands.set(keys.fence(keys.valuations(0)), str(4_000_000_000_000))
    low = await lease_of(state)
    with pytest.raises(LeaseLost):
        await state.valuations.publish(low, 0, [])
    high = await lease_of(state)
    assert high.fencing_token == 4_000_000_000_001
    await state.valuations.publish(high, 0, [])


async def test_an_epoch_that_clients_have_seen_is_insisted_on(state: State) -> None:
    """It moves the fence up, never down."""
    lease = await lease_of(state)
    await state.valuations.insist(0, lease.fencing_token - 1)
    await state.valuations.publish(lease, 0, [])
    await state.valuations.insist(0, lease.fencing_token + 5)
    with pytest.raises(LeaseLost):
        await state.valuations.publish(lease, 0, [])
    assert (await lease_of(state)).fencing_token > lease.fencing_token + 5


async def test_who_stands_by_leaves_a_lost_lease_to_who_had_it(
    state: State, valkey_url: str, session_valkey: Valkeys, until: Until
) -> None:
    """The holder is warm. Where it does not come back, it waits LEASE_MS and no longer."""
    other = open_state(valkey_url, holder="other", shards=SHARDS, lease_ms=LEASE_MS)
    warm = await lease_of(state)
    assert await other.leases.acquire("work", stands_by=True) is None
    await session_valkey.flush()
    assert await other.leases.acquire("work", stands_by=True) is None
    assert not await state.leases.renew(warm)
    again = await lease_of(state)
    await session_valkey.flush()
    began_s = time.monotonic()
    taken = await until(lambda: other.leases.acquire("work", stands_by=True), "it does not come back")
    assert taken.fencing_token > again.fencing_token
    assert time.monotonic() - began_s > LEASE_MS / 1000 / 2
    await other.close()


ALICES = keys.shard_of("alice", SHARDS)


@pytest.mark.parametrize("key", [keys.accounts(ALICES), keys.bookings(ALICES), keys.universe()])
async def test_what_was_evicted_comes_back(
    state: State, until: Until, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """A record, its bookings, the universe: nobody announces that they are gone."""
    monkeypatch.setattr(stored_records, "COMPARE_S", 0.01)
    records = _records_of(alice={"AAPL": 3, "ALICE": 1}, bob={"AAPL": 3, "BOB": 1})
    lease = await lease_of(state, "symbol_collector")
    writer = RecordWriter(state.accounts, records, PendingAccounts())
    writer.request_write()
    tasks = [
        asyncio.create_task(writer.write(lease)),
        asyncio.create_task(stored_records.write_lost_again(records, state.accounts, range(SHARDS), writer)),
    ]
    commands = state.connection.commands
    await until(lambda: _has(state, 2), "both records are written")
    before = await commands.hgetall(key)
    assert before
    await commands.delete(key)
    await until(lambda: _equals(state, key, before), "what was evicted is there again")
    await cancel_until_ended(tasks)


async def test_a_shard_that_was_away_is_written_whole(
    state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that has replaced its primary may have an older record: no count tells."""
    monkeypatch.setattr(stored_records, "COMPARE_S", 0.01)
    records, lease = _records_of(alice={"AAPL": 3}), await lease_of(state, "symbol_collector")
    writer, key = RecordWriter(state.accounts, records, PendingAccounts()), _accounts_key("alice")
    writer.request_write()
    tasks = [
        asyncio.create_task(writer.write(lease)),
        asyncio.create_task(stored_records.write_lost_again(records, state.accounts, range(SHARDS), writer)),
    ]
    await until(lambda: _has(state, 1), "the record is written")
    before = await state.connection.commands.hgetall(key)
    await state.connection.commands.hset(key, "alice", b"older")
    writer.away.add(keys.shard_of("alice", SHARDS))
    await until(lambda: _equals(state, key, before), "it is written again")
    assert writer.away == set()
    await cancel_until_ended(tasks)


def _records_of(**holdings: dict[str, int]) -> AccountRecords:
    """A record of each account, with 1,000 in cash."""
    records = AccountRecords()
    records.list_accounts(list(holdings))
    for account_id, held in holdings.items():
        _observe(records, account_id, held)
    return records


def _observe(records: AccountRecords, account_id: str, held: dict[str, int]) -> None:
    one = statement(1000, held)
    its = msgspec.structs.replace(one.state, account_id=account_id)
    records.observe(msgspec.structs.replace(one, state=its), at_s(-2), at_s(-1))


def _accounts_key(account_id: str) -> str:
    return keys.accounts(keys.shard_of(account_id, SHARDS))


async def test_what_is_on_its_way_to_valkey_is_not_lost(
    state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer has taken a record and has not written it yet, while the counts are compared."""
    monkeypatch.setattr(stored_records, "COMPARE_S", 0.01)
    records, lease = _records_of(alice={"AAPL": 3}), await lease_of(state, "symbol_collector")
    write, began, goes_on = state.accounts.write_parts, asyncio.Event(), asyncio.Event()

    async def slow(*batch: Any) -> Any:
        began.set()
        await goes_on.wait()
        return await write(*batch)

    monkeypatch.setattr(state.accounts, "write_parts", slow)
    writer = RecordWriter(state.accounts, records, PendingAccounts())
    writer.request_write()
    tasks = [
        asyncio.create_task(writer.write(lease)),
        asyncio.create_task(stored_records.write_lost_again(records, state.accounts, range(SHARDS), writer)),
    ]
    with structlog.testing.capture_logs() as said:
        await began.wait()
        await asyncio.sleep(0.2)
        goes_on.set()
        await until(lambda: _has(state, 1), "the record is written")
        await asyncio.sleep(0.1)
    assert said == []
    await cancel_until_ended(tasks)


async def test_what_comes_while_stored_records_are_counted_is_not_lost(
    state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new account with a new symbol, between the count in Valkey and the count here."""
    monkeypatch.setattr(stored_records, "COMPARE_S", 0.01)
    records, lease = _records_of(alice={"AAPL": 3}), await lease_of(state, "symbol_collector")
    writer = RecordWriter(state.accounts, records, PendingAccounts())
    count, has_come = state.accounts.counts, asyncio.Event()

    async def slow(shards: Sequence[int]) -> Any:
        counted = await count(shards)
        if shards and not has_come.is_set():
            has_come.set()
            _observe(records, "bob", {"BOB": 1})
        return counted

    writer.request_write()
    with structlog.testing.capture_logs() as said:
        writing = asyncio.create_task(writer.write(lease))
        await until(lambda: _has(state, 1), "the first record is written")
        monkeypatch.setattr(state.accounts, "counts", slow)
        comparing = asyncio.create_task(
            stored_records.write_lost_again(records, state.accounts, range(SHARDS), writer)
        )
        await has_come.wait()
        await asyncio.sleep(0.1)
        writer.request_write()
        await until(lambda: _has(state, 2), "the second record is written")
    assert said == []
    await cancel_until_ended([writing, comparing])


async def test_records_that_are_long_on_their_way_are_not_called_live(
    state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A narrow link to Valkey: the collector has the newest record, and nobody else does."""
    monkeypatch.setattr(record_writer, "SLOW_S", 0.05)
    write, goes_on = state.accounts.write_parts, asyncio.Event()

    async def slow(*batch: Any) -> Any:
        await goes_on.wait()
        return await write(*batch)

    monkeypatch.setattr(state.accounts, "write_parts", slow)
    writer = RecordWriter(state.accounts, _records_of(alice={"AAPL": 3}), PendingAccounts())
    assert not writer.is_slow
    writer.request_write()
    writing = asyncio.create_task(writer.write(await lease_of(state, "symbol_collector")))
    await until(lambda: writer.is_slow, "it says so")
    goes_on.set()
    await until(lambda: _has(state, 1), "the record is written")
    await until(lambda: not writer.is_slow, "it is in time again")
    await cancel_until_ended([writing])


async def _has(state: State, count: int) -> bool:
    return await state.accounts.count(range(SHARDS)) == count


async def _equals(state: State, key: str, fields: Any) -> bool:
    return await state.connection.commands.hgetall(key) == fields


async def test_the_place_in_the_stream_is_not_ahead_of_the_records(state: State, until: Until) -> None:
    """Whoever takes over asks first for the accounts that have moved since: none may be left out."""
    records, lease, newest = _records_of(alice={"AAPL": 3}), await lease_of(state, "symbol_collector"), ["A"]
    writer = RecordWriter(state.accounts, records, PendingAccounts(), lambda: newest[-1])
    await writer.write_cursor()
    assert await state.accounts.read_cursor() is None, "alice is not written yet"
    writer.request_write()
    writing = asyncio.create_task(writer.write(lease))
    await until(lambda: _has(state, 1), "alice is written")
    newest.append("B")
    async with writer.writing:
        records.write_again(["alice"])
        await writer.write_cursor()
        assert await state.accounts.read_cursor() == "A", "alice has changed with B"
    writer.request_write()
    await until(lambda: not records.has_changes, "alice is being written again")
    async with writer.writing:
        pass
    newest.append("C")
    await writer.write_cursor()
    assert await state.accounts.read_cursor() == "C", "nothing is to be written"
    await cancel_until_ended([writing])

"""What is written is read back the same, announced once, and readable for people."""

import asyncio
import itertools
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_realtime.errors import LeaseLost
from portfolio_realtime.model import AccountChange, Bookings, Mark, Pending, Publication, Unmarked
from portfolio_realtime.state import State, interest, keys
from portfolio_realtime.state.accounts import decode_changes
from portfolio_realtime.state.connection import WRITE_FIELDS_MAX, Call, Script, Subscribed
from portfolio_realtime.state.interest import StoredPublication, decode_begun
from portfolio_realtime.state.marks import READ_FIELDS_MAX, decode_marks, encode_marks
from portfolio_realtime.state.valuations import decode_batch
from tests.conftest import DEADLINE_S, SHARDS
from tests.support.leases import lease_of
from tests.support.publications import batch_of

from .conftest import Followed, Messages
from .records import account, accounts_of, mark

NANOSECONDS = st.integers(0, 2**62)


async def payload(messages: Messages) -> bytes:
    """The next message's content, past SUBSCRIBED."""
    while isinstance(message := await asyncio.wait_for(anext(messages), DEADLINE_S), Subscribed):
        pass
    return message.payload


async def subscribed(state: State, messages: Messages) -> None:
    """Return when all channels are followed: the nodes of a cluster are subscribed to one after the other."""
    assert await asyncio.wait_for(anext(messages), DEADLINE_S) == Subscribed()
    async with asyncio.timeout(DEADLINE_S):
        while state.connection.has_lost_channels:
            await asyncio.sleep(0.01)


async def test_accounts_round_trip(state: State, followed: Followed) -> None:
    """Every Decimal keeps its digits; each shard announces its own accounts and versions."""
    lease = await lease_of(state)
    names = [f"account-{index}" for index in range(50)]
    records = [account(name, index + 1) for index, name in enumerate(names)]
    changes = followed(state.accounts.changes(list(range(SHARDS))))
    await subscribed(state, changes)
    await state.accounts.write(lease, records)
    assert await state.accounts.ids() == sorted(names)
    for shard in range(SHARDS):
        mine = [record for record in records if keys.shard_of(record.account_id, SHARDS) == shard]
        assert mine, "every shard should have an account in this test"
        found = await state.accounts.read(shard, [*(record.account_id for record in mine), "nobody"])
        assert found == mine
        assert sorted(await state.accounts.read_all(shard), key=lambda one: one.version) == mine
    announced = [change for _ in range(SHARDS) for change in decode_changes(await payload(changes))]
    assert sorted(announced, key=lambda change: change.version) == [
        AccountChange(record.account_id, record.version) for record in records
    ]
    assert await state.accounts.read_one("account-7") == records[7]
    assert await state.accounts.read_one("nobody") is None


async def test_what_has_changed_in_all_shards_is_sent_together(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine each round trip takes tenths of a second; one for each shard made a batch of 13 s."""
    lease, sent = await lease_of(state), list[int]()
    send = state.connection.call_each

    async def counted(script: Script, calls: Sequence[Call]) -> list[Any]:
        sent.append(len(calls))
        return await send(script, calls)

    async def alone(*_: object) -> None:
        raise AssertionError("a shard is written alone")

    monkeypatch.setattr(state.connection, "call_each", counted)
    monkeypatch.setattr(state.connection, "fenced_write", alone)
    names = [name for shard in range(SHARDS) for name in accounts_of(shard, 2)]
    bookings = [Bookings(name, 1, 0, 0, ()) for name in names]
    pending = [Pending(name, "why", False) for name in names]
    assert await state.accounts.write_parts(lease, list(map(account, names)), bookings, ["gone"]) == {}
    assert await state.accounts.write_pending(lease, pending, []) == {}
    assert sent == [2 * SHARDS, SHARDS]
    for name, booked in zip(names, bookings, strict=True):
        assert await state.accounts.read_with_bookings(name) == (account(name), booked)


async def test_a_removed_account_is_announced_with_version_0(state: State, followed: Followed) -> None:
    """Nothing of it can be read any more."""
    lease = await lease_of(state)
    await state.accounts.write(lease, [account("alice"), account("bob")])
    changes = followed(state.accounts.changes(list(range(SHARDS))))
    await subscribed(state, changes)
    await state.accounts.remove(lease, ["alice"])
    assert decode_changes(await payload(changes)) == [AccountChange("alice", 0)]
    assert await state.accounts.ids() == ["bob"]


async def test_unknown_accounts_are_told_apart_from_an_empty_state(state: State) -> None:
    """Before anybody has a record nobody can be called unknown."""
    assert await state.accounts.unknown(["alice"]) == {}
    await state.accounts.write(await lease_of(state), [account("alice")])
    names = map("mallory {}".format, itertools.count())
    mallory = next(one for one in names if keys.shard_of(one, SHARDS) == keys.shard_of("alice", SHARDS))
    assert await state.accounts.unknown(["alice", mallory]) == {mallory: None}


async def test_the_universe_round_trips(state: State, followed: Followed) -> None:
    """Symbols come and go; each change is announced."""
    lease = await lease_of(state)
    changes = followed(state.accounts.universe_changes())
    await subscribed(state, changes)
    await state.accounts.write_universe(lease, {"AAPL": "us_equity", "BTC/USD": "crypto"}, [])
    await state.accounts.write_universe(lease, {"TSLA": "us_equity"}, ["AAPL"])
    assert await state.accounts.read_universe() == {"BTC/USD": "crypto", "TSLA": "us_equity"}
    assert [await payload(changes) for _ in range(2)] == [b"changed", b"changed"]


async def test_the_cursor_round_trips(state: State) -> None:
    """None until one is written."""
    assert await state.accounts.read_cursor() is None
    await state.accounts.write_cursor("01JD")
    assert await state.accounts.read_cursor() == "01JD"


async def test_marks_round_trip(state: State, followed: Followed) -> None:
    """A float64 price comes back bit for bit; one batch is one message."""
    lease = await lease_of(state)
    marks = [mark("A", 0.1), mark("B", 1e-9), mark("C", 123456.78900000001)]
    batches = followed(state.marks.batches())
    await subscribed(state, batches)
    await state.marks.write(lease, marks)
    assert {one.symbol: one for one in await state.marks.read_all()} == {one.symbol: one for one in marks}
    assert decode_marks(await payload(batches)).marks == marks


@given(
    st.lists(
        st.builds(
            Mark,
            symbol=st.text(min_size=1, max_size=8),
            price=st.floats(0, exclude_min=True, allow_infinity=False),
            as_of_ns=NANOSECONDS,
            version=NANOSECONDS,
            source=st.sampled_from(["iex", "sip", "crypto"]),
            previous_close=st.none() | st.floats(0, allow_infinity=False),
            previous_close_date=st.none() | st.just("2026-11-20"),
            quality=st.sampled_from(["", "delayed"]),
        )
    ),
    st.lists(st.text(max_size=8)),
    st.lists(st.sampled_from(["iex", "sip"]), max_size=2),
)
def test_a_batch_in_columns_reads_back_the_same(
    marks: list[Mark], unmarked: list[str], woken: list[str]
) -> None:
    """Every price bit for bit, and each mark with its own times and source."""
    assert decode_marks(encode_marks(marks, unmarked, None, woken)) == (marks, unmarked, None, woken)


def test_a_batch_takes_a_fifth_of_the_bytes_of_its_json() -> None:
    """Every calculator hears all of them."""
    now_ns = 1_795_000_000_000_000_000
    marks = [
        Mark(f"S{index}", 100 + index / 100, now_ns - 2_000_000, now_ns + index, "sip", 99.5, "2026-11-20")
        for index in range(1000)
    ]
    assert len(encode_marks(marks, [])) * 5 < len(msgspec.json.encode(marks))


async def test_a_symbol_that_was_looked_for_in_vain_is_told(state: State, followed: Followed) -> None:
    """In the hash and on the channel of the marks, until there is one; that is no mark."""
    lease = await lease_of(state)
    await state.marks.write(lease, [mark("A")])
    batches = followed(state.marks.batches())
    await subscribed(state, batches)
    unmarked = [Unmarked("B", "iex", 5), Unmarked("C", "iex", 5)]
    await state.marks.write_unmarked(lease, unmarked)
    announced = await payload(batches)
    assert decode_marks(announced) == ([], ["B", "C"], None, [])
    assert [one.symbol for one in await state.marks.read_all()] == ["A"]
    assert await state.marks.look_up(["A", "B", "D"]) == ({"A": mark("A")}, {"B"})
    await state.marks.write(lease, [mark("B")])
    announced = await payload(batches)
    assert decode_marks(announced) == ([mark("B")], [], None, [])
    marks, still = await state.marks.read_whole()
    assert (len(marks), still) == (2, unmarked[1:])


async def test_some_marks_are_read_by_symbol(state: State) -> None:
    """Those asked for that exist, however many are asked for."""
    lease = await lease_of(state)
    marks = {f"S{index}": mark(f"S{index}", index + 0.1) for index in range(READ_FIELDS_MAX + 2)}
    await state.marks.write(lease, list(marks.values()))
    assert await state.marks.read(["S7", "NONE"]) == {"S7": marks["S7"]}
    assert await state.marks.read([*marks]) == marks
    assert await state.marks.read([]) == {}


async def test_a_write_beyond_the_limit_is_cut_and_announced_once(state: State, followed: Followed) -> None:
    """More fields than one step takes: all are stored, one message names them all."""
    lease = await lease_of(state)
    marks = [mark(f"S{index}") for index in range(2 * WRITE_FIELDS_MAX + 1)]
    batches = followed(state.marks.batches())
    await subscribed(state, batches)
    await state.marks.write(lease, marks)
    await state.marks.write(lease, [mark("LAST")])
    assert len(await state.marks.read_all()) == len(marks) + 1
    assert decode_marks(await payload(batches)).marks == marks
    assert decode_marks(await payload(batches)).marks == [mark("LAST")]


async def test_many_accounts_of_one_shard_are_read_in_steps(state: State) -> None:
    """More records than one step reads come back whole and in the asked order."""
    names = accounts_of(1, WRITE_FIELDS_MAX + 1)
    lease = await lease_of(state)
    await state.accounts.write(lease, [account(name, positions=()) for name in names])
    assert [found.account_id for found in await state.accounts.read(1, names)] == names
    assert {found.account_id for found in await state.accounts.read_all(1)} == set(names)


async def test_publications_round_trip(state: State, followed: Followed) -> None:
    """Stored for the first snapshot with their rows, announced with the lease's token as epoch."""
    shard, (alice, bob) = 2, accounts_of(2, 2)
    lease = await lease_of(state, keys.shard_lease(shard))
    publications = [
        Publication(alice, 1, b'{"equity":"1.00"}'),
        Publication(bob, 4, b'{"equity":"2.00"}', [("A", b'{"symbol":"A"}'), ("B", b'{"symbol":"B"}')]),
    ]
    batches = followed(state.valuations.batches())
    await subscribed(state, batches)
    await state.valuations.publish(lease, shard, publications)
    assert decode_batch(await payload(batches)) == batch_of(lease.fencing_token, publications)
    assert await state.valuations.read(alice) == b'{"equity":"1.00"}'
    whole = b'{"equity":"2.00","positions":[{"symbol":"A"},{"symbol":"B"}]}'
    assert await state.interest.begin([bob, "nobody"]) == {bob: StoredPublication(whole, is_kept=True)}
    await state.leases.release(lease)
    assert await state.interest.begin([alice, bob]) == {
        alice: StoredPublication(b'{"equity":"1.00"}', is_kept=False),
        bob: StoredPublication(whole, is_kept=False),
    }
    assert sorted(await state.valuations.read_ids(shard)) == sorted([alice, bob])
    await state.valuations.forget(lease, shard, [alice])
    assert await state.valuations.read(alice) is None
    assert await state.valuations.read_ids(shard) == [bob]


async def test_an_older_calculator_can_neither_publish_nor_forget(state: State) -> None:
    """The newer owner's publications stay."""
    (alice,) = accounts_of(0, 1)
    old, new = await lease_of(state, keys.shard_lease(0)), await lease_of(state, keys.shard_lease(0))
    await state.valuations.publish(new, 0, [Publication(alice, 1, b"{}")])
    with pytest.raises(LeaseLost):
        await state.valuations.publish(old, 0, [Publication(alice, 99, b'{"old":1}')])
    with pytest.raises(LeaseLost):
        await state.valuations.forget(old, 0, [alice])
    assert await state.valuations.read(alice) == b"{}"


async def test_interest_round_trips(state: State, followed: Followed) -> None:
    """Announcements name the accounts of one shard; with positions only where somebody asked for them."""
    alice, bob, carol = accounts_of(3, 3)
    announcements = followed(state.interest.announcements([3]))
    await subscribed(state, announcements)
    await state.interest.begin([alice])
    await state.interest.begin([bob], [bob])
    await state.connection.commands.script_flush()  # as after a restart of the server
    await state.interest.begin([carol, alice, *accounts_of(2, 1)], [alice])
    begun = [decode_begun(await payload(announcements)) for _ in range(3)]
    assert begun == [[alice], [bob], [carol, alice]]
    watched = await state.interest.read(3)
    assert (watched.account_ids, watched.with_positions) == ({alice, bob, carol}, {alice, bob})
    assert (await state.interest.read(0)).account_ids == set()


async def test_interest_that_nobody_renews_ends(state: State) -> None:
    """It is gone INTEREST_MS after the last renewal by Valkey's clock, from the database too."""
    alice, bob = accounts_of(3, 2)
    commands = state.connection.commands
    seconds, _ = await commands.time()
    server = interest.server_name("test")
    for one in (alice, bob):
        await state.interest.begin([one], [one])
        for key in (keys.interest(3), keys.position_interest(3)):
            expiry_ms = await commands.zscore(key, f"{one} {server}")
            assert expiry_ms is not None
            assert 0 <= expiry_ms - 1000 * seconds - interest.INTEREST_MS < 60_000
            await commands.zadd(key, {f"{one} {server}": 1000 * seconds - 1})  # as if that long ago
    await state.interest.renew([bob], [])
    watched = await state.interest.read(3)
    assert (watched.account_ids, watched.with_positions) == ({bob}, set())
    assert await state.connection.commands.zcard(keys.interest(3)) == 1
    assert await state.connection.commands.exists(keys.position_interest(3)) == 0


async def test_metrics_are_left_for_a_while(state: State) -> None:
    """Every process's text can be read, told apart, and expires."""
    await state.metrics.write("calculator", "host-1", b"a 1\n")
    await state.metrics.write("calculator", "host:2", b"a 2\n")
    assert sorted(await state.metrics.read_all()) == [
        ("calculator", "host-1", "a 1\n"),
        ("calculator", "host:2", "a 2\n"),
    ]
    ttl_s = await state.connection.commands.ttl(keys.metrics("calculator", "host-1"))
    assert 0 < ttl_s <= keys.METRICS_TTL_S


async def test_a_ticket_is_good_once(state: State) -> None:
    """Of two who use it at once one gets in; the ticket itself is kept nowhere."""
    ticket = await state.tickets.issue(b"alice")
    names = [name.decode() async for name in state.connection.commands.scan_iter()]
    assert all(ticket not in name for name in names)
    taken = await asyncio.gather(state.tickets.redeem(ticket), state.tickets.redeem(ticket))
    assert set(taken) == {None, b"alice"}
    assert await state.tickets.redeem("invented") is None


async def test_stored_values_are_readable_json(state: State) -> None:
    """Whoever looks with a command line client sees JSON objects with plain names and plain money."""
    (alice,) = accounts_of(0, 1)
    lease = await lease_of(state, keys.shard_lease(0))
    await state.accounts.write(lease, [account(alice)])
    await state.marks.write(lease, [mark("A")])
    await state.valuations.publish(lease, 0, [Publication(alice, 1, b'{"equity":"1.00"}')])
    stored = {
        key: json.loads(await state.connection.commands.hget(key, field) or b"null")
        for key, field in (
            (keys.accounts(0), alice),
            (keys.marks(), "A"),
            (keys.valuations(0), alice),
        )
    }
    assert stored[keys.accounts(0)]["cash"] == "10211.370000001"
    assert stored[keys.accounts(0)]["positions"][0]["quantity"] == "1E-9"
    assert stored[keys.marks()]["price"] == 0.1
    assert stored[keys.valuations(0)] == {"equity": "1.00"}


def test_an_account_stays_in_its_shard() -> None:
    """The shard depends on the id and the number of shards alone, and all shards are used."""
    assert keys.shard_of("0d18ae51-9a4e-4d2b-8f0c-2f1e7f6b9f11", 16) == 1
    shards = {keys.shard_of(f"account-{index}", 16) for index in range(1000)}
    assert shards == set(range(16))


def test_all_keys_of_a_shard_share_one_hash_tag() -> None:
    """On a cluster they live in one slot; two shards never share a tag."""
    for shard in range(99):
        of_shard = [
            keys.accounts(shard),
            keys.valuations(shard),
            keys.interest(shard),
            keys.position_interest(shard),
            keys.fence(keys.accounts(shard)),
            keys.fence(keys.valuations(shard)),
            keys.lease(keys.shard_lease(shard)),
            keys.granted(keys.shard_lease(shard)),
        ]
        assert {key[key.index("{") : key.index("}") + 1] for key in of_shard} == {keys.tag(shard)}
        assert len(set(of_shard)) == len(of_shard)
    assert len({keys.tag(shard) for shard in range(99)}) == 99

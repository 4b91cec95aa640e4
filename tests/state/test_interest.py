"""Readers of interest learn what has changed, and read all accounts only where they have missed too much."""

import random
from collections import Counter
from collections.abc import AsyncGenerator
from itertools import chain

import pytest

from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.state import State, interest, keys
from portfolio_realtime.state.interest import (
    UNREAD,
    InterestChanges,
    Servers,
    WatchedAccounts,
    server_name,
)
from tests.conftest import SHARDS, opened

from .records import accounts_of

SHARD = 3
OURS = server_name("test")  # of the fixture `state`
THEIRS = server_name("other")


async def expire(state: State, *account_ids: str) -> None:
    """Let the interest in these end, as if nobody had renewed it."""
    for account_id in account_ids:
        shard = keys.shard_of(account_id, SHARDS)
        for key in (keys.interest(shard), keys.position_interest(shard)):
            await state.connection.commands.zadd(key, {f"{account_id} {server_name('test')}": 1}, xx=True)


@pytest.fixture
async def other(valkey_url: str) -> AsyncGenerator[State]:
    """Another server on the same Valkey."""
    async with opened(valkey_url, "other", 4000) as state:
        yield state


async def test_interest_that_another_server_has_announced_again_is_not_ours(
    state: State, other: State
) -> None:
    """A shard's interest is lost; the server that notices first must not hide that from the others."""
    (alice,) = accounts_of(SHARD, 1)
    for server in (state, other):
        await server.interest.begin([alice])
        assert not await server.interest.is_gone([alice])
    await state.connection.commands.delete(keys.interest(SHARD), keys.interest_changes(SHARD))
    assert await state.interest.is_gone([alice])
    await other.interest.begin([alice])
    assert await state.interest.is_gone([alice])
    assert not await other.interest.is_gone([alice])


async def test_interest_in_positions_that_is_lost_alone_is_missed(state: State) -> None:
    """Evicted with the stream of changes: calculators would leave the positions out."""
    alice, bob = accounts_of(SHARD, 2)
    await state.interest.begin([alice, bob], [bob])
    assert not await state.interest.is_gone([alice, bob], [bob])
    await state.connection.commands.delete(keys.position_interest(SHARD), keys.interest_changes(SHARD))
    assert not await state.interest.is_gone([alice, bob])
    assert await state.interest.is_gone([alice, bob], [bob])


async def test_a_reader_gets_only_what_has_changed(state: State) -> None:
    """What began, what ended, who is watched with positions since; nothing where nothing has changed."""
    alice, bob, carol = accounts_of(SHARD, 3)
    await state.interest.begin([alice, bob])
    first = await state.interest.read_changes(SHARD)
    assert (first.is_all, first.watched) == (True, {alice: {OURS: False}, bob: {OURS: False}})
    await state.interest.begin([alice, bob])  # they are watched already
    await state.interest.renew([alice, bob], [])
    assert await state.interest.read_changes(SHARD, first.until) == InterestChanges(
        first.until, False, {}, []
    )
    await expire(state, alice)
    await state.interest.begin([carol, bob], [bob])
    second = await state.interest.read_changes(SHARD, first.until)
    assert (second.is_all, second.ended) == (False, [(alice, OURS)])
    assert second.watched == {bob: {OURS: True}, carol: {OURS: False}}
    assert (await state.interest.read_changes(SHARD, second.until)).watched == {}


async def test_interest_that_is_renewed_after_its_end_is_a_change(state: State) -> None:
    """A server that was paused comes back: its accounts are watched again, without an announcement."""
    (alice,) = accounts_of(SHARD, 1)
    await state.interest.begin([alice], [alice])
    await expire(state, alice)
    gone = await state.interest.read_changes(SHARD)
    assert gone.watched == {}
    assert await state.interest.renew([alice], [alice]) == {alice}
    assert (await state.interest.read_changes(SHARD, gone.until)).watched == {alice: {OURS: True}}
    assert await state.interest.renew([alice], [alice]) == set()


@pytest.mark.parametrize("loss", ["too many changes", "another life of the state"])
async def test_who_has_missed_too_much_reads_all(
    state: State, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """The stream does not reach back so far, or is not there any more."""
    monkeypatch.setattr(interest, "CHANGES_MAX", 3)
    alice, *others = accounts_of(SHARD, 5)
    await state.interest.begin([alice])
    since = (await state.interest.read_changes(SHARD)).until
    if loss == "too many changes":
        for other in others:
            await state.interest.begin([other])
    else:
        await state.connection.commands.delete(
            keys.interest(SHARD), keys.position_interest(SHARD), keys.interest_changes(SHARD)
        )
    found = await state.interest.read_changes(SHARD, since)
    expected = {alice, *others} if loss == "too many changes" else set[str]()
    assert (found.is_all, set(found.watched)) == (True, expected)
    assert await state.connection.commands.xlen(keys.interest_changes(SHARD)) <= 3


async def test_an_evicted_stream_of_changes_hides_nothing(state: State) -> None:
    """Interest and stream are evicted; a server watches again; then the new stream is evicted as well."""
    (alice,) = accounts_of(SHARD, 1)
    commands, changes = state.connection.commands, keys.interest_changes(SHARD)
    await state.interest.begin([alice])
    await commands.delete(keys.interest(SHARD), changes)
    lost = await state.interest.read_changes(SHARD)
    assert lost.watched == {}
    await state.interest.begin([alice])
    await commands.delete(changes)
    assert (await state.interest.read_changes(SHARD, lost.until)).watched == {alice: {OURS: False}}


@pytest.mark.parametrize("seed", range(5))
async def test_a_reader_of_changes_knows_what_a_reader_of_all_knows(
    state: State, other: State, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whatever begins, is renewed and ends, at which server, in whatever order, with readings in between."""
    monkeypatch.setattr(interest, "CHANGES_MAX", 8)
    monkeypatch.setattr(interest, "BEGIN_ACCOUNTS_MAX", 2)
    rng = random.Random(seed)
    names = [f"account-{number}" for number in range(12)]
    reader = WatchedAccounts(state.interest, range(SHARDS), raised)
    until: dict[int, str] = dict.fromkeys(range(SHARDS), UNREAD)
    known: dict[int, dict[str, Servers]] = {shard: {} for shard in range(SHARDS)}
    accounts_of = {shard: Counter[str]() for shard in range(SHARDS)}
    for _ in range(60):
        chosen = rng.sample(names, rng.randint(1, 6))
        detailed = [name for name in chosen if rng.random() < 0.3]
        match rng.randrange(5):
            case 0:
                await rng.choice((state, other)).interest.begin(chosen, detailed)
            case 1:
                await rng.choice((state, other)).interest.renew(chosen, detailed)
            case 2:
                await expire(state, *chosen)
            case 3:
                await state.connection.commands.delete(keys.interest_changes(rng.randrange(SHARDS)))
            case _:
                assert await reader.read(0.0) == {
                    name for shard in range(SHARDS) for name in (await state.interest.read(shard)).account_ids
                }
                for shard in range(SHARDS):
                    found = await state.interest.read_changes(shard, until[shard])
                    found.apply_to(known[shard], accounts_of[shard])
                    until[shard] = found.until
                    assert known[shard] == (await state.interest.read_changes(shard)).watched
                    assert accounts_of[shard] == Counter(chain(*known[shard].values()))


def raised(error: StateUnavailable) -> None:
    """With a single server nothing is spared."""
    raise error


async def test_all_accounts_are_read_again_now_and_then(state: State) -> None:
    """An account that was taken away behind our back is noticed after ALL_READ_S."""
    (alice,) = accounts_of(SHARD, 1)
    await state.interest.begin([alice])
    reader = WatchedAccounts(state.interest, [SHARD], raised)
    assert await reader.read(0.0) == {alice}
    await state.connection.commands.zrem(keys.interest(SHARD), f"{alice} {OURS}")
    assert await reader.read(interest.ALL_READ_S - 1) == {alice}
    assert await reader.read(interest.ALL_READ_S) == set()


async def test_an_account_is_watched_until_its_last_server_has_ended(state: State, other: State) -> None:
    """With positions for as long as one of them wants these; a killed server runs out, the other stays."""
    (alice,) = accounts_of(SHARD, 1)
    known: dict[str, Servers] = {}
    until = UNREAD

    async def read() -> tuple[list[str], list[str]]:
        nonlocal until
        found = await state.interest.read_changes(SHARD, until)
        until = found.until
        return found.apply_to(known)

    await state.interest.begin([alice], [alice])
    assert await read() == ([alice], [])
    await other.interest.begin([alice])
    assert await read() == ([], [])  # it has read the stored publication: nothing is owed
    assert known == {alice: {OURS: True, THEIRS: False}}
    await expire(state, alice)  # the first was killed
    assert await read() == ([alice], [])  # without positions now
    assert known == {alice: {THEIRS: False}}
    await state.connection.commands.zadd(keys.interest(SHARD), {f"{alice} {THEIRS}": 1}, xx=True)
    assert await read() == ([], [alice])
    assert known == {}


def test_a_server_that_is_new_after_a_loss_of_changes_is_told_again() -> None:
    """What it was told meanwhile is not certain: its accounts are published again, the others not."""
    known: dict[str, Servers] = {"rests": {"a": False}, "moves": {"a": False}, "ended": {"a": False}}
    found = InterestChanges("9-0", True, {"rests": {"a": False}, "moves": {"a": False, "b": False}}, [])
    assert found.apply_to(known) == (["moves"], ["ended"])
    assert known == {"rests": {"a": False}, "moves": {"a": False, "b": False}}


def test_a_successor_has_another_name() -> None:
    """Each process has a holder of its own, also on the same machine."""
    assert server_name("server:host-1-aaaaaa") != server_name("server:host-1-bbbbbb")

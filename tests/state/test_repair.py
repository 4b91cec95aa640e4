"""No clock is believed but Valkey's; what cannot be read is left out; who disagrees is refused."""

import asyncio
import time

import pytest

from portfolio_realtime import config, service
from portfolio_realtime.errors import SettingsError
from portfolio_realtime.state import State, keys, open_state
from portfolio_realtime.state.accounts import readable_changes
from portfolio_realtime.state.interest import decode_begun
from portfolio_realtime.state.marks import decode_marks
from portfolio_realtime.state.revocations import FIELD
from tests.conftest import LEASE_MS, SHARDS

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
    assert await other.leases.enlist("group") == 1
    monkeypatch.setattr(time, "time_ns", right)
    assert await state.leases.enlist("group") == 2
    expiry_ms = await state.connection.commands.zscore(keys.members("group"), "other")
    assert expiry_ms is not None
    assert abs(expiry_ms - LEASE_MS - await state.connection.now_ms()) < 60_000
    await other.close()
    await state.connection.commands.delete(keys.members("group"))


async def test_our_seconds_are_counted_on_between_two_questions(state: State) -> None:
    """It is Valkey's time all the same, and never stands still."""
    first = await state.connection.now_ms()
    await asyncio.sleep(0.05)
    second = await state.connection.now_ms()
    seconds, _ = await state.connection.commands.time()
    assert first < second
    assert abs(second / 1000 - seconds) < 60


async def test_what_cannot_be_read_is_left_out(state: State) -> None:
    """One mark, one message, one revocation: the others are served."""
    lease = await state.leases.acquire("feed")
    assert lease is not None
    await state.marks.write(lease, [mark("A"), mark("B")])
    await state.connection.commands.hset(keys.marks(), "C", "{no mark")
    assert {one.symbol for one in await state.marks.read_all()} == {"A", "B"}
    assert set(await state.marks.read(["A", "C"])) == {"A"}
    assert decode_marks(b"[{") == []
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

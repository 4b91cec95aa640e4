"""Processes of two releases agree on the version of the wire that they write."""

import asyncio
import time
from typing import Any, Final

import pytest
import structlog

from portfolio_harness.valkey_kinds import Valkeys
from portfolio_realtime import config, service
from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.state import State, agreement, keys, open_state
from portfolio_realtime.state.agreement import (
    AGREED_MS,
    EARLIER,
    NEWEST,
    OLDEST,
    RAISE_S,
    READS,
    WAITING,
    WIRE,
    WireChoice,
    WireProcess,
)
from tests.conftest import SHARDS, Until, opened

BEFORE, NOW, NEXT, LATER = 6, 7, 8, 9  # versions
TURN_S: Final = 2.0


class Played:
    """Processes that tell each other what they say, in turns. Everybody hears what was said before."""

    def __init__(self) -> None:
        self.said: dict[str, WireProcess] = {}
        self.choices: dict[str, WireChoice] = {}
        self.now_s = 0.0

    def add(self, name: str, oldest: int, newest: int) -> bool:
        """One begins; may it?"""
        choice = self.choices.get(name) or WireChoice(oldest, newest)
        choice.announced = WAITING
        if choice.begin(self._tell(name, choice)) is not None:
            self._tell(name, choice)
            return False
        choice.follow(self._tell(name, choice), self.now_s)
        self.choices[name] = choice
        return True

    def end(self, name: str) -> None:
        """One ends, and what it said has expired."""
        del self.said[name]
        self.choices.pop(name, None)

    def turn(self, seconds: float = TURN_S) -> None:
        """Everybody says what it does, each TURN_S; nobody ever writes what another one cannot read."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s += TURN_S
            for name, choice in self.choices.items():
                choice.follow(self._tell(name, choice), self.now_s)
                self.check()

    def check(self) -> None:
        """What anybody writes, everybody reads who has begun."""
        for writer in self.choices.values():
            assert all(one.oldest <= writer.writes <= one.newest for one in self.choices.values())

    def writes(self) -> set[int]:
        """The versions that are written."""
        return {choice.writes for choice in self.choices.values()}

    def _tell(self, name: str, choice: WireChoice) -> list[WireProcess]:
        self.said[name] = WireProcess(name, choice.oldest, choice.newest, choice.announced)
        return [one for one in self.said.values() if one.name != name]


def test_one_by_one_to_the_next_release_and_back() -> None:
    """Old ones are replaced while the others work; the new version is written once the last has gone."""
    played = Played()
    for name in ("a", "b", "c"):
        assert played.add(f"{name}-now", BEFORE, NOW)
    played.turn()
    for name in ("a", "b", "c"):
        assert played.writes() == {NOW}
        played.end(f"{name}-now")
        assert played.add(f"{name}-next", NOW, NEXT)
        played.turn(3 * RAISE_S if name == "c" else TURN_S)
    assert played.writes() == {NEXT}
    assert not played.add("a-now", BEFORE, NOW)  # it cannot read yet what is written
    played.turn()
    assert played.writes() == {NOW}
    assert not played.add("a-now", BEFORE, NOW)  # an older message may still be on its way
    played.turn()
    for name in ("a", "b", "c"):
        assert played.add(f"{name}-now", BEFORE, NOW)
        played.end(f"{name}-next")
        played.turn()
    assert played.writes() == {NOW}


def test_a_loss_of_the_hash_raises_nothing() -> None:
    """For one turn a process sees nobody else: that lasts less long than it takes to raise a version."""
    played = Played()
    assert played.add("now", BEFORE, NOW)
    assert played.add("next", NOW, NEXT)
    for _ in range(10):
        played.said.clear()
        played.choices["next"].follow([], played.now_s)
        played.turn()
    assert played.writes() == {NOW}


def test_who_comes_while_a_version_is_raised_waits_or_prevents_it() -> None:
    """At any moment of the seconds in which it is raised."""
    for turns in range(12):
        played = Played()
        assert played.add("now", BEFORE, NOW)
        assert played.add("next", NOW, NEXT)
        played.end("now")
        played.turn(turns * TURN_S)
        asked = 1
        while not played.add("again", BEFORE, NOW):
            played.turn()
            asked += 1
        played.check()
        assert asked <= 4
        assert played.writes() == {NOW}


def test_two_that_start_at_once_see_each_other() -> None:
    """Neither has begun when the other one asks."""
    old, new = WireChoice(BEFORE, NOW), WireChoice(NOW, NEXT)
    for first, second in ((old, new), (new, old)):
        waiting = [WireProcess("x", second.oldest, second.newest, WAITING)]
        assert first.begin(waiting) is None
        assert first.writes == NOW


def test_who_is_too_far_away_waits_and_disturbs_nobody() -> None:
    """The others go on, and may be replaced and raised."""
    played = Played()
    assert played.add("next", NEXT, LATER)
    assert not played.add("before", BEFORE, NOW)
    played.turn(2 * RAISE_S)
    assert played.writes() == {LATER}
    assert not played.add("before", BEFORE, NOW)


async def test_a_release_that_says_nothing_is_seen_by_its_settings(
    state: State, valkey_url: str, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It works only where its own version stands, and writes it there every two seconds."""
    monkeypatch.setattr(agreement, "RAISE_S", 0.3)
    monkeypatch.setattr(agreement, "NEWEST", NEWEST + 1)
    monkeypatch.setattr(service, "AGREE_S", 0.05)
    settings = config.load(redis_url=valkey_url, _env_file=None)
    theirs = " ".join(f"{name}={value}" for name, value in service.shared_settings(settings).items())
    earlier, commands = f"{theirs} {WIRE}={NEWEST}", state.connection.commands
    await commands.set(keys.settings(), earlier, px=AGREED_MS)
    began: asyncio.Future[service.Context] = asyncio.get_running_loop().create_future()

    async def run(context: service.Context) -> None:
        began.set_result(context)
        await asyncio.Event().wait()

    running = asyncio.create_task(service.with_state("test", settings, run, asyncio.Event()))
    wire = (await began).state.wire
    await asyncio.sleep(0.6)
    assert wire.writes == NEWEST
    assert await commands.get(keys.settings()) == earlier.encode()  # what it writes is left to it
    assert [one.name for one in await state.agreement.earlier()] == [EARLIER]
    await commands.delete(keys.settings())  # it has ended, and that has expired
    await until(lambda: wire.writes == NEWEST + 1, "the new version is written")
    await until(lambda: _stands(state, f"{WIRE}={NEWEST + 1} {READS}={OLDEST}-{NEWEST + 1}"), "and named")
    await commands.set(keys.settings(), earlier, px=AGREED_MS)  # it was let in just before
    await until(lambda: wire.writes == NEWEST, "the old version is written again")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


async def _stands(state: State, words: str) -> bool:
    here = await state.connection.commands.get(keys.settings())
    return here is not None and words in str(here)


async def test_a_part_that_is_away_does_not_hide_the_processes_of_another(
    valkey_url: str, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings cannot be kept, and the hash still says who runs."""
    monkeypatch.setattr(service, "AGREE_S", 0.05)
    settings = config.load(redis_url=valkey_url, _env_file=None)
    began: asyncio.Future[service.Context] = asyncio.get_running_loop().create_future()

    async def run(context: service.Context) -> None:
        began.set_result(context)
        await asyncio.Event().wait()

    async def away(*_: object) -> list[WireProcess]:
        raise StateUnavailable("away")

    running = asyncio.create_task(service.with_state("test", settings, run, asyncio.Event()))
    state = (await began).state
    monkeypatch.setattr(state.agreement, "keep", away)
    await asyncio.sleep(0.2)
    await state.connection.commands.delete(keys.wire())
    await until(state.wire.read, "it says again that it runs")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("theirs", [OLDEST - 1, NEWEST + 1])
async def test_who_cannot_read_what_is_written_waits_and_says_so(
    state: State, valkey_url: str, until: Until, monkeypatch: pytest.MonkeyPatch, theirs: int
) -> None:
    """In one line, and it writes nothing but what it can read."""
    monkeypatch.setattr(service, "WIRE_POLL_S", 0.05)
    settings = config.load(redis_url=valkey_url, _env_file=None)
    began = asyncio.Event()

    async def run(_: service.Context) -> None:
        began.set()

    entry = f"{theirs} {theirs} {theirs} 9999999999999"
    await state.connection.commands.hset(keys.wire(), "other", entry)
    with structlog.testing.capture_logs() as lines:
        starting = asyncio.create_task(service.with_state("test", settings, run, asyncio.Event()))
        await until(lambda: lines, "it says so")
        await asyncio.sleep(0.2)
        assert not began.is_set()
        written = {_text(name) for name in await state.connection.commands.keys()}
        assert written <= {keys.settings(), keys.wire(), keys.revocations_known()}  # of one node of a cluster
        await state.connection.commands.hdel(keys.wire(), "other")
        await starting
    assert began.is_set()
    told = lines[0]
    assert (told["reads"], told["theirs"], told["process"]) == (f"{OLDEST}-{NEWEST}", theirs, "other")


async def test_an_operator_holds_a_version(state: State, valkey_url: str) -> None:
    """For releases that say nothing: they are let in when theirs is written."""
    other = open_state(valkey_url, holder="other", shards=SHARDS, lease_ms=1000)
    assert await other.wire.begin(0.0) is None
    await state.wire.hold(NEWEST, hours=1)
    names = {one.name for one in await state.wire.read()}
    assert names == {"other", agreement.HOLD}
    await state.wire.hold(NEWEST, hours=-1)  # it has run out
    assert {one.name for one in await state.wire.read()} == {"other"}
    await state.wire.release()
    await other.wire.follow(1.0)
    assert other.wire.writes == NEWEST
    await other.close()


async def test_a_hold_is_lost_with_valkeys_data_and_who_holds_again_within_seconds_has_lost_nothing(
    state: State, valkey_url: str, session_valkey: Valkeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/upgrade.md says: nothing is raised for RAISE_S, and the list of processes shows it."""
    monkeypatch.setattr(agreement, "NEWEST", NEWEST + 1)
    await state.wire.hold(NEWEST, hours=1)
    async with opened(valkey_url, "other") as other:
        assert await other.wire.begin(0.0) is None
        await session_valkey.flush()
        for now_s in (2.0, 1.0 + RAISE_S):
            await other.wire.follow(now_s)
            assert (other.wire.writes, other.wire.announced) == (NEWEST, NEWEST)
        assert {one.name for one in await state.wire.read()} == {"other"}
        await state.wire.hold(NEWEST, hours=1)
        await other.wire.follow(3.0 + RAISE_S)
        assert other.wire.writes == NEWEST
        await session_valkey.flush()
        for now_s in (100.0, 100.0 + RAISE_S, 102.0 + RAISE_S):
            await other.wire.follow(now_s)
        assert other.wire.writes == NEWEST + 1
        await state.wire.hold(NEWEST, hours=1)
        await other.wire.follow(104.0 + RAISE_S)
        assert other.wire.writes == NEWEST


@pytest.mark.parametrize("ahead_s", [-7200, 7200])
async def test_the_clock_of_who_asks_does_not_count(
    state: State, valkey_url: str, monkeypatch: pytest.MonkeyPatch, ahead_s: int
) -> None:
    """All processes are shown, and a hold lasts, by Valkey's clock."""
    other = open_state(valkey_url, holder="other", shards=SHARDS, lease_ms=1000)
    assert await other.wire.begin(0.0) is None
    off_ns = time.time_ns() + ahead_s * NS_PER_S
    monkeypatch.setattr(time, "time_ns", lambda: off_ns)
    monkeypatch.setattr(time, "time", lambda: off_ns / NS_PER_S)
    await state.wire.hold(NEWEST, hours=1)
    assert {one.name for one in await state.wire.read()} == {"other", agreement.HOLD}
    await other.wire.follow(1.0)  # takes out what has expired
    *_, expiry_ms = (await state.connection.commands.hget(keys.wire(), agreement.HOLD)).split()  # type: ignore[misc]
    now_ms = await state.connection.now_ms(keys.wire())
    assert 0 < int(expiry_ms) - now_ms <= 3_600_000
    await state.wire.release()
    await other.close()


def test_settings_that_nobody_wrote_are_no_version() -> None:
    """Something else has written the key: it is a process that nobody can follow, until it expires."""
    assert [one.writes for one in agreement.earlier({WIRE: "x"})] == [0]


async def test_what_nobody_wrote_there_is_removed(state: State) -> None:
    """An entry that cannot be read, or that has expired."""
    odd: dict[Any, Any] = {"odd": "?", "gone": f"{OLDEST} {OLDEST} {OLDEST} 1"}
    await state.connection.commands.hset(keys.wire(), mapping=odd)
    assert await state.wire.read() == []
    assert await state.wire.begin(0.0) is None
    assert len(await state.connection.commands.hkeys(keys.wire())) == 1

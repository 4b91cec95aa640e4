"""The portfolio calculator as its own process on a real Valkey; the test plays everybody else.

The test writes records as the symbol collector does, marks as the consumer does, says interest as a server
does, and reads what a server reads.
"""

import asyncio
import itertools
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest

from portfolio_harness.valkey_kinds import Valkeys
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.clock import NS_PER_S, parse_rfc3339
from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.model import Mark, Publication
from portfolio_realtime.portfolio_calculator.shard_owner import GROUP
from portfolio_realtime.state import State, keys, open_state
from portfolio_realtime.state.accounts import PAGE_FIELDS
from portfolio_realtime.state.feeds import SourceStatus
from portfolio_realtime.state.interest import server_name
from portfolio_realtime.state.marks import encode_marks
from portfolio_realtime.valuation.book import SPARE_COLUMNS
from tests.conftest import LEASE_MS, SHARDS, Until, end, running_service
from tests.support.calculators import CLOCK, MIN_UPDATE_S, NAMES, World

Start = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def calculator(tmp_path: Path) -> Generator[Start]:
    """`calculator(url)` starts one on the Valkey at this URL; all end with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(url: str) -> subprocess.Popen[bytes]:
        settings = {
            "REDIS_URL": url,
            "SHARDS": str(SHARDS),
            "LEASE_MS": str(LEASE_MS),
            "LEASE_RENEW_MS": "300",
            "MIN_UPDATE_INTERVAL": str(MIN_UPDATE_S),
            "RECALCULATION_INTERVAL": "0.5",
        }
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "portfolio_realtime.portfolio_calculator"],
                env={**os.environ, **settings},
                cwd=tmp_path,
            )
        )
        return started[-1]

    yield start
    for process in started:
        end(process)


START_S_MAX = 30.0


@pytest.fixture
async def world(state: State) -> AsyncGenerator[World]:
    """Everybody else, on the Valkey that all tests share."""
    made = World(state)
    yield made
    await made.close()


@pytest.fixture
async def running(world: World, valkey_url: str, calculator: Start, until: Until) -> World:
    """A calculator that publishes the first account: 1000.00 and 10 A at 100."""
    await world.mark(100.0)
    await world.write(NAMES[0])
    await world.watch(NAMES[0])
    calculator(valkey_url)
    await until(world.shows("2000.00", NAMES[0]), "the first account is published", START_S_MAX)
    return world


async def test_a_watched_account_follows_marks_and_records(running: World, until: Until) -> None:
    """Somebody begins to watch; then a mark, then a record change what is published and stored."""
    await running.write(NAMES[1])
    await running.watch(NAMES[1])
    await until(running.shows("2000.00", NAMES[1]), "the newly watched account is published")
    await running.mark(101.0)
    await until(running.shows("2010.00", *NAMES[:2]), "the mark has moved both")
    await running.write(NAMES[1], quantity=-10)
    await until(running.shows("-10.00", NAMES[1]), "the record has moved one")
    last = running.last(NAMES[1])
    assert last is not None
    assert last.message["day_pnl"] == "-1910.00"
    stored = await running.state.valuations.read(NAMES[1])
    assert stored is not None
    assert msgspec.json.decode(stored) == last.message
    running.assert_monotonic()


async def test_a_price_that_was_not_read_yet_is_told_apart(running: World, until: Until) -> None:
    """At a cold start nobody knows whether there is one; then somebody has looked."""
    await running.write(NAMES[1], symbol="B")
    await running.watch(NAMES[1])

    def tells(name: str, symbols: list[str] | None) -> Callable[[], bool]:
        def check() -> bool:
            last = running.last(NAMES[1])
            return last is not None and last.message.get(name) == symbols

        return check

    await until(tells("awaited", ["B"]), "it is awaited")
    assert tells("unpriced", [])()
    await running.write_unmarked("B")
    await until(tells("unpriced", ["B"]), "it is unpriced")
    assert tells("awaited", None)()


async def test_a_burst_is_conflated_and_its_last_value_arrives(running: World, until: Until) -> None:
    """Many marks in a row: publications keep their distance, and the newest price is what stays."""
    marks = 0
    burst_ends_s = CLOCK.monotonic_s() + 3 * MIN_UPDATE_S
    while CLOCK.monotonic_s() < burst_ends_s:
        marks += 1
        await running.mark(100.0 + marks)
    await until(running.shows(f"{2000 + 10 * marks}.00", NAMES[0]), "the last mark of the burst is published")
    history = running.seen[NAMES[0]]
    print(f"{marks} marks, {len(history)} publications")
    assert 2 < len(history) < marks / 2
    # The calculator's own stamps are free of the delays on the way here; clocks may be set a little.
    stamps_ns = [parse_rfc3339(one.message["timestamp"]) for one in history]
    assert all(
        later - earlier >= 0.9 * MIN_UPDATE_S * NS_PER_S for earlier, later in itertools.pairwise(stamps_ns)
    )
    running.assert_monotonic()


async def test_the_metrics_tell_what_the_whole_book_is_worth(running: World, until: Until) -> None:
    """Watched or not: an account that owes is in the sum, one with an unpriced position is counted."""
    await running.write(NAMES[1], quantity=-100)
    await running.write(NAMES[2], symbol="B")
    told: dict[str, float] = {}

    async def tells(equity: float, negative: int, unpriced: int) -> bool:
        for service, _, text in await running.state.metrics.read_all():
            if service == "portfolio_calculator":
                lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
                told.update((name, float(figure)) for name, figure in lines)
        expected = {"equity_dollars": equity, "negative_accounts": negative, "unpriced_accounts": unpriced}
        return all(told.get(f"portfolio_realtime_book_{name}") == n for name, n in expected.items())

    await until(lambda: tells(2000.0 - 9000.0, 1, 1), "the sum of the priced accounts is told", START_S_MAX)
    await running.mark(101.0)
    await running.mark(5.0, "B")
    await until(lambda: tells(2010.0 - 9100.0 + 1050.0, 1, 0), "new prices have moved the sum", START_S_MAX)
    assert told["portfolio_realtime_book_drift_dollars"] < 1e-9


async def test_symbols_that_are_gone_are_forgotten_and_no_others(running: World, until: Until) -> None:
    """Of a thousand symbols that nobody holds only those stay that the feed still keeps a mark of."""
    world = running
    await world.mark(20.0, "KEPT")
    now_ns = CLOCK.now_ns()
    gone = [Mark(f"GONE{number}", 1.0, now_ns, now_ns, "iex") for number in range(SPARE_COLUMNS + 50)]
    await world.state.connection.commands.publish(keys.marks(), encode_marks(gone, []))

    async def are_two() -> bool:
        return await world.metric("valued_symbols") == 2

    await until(are_two, "only A, which is held, and KEPT, which is marked, are left", START_S_MAX)
    await world.write("account-1", symbol="KEPT")
    await world.watch("account-1")
    await until(world.shows("1200.00", "account-1"), "the old mark of KEPT counts")
    await world.write("account-1", symbol="GONE7")
    await world.mark(30.0, "GONE7")
    await until(world.shows("1300.00", "account-1"), "a symbol that was forgotten is priced again")


async def test_marks_of_a_feed_that_nobody_keeps_are_stale(running: World, until: Until) -> None:
    """A killed, mute or cut-off consumer says nothing, and that is enough."""

    def is_stale(is_wanted: bool) -> Callable[[], bool]:
        def check() -> bool:
            newest = running.last(NAMES[0])
            return newest is not None and bool(newest.message["stale"]) is is_wanted

        return check

    await until(is_stale(True), "nobody has said that the feed is live")

    async def keep(source: str, is_core: bool) -> None:
        while True:
            await running.state.feeds.keep(source, SourceStatus.CORE if is_core else SourceStatus.LIVE)
            await asyncio.sleep(0.2)

    async with running_service(keep("iex", False)):
        await until(is_stale(False), "the feed is live")
    await until(is_stale(True), "the feed's word is over")
    assert await running.metric("stale_ratio") == 0, "nobody says that the exchange is open"
    assert running.shows("2000.00", NAMES[0])(), "a stale value is shown, and marked"


async def test_a_record_that_comes_after_its_interest_is_published(running: World, until: Until) -> None:
    """A client may watch an account before the collector has read it."""
    await running.watch(NAMES[2])
    await running.watch(NAMES[0])
    await running.mark(102.0)
    await until(running.shows("2020.00", NAMES[0]), "the calculator has seen both")
    assert running.last(NAMES[2]) is None
    await running.write(NAMES[2])
    await until(running.shows("2020.00", NAMES[2]), "the late record is published")


async def test_interest_that_ends_is_forgotten_though_others_keep_coming(
    running: World, until: Until
) -> None:
    """Announcements without a pause do not keep the calculator from noticing who has gone."""
    interest = keys.interest(keys.shard_of(NAMES[0], SHARDS))
    pair = f"{NAMES[0]} {server_name('test')}"
    await running.state.connection.commands.zadd(interest, {pair: 1})  # as if nobody had renewed it

    async def is_forgotten() -> bool:
        await running.watch(NAMES[3])
        return await running.state.valuations.read(NAMES[0]) is None

    await until(is_forgotten, "the stored publication is gone", 20)
    before = running.last(NAMES[0])
    assert before is not None
    await running.write(NAMES[3])
    await running.mark(103.0)
    await until(running.shows("2030.00", NAMES[3]), "the other is published")
    assert running.last(NAMES[0]) == before
    await running.watch(NAMES[0])
    await until(running.shows("2030.00", NAMES[0]), "it is published again when somebody comes back")
    running.assert_monotonic()


async def test_an_account_that_the_broker_removes_is_forgotten(running: World, until: Until) -> None:
    """Its publication goes though somebody watches; when it comes back its sequence goes on."""
    await running.remove(NAMES[0])

    async def is_forgotten() -> bool:
        return await running.state.valuations.read(NAMES[0]) is None

    await until(is_forgotten, "the stored publication is gone")
    await running.write(NAMES[0], quantity=20)
    await until(running.shows("3000.00", NAMES[0]), "the account that came back is published")
    running.assert_monotonic()


async def test_a_publication_without_a_keeper_is_forgotten(
    world: World, valkey_url: str, calculator: Start, until: Until
) -> None:
    """What a calculator of an earlier life left behind does not stay for ever."""
    shard = keys.shard_of(NAMES[5], SHARDS)
    lease = await world.state.leases.acquire(keys.shard_lease(shard))
    assert lease is not None
    await world.state.valuations.publish(
        lease, shard, [Publication(NAMES[5], 1, b'{"epoch":%d,"sequence":1}' % lease.fencing_token)]
    )
    await world.state.leases.release(lease)
    calculator(valkey_url)

    async def is_forgotten() -> bool:
        return await world.state.valuations.read(NAMES[5]) is None

    await until(is_forgotten, "the abandoned publication is gone", START_S_MAX)


async def test_two_share_the_shards_and_one_takes_over_from_a_killed_one(
    running: World, valkey_url: str, calculator: Start, until: Until
) -> None:
    """Both publish; when one is killed the other publishes all, and nothing steps back."""
    await running.write(*NAMES)
    await running.watch(*NAMES)
    await until(running.shows("2000.00", *NAMES), "one publishes all")
    second = calculator(valkey_url)

    async def is_shared() -> bool:
        now = await running.holders()
        return len(now) == SHARDS and len(set(now)) == 2 and now.count(now[0]) == SHARDS // 2

    await until(is_shared, "each holds half of the shards", START_S_MAX)
    await running.mark(104.0)
    await until(running.shows("2040.00", *NAMES), "both publish")
    before = {name: running.seen[name][-1].epoch for name in NAMES}
    second.kill()

    async def is_one() -> bool:
        now = await running.holders()
        return len(now) == SHARDS and len(set(now)) == 1

    await until(is_one, "the survivor holds every shard", 20)
    await running.mark(105.0)
    await until(running.shows("2050.00", *NAMES), "the survivor publishes all")
    after = {name: running.seen[name][-1].epoch for name in NAMES}
    assert all(after[name] >= before[name] for name in NAMES)
    assert any(after[name] > before[name] for name in NAMES)
    running.assert_monotonic()


async def test_what_is_watched_is_shared_evenly_wherever_it_is(
    world: World, valkey_url: str, calculator: Start, until: Until
) -> None:
    """Two have half of the shards each. Then everybody watches accounts of one's shards: one moves over."""
    await world.mark(100.0)
    calculator(valkey_url)
    calculator(valkey_url)

    owners: dict[int, str] = {}

    async def is_shared() -> bool:
        found = await owner_of(world)
        owners.clear()
        owners.update(found)
        counts = Counter(owners.values())
        return len(owners) == SHARDS and set(counts.values()) == {SHARDS // 2}

    await until(is_shared, "each holds half of the shards", START_S_MAX)
    crowded = [shard for shard, owner in owners.items() if owner == owners[0]]
    watched = [
        name
        for name in (f"crowd-{number}" for number in range(60 * SHARDS))
        if keys.shard_of(name, SHARDS) in crowded
    ]
    await world.write(*watched)
    await world.watch(*watched)
    await until(world.shows("2000.00", *watched), "all are published")

    async def is_even() -> bool:
        now = await owner_of(world)
        return len(now) == SHARDS and len({now[shard] for shard in crowded}) == 2

    await until(is_even, "each holds one of the two shards that are watched", 20)
    await world.mark(104.0)
    await until(world.shows("2040.00", *watched), "both publish")
    world.assert_monotonic()


async def test_a_shard_that_its_calculator_does_not_acquire_has_an_owner_all_the_same(
    world: World, valkey_url: str, calculator: Start, until: Until
) -> None:
    """Somebody is a member and acquires nothing: it cannot, or it counts shards in another way."""

    async def be_a_member() -> NoReturn:
        while True:
            await world.state.leases.enlist(GROUP)
            await asyncio.sleep(LEASE_MS / 4000)

    idle = asyncio.create_task(be_a_member())
    await until(lambda: world.state.connection.commands.exists(keys.members(GROUP)), "it is a member")
    calculator(valkey_url)

    async def owns_all() -> bool:
        return len(await owner_of(world)) == SHARDS

    await until(owns_all, "the other one owns every shard", START_S_MAX)
    await cancel_until_ended([idle])


async def owner_of(world: World) -> dict[int, str]:
    """Shard -> who holds it, of those that somebody holds."""
    names = {keys.shard_lease(shard): shard for shard in range(SHARDS)}
    found = await world.state.leases.holders(list(names))
    return {names[name]: holder for name, holder in found.items() if holder is not None}


async def test_a_killed_valkey_is_survived(mortal_valkey: Valkeys, calculator: Start, until: Until) -> None:
    """It comes back empty; once the others have written again, all is published under a greater epoch."""
    state = open_state(mortal_valkey.url, holder="test", shards=SHARDS, lease_ms=LEASE_MS)
    world = World(state)
    await world.mark(100.0)
    await world.write(*NAMES)
    await world.watch(*NAMES)
    process = calculator(mortal_valkey.url)
    await until(world.shows("2000.00", *NAMES), "all are published", START_S_MAX)
    before = {name: world.seen[name][-1].epoch for name in NAMES}
    await mortal_valkey.kill()
    with pytest.raises(StateUnavailable):
        await state.connection.ping()
    await mortal_valkey.start()
    await until(lambda: world.subscribed == 2, "the test follows again")
    await world.mark(106.0)
    await world.write(*NAMES)
    await world.watch(*NAMES)
    await until(world.shows("2060.00", *NAMES), "all are published again", 20)
    await until(
        lambda: all(world.seen[name][-1].epoch > before[name] for name in NAMES), "a greater epoch", 20
    )
    assert process.poll() is None, "the calculator has lived through it"
    world.assert_monotonic()
    await world.close()
    await state.close()


async def test_a_book_of_many_pages_is_read_and_read_again_after_a_lost_subscription(
    world: World, valkey_url: str, calculator: Start, until: Until
) -> None:
    """It says when it is complete. Records that went while nobody heard it are forgotten, others stay."""
    many = [f"many-{index}" for index in range(4 * PAGE_FIELDS)]
    await world.mark(100.0)
    await world.write(*many)
    await world.watch(many[0])
    calculator(valkey_url)
    await until(world.shows("2000.00", many[0]), "the watched account is published", START_S_MAX)

    async def counted() -> tuple[float | None, float | None]:
        return await world.metric("accounts_read_ratio"), await world.metric("valued_accounts")

    async def holds(count: int) -> bool:
        return await counted() == (1.0, count)

    await until(lambda: holds(len(many)), "every record is read", 20)
    commands = world.state.connection.commands
    for account_id in many[: len(many) // 2]:
        await commands.hdel(keys.accounts(keys.shard_of(account_id, SHARDS)), account_id)
    await commands.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: holds(len(many) // 2), "what is gone is forgotten", 20)
    shard = keys.shard_of(many[0], SHARDS)
    await until(lambda: is_forgotten(world, many[0]), "its publication too")
    assert await commands.hlen(keys.valuations(shard)) == 0


async def is_forgotten(world: World, account_id: str) -> bool:
    """Is no publication of the account stored?"""
    return await world.state.valuations.read(account_id) is None


async def test_an_asked_end_gives_the_shards_back(
    world: World, valkey_url: str, calculator: Start, until: Until
) -> None:
    """After SIGTERM the exit code is 0, and nobody has to wait for leases to run out."""
    process = calculator(valkey_url)

    async def holds_all() -> bool:
        return len(await world.holders()) == SHARDS

    await until(holds_all, "the calculator holds every shard", START_S_MAX)
    process.terminate()
    assert await asyncio.to_thread(process.wait, 10) == 0
    assert await world.holders() == []
    assert await world.state.connection.commands.exists(keys.members("portfolio_calculators")) == 0

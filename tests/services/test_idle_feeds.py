"""While nobody watches, marks are written rarely; who begins to watch after that sees none that is old.

First the calculator alone, then everything against a simulated Alpaca and its ledger.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

import msgspec
import pytest

from portfolio_harness.oracle import Oracle
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.market_data_consumer import watchers
from portfolio_realtime.market_data_consumer.idle_feed import IDLE_S
from portfolio_realtime.model import Mark
from portfolio_realtime.portfolio_calculator import calculator, interest_follower
from portfolio_realtime.portfolio_calculator.idle_marks import WAKE_S_MAX, IdleMarks
from portfolio_realtime.state import State, interest
from portfolio_realtime.state.feeds import SourceStatus
from portfolio_realtime.state.leases import Lease
from tests.conftest import LEASE_MS, SHARDS, StartSimulator, Until
from tests.support import collectors, consumers
from tests.support.calculators import CLOCK, NAMES, World, calculating
from tests.support.websocket_servers import Served, bearer, serving

ROUNDS: Final = 3
FIRST_VALUE_S_MAX: Final = 20.0
NEVER_S: Final = 1e8
PROMPT: Final = {"lease_renew_ms": LEASE_MS // 3, "min_update_interval": 0.05}


class IdleConsumer:
    """A consumer whose feed is idle: it says so, and writes nothing before it is told to."""

    def __init__(self, state: State, lease: Lease) -> None:
        self.status = SourceStatus.IDLE
        self._state = state
        self._lease = lease

    async def keep(self) -> None:
        """Renew the key without end."""
        while True:
            await self._state.feeds.keep("iex", self.status)
            await asyncio.sleep(0.2)

    async def wake(self, price: float) -> None:
        """Write what was put off."""
        now_ns = CLOCK.now_ns()
        await self._state.marks.write(self._lease, [Mark("A", price, now_ns, now_ns, "iex")], None, ["iex"])


@pytest.fixture
async def idle(valkey_url: str, state: State, until: Until) -> AsyncGenerator[tuple[World, IdleConsumer]]:
    """Records, a price of 100.00, an idle feed, and a calculator that knows all of it; nobody watches."""
    world = World(state)
    await world.mark(100.0)
    lease = await state.leases.acquire("feed")  # as the newest owner
    assert lease is not None
    await world.write(*NAMES)
    consumer = IdleConsumer(state, lease)
    keeping = asyncio.create_task(consumer.keep())
    async with calculating(valkey_url, **PROMPT):

        async def are_owned() -> bool:
            return len(await world.holders()) == SHARDS

        await until(are_owned, "the calculator owns every shard")
        await asyncio.sleep(2 * calculator.FEEDS_S)
        yield world, consumer
    await cancel_until_ended([keeping])
    await world.close()


async def test_the_first_value_waits_for_the_marks_that_were_put_off(
    idle: tuple[World, IdleConsumer], until: Until
) -> None:
    """And shows them; nothing is stale."""
    world, consumer = idle
    await world.watch(NAMES[0])
    await asyncio.sleep(WAKE_S_MAX / 4)
    assert world.last(NAMES[0]) is None
    await consumer.wake(150.0)
    await until(lambda: world.last(NAMES[0]), "a first value", WAKE_S_MAX)
    first = world.seen[NAMES[0]][0].message
    assert (first["equity"], first["stale"]) == ("2500.00", [])


async def test_marks_that_do_not_come_count_as_stale_until_they_do(
    idle: tuple[World, IdleConsumer], until: Until
) -> None:
    """Nobody waits longer than WAKE_S_MAX, and an old price is not shown as a live one."""
    world, consumer = idle
    await world.watch(NAMES[0])
    await until(lambda: world.last(NAMES[0]), "a first value", 20 * WAKE_S_MAX)
    first = world.seen[NAMES[0]][0].message
    assert (first["equity"], first["stale"]) == ("2000.00", ["A"])
    began_s = time.monotonic()
    await world.watch(*NAMES[1:3])
    await until(lambda: all(map(world.last, NAMES[1:3])), "others wait no more", 20 * WAKE_S_MAX)
    print(f"others after {time.monotonic() - began_s:.3f} s")

    await consumer.wake(150.0)
    await until(world.shows("2500.00", *NAMES[:3]), "the new price")
    await until(
        lambda: all(not seen.message["stale"] for name in NAMES[:3] if (seen := world.last(name))),
        "nothing is stale",
    )
    await asyncio.sleep(2 * calculator.FEEDS_S)  # the key still says idle, as it may for a moment
    assert not any(seen.message["stale"] for name in NAMES[:3] if (seen := world.last(name)))


def test_what_a_key_says_too_late_is_not_believed() -> None:
    """It was read before the batch, or between the batch and the next renewal."""
    clock, changes = StoppedClock(), list[frozenset[str]]()
    marks = IdleMarks(clock, lambda: changes.append(marks.overdue))

    async def play() -> None:
        marks.read(["iex", "sip"])
        await marks.wait()
        assert marks.overdue == {"iex", "sip"}
        marks.hear(["iex"])
        assert marks.overdue == {"sip"}
        marks.read(["iex", "sip"])
        marks.hear(["sip"])
        marks.read(["iex"])
        async with asyncio.timeout(WAKE_S_MAX / 2):
            await marks.wait()
        clock.now_s += 10.0
        marks.read(["iex"])
        await marks.wait()
        assert marks.overdue == {"iex"}
        marks.read([])
        assert not marks.overdue

    asyncio.run(play())
    assert changes == [frozenset(each) for each in (["iex", "sip"], ["sip"], [], ["iex"], [])]


class StoppedClock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def now_ns(self) -> int:
        """Wall-clock time."""
        return int(self.now_s * NS_PER_S)

    def monotonic_s(self) -> float:
        """The same, in seconds."""
        return self.now_s


async def first_value(server: Served, account_id: str) -> tuple[dict[str, Any], float]:
    """What the first message of a new connection says, and after how many seconds."""
    began_s = time.monotonic()
    async with (
        asyncio.timeout(FIRST_VALUE_S_MAX),
        server.open(f"/ws/portfolio/{account_id}", bearer(accounts=["*"])) as client,
    ):
        while (message := msgspec.json.decode(await client.recv()))["type"] != "portfolio":
            pass
        return message, time.monotonic() - began_s


@pytest.fixture
def short_interest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interest ends soon, and a consumer soon knows it."""
    monkeypatch.setattr(interest, "INTEREST_MS", 1000)
    monkeypatch.setattr(interest_follower, "SWEEP_S", 0.3)
    monkeypatch.setattr(watchers, "WATCHED_CHECK_S", 0.3)
    monkeypatch.setattr(watchers, "NOBODY_S", 0.9)


def are_put_off(state: State, oracle: Oracle) -> Callable[[], Any]:
    """A predicate: some symbol's mark in Valkey is older than a trade of more than a second ago."""

    async def check() -> bool:
        stored = {mark.symbol: mark for mark in await state.marks.read_all()}
        before_ns = time.time_ns() - NS_PER_S
        return any(
            symbol in stored and any(stored[symbol].as_of_ns < int(at_ns) < before_ns for at_ns, _ in traded)
            for symbol, traded in (await oracle.marks(8)).items()
        )

    return check


@pytest.mark.usefixtures("short_interest")
async def test_after_a_long_rest_the_first_value_is_the_ledgers(
    simulator: StartSimulator, valkey_url: str, state: State, until: Until
) -> None:
    """The market stops while marks wait, so that no later trade can bring them. Then somebody looks."""
    market = await simulator(accounts=6, symbols=30, trades_per_second=300, activities_per_second=0)
    oracle = Oracle(market.url)
    collecting = collectors.context_of(market, state)
    consuming = consumers.context_of(market, state, shards=SHARDS)
    async with (
        collectors.running(collecting),
        consumers.running(consuming),
        calculating(valkey_url, **PROMPT),
        serving(valkey_url, has_signs=False) as server,
    ):
        await until(collectors.all_known(market, state), "all accounts are known", 30)
        waited_s: list[float] = []
        for account_id in (await oracle.account_ids())[:ROUNDS]:
            await until(are_put_off(state, oracle), "marks are put off", 30)
            await oracle.pause()
            assert await are_put_off(state, oracle)(), "else it would prove nothing"
            value, first_s = await first_value(server, account_id)
            waited_s.append(first_s)
            truth = (await oracle.truth())[account_id]
            assert (value["equity"], value["stale"]) == (truth.figures["equity"], [])
            await oracle.resume()
        print(f"first values after {[round(one, 3) for one in waited_s]} s; idle writes every {IDLE_S} s")
    await oracle.close()

"""A feed that is idle, because nobody watches: what it may put off, and how it wakes, in virtual time."""

import asyncio
import itertools
import random
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from portfolio_harness.simulation.virtual_loop import VirtualLoop
from portfolio_realtime import config
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.market_data_consumer import consumer
from portfolio_realtime.market_data_consumer.consumer import FeedConsumer
from portfolio_realtime.market_data_consumer.feeds import schedules
from portfolio_realtime.market_data_consumer.idle_feed import IDLE_S, TOLD_S, IdleFeed
from portfolio_realtime.market_data_consumer.stream import MarketStream
from portfolio_realtime.market_data_consumer.watchers import NOBODY_S, WATCHED_CHECK_S, AnyWatchers
from portfolio_realtime.model import Mark
from portfolio_realtime.service import Context
from portfolio_realtime.state.connection import SUBSCRIBED
from portfolio_realtime.state.feeds import SourceStatus
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.telemetry import MarketMetrics
from tests.market_data_consumer.packed_trades import timestamp, trade
from tests.support.clocks import LoopClock

FLUSH_S: Final = 0.1
WRITE_S: Final = 0.002  # of one write in Valkey
UNTIL_IDLE_S: Final = NOBODY_S + 2 * WATCHED_CHECK_S + TOLD_S + 1.0
NEVER_S: Final = 1e9
LEASE: Final = Lease("market_data:stocks", "us", 1)


class Write(NamedTuple):
    """One batch of marks."""

    at_s: float
    price: float | None  # of A, if it is in the batch
    woken: tuple[str, ...]


class World:
    """Valkey, the feed and those who watch, as a consumer of one symbol sees them."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.writes: list[Write] = []
        self.statuses: list[tuple[float, SourceStatus]] = []
        self.trades: list[tuple[float, float]] = []  # when, price
        self.is_watched = False
        self._loop = loop
        self._announced: asyncio.Queue[object] = asyncio.Queue()
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()
        self.state = SimpleNamespace(
            marks=SimpleNamespace(write=self._write),
            feeds=SimpleNamespace(keep=self._keep),
            interest=SimpleNamespace(announcements=self._announcements, is_any_watched=self._is_any_watched),
            connection=SimpleNamespace(has_lost_channels=False),
        )

    async def _write(self, _: Lease, marks: list[Mark], __: object, woken: list[str]) -> None:
        await asyncio.sleep(WRITE_S)
        price = next((mark.price for mark in marks), None)
        self.writes.append(Write(self._loop.time(), price, tuple(woken)))

    async def _keep(self, source: str, status: SourceStatus) -> None:
        await asyncio.sleep(WRITE_S)
        if source == "sip":
            self.statuses.append((self._loop.time(), status))

    async def _announcements(self, _: list[int]) -> Any:
        yield SUBSCRIBED
        while True:
            yield await self._announced.get()

    async def _is_any_watched(self) -> bool:
        await asyncio.sleep(WRITE_S)
        return self.is_watched

    def watch(self) -> None:
        """Somebody begins to watch."""
        self.is_watched = True
        self._announced.put_nowait("an account")

    def leave(self) -> None:
        """Nobody watches any more."""
        self.is_watched = False

    def trade(self) -> None:
        """A trade arrives, in a frame of its own."""
        number, now_s = len(self.trades) + 1, self._loop.time()
        self.trades.append((now_s, 100.0 + number / 100))
        at = timestamp(int(now_s * NS_PER_S))
        self._frames.put_nowait(msgspec.msgpack.encode([trade(i=number, p=self.trades[-1][1], t=at)]))

    async def recv(self) -> bytes:
        """The next frame, as of a connection."""
        return await self._frames.get()

    @property
    def status(self) -> SourceStatus:
        """What the feed's key says."""
        return self.statuses[-1][1]

    def written_after(self, at_s: float) -> list[Write]:
        """The batches since then."""
        return [one for one in self.writes if one.at_s > at_s]


def in_virtual_time(play: Any) -> World:
    """Play with a consumer of A that is connected and under lease; what happened."""
    loop = VirtualLoop()
    world = World(loop)

    async def run() -> None:
        settings = config.load(mark_flush_interval=FLUSH_S, alpaca_data_feed="sip")
        context = Context(settings, cast("Any", world.state), LoopClock(loop), CollectorRegistry(), "test")
        watching = AnyWatchers(context)
        stocks = schedules(settings)[0]
        one = FeedConsumer(context, MarketMetrics(context.registry), stocks, cast("Any", None), watching)
        subscription = one._subscription
        subscription.want(["A"])
        subscription.begin(stocks.day)
        subscription._caught_up_ns = 0  # its snapshots are taken
        one._idle.is_behind = True
        one._wake()
        stream = MarketStream(cast("Any", world), "stocks", "ALPACA_DATA_FEED")
        tasks = [
            asyncio.ensure_future(part)
            for part in (watching.run(), one._flush(LEASE), one._keep_live(), subscription.read(stream))
        ]
        try:
            await play(world)
            for task in tasks:
                assert not task.done(), task.exception()
        finally:
            await cancel_until_ended(tasks)

    try:
        loop.run_until_complete(run())
    finally:
        loop.close()
    return world


async def trade_for(world: World, seconds: float, apart_s: float = 0.03) -> None:
    """Trades come for so long."""
    until_s = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < until_s:
        world.trade()
        await asyncio.sleep(apart_s)


def test_while_somebody_watches_nothing_is_put_off() -> None:
    """However long."""

    async def play(world: World) -> None:
        world.watch()
        await trade_for(world, 2 * UNTIL_IDLE_S)

    world = in_virtual_time(play)
    pauses = [after.at_s - before.at_s for before, after in itertools.pairwise(world.writes)]
    assert max(pauses) < 2 * FLUSH_S
    assert {status for _, status in world.statuses[2:]} <= {SourceStatus.LIVE, SourceStatus.CORE}


def test_nobody_is_told_before_anything_is_put_off() -> None:
    """Calculators have read that the feed is idle when the first mark waits, and marks are rare then."""

    async def play(world: World) -> None:
        await trade_for(world, UNTIL_IDLE_S + 10 * IDLE_S)

    world = in_virtual_time(play)
    told_s = min(
        (at_s for at_s, status in world.statuses[2:] if status is SourceStatus.IDLE), default=NEVER_S
    )
    late_s = [
        before.at_s
        for before, after in itertools.pairwise(world.writes)
        if after.at_s - before.at_s > 2 * FLUSH_S
    ]
    assert min(late_s, default=NEVER_S) - told_s >= TOLD_S - FLUSH_S
    assert 9 <= len(world.written_after(told_s + TOLD_S + FLUSH_S)) <= 11
    assert not any(one.woken for one in world.written_after(told_s))


def test_the_first_watcher_wakes_the_feed_at_once() -> None:
    """All that was put off is in the next batch, which names the sources; then the key is live again."""

    async def play(world: World) -> None:
        await trade_for(world, UNTIL_IDLE_S + 2.5 * IDLE_S)
        assert world.status is SourceStatus.IDLE
        world.watch()
        await asyncio.sleep(2.5 * WRITE_S)
        assert world.writes[-1].price == world.trades[-1][1]
        assert "sip" in world.writes[-1].woken
        await asyncio.sleep(3 * WRITE_S)
        assert world.status in (SourceStatus.LIVE, SourceStatus.CORE)

    in_virtual_time(play)


def test_a_feed_without_trades_wakes_too() -> None:
    """A calculator waits for its batch, though there is nothing in it."""

    async def play(world: World) -> None:
        await trade_for(world, UNTIL_IDLE_S + 2 * IDLE_S)
        await asyncio.sleep(3 * IDLE_S)
        count = len(world.writes)
        world.watch()
        await asyncio.sleep(2.5 * WRITE_S)
        assert [(one.price, bool(one.woken)) for one in world.writes[count:]] == [(None, True)]

    in_virtual_time(play)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_the_last_of_a_burst_is_never_lost(seed: int) -> None:
    """Bursts and pauses, people who come and go at any moment: what is watched is as current as ever.

    While idle, the last is written within IDLE_S. After a wake, the first batch names the sources and has all
    that came before. No batch is older than the one before it.
    """
    rng = random.Random(seed)
    watched_s: list[tuple[float, float]] = []

    async def play(world: World) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(rng.randrange(2, 5)):
            began_s = loop.time()
            if rng.random() < 0.7:
                world.watch()
            for _ in range(rng.randrange(1, 4)):
                await trade_for(world, rng.uniform(0.0, 3.0), rng.choice([0.004, 0.03, 0.4]))
                await asyncio.sleep(rng.choice([0.0, 0.05, 1.0, UNTIL_IDLE_S]) * rng.random())
            if world.is_watched:
                watched_s.append((began_s, loop.time()))
            world.leave()
            await trade_for(world, rng.choice([0.0, UNTIL_IDLE_S + 2 * IDLE_S]) * rng.random(), 0.1)
        await asyncio.sleep(IDLE_S + 2 * FLUSH_S)

    world = in_virtual_time(play)
    prices = [one.price for one in world.writes if one.price is not None]
    assert prices == sorted(prices)
    if world.trades:
        assert prices[-1] == world.trades[-1][1]
    for traded_s, price in world.trades:
        is_watched = any(began_s <= traded_s <= ended_s for began_s, ended_s in watched_s)
        within_s = FLUSH_S + 3 * WRITE_S if is_watched else IDLE_S + FLUSH_S
        seen_s = next(one.at_s for one in world.writes if one.price is not None and one.price >= price)
        assert seen_s - traded_s <= within_s + 0.001
    for began_s, ended_s in watched_s:
        if ended_s > began_s + 3 * WRITE_S:
            said = [status for at_s, status in world.statuses if began_s + 1.0 < at_s <= ended_s]
            assert SourceStatus.IDLE not in said


def never(*_: object) -> None:
    """Nobody is woken."""


def unnamed(self: IdleFeed, _: float) -> bool:
    """As if calculators knew at once."""
    return self._told_since_s is not None


@pytest.mark.parametrize(
    ("place", "name", "planted", "test"),
    [
        (AnyWatchers, "_begin", never, test_the_first_watcher_wakes_the_feed_at_once),
        (IdleFeed, "may_wait", unnamed, test_nobody_is_told_before_anything_is_put_off),
        (consumer, "IDLE_S", 8 * IDLE_S, test_nobody_is_told_before_anything_is_put_off),
        (FeedConsumer, "_status", SourceStatus.LIVE, test_nobody_is_told_before_anything_is_put_off),
    ],
)
def test_a_planted_fault_is_seen(
    place: Any, name: str, planted: Any, test: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each promise is kept by something."""
    monkeypatch.setattr(place, name, planted)
    with pytest.raises(AssertionError):
        test()

"""What silence proves: the evidence of snapshots against a stream, on a clock that the test moves."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from portfolio_realtime import config
from portfolio_realtime.backoff import Backoff
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.clock import parse_rfc3339, rfc3339
from portfolio_realtime.errors import FeedError, FeedRefused, FeedUnavailable
from portfolio_realtime.market_data_consumer import subscription as subscription_module
from portfolio_realtime.market_data_consumer.clock_behind import AHEAD_S_MIN, AHEAD_TRADES_MIN
from portfolio_realtime.market_data_consumer.feeds import schedules
from portfolio_realtime.market_data_consumer.message_counts import UNKNOWN_TYPES_MAX
from portfolio_realtime.market_data_consumer.messages import Snapshot, SnapshotTrade, StreamTrade
from portfolio_realtime.market_data_consumer.missed_cancels import SNAPSHOT_LAG_S_MAX
from portfolio_realtime.market_data_consumer.stream import Arrived, StreamLost
from portfolio_realtime.market_data_consumer.subscription import (
    FEED_LAG_S_MAX,
    SILENCE_S_MAX,
    SILENCE_S_MIN,
    MarketSubscription,
)
from portfolio_realtime.market_data_consumer.trading_sessions import Session
from portfolio_realtime.telemetry import MarketMetrics
from tests.market_data_consumer.moments import raw_moment

SYMBOLS = ("A", "B")
ENDS_S_MAX = 10.0  # of what should take a moment


class HandClock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def now_ns(self) -> int:
        """Wall-clock time."""
        return int(self.now_s * 10**9)

    def monotonic_s(self) -> float:
        """The same, in seconds."""
        return self.now_s


class Feed:
    """A scripted stream and its REST counterpart: what has been traded, and what of it is told."""

    def __init__(self, market: MarketSubscription, clock: HandClock, registry: CollectorRegistry) -> None:
        self.feed = market.feed
        self.subscribed: list[list[str]] = []
        self.unsubscribed: list[list[str]] = []
        self.snapshot_requests = 0
        self.has_ids = True  # options' trades have none
        self._market = market
        self._clock = clock
        self._registry = registry
        self._arrived: asyncio.Queue[Arrived] = asyncio.Queue()
        self.latest: dict[str, SnapshotTrade] = {}
        self._number = 0
        self._ahead_s = 0.0  # of the market before our clock

    def move_to(self, now_ns: int) -> None:
        """It is this time now, in nanoseconds since 1970."""
        self._clock.now_s = now_ns / 10**9

    def hours_behind(self, hours: int) -> None:
        """So far is our clock behind from now on."""
        self._ahead_s = 3600.0 * hours

    def trade(self, symbol: str, *, is_streamed: bool, condition: str = "@") -> None:
        """Something is traded now."""
        self._number += 1
        at, price = rfc3339(self._clock.now_ns() + int(self._ahead_s * 10**9)), 100.0 + self._number
        trade_id = self._number if self.has_ids else None
        self.latest[symbol] = SnapshotTrade(price, at, (condition,), "C", "D", trade_id)
        if is_streamed:
            self.bring(symbol)

    def bring(self, symbol: str) -> None:
        """The stream brings the latest trade."""
        latest = self.latest[symbol]
        at = latest.at
        assert isinstance(at, str)
        streamed = StreamTrade(
            symbol, latest.price, raw_moment(at), latest.conditions, "C", "D", latest.trade_id
        )
        self._arrived.put_nowait(Arrived([streamed], [], []))

    def bring_unread(self, *types: str) -> None:
        """The stream brings messages of types that nobody reads."""
        self._arrived.put_nowait(Arrived([], [], list(types)))

    def renewed_count(self) -> float | None:
        """How many symbols were found mute alone."""
        labels = {"feed": "stocks"}
        return self._registry.get_sample_value("portfolio_realtime_renewed_subscriptions_total", labels)

    def counted(self, kind: str) -> float | None:
        """How many messages of this type were counted."""
        labels = {"feed": "stocks", "type": kind}
        return self._registry.get_sample_value("portfolio_realtime_feed_messages_total", labels)

    async def read(
        self, symbols: list[str] | None = None, *, is_idle: bool = False
    ) -> "Arrived | dict[str, Snapshot]":
        """Of the stream the next frame, of REST the snapshots of these symbols."""
        if symbols is None:
            return await self._arrived.get()
        self.snapshot_requests += 1
        return {symbol: Snapshot(self.latest[symbol]) for symbol in symbols if symbol in self.latest}

    async def subscribe(self, symbols: set[str]) -> list[str]:
        """Accept everything."""
        self.subscribed.append(sorted(symbols))
        return []

    async def unsubscribe(self, symbols: set[str]) -> None:
        """Say good-bye to these."""
        self.unsubscribed.append(sorted(symbols))

    async def subscribe_statuses(self) -> bool:
        """Halts are told."""
        return True

    async def settle(self, seconds: float = 0.0) -> None:
        """Let time pass, and everybody do what is due."""
        self._clock.now_s += seconds
        for _ in range(20):
            await asyncio.sleep(0.002)

    async def look(self) -> None:
        """Take all snapshots now, whatever the silence."""
        self._market._ask_snapshots(SYMBOLS)  # pyright: ignore[reportPrivateUsage]  # as the refresh does
        await self.settle()


@contextlib.asynccontextmanager
async def connected(market: MarketSubscription, feed: Feed) -> AsyncGenerator[asyncio.Future[Any]]:
    """The four loops of one connection; the future fails with the first of them."""
    loops = asyncio.gather(
        market.read(feed),  # type: ignore[arg-type]  # as much of a stream as it takes
        market.keep_subscribed(feed),  # type: ignore[arg-type]
        market.take_snapshots([feed]),  # type: ignore[list-item]
        market.refresh(),
    )
    try:
        yield loops
    finally:
        await cancel_until_ended([loops])


@pytest.fixture
async def feed(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[tuple[MarketSubscription, Feed]]:
    """A and B are wanted; the check for silence runs all the time."""
    monkeypatch.setattr(subscription_module, "REFRESH_CHECK_S", 0.001)
    clock, registry = HandClock(), CollectorRegistry()
    stocks = schedules(config.load())[0]
    market = MarketSubscription(stocks, clock, MarketMetrics(registry))
    market.want(SYMBOLS)
    market.begin(stocks.day)
    yield market, Feed(market, clock, registry)


async def test_a_trade_that_the_stream_does_not_bring_is_an_outage(
    feed: tuple[MarketSubscription, Feed],
) -> None:
    """The snapshot has it, the stream stays silent: mute."""
    market, world = feed
    world.trade("A", is_streamed=False)
    async with connected(market, world) as loops:
        await world.settle()
        assert not loops.done(), "what was traded before the subscription proves nothing"
        world.trade("A", is_streamed=False)
        await world.look()
        await world.settle(FEED_LAG_S_MAX - 0.1)
        assert not loops.done(), "it may still be on its way"
        await world.settle(0.2)
        with pytest.raises(StreamLost, match="mute") as lost:
            await asyncio.wait_for(loops, ENDS_S_MAX)
        assert lost.value.reason == "mute"


@pytest.mark.parametrize(
    ("at", "session"),
    [
        ("2026-11-30T15:00:00Z", Session.CORE),
        ("2026-11-30T21:10:00Z", Session.EXTENDED),
        ("2026-12-01T02:00:00Z", Session.OVERNIGHT),
        ("2026-11-29T15:00:00Z", Session.CLOSED),
    ],
)
async def test_in_every_session_a_feed_that_falls_silent_is_checked_as_soon(
    feed: tuple[MarketSubscription, Feed], at: str, session: Session
) -> None:
    """Snapshots are taken 5 s after data, then at doubling intervals that depend on the session."""
    market, world = feed
    world.move_to(parse_rfc3339(at))
    assert schedules(config.load())[0].session(parse_rfc3339(at)) is session
    async with connected(market, world):
        for _ in range(2):  # data resets the silence
            world.trade("A", is_streamed=True)
            await world.settle()
            requests = world.snapshot_requests
            await world.settle(SILENCE_S_MIN - 0.1)
            assert world.snapshot_requests == requests
            doubled = (min(SILENCE_S_MIN * 2**n, SILENCE_S_MAX[session]) for n in range(1, 5))
            for silence_s in (0.1, *doubled):
                await world.settle(silence_s + 0.1)
                assert world.snapshot_requests == requests + 1, silence_s
                requests += 1


async def test_a_trade_that_comes_late_is_no_outage(feed: tuple[MarketSubscription, Feed]) -> None:
    """REST may be ahead of the stream."""
    market, world = feed
    world.trade("A", is_streamed=False)
    async with connected(market, world) as loops:
        await world.settle()
        world.trade("A", is_streamed=False)
        await world.look()
        world.bring("A")
        await world.settle()
        await world.settle(2 * FEED_LAG_S_MAX)
        assert not loops.done()
        assert not world.renewed_count()


async def test_the_first_trade_of_a_symbol_is_no_evidence(feed: tuple[MarketSubscription, Feed]) -> None:
    """Nobody knows whether it was there before."""
    market, world = feed
    async with connected(market, world) as loops:
        await world.settle()
        world.trade("A", is_streamed=False)
        await world.look()
        await world.settle(2 * FEED_LAG_S_MAX)
        assert not loops.done()


async def test_a_trade_without_an_id_that_snapshots_repeat_is_no_evidence(
    feed: tuple[MarketSubscription, Feed],
) -> None:
    """An option that nobody trades has the same last trade in every snapshot."""
    market, world = feed
    world.has_ids = False
    world.trade("A", is_streamed=False)
    async with connected(market, world) as loops:
        await world.settle()
        for _ in range(3):
            await world.look()
        await world.settle(2 * FEED_LAG_S_MAX)
        assert not loops.done()
        world.trade("A", is_streamed=False)
        await world.look()
        await world.settle(2 * FEED_LAG_S_MAX)
        with pytest.raises(StreamLost, match="mute"):
            await asyncio.wait_for(loops, ENDS_S_MAX)


async def test_a_symbol_that_is_not_subscribed_is_no_evidence(
    feed: tuple[MarketSubscription, Feed],
) -> None:
    """What the feed does not accept gets its marks from snapshots, for ever."""
    market, world = feed

    async def subscribe(symbols: set[str]) -> list[str]:
        return ["A"]

    world.subscribe = subscribe  # type: ignore[method-assign]
    world.trade("A", is_streamed=False)
    async with connected(market, world) as loops:
        await world.settle()
        for _ in range(2):
            world.trade("A", is_streamed=False)
            await world.look()
            await world.settle(2 * FEED_LAG_S_MAX)
        assert not loops.done()
        assert not world.renewed_count()


async def test_a_symbol_that_is_mute_alone_is_subscribed_anew(
    feed: tuple[MarketSubscription, Feed],
) -> None:
    """The connection is kept, for the others are alive; then the symbol's first snapshot proves nothing."""
    market, world = feed
    for symbol in SYMBOLS:
        world.trade(symbol, is_streamed=False)
    async with connected(market, world) as loops:
        await world.settle()
        assert world.subscribed == [["A", "B"]]
        world.trade("A", is_streamed=False)
        await world.look()
        await world.settle(1.0)
        world.trade("B", is_streamed=True)
        await world.settle()
        world.trade("A", is_streamed=False)
        await world.settle(FEED_LAG_S_MAX)
        assert not loops.done()
        assert (world.unsubscribed, world.subscribed[1:]) == ([["A"]], [["A"]])
        assert world.renewed_count() == 1
        await world.settle(2 * FEED_LAG_S_MAX)
        assert not loops.done()
        assert world.renewed_count() == 1


async def test_what_was_traded_between_two_connections_proves_nothing(
    feed: tuple[MarketSubscription, Feed],
) -> None:
    """The first snapshot after the reconnection holds it, and no stream ever will."""
    market, world = feed
    world.trade("A", is_streamed=False)
    async with connected(market, world):
        await world.settle()
    market.end()
    world.trade("A", is_streamed=False)
    market.begin(world.feed)
    async with connected(market, world) as loops:
        await world.settle()
        await world.settle(2 * FEED_LAG_S_MAX)
        assert not loops.done()
        assert market.book.take_changed()[0][0].price == 102.0


@pytest.mark.parametrize("shown", [2, 1, 0], ids=["lag of 2 s", "cancel", "two cancels"])
async def test_a_trade_that_was_cancelled_between_two_connections_is_taken_back(
    feed: tuple[MarketSubscription, Feed], shown: int
) -> None:
    """The snapshot that decides is requested before silence would ask for one. The stream is not mute."""
    market, world = feed
    trades: list[SnapshotTrade] = []
    async with connected(market, world):
        await world.settle()
        for number in range(3):
            world.trade("A", is_streamed=number > 0)
            trades.append(world.latest["A"])
            await world.settle(1.0)
    market.end()
    world.latest["A"] = trades[1]
    market.begin(world.feed)
    async with connected(market, world) as loops:
        await world.settle()
        assert market.book.take_changed()[0][0].price == trades[2].price
        await world.settle(2.0)
        world.latest["A"] = trades[shown]
        await world.settle(SNAPSHOT_LAG_S_MAX - 2.0)
        await world.settle()
        market.book.touch_all()
        assert market.book.take_changed()[0][0].price == trades[shown].price
        for _ in range(4):
            await world.settle(FEED_LAG_S_MAX)
        assert not loops.done()
        assert not world.renewed_count()


async def test_a_silent_market_without_trades_is_left_in_peace(
    feed: tuple[MarketSubscription, Feed],
) -> None:
    """A holiday, a halt, a symbol that nobody trades: silence, and no outage however long it takes."""
    market, world = feed
    for symbol in SYMBOLS:
        world.trade(symbol, is_streamed=False)
    async with connected(market, world) as loops:
        for _ in range(5):
            await world.settle(300.0)
            await world.look()
        assert not loops.done()
        assert world.subscribed == [["A", "B"]]


@pytest.mark.parametrize("failure", [FeedUnavailable("HTTP 503"), FeedRefused("HTTP 401; check the keys")])
async def test_snapshots_that_fail_are_taken_later_while_the_stream_goes_on(
    feed: tuple[MarketSubscription, Feed], monkeypatch: pytest.MonkeyPatch, failure: FeedError
) -> None:
    """A refusal, too: the stream has let us in, so it may pass; every mark is there in the end."""
    market, world = feed
    monkeypatch.setattr(market, "_snapshot_backoff", Backoff(0.001, 0.002))
    world.trade("A", is_streamed=False)
    answer, failures = world.read, [failure] * 3

    async def read(
        symbols: list[str] | None = None, *, is_idle: bool = False
    ) -> Arrived | dict[str, Snapshot]:
        if symbols is not None and failures:
            raise failures.pop()
        return await answer(symbols)

    world.read = read  # type: ignore[method-assign]
    async with connected(market, world) as loops:
        world.trade("B", is_streamed=True)
        await world.settle()
        await world.settle()
        assert not loops.done()
        assert not failures
        assert {mark.symbol for mark, _ in market.book.take_changed()} == {"A", "B"}


async def test_a_feed_of_which_every_trade_is_refused_is_not_live(
    feed: tuple[MarketSubscription, Feed],
) -> None:
    """Our clock is an hour behind: marks stand still, so nobody may call them fresh. It heals at once."""
    market, world = feed
    async with connected(market, world):
        world.trade("A", is_streamed=True)
        await world.settle()
        assert market.is_live
        world.hours_behind(1)
        for _ in range(AHEAD_TRADES_MIN):
            world.trade("A", is_streamed=True)
            world.trade("A", is_streamed=True, condition="I")  # an odd lot moves no mark at any time
            await world.settle(AHEAD_S_MIN)
        assert not market.is_live
        world.hours_behind(0)
        world.trade("A", is_streamed=True)
        await world.settle()
        assert market.is_live


async def test_one_trade_of_another_time_does_not_silence_a_feed(
    feed: tuple[MarketSubscription, Feed],
) -> None:
    """A venue's clock may be wrong, too."""
    market, world = feed
    async with connected(market, world):
        world.trade("A", is_streamed=True)
        await world.settle()
        world.hours_behind(1)
        world.trade("A", is_streamed=True)
        world.hours_behind(0)
        await world.settle()
        await world.settle(2 * AHEAD_S_MIN)
        assert market.is_live


async def test_a_symbol_that_was_looked_for_in_vain_is_told_once(
    feed: tuple[MarketSubscription, Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before it was looked for, not while that failed, nor when there is a price; again on request."""
    market, world = feed
    monkeypatch.setattr(market, "_snapshot_backoff", Backoff(0.001, 0.002))
    world.trade("A", is_streamed=False)
    answer, is_failing = world.read, True

    async def read(
        symbols: list[str] | None = None, *, is_idle: bool = False
    ) -> Arrived | dict[str, Snapshot]:
        if symbols is not None and is_failing:
            raise FeedUnavailable("no")
        return await answer(symbols)

    world.read = read  # type: ignore[method-assign]
    assert market.take_unmarked() == []
    async with connected(market, world):
        await world.settle()
        assert market.take_unmarked() == []
        is_failing = False
        await world.settle()
        await world.settle()
        market.book.take_changed()
        assert (market.take_unmarked(), market.take_unmarked()) == (["B"], [])
        market.write_all_again()
        assert market.take_unmarked() == ["B"]
        world.trade("B", is_streamed=True)
        await world.settle()
        market.book.take_changed()
        market.write_all_again()
        assert market.take_unmarked() == []


async def test_a_feed_of_many_unknown_types_is_told_a_few_times(
    feed: tuple[MarketSubscription, Feed],
) -> None:
    """Each type once, and all beyond the limit together once, however many and however often."""
    market, world = feed
    types = [f"type-{number}" for number in range(UNKNOWN_TYPES_MAX + 5)]
    with capture_logs() as lines:
        async with connected(market, world):
            for _ in range(3):
                world.bring_unread(*types)
            await world.settle()
    told = [line["type"] for line in lines if line["event"] == "messages of this type are not read"]
    assert told == [*types[:UNKNOWN_TYPES_MAX], "other"]
    assert world.counted("type-0") == 3
    assert world.counted("other") == 3 * 5

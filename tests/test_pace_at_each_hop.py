"""Each hop hands on the first change at once and never loses the last, in virtual time."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from portfolio_harness.simulation.virtual_loop import VirtualLoop
from portfolio_realtime import config, pace
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.clock import rfc3339
from portfolio_realtime.market_data_consumer.consumer import FeedConsumer
from portfolio_realtime.market_data_consumer.feeds import schedules
from portfolio_realtime.market_data_consumer.messages import StreamTrade
from portfolio_realtime.market_data_consumer.stream import Arrived
from portfolio_realtime.market_data_consumer.watchers import AnyWatchers
from portfolio_realtime.model import US_EQUITY, Account, Mark, Position, PublicationBatch
from portfolio_realtime.portfolio_calculator.calculator import Calculator
from portfolio_realtime.portfolio_calculator.idle_marks import IdleMarks
from portfolio_realtime.portfolio_calculator.publisher import Publisher
from portfolio_realtime.service import Context
from portfolio_realtime.state.interest import UNREAD
from portfolio_realtime.state.marks import encode_marks
from portfolio_realtime.telemetry import CalculatorMetrics, MarketMetrics, ServerMetrics
from portfolio_realtime.valuation.valuer import Valuer
from portfolio_realtime.websocket_server.fanout.publication_follower import PublicationFollower
from portfolio_realtime.wire.frames import text_frame, text_of
from tests.support.clocks import LoopClock

FLUSH_INTERVAL_S = 0.1
UPDATE_S = 0.05
WRITE_S = 0.0001  # of one write in Valkey
QUIET_S = 10.0
AT_ONCE_S = 0.001
BURST = [0.0, 0.001, 0.002, 0.013, 0.014, 0.03, 0.031, 0.0315]  # changes after the first, in seconds
BURST_S = BURST[-1]

Seen = list[tuple[float, float]]
"""When something was handed on, and the price that it shows."""
Change = Callable[[float], Awaitable[None]]
Hop = Callable[[VirtualLoop, Seen], tuple[Coroutine[Any, Any, Any] | None, Change]]
"""Makes the loop of a hop, if it has one, and what changes a price before it."""


def context_of(loop: VirtualLoop, state: object) -> Context:
    settings = config.load(mark_flush_interval=FLUSH_INTERVAL_S, min_update_interval=UPDATE_S)
    return Context(settings, cast("Any", state), LoopClock(loop), CollectorRegistry(), "test")


def the_only_shard(_: str) -> int:
    return 0


def consumer(loop: VirtualLoop, seen: Seen) -> tuple[Coroutine[Any, Any, Any], Change]:
    """Trades come, marks go."""

    async def write(_: object, marks: list[Mark], *__: object) -> None:
        await asyncio.sleep(WRITE_S)
        seen.append((loop.time(), marks[0].price))

    context = context_of(loop, SimpleNamespace(marks=SimpleNamespace(write=write), interest=None))
    metrics = MarketMetrics(context.registry)
    watchers = AnyWatchers(context)
    one = FeedConsumer(context, metrics, schedules(context.settings)[0], cast("Any", None), watchers)
    subscription = one._subscription  # what a feed brings
    subscription.want(["A"])

    async def trade(price: float) -> None:
        at = msgspec.Raw(msgspec.json.encode(rfc3339(context.clock.now_ns())))
        arrived = StreamTrade("A", price, at, ("@",), "C", "D", len(seen))
        subscription._apply(Arrived([arrived], [], []))

    return one._flush(cast("Any", None)), trade


def calculator(loop: VirtualLoop, seen: Seen) -> tuple[Coroutine[Any, Any, Any], Change]:
    """Marks come, values go: one account holds one A and no cash."""

    async def publish(*arguments: Any) -> list[None]:
        await asyncio.sleep(WRITE_S)
        ((_, _, publications),) = arguments[0]
        for publication in publications:
            seen.append((loop.time(), float(msgspec.json.decode(publication.value)["equity"] or 0)))
        return [None]

    state = SimpleNamespace(
        valuations=SimpleNamespace(publish_all=publish), connection=SimpleNamespace(has_lost_channels=False)
    )
    context = context_of(loop, state)
    valuer = Valuer(price_ttl_s=3600, min_update_interval_s=UPDATE_S)
    owner = SimpleNamespace(
        leases={0: SimpleNamespace(fencing_token=1)},
        wanted={0: {}},
        accounts_of={0: Counter[str]()},
        read_until={0: UNREAD},
        shard_of=the_only_shard,
        calculators=1,
    )
    metrics = CalculatorMetrics(context.registry)
    idle_marks = IdleMarks(context.clock, lambda: None)
    idle_marks.read(())
    publisher = Publisher(context, metrics, valuer, cast("Any", owner), idle_marks)
    held = Position("A", US_EQUITY, Decimal(1), Decimal(1), Decimal(1))
    balances = ("ACTIVE", "USD", Decimal(0), Decimal(1), "2025-11-20", Decimal(0))
    valuer.watch(Account("alice", 1, *balances, (held,), context.clock.now_ns()), 1, with_positions=False)
    marks_read = asyncio.Event()
    marks_read.set()

    async def mark(price: float) -> None:
        now_ns = context.clock.now_ns()
        assert valuer.apply_marks([Mark("A", price, now_ns, now_ns, "iex")])
        publisher.wake.set()

    return publisher.run(marks_read), mark


@pytest.mark.parametrize("is_watched", [False, True])
def test_marks_wake_a_calculator_for_those_who_watch(is_watched: bool) -> None:
    """For nobody, each batch of marks would cost a turn."""
    loop = VirtualLoop()
    context = context_of(loop, SimpleNamespace(connection=SimpleNamespace(token_floor=0)))
    one = Calculator(context, CalculatorMetrics(context.registry), 0.0)
    held = Position("A", US_EQUITY, Decimal(1), Decimal(1), Decimal(1))
    balances = ("ACTIVE", "USD", Decimal(0), Decimal(1), "2025-11-20", Decimal(0))
    account = Account("alice", 1, *balances, (held,), context.clock.now_ns())
    if is_watched:
        one._valuer.watch(account, 1, with_positions=False)
    else:
        one._valuer.put_account(account)
    one._take_marks(encode_marks([Mark("A", 2.0, 1, 1, "iex")], []))
    assert one._publisher.wake.is_set() is is_watched
    assert one._valuer.book.marks["A"].price == 2.0
    loop.close()


def server(loop: VirtualLoop, seen: Seen) -> tuple[None, Change]:
    """Publications come, frames go."""
    registry = CollectorRegistry()
    state = SimpleNamespace(valuations=SimpleNamespace(channels=dict))
    follower = PublicationFollower(cast("Any", state), 1, LoopClock(loop), ServerMetrics(registry))

    def publish(gathered: Any) -> int:
        seen.append((loop.time(), float(msgspec.json.decode(text_of(gathered.frames[-1]))["equity"])))
        return 0

    follower.hub = cast("Any", SimpleNamespace(publish=publish))
    sequences = iter(range(1, 1000))

    async def hear(price: float) -> None:
        frame = text_frame(msgspec.json.encode({"equity": str(price)}))
        await follower._gather(PublicationBatch(1, ["alice"], [next(sequences)], [frame], {}))

    return None, hear


HOPS = [consumer, calculator, server]


def seen_of(hop: Hop) -> tuple[float, Seen]:
    """A first change after quiet, a burst behind it, quiet: when it began, and what was handed on."""
    loop, seen = VirtualLoop(), Seen()

    async def run() -> float:
        work, change = hop(loop, seen)
        working = [] if work is None else [loop.create_task(work)]
        await asyncio.sleep(QUIET_S)
        await change(1.0)
        began_s = loop.time()
        await asyncio.sleep(QUIET_S)
        for number, after_s in enumerate(BURST):
            await asyncio.sleep(began_s + QUIET_S + after_s - loop.time())
            await change(2.0 + number)
        await asyncio.sleep(QUIET_S)
        for one in working:
            assert not one.done(), one.exception()
        await cancel_until_ended(working)
        return began_s

    try:
        return loop.run_until_complete(run()), [one for one in seen if one[1] >= 1]
    finally:
        loop.close()


def faults_of(hop: Hop) -> set[str]:
    """What of the promises does not hold."""
    began_s, seen = seen_of(hop)
    times = {price: at_s for at_s, price in reversed(seen)}
    faults: set[str] = set()
    firsts_s = {1.0: began_s, 2.0: began_s + QUIET_S}
    if any(times.get(price, at_s + QUIET_S) - at_s > WRITE_S + AT_ONCE_S for price, at_s in firsts_s.items()):
        faults.add("the first change after quiet waits")
    last, last_s = 1.0 + len(BURST), began_s + QUIET_S + BURST_S
    if not seen or seen[-1][1] != last or times[last] - last_s > FLUSH_INTERVAL_S:
        faults.add("the last of a burst is lost or late")
    if sum(price > 1 for _, price in seen) >= len(BURST):
        faults.add("a burst is not conflated")
    return faults


@pytest.mark.parametrize("hop", HOPS)
def test_the_first_change_goes_at_once_and_the_last_of_a_burst_is_not_lost(hop: Hop) -> None:
    """At each of the three places where a price waits for others."""
    assert faults_of(hop) == set()


def at_a_slow_rate(self: pace.Pace, began_s: float, *_: Any) -> None:
    """Quiet is not noticed."""
    self._next_s = began_s + 3 * QUIET_S  # the fault


def never_while_busy(self: pace.Pace, now_s: float) -> float:
    """What comes while busy waits for the next quiet."""
    return QUIET_S if self._next_s > now_s else 0.0


def always(*_: Any) -> float:
    """Each change has a turn of its own."""
    return 0.0


PLANTED = [
    ("took", at_a_slow_rate, "the first change after quiet waits"),
    ("wait_s", never_while_busy, "the last of a burst is lost or late"),
    ("wait_s", always, "a burst is not conflated"),
]


@pytest.mark.parametrize("hop", HOPS)
@pytest.mark.parametrize(("name", "planted", "fault"), PLANTED)
def test_a_planted_fault_in_the_pace_is_seen(
    hop: Hop, name: str, planted: Any, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for each promise; the calculator conflates by MIN_UPDATE_INTERVAL as well."""
    monkeypatch.setattr(pace.Pace, name, planted)
    if fault != "a burst is not conflated" or hop is not calculator:
        assert fault in faults_of(hop)


def test_min_update_interval_holds() -> None:
    """However soon the calculator may flush."""
    _, seen = seen_of(calculator)
    published_s = [at_s for at_s, _ in seen]
    assert min(b - a for a, b in itertools.pairwise(published_s)) >= UPDATE_S - AT_ONCE_S


class RoundingLoop(VirtualLoop):
    """Its timers are rounded to milliseconds, as those of the services' loop: some come too early."""

    is_rounding = False

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        when = self.time() + round(when - self.time(), 3) if self.is_rounding else when
        return super().call_at(when, callback, *args, context=context)


@pytest.mark.parametrize("after_s", [0.0101, 0.0104, 0.0107, 0.0199])
def test_a_change_within_the_interval_of_its_account_costs_one_look_and_one_turn(
    after_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its publication waits for the end of the interval and no longer, however timers are rounded."""
    loop, seen, turns_s = RoundingLoop(), Seen(), list[float]()
    flush = Valuer.flush

    def counted(self: Valuer, now_ns: int, now_s: float) -> Any:
        turns_s.append(now_s)
        return flush(self, now_ns, now_s)

    monkeypatch.setattr(Valuer, "flush", counted)

    async def run() -> None:
        work, change = calculator(loop, seen)
        working = loop.create_task(work)
        await asyncio.sleep(QUIET_S)
        await change(1.0)
        await asyncio.sleep(after_s)
        turns_s.clear()
        loop.is_rounding = True
        await change(2.0)
        await asyncio.sleep(UPDATE_S)
        await cancel_until_ended([working])

    loop.run_until_complete(run())
    loop.close()
    (_, first_s), (_, second_s) = [(price, at_s) for at_s, price in seen if price in (1.0, 2.0)]
    assert -1e-9 <= second_s - first_s - UPDATE_S <= AT_ONCE_S
    assert len(turns_s) == 2

"""A quiet stream is asked about, so that silence is told within 5 s whatever its rhythm; in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import pytest

from portfolio_harness.simulation.virtual_loop import VirtualLoop
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.errors import BrokerUnavailable
from portfolio_realtime.symbol_collector.sources.broker_events import StreamRefused
from portfolio_realtime.symbol_collector.sources.stream_probe import (
    PAUSE_S,
    QUIET_S,
    SILENT_S,
    StreamProbe,
)

HEARTBEAT_S: Final = 15.0  # as Alpaca's is said to be
TOLD_S: Final = 4.0  # leaves a second of the 5 to those who tell clients


@dataclass
class Broker:
    """A broker with a stream that it speaks in now and then, and bounded requests."""

    loop: VirtualLoop
    answer_s: float = 0.1
    error: BrokerUnavailable | None = None
    is_mute: bool = False
    has_room: bool = True
    asked_s: list[float] = field(default_factory=list)
    probe: StreamProbe = field(init=False)

    def __post_init__(self) -> None:
        """With a probe of it."""
        self.probe = StreamProbe(self, self.ask, lambda: self.has_room)

    def now_ns(self) -> int:
        """The loop's time."""
        return int(self.loop.time() * NS_PER_S)

    def monotonic_s(self) -> float:
        """The loop's time."""
        return self.loop.time()

    async def ask(self) -> None:
        """A bounded request."""
        self.asked_s.append(self.loop.time())
        await asyncio.sleep(3600 if self.is_mute else self.answer_s)
        if self.error is not None:
            raise self.error

    async def speak(self) -> None:
        """In the stream, every HEARTBEAT_S."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if not self.is_mute:
                self.probe.hear()

    async def is_told_after(self, is_mute: bool, s_max: float = 3600) -> float:
        """Seconds until the probe says so."""
        began_s = self.loop.time()
        while self.probe.is_mute() != is_mute:
            assert self.loop.time() - began_s < s_max, f"not told: {is_mute}"
            await asyncio.sleep(0.05)
        return self.loop.time() - began_s

    async def stay_live(self, seconds: float) -> None:
        """Nothing is told for so long."""
        until_s = self.loop.time() + seconds
        while self.loop.time() < until_s:
            assert not self.probe.is_mute(), self.loop.time() - until_s + seconds
            await asyncio.sleep(0.05)


def play(scene: Callable[[Broker], Awaitable[None]], *, speaks: bool = True) -> None:
    """With an open stream."""
    loop = VirtualLoop()

    async def run() -> None:
        broker = Broker(loop)
        broker.probe.open()
        tasks = [asyncio.ensure_future(broker.probe.run())]
        tasks += [asyncio.ensure_future(broker.speak())] if speaks else []
        try:
            await scene(broker)
        finally:
            await cancel_until_ended(tasks)

    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(run())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


@pytest.mark.parametrize("after_s", [2.0, 20.3, 29.9, 31.6, 100.0])
def test_silence_is_told_at_once_and_ends_with_an_answer(after_s: float) -> None:
    """Between two heartbeats, however the moments lie."""

    async def scene(broker: Broker) -> None:
        await broker.stay_live(after_s)
        broker.is_mute = True
        assert await broker.is_told_after(True) <= TOLD_S
        await asyncio.sleep(60)
        assert broker.probe.is_mute()
        broker.probe.open()
        assert broker.probe.is_mute(), "a connection alone says nothing"
        broker.is_mute = False
        assert await broker.is_told_after(False) <= TOLD_S
        await broker.stay_live(60)

    play(scene)


def test_a_quiet_broker_that_answers_is_live_and_asked_now_and_then() -> None:
    """Without any heartbeat for ten minutes."""

    async def scene(broker: Broker) -> None:
        await broker.stay_live(600)
        assert 600 / (QUIET_S + 0.5) < len(broker.asked_s) <= 600 / QUIET_S

    play(scene, speaks=False)


def test_a_stream_that_speaks_is_not_asked_about() -> None:
    """Once a second: no request at all."""

    async def scene(broker: Broker) -> None:
        for _ in range(60):
            await asyncio.sleep(1)
            broker.probe.hear()
        assert broker.asked_s == []
        assert not broker.probe.is_mute()

    play(scene, speaks=False)


@pytest.mark.parametrize("error", [BrokerUnavailable("HTTP 503"), None])
def test_what_fails_or_comes_too_late_is_asked_again_after_a_pause(error: BrokerUnavailable | None) -> None:
    """It counts as silence."""

    async def scene(broker: Broker) -> None:
        await broker.stay_live(20)
        broker.error, broker.answer_s = error, 0.1 if error else 3.0
        assert await broker.is_told_after(True) <= TOLD_S
        seen = len(broker.asked_s)
        await asyncio.sleep(5)
        assert len(broker.asked_s) - seen <= 5 / PAUSE_S

    play(scene, speaks=False)


def test_answers_that_are_always_late_prove_nothing() -> None:
    """Then only the rhythm of the stream does, once its next sign shows that the broker lives."""

    async def scene(broker: Broker) -> None:
        broker.answer_s = 3.0
        await broker.stay_live(4 * HEARTBEAT_S)
        broker.answer_s = 0.1
        await broker.stay_live(10)
        broker.answer_s = 3.0
        await broker.is_told_after(True, HEARTBEAT_S)
        await broker.is_told_after(False, HEARTBEAT_S)
        await broker.stay_live(4 * HEARTBEAT_S)
        broker.is_mute = True
        assert SILENT_S < await broker.is_told_after(True) < 2 * HEARTBEAT_S

    play(scene)


def test_where_it_may_not_ask_the_rhythm_decides() -> None:
    """The quota has no room, or the broker refuses such requests; then it is asked again much later."""

    async def scene(broker: Broker) -> None:
        await broker.stay_live(20)
        broker.has_room = False
        await broker.stay_live(4 * HEARTBEAT_S)
        seen = len(broker.asked_s)
        broker.has_room, broker.error = True, StreamRefused("HTTP 429")
        await broker.stay_live(60)
        assert len(broker.asked_s) - seen <= 2
        broker.is_mute = True
        assert SILENT_S < await broker.is_told_after(True) < 2 * HEARTBEAT_S

    play(scene)

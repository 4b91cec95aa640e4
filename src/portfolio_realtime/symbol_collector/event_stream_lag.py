"""The lag of the broker's events: from publication until applied, or how long none could arrive."""

import asyncio
from typing import Final, NoReturn, Protocol

from prometheus_client import Gauge

from portfolio_realtime.clock import NS_PER_S, Clock
from portfolio_realtime.symbol_collector.sources import parse

MEASURE_S: Final = 1.0
WINDOW_NS: Final = 60 * NS_PER_S  # the worst lag within this is shown


class LossReporting(Protocol):
    """What is needed of a follower. `lost_since_s`: monotonic seconds; None while events can arrive."""

    lost_since_s: float | None


class EventStreamLag:
    """Sets the lag gauge of one collector, in seconds."""

    def __init__(self, gauge: Gauge, clock: Clock) -> None:
        self._gauge = gauge
        self._clock = clock
        self._worst_ns = 0
        self._worst_at_ns = 0

    def note_event(self, event_id: str) -> None:
        """Note that a live event has arrived. It is not counted if its id does not contain a time."""
        published_ns, now_ns = parse.published_ns(event_id), self._clock.now_ns()
        if published_ns is None:
            return
        if now_ns - published_ns >= self._worst_ns or now_ns - self._worst_at_ns > WINDOW_NS:
            self._worst_ns, self._worst_at_ns = now_ns - published_ns, now_ns

    async def measure(self, followed: LossReporting) -> NoReturn:
        """Update the gauge without end. It is set to 0 when cancelled, so a stand-by shows 0."""
        if followed.lost_since_s is not None:
            # Time from before the lease does not count against the stream.
            followed.lost_since_s = self._clock.monotonic_s()
        try:
            while True:
                self._gauge.set(self._now_s(followed))
                await asyncio.sleep(MEASURE_S)
        finally:
            self._gauge.set(0)

    def _now_s(self, followed: LossReporting) -> float:
        now_ns, now_s = self._clock.now_ns(), self._clock.monotonic_s()
        worst_ns = self._worst_ns if now_ns - self._worst_at_ns <= WINDOW_NS else 0
        return max(worst_ns / NS_PER_S, now_s - (followed.lost_since_s or now_s), 0.0)

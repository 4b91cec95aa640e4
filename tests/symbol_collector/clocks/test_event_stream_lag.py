"""How late the broker's events are: by the worst of a minute, and by how long none could come."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.clock import NS_PER_S, SystemClock
from portfolio_realtime.symbol_collector import event_stream_lag
from portfolio_realtime.symbol_collector.event_stream_lag import EventStreamLag
from portfolio_realtime.telemetry import CollectorMetrics
from tests.conftest import Until

LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class SetClock(SystemClock):
    """A clock that a test moves on."""

    ahead_ns = 0

    def now_ns(self) -> int:
        """The time of day, and so much more."""
        return super().now_ns() + self.ahead_ns

    def monotonic_s(self) -> float:
        """The same seconds."""
        return super().monotonic_s() + self.ahead_ns / NS_PER_S


class Stream:
    """As much of a follower as is looked at."""

    lost_since_s: float | None = 0.0  # since before the lease


def event_id(published_ns: int) -> str:
    """A ULID of that moment."""
    milliseconds = published_ns // 1_000_000
    time = "".join(LETTERS[milliseconds >> shift & 31] for shift in range(45, -1, -5))
    return time + "0" * 16


async def test_lag_is_the_worst_of_a_minute_or_the_time_without_a_stream(
    until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late event shows for a minute; a lost stream counts until it is back; a stand-by shows 0."""
    monkeypatch.setattr(event_stream_lag, "MEASURE_S", 0.01)
    clock, stream = SetClock(), Stream()
    gauge = CollectorMetrics(CollectorRegistry()).event_stream_lag
    lag = EventStreamLag(gauge, clock)

    def shown_s() -> float:
        return next(iter(gauge.collect())).samples[0].value

    measuring = asyncio.create_task(lag.measure(stream))
    await until(lambda: bool(stream.lost_since_s), "counting has begun")
    clock.ahead_ns += 30 * NS_PER_S
    await until(lambda: 30 <= shown_s() < 40, "no stream for 30 s")
    stream.lost_since_s = None
    await until(lambda: shown_s() == 0, "the stream is there")
    lag.note_event(event_id(clock.now_ns() - 90 * NS_PER_S))
    lag.note_event(event_id(clock.now_ns()))
    lag.note_event("an id that tells no time")
    await until(lambda: 90 <= shown_s() < 91, "an event came 90 s late")
    clock.ahead_ns += 61 * NS_PER_S
    await until(lambda: shown_s() == 0, "that was a minute ago")
    stream.lost_since_s = clock.monotonic_s() - 5
    await until(lambda: shown_s() >= 5, "the stream is lost")
    await cancel_until_ended([measuring])
    assert shown_s() == 0

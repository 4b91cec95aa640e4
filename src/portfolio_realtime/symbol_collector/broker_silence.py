"""Is the broker heard now: its stream of events, and its answers?

While it is not, no record can be trusted to be current, however young it is: its source stops being kept
live, and every value says so. One account that is always answered with an error is no silence of the broker.
"""

import asyncio
from typing import Final, NoReturn, Protocol

from prometheus_client import Gauge

from portfolio_realtime.clock import NS_PER_S, Clock
from portfolio_realtime.state import feeds

KEEP_S: Final = 0.5  # a quarter of the time for which the broker counts as heard
REST_SILENT_NS: Final = 5 * NS_PER_S  # without any answer, though we have asked
EVENTS_LOST_NS: Final = 2 * NS_PER_S  # a stream that is opened again within this has lost nothing


class FollowedStream(Protocol):
    """A follower of events."""

    lost_since_ns: int | None

    def is_mute(self, now_ns: int) -> bool:
        """Is it open, and silent for longer than ever?"""
        ...


class BrokerSilence:
    """What the requests have met lately, beside what the stream says."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failing_since_ns: int | None = None

    def note_answer(self) -> None:
        """The broker has answered something of use."""
        self._failing_since_ns = None

    def note_failure(self) -> None:
        """A request has failed, with all its attempts."""
        if self._failing_since_ns is None:
            self._failing_since_ns = self._clock.now_ns()

    @property
    def is_failing(self) -> bool:
        """Has nothing been answered since something failed?"""
        return self._failing_since_ns is not None

    def is_heard(self, followed: FollowedStream) -> bool:
        """Are its events followed, and its answers not missing?"""
        now_ns = self._clock.now_ns()
        failing_ns = 0 if self._failing_since_ns is None else now_ns - self._failing_since_ns
        lost_ns = 0 if followed.lost_since_ns is None else now_ns - followed.lost_since_ns
        return failing_ns < REST_SILENT_NS and lost_ns < EVENTS_LOST_NS and not followed.is_mute(now_ns)


async def keep_live(
    silence: BrokerSilence, followed: FollowedStream, stored: feeds.Feeds, gauge: Gauge
) -> NoReturn:
    """Say that the broker is heard, for as long as it is. Raises StateUnavailable."""
    while True:
        is_heard = silence.is_heard(followed)
        if is_heard:
            await stored.keep(feeds.ACCOUNTS)
        gauge.set(is_heard)
        await asyncio.sleep(KEEP_S)

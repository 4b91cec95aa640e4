"""Whether the broker can be followed now: its event stream works, and it answers requests.

While it cannot, no record is known to be current. The source of accounts is then not live, and every value
says so. If only one account always returns an error, the broker still counts as heard.
"""

import asyncio
from collections.abc import Callable
from typing import Final, NoReturn, Protocol

from prometheus_client import Gauge

from portfolio_realtime.clock import Clock
from portfolio_realtime.state import feeds

KEEP_S: Final = 0.5  # a quarter of the time for which the source stays live without renewal
LOOK_S: Final = 0.1  # while it is not heard
REST_SILENT_S: Final = 5.0  # since the first failed request, without any success
EVENTS_LOST_S: Final = 2.0  # a stream that is opened again within this has missed nothing


class FollowedStream(Protocol):
    """What is needed of a follower. `lost_since_s`: monotonic seconds; None while events can arrive."""

    lost_since_s: float | None

    def is_mute(self) -> bool:
        """Whether it is open, and silent for longer than its rhythm allows."""
        ...


class BrokerSilence:
    """The recent outcomes of requests, and the state of the stream."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failing_since_s: float | None = None

    def note_answer(self) -> None:
        """Note that the broker has answered a request."""
        self._failing_since_s = None

    def note_failure(self) -> None:
        """Note that a request has failed after all its attempts."""
        if self._failing_since_s is None:
            self._failing_since_s = self._clock.monotonic_s()

    @property
    def is_failing(self) -> bool:
        """Whether no request has succeeded since the last failure."""
        return self._failing_since_s is not None

    def is_heard(self, followed: FollowedStream) -> bool:
        """Whether events arrive and requests succeed."""
        now_s = self._clock.monotonic_s()
        failing_s = 0.0 if self._failing_since_s is None else now_s - self._failing_since_s
        lost_s = 0.0 if followed.lost_since_s is None else now_s - followed.lost_since_s
        return failing_s < REST_SILENT_S and lost_s < EVENTS_LOST_S and not followed.is_mute()


async def keep_live(is_heard: Callable[[], bool], stored: feeds.Feeds, gauge: Gauge) -> NoReturn:
    """Keep the broker's source live while it is heard, and drop it when not. Raises StateUnavailable."""
    was_heard = False
    while True:
        is_heard_now = is_heard()
        if is_heard_now:
            await stored.keep(feeds.ACCOUNTS)
        elif was_heard:
            await stored.drop(feeds.ACCOUNTS)
        was_heard = is_heard_now
        gauge.set(is_heard_now)
        await asyncio.sleep(KEEP_S if is_heard_now else LOOK_S)

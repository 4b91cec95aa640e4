"""Whether the broker can be followed now: its event stream works, and it answers requests.

While it cannot, no record is known to be current. The source of accounts is then not live, and every value
says so. If only one account always returns an error, the broker still counts as heard.
"""

import asyncio
import math
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, NoReturn, Protocol

from prometheus_client import Gauge

from portfolio_realtime.clock import Clock
from portfolio_realtime.state import feeds

KEEP_S: Final = 0.5  # a quarter of the time for which the source stays live without renewal
LOOK_S: Final = 0.1  # between two looks whether it is heard
BEHIND_S: Final = 0.5  # a statement that is asked for first comes sooner, as a rule: nothing is marked then
REST_SILENT_S: Final = 5.0  # since the first failed request, without any success
EVENTS_LOST_S: Final = 2.0  # a stream that is opened again within this has missed nothing


class Heard(Enum):
    """Whether what the broker tells is known and written."""

    LIVE = auto()
    BEHIND = auto()  # all but an account with an event, whose statement is on its way
    AWAY = auto()


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


async def keep_live(look: Callable[[], Heard], stored: feeds.Feeds, gauge: Gauge, clock: Clock) -> NoReturn:
    """Keep the broker's source live while it is heard, and drop it when not. Raises StateUnavailable.

    A former owner may have kept it just before us, so it is dropped at the first look, too.
    """
    is_kept, kept_s, behind_since_s = True, -math.inf, math.inf
    while True:
        heard, now_s = look(), clock.monotonic_s()
        behind_since_s = min(behind_since_s, now_s) if heard is Heard.BEHIND else math.inf
        if heard is Heard.LIVE:
            if now_s - kept_s >= KEEP_S:
                await stored.keep(feeds.ACCOUNTS)
                is_kept, kept_s = True, now_s
        elif is_kept and (heard is Heard.AWAY or now_s - behind_since_s >= BEHIND_S):
            await stored.drop(feeds.ACCOUNTS)
            is_kept, kept_s = False, -math.inf
        gauge.set(heard is Heard.LIVE)
        await asyncio.sleep(LOOK_S)

"""What the broker's clock shows, by the `Date` of its answers, and when a statement was made by it.

The broker dates its bookings by its own clock. Our clock may be wrong, and so may a `Date`. Therefore neither
is believed alone: while the two differ, a span is from the earlier to the later of both.
"""

import asyncio
import time
from typing import Final, NamedTuple, NoReturn

import structlog
from prometheus_client import Gauge

from portfolio_realtime.clock import NS_PER_S, Clock

DATE_NS: Final = NS_PER_S  # a `Date` has whole seconds: the true time is up to this much later
DIFFERS_S: Final = 0.5  # a difference from the broker's clock that is told …
AGREES_S: Final = 0.25  # … until it is at most this
LOOK_S: Final = 1.0

log = structlog.get_logger()


class Moment(NamedTuple):
    """A time by our wall clock, in ns since the epoch, and by our monotonic clock, in seconds."""

    at_ns: int
    monotonic_s: float


def now(clock: Clock) -> Moment:
    """The present time. The wall clock is `clock`."""
    return Moment(clock.now_ns(), time.monotonic())


class Span(NamedTuple):
    """A request by the broker's clock."""

    from_ns: int  # begun then, or later
    complete_ns: int  # complete then, or later …
    until_ns: int  # … and not after this


class BrokerTime:
    """The broker's clock less our monotonic clock, which is never set, lies between two bounds."""

    def __init__(self) -> None:
        self._bounds_ns: tuple[int, int] | None = None

    def learn(self, date_s: float, sent_s: float, received_s: float) -> None:
        """Note the `Date` of an answer, with the monotonic times of its request and its arrival.

        Each answer narrows the bounds. One that contradicts them replaces them: a clock was set.
        """
        date_ns = int(date_s * NS_PER_S)
        least_ns, most_ns = date_ns - _ns(received_s), date_ns + DATE_NS - _ns(sent_s)
        if self._bounds_ns is not None:
            both = max(least_ns, self._bounds_ns[0]), min(most_ns, self._bounds_ns[1])
            if both[0] <= both[1]:
                least_ns, most_ns = both
        self._bounds_ns = least_ns, most_ns

    def span(self, began: Moment, ended: Moment) -> Span:
        """When a request was made. It is by our clock while that agrees with the broker's."""
        return Span(self._possible(began)[0], *self._possible(ended))

    def latest_ns(self, moment: Moment) -> int:
        """The latest that the broker's clock may have shown."""
        return self._possible(moment)[1]

    def difference_s(self, moment: Moment) -> float:
        """By how many seconds our clock is certainly ahead of the broker's; negative: behind."""
        if self._bounds_ns is None:
            return 0.0
        least_ns, most_ns = (_ns(moment.monotonic_s) + bound_ns for bound_ns in self._bounds_ns)
        return (moment.at_ns - min(max(moment.at_ns, least_ns), most_ns)) / NS_PER_S

    def _possible(self, moment: Moment) -> tuple[int, int]:
        own_ns, least_ns, most_ns = moment.at_ns, moment.at_ns, moment.at_ns
        if self._bounds_ns is not None:
            least_ns, most_ns = (_ns(moment.monotonic_s) + bound_ns for bound_ns in self._bounds_ns)
        if least_ns <= own_ns <= most_ns:
            return own_ns, own_ns
        return min(own_ns, least_ns), max(own_ns, most_ns)


async def tell_difference(broker_time: BrokerTime, clock: Clock, gauge: Gauge) -> NoReturn:
    """Keep the gauge, and log when our clock begins to differ from the broker's and when it agrees again."""
    is_told = False
    while True:
        difference_s = broker_time.difference_s(now(clock))
        gauge.set(difference_s)
        if is_told and abs(difference_s) <= AGREES_S:
            is_told = False
            log.info("the clock of this machine agrees with the broker's again")
        elif not is_told and abs(difference_s) >= DIFFERS_S:
            is_told = True
            log.warning(
                "the clock of this machine differs from the broker's: set it by NTP",
                ahead_s=round(difference_s, 1),
            )
        await asyncio.sleep(LOOK_S)


def _ns(monotonic_s: float) -> int:
    return int(monotonic_s * NS_PER_S)

"""What the broker's clock shows, by the `Date` of its answers, and when a statement was made by it.

The broker dates its bookings by its own clock. Our clock may be wrong, and so may a `Date`. Therefore neither
is believed alone: while the two differ, a span is from the earlier to the later of both.
"""

import time
from typing import Final, NamedTuple

from portfolio_realtime.clock import NS_PER_S, Clock

DATE_NS: Final = NS_PER_S  # a `Date` has whole seconds: the true time is up to this much later


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

    def _possible(self, moment: Moment) -> tuple[int, int]:
        own_ns, least_ns, most_ns = moment.at_ns, moment.at_ns, moment.at_ns
        if self._bounds_ns is not None:
            least_ns, most_ns = (_ns(moment.monotonic_s) + bound_ns for bound_ns in self._bounds_ns)
        if least_ns <= own_ns <= most_ns:
            return own_ns, own_ns
        return min(own_ns, least_ns), max(own_ns, most_ns)


def _ns(monotonic_s: float) -> int:
    return int(monotonic_s * NS_PER_S)

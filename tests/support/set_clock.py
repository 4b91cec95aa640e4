"""A clock that stands where it was set."""

from alpaca_sim.core.clock import SECOND_NS, Clock

START_NS = 1_800_000_000 * SECOND_NS


class SetClock(Clock):
    """A clock that stands where the test puts it."""

    def __init__(self) -> None:
        """At a full minute."""
        super().__init__()
        self.at_ns = START_NS

    def now_ns(self) -> int:
        """As set."""
        return self.at_ns

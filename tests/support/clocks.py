"""Clocks of tests."""

from alpaca_sim.core.clock import SECOND_NS
from alpaca_sim.core.clock import Clock as SimulatorClock
from portfolio_harness.simulation.virtual_loop import VirtualLoop
from portfolio_realtime.clock import NS_PER_S

START_NS = 1_800_000_000 * SECOND_NS


class SetClock(SimulatorClock):
    """A clock that stands where the test puts it."""

    def __init__(self) -> None:
        """At a full minute."""
        super().__init__()
        self.at_ns = START_NS

    def now_ns(self) -> int:
        """As set."""
        return self.at_ns


class LoopClock:
    """The time of an event loop."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now_ns(self) -> int:
        """The loop's time, in nanoseconds."""
        return int(self._loop.time() * NS_PER_S)

    def monotonic_s(self) -> float:
        """The same, in seconds."""
        return self._loop.time()

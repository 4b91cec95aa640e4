"""Goals of a run. A missed goal decides the exit code."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

P99_MS_MAX: Final = 250.0  # from trade to client, beyond the conflation wait
STORM_BACK_S_MAX: Final = 15.0  # until every client of a storm has a value again
STALE_S_MAX: Final = 5.0  # P8: no client is without a newer value for longer when a server ends
RATIO_MAX: Final = 1.5  # P7: p99 of reading clients, relative to the p99 without stalled ones


@dataclass(frozen=True)
class Goal:
    """A measured figure and its limit: a maximum, or a minimum."""

    name: str
    figure: float | None  # None: it could not be measured, and the goal is missed
    limit: float
    is_minimum: bool = False

    @property
    def is_met(self) -> bool:
        """Whether the goal is reached."""
        if self.figure is None:
            return False
        return self.figure >= self.limit if self.is_minimum else self.figure <= self.limit

    def __str__(self) -> str:
        figure = "unknown" if self.figure is None else f"{self.figure:g}"
        return f"{self.name}: {figure}, must be {'at least' if self.is_minimum else 'at most'} {self.limit:g}"


def none(**figures: float) -> list[Goal]:
    """Goals for counts that must be 0."""
    return [Goal(name, figure, 0) for name, figure in figures.items()]


def failed(goals: Iterable[Goal]) -> list[Goal]:
    """The goals that were missed."""
    return [goal for goal in goals if not goal.is_met]


def growth_max_ms(first_ms: float, p99_ms_max: float) -> float:
    """By how many milliseconds the p99 of the last quarter may exceed `first_ms`, that of the first.

    A queue that never empties makes lag grow without end, but the p99 of a quarter also varies by itself. The
    limit is half of `first_ms`, or a quarter of `p99_ms_max` if that is larger.
    """
    return max(first_ms / 2, p99_ms_max / 4)

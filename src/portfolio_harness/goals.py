"""What a run must reach, and what of it was not reached: the exit code is made from this."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

P99_MS_MAX: Final = 250.0  # from trade to client, beyond the conflation wait
STORM_BACK_S_MAX: Final = 15.0  # until every client of a storm has a value again
STALE_S_MAX: Final = 5.0  # P8: no client is stale for longer, whichever server ends
RATIO_MAX: Final = 1.5  # P7: p99 of who reads, beside the same without stalled readers


@dataclass(frozen=True)
class Goal:
    """A figure that was measured, and how large it may be (or must be at least)."""

    name: str
    figure: float | None  # None: it could not be measured, which is no success
    limit: float
    is_minimum: bool = False

    @property
    def is_met(self) -> bool:
        """Was it reached?"""
        if self.figure is None:
            return False
        return self.figure >= self.limit if self.is_minimum else self.figure <= self.limit

    def __str__(self) -> str:
        figure = "unknown" if self.figure is None else f"{self.figure:g}"
        return f"{self.name}: {figure}, but {'at least' if self.is_minimum else 'at most'} {self.limit:g}"


def none(**figures: float) -> list[Goal]:
    """There must be none of these."""
    return [Goal(name, figure, 0) for name, figure in figures.items()]


def failed(goals: Iterable[Goal]) -> list[Goal]:
    """Those that were not reached."""
    return [goal for goal in goals if not goal.is_met]


def growth_max_ms(first_ms: float, p99_ms_max: float) -> float:
    """How much larger the last quarter's p99 may be than that of the first.

    A queue that is never emptied makes lag grow without end; a percentile of a quarter goes up and down. So
    half of what it was, or, where that was little, a quarter of what is allowed at all.
    """
    return max(first_ms / 2, p99_ms_max / 4)

"""When to flush changes: at once after quiet, and together with later changes while busy."""

from typing import Final

COST_FACTOR: Final = 4.0  # the rest after a turn, as a multiple of its duration
CROWD_S: Final = 0.00015  # the rest for each change of a turn …
CROWD_S_MAX: Final = 0.022  # … which reaches this from about 5,000 changes a second on
NEVER_S: Final = float("-inf")


class Pace:
    """The times of the turns of a loop that passes changes on. It has no clock: times are arguments.

    A change after quiet is passed on at once. A change while busy waits for the next turn. That turn begins
    after a rest: the longest of `rest_s_min`, of COST_FACTOR times the duration of the last turn, and of
    CROWD_S for each change in it (at most CROWD_S_MAX), but no longer than `rest_s_max`. A burst is therefore
    one turn at once and few later ones, the last of which has the last change. However long turns take, time
    is left for other work.

    CROWD_S is there because a turn has a fixed price. Up to some thousand changes a second the rest stays
    short, and the price buys a short lag. With more, the rest grows to CROWD_S_MAX, and they share the price.
    The duration cannot tell these two apart: in both it is mostly the fixed price.
    """

    def __init__(self, rest_s_min: float, rest_s_max: float) -> None:
        self._rest_s_min = min(rest_s_min, rest_s_max)
        self._rest_s_max = rest_s_max
        self._next_s = NEVER_S

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next turn; 0: it is due."""
        return max(0.0, self._next_s - now_s)

    def took(self, began_s: float, ended_s: float, changes: int | None = None, sharers: int = 1) -> None:
        """Note the beginning and the end of a turn that passed on all changes made before it began.

        `changes`: how many; None where turns follow those of the hop before. `sharers`: how many processes
        share the work.
        """
        least_s = 0.0 if changes == 0 else self._rest_s_min
        crowd_s = min(CROWD_S_MAX, CROWD_S * (changes or 0))
        wanted_s = sharers * max(least_s, COST_FACTOR * (ended_s - began_s), crowd_s)
        self._next_s = ended_s + min(self._rest_s_max, wanted_s)

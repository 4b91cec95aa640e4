"""When to flush changes: at once after quiet, and together with later changes while busy."""

from typing import Final

COST_FACTOR: Final = 4.0  # the rest after a turn, as a multiple of its duration
NEVER_S: Final = float("-inf")


class Pace:
    """The times of the turns of a loop that passes changes on. It has no clock: times are arguments.

    A change after quiet is passed on at once. A change while busy waits for the next turn. That turn begins
    after a rest of `rest_s_min`, or of COST_FACTOR times the duration of the last turn if that is longer, but
    of at most `rest_s_max`. A burst is therefore one turn at once and few later ones, the last of which has
    the last change. However long turns take, time is left for other work.
    """

    def __init__(self, rest_s_min: float, rest_s_max: float) -> None:
        self._rest_s_min = min(rest_s_min, rest_s_max)
        self._rest_s_max = rest_s_max
        self._next_s = NEVER_S

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next turn; 0: it is due."""
        return max(0.0, self._next_s - now_s)

    def took(self, began_s: float, ended_s: float, sharers: int = 1) -> None:
        """Note the beginning and the end of a turn that passed on all changes made before it began.

        `sharers`: how many processes share the work.
        """
        wanted_s = sharers * max(self._rest_s_min, COST_FACTOR * (ended_s - began_s))
        self._next_s = ended_s + min(self._rest_s_max, wanted_s)

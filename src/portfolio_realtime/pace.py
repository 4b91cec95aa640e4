"""When to flush what has changed: at once after quiet, together with what else comes while busy."""

from typing import Final

COST_FACTOR: Final = 4.0  # a turn that costs so much is followed by this many times as long without one
NEVER_S: Final = float("-inf")


class Pace:
    """Times between the turns of one loop that hands changes on. No clock: seconds come in.

    What changes after quiet is handed on at once. What changes while busy waits for the next turn, which
    begins `rest_s_min` after the end of the one before or, where that one took long, COST_FACTOR times as
    long as it took; but never later than `rest_s_max`. So a burst is a first turn at once and few later ones,
    of which the last has its last change; and however long turns take, something is left for all other work.
    """

    def __init__(self, rest_s_min: float, rest_s_max: float) -> None:
        self._rest_s_min = min(rest_s_min, rest_s_max)
        self._rest_s_max = rest_s_max
        self._next_s = NEVER_S

    def wait_s(self, now_s: float) -> float:
        """For how long what has changed by now still waits; 0: the turn is due."""
        return max(0.0, self._next_s - now_s)

    def took(self, began_s: float, ended_s: float) -> None:
        """A turn that handed on all that had changed when it began is over."""
        wanted_s = COST_FACTOR * (ended_s - began_s)
        self._next_s = ended_s + min(self._rest_s_max, max(self._rest_s_min, wanted_s))

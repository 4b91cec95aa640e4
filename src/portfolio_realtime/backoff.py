"""Pauses between attempts that grow while the attempts fail.

Two places wait by another rule. A request to Alpaca's REST interfaces is a call that gives up: `stamina`
counts its attempts. The quota after a 429 without a reset (`alpaca/rate_limit.py`) waits its whole pause: a
shorter one would meet the same window again.
"""

import random
from typing import Final

SETTLED_S: Final = 30.0  # an attempt that lived so long was a success: the pauses start anew


class Backoff:
    """Pauses in seconds that double from the first to the longest.

    Each is shortened at random by up to half, so that many who failed at one moment do not all come back at
    one moment.
    """

    __slots__ = ("_failures", "_first_s", "_longest_s")

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._failures = 0

    def reset(self) -> None:
        """The last attempt succeeded."""
        self._failures = 0

    def next_s(self) -> float:
        """The pause after one more failure."""
        pause_s = min(self._first_s * 2.0**self._failures, self._longest_s)
        if pause_s < self._longest_s:
            self._failures += 1
        return pause_s * random.uniform(0.5, 1.0)

    def after_s(self, lived_s: float) -> float:
        """The pause after an attempt that lived so long before it ended."""
        if lived_s > SETTLED_S:
            self.reset()
        return self.next_s()

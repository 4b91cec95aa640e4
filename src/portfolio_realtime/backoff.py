"""Pauses between attempts, which grow while the attempts fail.

Two places wait by another rule. A request to Alpaca's REST API gives up after some attempts, which `stamina`
counts. After a 429 without a reset time, the quota (`alpaca/rate_limit.py`) waits without jitter: a shorter
pause would end in the same window.
"""

import random
from typing import Final

SETTLED_S: Final = 30.0  # an attempt that lasted longer was a success: the pauses start again


class Backoff:
    """Pauses that double from `first_s` to `longest_s` seconds.

    Each is shortened at random by up to half, so that many clients that failed at one time do not all return
    at one time.
    """

    __slots__ = ("_failures", "_first_s", "_longest_s")

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._failures = 0

    def reset(self) -> None:
        """Start again with the first pause: the last attempt succeeded."""
        self._failures = 0

    def next_s(self) -> float:
        """The pause after one more failure, in seconds."""
        pause_s = min(self._first_s * 2.0**self._failures, self._longest_s)
        if pause_s < self._longest_s:
            self._failures += 1
        return pause_s * random.uniform(0.5, 1.0)

    def after_s(self, lived_s: float) -> float:
        """The pause after an attempt that lasted `lived_s` seconds, in seconds."""
        if lived_s > SETTLED_S:
            self.reset()
        return self.next_s()

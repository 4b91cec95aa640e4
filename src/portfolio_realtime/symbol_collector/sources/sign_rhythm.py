"""How often a stream gives a sign of life, learned from itself: how often it should is not documented."""

from collections import deque
from typing import Final

PAUSES_MIN: Final = 3  # between signs, before their rhythm is known
PAUSES_KEPT: Final = 20  # a longer one of before, as when we stood still, is no part of it
OVERDUE_FACTOR: Final = 1.5  # times the longest of these …
OVERDUE_MARGIN_S: Final = 1.0  # … and so much more


class SignRhythm:
    """The pauses between the newest signs of one connection; times are monotonic seconds."""

    def __init__(self) -> None:
        self._heard_s = 0.0  # the newest sign, of any connection
        self._pauses_s = deque[float](maxlen=PAUSES_KEPT)

    def begin(self, now_s: float) -> None:
        """A new connection, whose opening is a sign of life."""
        self._heard_s = now_s
        self._pauses_s.clear()

    def hear(self, now_s: float) -> None:
        """A sign of life."""
        self._pauses_s.append(now_s - self._heard_s)
        self._heard_s = now_s

    def is_overdue(self, now_s: float) -> bool:
        """Is the next sign late? With a sign each second after 2.5 s; one each 15 s (docs) after 23.5 s."""
        if len(self._pauses_s) < PAUSES_MIN:
            return False
        return now_s - self._heard_s > OVERDUE_FACTOR * max(self._pauses_s) + OVERDUE_MARGIN_S

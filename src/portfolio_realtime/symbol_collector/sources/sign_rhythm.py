"""How often a stream gives a sign of life. It is learned from the stream, because it is not documented."""

from collections import deque
from typing import Final

PAUSES_MIN: Final = 3  # until the rhythm is known
PAUSES_KEPT: Final = 20  # a long one, as when this process was paused, is dropped after this many
OVERDUE_FACTOR: Final = 1.5  # times the longest kept pause …
OVERDUE_MARGIN_S: Final = 1.0  # … plus this


class SignRhythm:
    """The newest pauses between signs of life on one connection. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._heard_s = 0.0  # the newest sign, of any connection
        self._pauses_s = deque[float](maxlen=PAUSES_KEPT)

    def begin(self, now_s: float) -> None:
        """Note a new connection, whose opening is a sign of life."""
        self._heard_s = now_s
        self._pauses_s.clear()

    def hear(self, now_s: float) -> None:
        """Note a sign of life."""
        self._pauses_s.append(now_s - self._heard_s)
        self._heard_s = now_s

    def is_overdue(self, now_s: float) -> bool:
        """Whether the next sign is late.

        With a sign each second it is late after 2.5 s, with one every 15 s (Alpaca's docs) after 23.5 s.
        """
        if len(self._pauses_s) < PAUSES_MIN:
            return False
        return now_s - self._heard_s > OVERDUE_FACTOR * max(self._pauses_s) + OVERDUE_MARGIN_S

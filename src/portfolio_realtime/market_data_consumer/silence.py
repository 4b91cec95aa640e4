"""Whether a stream has been silent for suspiciously long: for many times its usual pause. Pure.

Silence alone proves nothing. A stream that delivered data every few milliseconds and then nothing for seconds
is suspect until data arrives, or until snapshots show that nothing was traded.
"""

import math
from typing import Final

SILENCE_S_MIN: Final = 2.0  # a shorter silence is never suspect
# Nor is a silence of fewer usual pauses. By chance a longer one happens once in 500 million: exp(-20).
PAUSES_MAX: Final = 20.0
FRAMES_MIN: Final = 20  # until the usual pause is known
WEIGHT: Final = 0.05  # of the newest pause in the moving average


class Silence:
    """The usual pause of one stream, and its silence now. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._frames = 0
        self._newest_s: float | None = None  # None: no data is expected without a connection
        self._pause_s = 0.0

    def note_data(self, now_s: float) -> None:
        """Note that data has arrived."""
        if self._frames and self._newest_s is not None:
            pause_s = now_s - self._newest_s
            weight = WEIGHT if self._frames > FRAMES_MIN else 1 / self._frames
            self._pause_s += weight * (pause_s - self._pause_s)
        self._newest_s = now_s
        self._frames += 1

    def is_unusual(self, now_s: float) -> bool:
        """Whether the stream has been silent for far longer than usual."""
        return now_s > self._unusual_s

    def earliest_s(self, now_s: float) -> float:
        """No silence is unusual before this time, whatever arrives from now on."""
        return min(now_s + SILENCE_S_MIN, self._unusual_s)

    @property
    def _unusual_s(self) -> float:
        """After this time the present silence is unusual."""
        if self._frames <= FRAMES_MIN or self._newest_s is None:
            return math.inf
        return self._newest_s + max(SILENCE_S_MIN, PAUSES_MAX * self._pause_s)

    def reset(self) -> None:
        """Learn the usual pause again: another feed, another session, or a silence that is explained."""
        self._frames = 0

    def interrupt(self) -> None:
        """Expect no data: the connection is lost. The usual pause is kept."""
        self._newest_s = None

    def resume(self, now_s: float) -> None:
        """Expect data from now on: a new connection is complete."""
        if self._newest_s is None:
            self._newest_s = now_s

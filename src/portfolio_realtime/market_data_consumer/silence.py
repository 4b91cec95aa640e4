"""Whether a stream is silent for suspiciously long: for many times its usual pause.

Silence alone proves nothing. But a stream that has brought data every few milliseconds and then brings none
for seconds is doubted until data arrives, or until snapshots show that nothing was traded. Pure.
"""

from typing import Final

SILENCE_S_MIN: Final = 2.0  # a shorter silence is never doubted
PAUSES_MAX: Final = 20.0  # nor one of fewer usual pauses: by chance, that is one in 500 million
FRAMES_MIN: Final = 20  # before a pause is usual
WEIGHT: Final = 0.05  # of the newest pause in the usual one


class Silence:
    """The rhythm of one stream; times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._frames = 0
        self._beat_s: float | None = None  # None: no data is expected, for there is no connection
        self._pause_s = 0.0

    def beat(self, now_s: float) -> None:
        """Data has arrived."""
        if self._frames and self._beat_s is not None:
            pause_s = now_s - self._beat_s
            weight = WEIGHT if self._frames > FRAMES_MIN else 1 / self._frames
            self._pause_s += weight * (pause_s - self._pause_s)
        self._beat_s = now_s
        self._frames += 1

    def is_faint(self, now_s: float) -> bool:
        """Whether the stream has been silent for far longer than usual."""
        if self._frames <= FRAMES_MIN or self._beat_s is None:
            return False
        return now_s - self._beat_s > max(SILENCE_S_MIN, PAUSES_MAX * self._pause_s)

    def begin_anew(self) -> None:
        """Another rhythm begins: another feed, another session, or a silence that is explained."""
        self._frames = 0

    def interrupt(self) -> None:
        """The connection is lost. What is usual for the feed stays known."""
        self._beat_s = None

    def resume(self, now_s: float) -> None:
        """A new connection is complete: from now on data is expected again."""
        if self._beat_s is None:
            self._beat_s = now_s

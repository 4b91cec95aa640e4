"""Does a stream that brought data still live? A silence of many times its usual pause is doubted at once.

Silence alone proves nothing, but a stream that has brought data every few milliseconds and brings none for
seconds is no longer believed until it does, or until snapshots show that nothing was traded. Pure.
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
        self._beat_s = 0.0
        self._pause_s = 0.0

    def beat(self, now_s: float) -> None:
        """Data has come."""
        if self._frames:
            pause_s = now_s - self._beat_s
            weight = WEIGHT if self._frames > FRAMES_MIN else 1 / self._frames
            self._pause_s += weight * (pause_s - self._pause_s)
        self._beat_s = now_s
        self._frames += 1

    def is_faint(self, now_s: float) -> bool:
        """Has it been silent for far longer than it uses to be?"""
        if self._frames <= FRAMES_MIN:
            return False
        return now_s - self._beat_s > max(SILENCE_S_MIN, PAUSES_MAX * self._pause_s)

    def begin_anew(self) -> None:
        """Another rhythm begins: a new connection, another session, or a silence that is explained."""
        self._frames = 0

"""Whether our clock is too far behind, so that every trade seems to be of the future. Pure."""

from typing import Final

# Our clock is behind if all trades were refused for more than AHEAD_S_MIN, and at least AHEAD_TRADES_MIN.
AHEAD_S_MIN: Final = 2.0
AHEAD_TRADES_MIN: Final = 3


class ClockBehind:
    """The trades of one feed that were refused since the last accepted one. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._since_s: float | None = None  # the first of them
        self._count = 0

    def note(self, ahead: int, accepted: int, now_s: float) -> None:
        """Note how many trades were refused because their time is in the future, and how many were accepted.

        Trades whose conditions let them move no mark, such as odd lots, are neither.
        """
        if accepted:
            self._since_s, self._count = None, 0
        elif ahead:
            self._since_s = now_s if self._since_s is None else self._since_s
            self._count += ahead

    def is_behind(self, now_s: float) -> bool:
        """Whether too many trades were refused for too long."""
        is_long = self._since_s is not None and now_s - self._since_s > AHEAD_S_MIN
        return is_long and self._count >= AHEAD_TRADES_MIN

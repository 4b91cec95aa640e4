"""When the marks of one feed may wait, because nobody watches. Pure: times are monotonic seconds.

1. Nobody watches: the feed's key in Valkey says so (SourceStatus.IDLE).
2. It has said so for TOLD_S, so all calculators know it: marks are written every IDLE_S only, and trades are
   decoded when that is due.
3. Somebody watches: all marks are written at once, in a batch that names the feed's sources. A calculator
   waits for this batch before it publishes.
4. The batch is written: the key says that the feed is live.
"""

from typing import Final

from portfolio_realtime.state import keys

IDLE_S: Final = 5.0  # between two writes of marks while nobody watches
# A calculator reads the key more often than that, or counts no feed as live.
TOLD_S: Final = keys.FEED_TTL_MS / 1000 + 0.5


class IdleFeed:
    """What one feed may put off, and what calculators know of it."""

    def __init__(self) -> None:
        self.is_behind = False  # marks in Valkey may be older than ours by more than a flush
        self._told_since_s: float | None = None  # since when the key says that the feed is idle

    def told(self, now_s: float) -> None:
        """Note that the key says, or still says, that the feed is idle."""
        if self._told_since_s is None:
            self._told_since_s = now_s

    def wake(self) -> None:
        """Put nothing off any more: somebody watches, or there is a new owner of the feed."""
        self._told_since_s = None

    def may_wait(self, now_s: float) -> bool:
        """Whether marks may wait for IDLE_S."""
        return self._told_since_s is not None and now_s - self._told_since_s >= TOLD_S

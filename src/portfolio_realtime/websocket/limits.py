"""How much one user and one address may have of one server: open connections, new ones, messages.

Pure: `now_s` is seconds that never go back, passed in.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from portfolio_realtime.config import Settings

BUCKETS_MAX: Final = 100_000  # of each kind
MINUTE_S: Final = 60.0


@dataclass(slots=True)
class _Bucket:
    left: float
    seen_s: float


class PerMinute:
    """A token bucket for each key: `allowance` at once, refilled evenly within a minute."""

    def __init__(self, allowance: int) -> None:
        self._allowance = allowance
        self._buckets: dict[str, _Bucket] = {}

    def take(self, key: str, now_s: float) -> bool:
        """May this key have one more now?"""
        bucket = self._buckets.get(key)
        if bucket is None:
            if not self._has_room(now_s):
                return False
            bucket = self._buckets[key] = _Bucket(float(self._allowance), now_s)
        refill = (now_s - bucket.seen_s) * self._allowance / MINUTE_S
        bucket.left, bucket.seen_s = min(bucket.left + refill, self._allowance), now_s
        if bucket.left < 1:
            return False
        bucket.left -= 1
        return True

    def _has_room(self, now_s: float) -> bool:
        if len(self._buckets) < BUCKETS_MAX:
            return True
        oldest_s = now_s - MINUTE_S  # what was not seen for a minute is full again, as if it were new
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if bucket.seen_s > oldest_s}
        return len(self._buckets) < BUCKETS_MAX


class Open:
    """How many each key has open."""

    def __init__(self, at_most: int) -> None:
        self._at_most = at_most
        self._open: Counter[str] = Counter()

    def has_room(self, key: str) -> bool:
        """May this key open one more?"""
        return self._open.get(key, 0) < self._at_most

    def enter(self, key: str, *, is_limited: bool = True) -> bool:
        """One more of this key, unless it has too many; `leave` gives the place back."""
        if is_limited and not self.has_room(key):
            return False
        self._open[key] += 1
        return True

    def leave(self, key: str) -> None:
        """One less."""
        self._open[key] -= 1
        if not self._open[key]:
            del self._open[key]


class Limits:
    """Those of one server, by the settings."""

    def __init__(self, settings: Settings) -> None:
        self.connections_of_user = Open(settings.connections_per_user)
        self.connections_of_address = Open(settings.connections_per_address)
        self.connects_of_address = PerMinute(settings.connects_per_minute)
        self.messages_of_user = PerMinute(settings.messages_per_user)

    def may_connect(self, place: str, now_s: float) -> bool:
        """May somebody at this place open one more connection?"""
        return self.connections_of_address.has_room(place) and self.connects_of_address.take(place, now_s)

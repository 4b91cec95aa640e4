"""How much one user and one address may have: open connections, new ones, messages, refusals.

Connections and messages are counted together with all other servers (`shared_counts.py`). Pure: `now_s` is
seconds that never go back, passed in.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from portfolio_realtime.config import Settings
from portfolio_realtime.websocket_server.access.shared_counts import SharedCounter, SharedCounts

BUCKETS_MAX: Final = 100_000  # of each kind
MINUTE_S: Final = 60.0
UNTOLD_MESSAGES: Final = 0.05  # of what a user may send: the others need not know of so few
KNOWN_S: Final = 1.0  # what the others have open is believed for so long
USER: Final = "user"
ADDRESS: Final = "address"


@dataclass(slots=True)
class _Bucket:
    left: float
    seen_s: float


class PerMinute:
    """A token bucket for each key: `allowance` at once, refilled evenly within a minute."""

    def __init__(self, allowance: int) -> None:
        self._allowance = allowance
        self._buckets: dict[str, _Bucket] = {}

    def try_acquire(self, key: str, now_s: float) -> bool:
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


class SharedRate:
    """How often each key has come in this minute, to all servers.

    `untold`: the first so many of each key are neither told to the others nor judged by what those have.
    """

    def __init__(self, allowance: int, counter: SharedCounter, untold: int = 0) -> None:
        self._allowance = allowance
        self._counter = counter
        self._untold = untold
        self._minute = 0
        self._taken: Counter[str] = Counter()

    def try_acquire(self, key: str) -> bool:
        """May this key come once more now?"""
        if (minute := self._counter.minute) != self._minute:
            self._minute = minute
            self._taken.clear()
        is_told = self._taken[key] >= self._untold
        elsewhere = self._counter.elsewhere(key, MINUTE_S) if is_told else 0
        if self._taken[key] + elsewhere >= self._allowance:
            return False
        self._taken[key] += 1
        if is_told:
            self._counter.tell(key, self._taken[key])
        return True


class Rate:
    """So many of each key a minute, to this process and, with a shared counter, to all together."""

    def __init__(self, allowance: int, counter: SharedCounter | None = None, untold: int = 0) -> None:
        self._own = PerMinute(allowance)
        self._shared_rate = SharedRate(allowance, counter, untold) if counter is not None else None

    def try_acquire(self, key: str, now_s: float) -> bool:
        """May this key have one more now?"""
        return self._own.try_acquire(key, now_s) and (
            self._shared_rate is None or self._shared_rate.try_acquire(key)
        )


class OpenConnections:
    """How many each key has open here, told to the other servers.

    `believes_others`: who has too many at all servers together is refused at once, where that is known; else
    only who has too many here, and the excess is closed later (`SharedCounts.on_excess`).
    """

    def __init__(
        self, at_most: int, counter: SharedCounter | None = None, *, believes_others: bool = False
    ) -> None:
        self._at_most = at_most
        self._counter = counter
        self._believes_others = believes_others
        self._open: Counter[str] = Counter()

    def has_room(self, key: str) -> bool:
        """May this key open one more?"""
        elsewhere = 0
        if self._counter is not None and self._believes_others:
            elsewhere = self._counter.elsewhere(key, KNOWN_S)
        return self._open.get(key, 0) + elsewhere < self._at_most

    def enter(self, key: str, *, is_limited: bool = True) -> bool:
        """One more of this key, unless it has too many; `leave` gives the place back."""
        if is_limited and not self.has_room(key):
            return False
        self._open[key] += 1
        self._tell(key)
        return True

    def leave(self, key: str) -> None:
        """One less."""
        self._open[key] -= 1
        self._tell(key)
        if not self._open[key]:
            del self._open[key]

    def _tell(self, key: str) -> None:
        if self._counter is not None:
            self._counter.tell(key, self._open[key])


class Limits:
    """Those of one server process, by the settings; `shared` tells what the other servers have."""

    def __init__(self, settings: Settings, shared: SharedCounts | None = None) -> None:

        def rate(allowance: int, kind: str) -> Rate:
            return Rate(allowance, None if shared is None else shared.counter(kind, is_of_minute=True))

        def connections(limit: int, kind: str, *, believes_others: bool) -> OpenConnections:
            counter = None if shared is None else shared.counter(kind, limit=limit)
            return OpenConnections(limit, counter, believes_others=believes_others)

        # A user's refusal is final, so it must not rest on a server that has just been killed.
        self.connections_of_user = connections(settings.connections_per_user, USER, believes_others=False)
        self.connects_of_user = rate(settings.connects_per_user, "user minute")
        self.connections_of_address = connections(
            settings.connections_per_address, ADDRESS, believes_others=True
        )
        self.connects_of_address = rate(settings.connects_per_minute, "minute")
        self.refusals_of_address = rate(settings.connects_per_minute, "refusals")
        self.messages_of_user = Rate(
            settings.messages_per_user,
            None if shared is None else shared.counter("messages", is_of_minute=True, can_wait=True),
            untold=int(UNTOLD_MESSAGES * settings.messages_per_user),
        )

    def may_connect(self, place: str, now_s: float) -> bool:
        """May somebody at this place open one more connection?"""
        return self.connections_of_address.has_room(place) and self.connects_of_address.try_acquire(
            place, now_s
        )

    def enter(self, user: str, now_s: float) -> bool:
        """One more connection of this user, unless it has too many or comes too often."""
        return (
            self.connections_of_user.has_room(user)
            and self.connects_of_user.try_acquire(user, now_s)
            and self.connections_of_user.enter(user, is_limited=False)
        )

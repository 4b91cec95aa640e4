"""Counts that all server processes share, on one machine or several: how many of each key, through Valkey.

A handshake never waits for Valkey. It is judged by the counts of its own process, and by what was last read
of the others. The new count is told within milliseconds, and the answer is what the others have. If the
limit is exceeded then, the newest connections are closed after VERDICT_S: until then, a server that has just
been killed is still counted. While Valkey does not answer, each process counts for itself.
"""

import asyncio
import contextlib
import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from portfolio_realtime.clock import NS_PER_S, Clock
from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.state.connection_counts import LIVING_MS, OPEN, ConnectionCounts, Judged

GATHER_S: Final = 0.01  # changes within this are told together
CROWD: Final = 16  # if there are more than this by then, waiting for further ones is cheaper
GATHER_CROWD_S: Final = 0.04  # the additional wait
AGAIN_S: Final = 0.2  # after a failed call
KEEP_S: Final = 0.5  # a quarter of LIVING_MS
VERDICT_S: Final = LIVING_MS / 1000 + KEEP_S  # from an excess until connections are closed
VERDICT_S_MAX: Final = 10.0  # from the first of several
CLOSING_S: Final = 10.0  # connections that we close are gone by then
MINUTE_S: Final = 60
DIGEST_BYTES: Final = 12
NAMES_KEPT_MAX: Final = 1024  # whose digests are known: each is needed several times during a connect

Excess = Mapping[tuple[str, str], int]
"""Kind and key -> connections beyond the limit."""


@dataclass(slots=True)
class _Change:
    kind: str = ""
    key: str = ""
    count: int = 0
    grown: int = 0  # since it was last told


@dataclass(slots=True)
class _Excess:
    kind: str
    key: str
    count: int
    since_s: float
    due_s: float


class SharedCounts:
    """What this process tells and learns about all kinds of counts."""

    def __init__(self, counts: ConnectionCounts, clock: Clock) -> None:
        self.on_excess: Callable[[Excess], None] = lambda _: None
        self._counts = counts
        self._clock = clock
        self._limits: dict[str, int] = {}
        self._own: dict[str, int] = {}  # name -> open connections here
        self._changed: dict[tuple[str, str], _Change] = {}  # period and name
        self._elsewhere: dict[tuple[str, str], tuple[int, float]] = {}  # ... -> count, and when it was read
        self._excesses: dict[str, _Excess] = {}
        self._closing: dict[
            str, tuple[int, float]
        ] = {}  # name -> open here, but told to close, and until when
        self._wake = asyncio.Event()

    def counter(
        self, kind: str, *, limit: int | None = None, is_of_minute: bool = False, can_wait: bool = False
    ) -> "SharedCounter":
        """The counts of one kind.

        `limit`: of the open connections of each key, at all servers together. `can_wait`: what changes is
        told within KEEP_S, or together with what cannot wait.
        """
        if limit is not None:
            self._limits[kind] = limit
        return SharedCounter(self, kind, is_of_minute=is_of_minute, can_wait=can_wait)

    @property
    def minute(self) -> int:
        """The number of the present minute, the same at all servers whose clocks agree."""
        return self._clock.now_ns() // (MINUTE_S * NS_PER_S)

    def tell(self, kind: str, key: str, count: int, *, is_of_minute: bool, can_wait: bool) -> None:
        """Note that this process has so many of a key; it is told soon."""
        period, name = self._place(kind, key, is_of_minute=is_of_minute)
        change = self._changed.get((period, name))
        if change is None:
            change = self._changed[period, name] = _Change()
        change.kind, change.key, change.count = kind, key, count
        if period == OPEN:
            grown = count - self._own.get(name, 0)
            change.grown += grown
            if grown < 0 and name in self._closing:
                closing, until_s = self._closing[name]
                self._closing[name] = max(0, closing + grown), until_s
            if count:
                self._own[name] = count
            else:
                self._own.pop(name, None)
        if not can_wait:
            self._wake.set()

    def elsewhere(self, kind: str, key: str, *, is_of_minute: bool, known_s: float) -> int:
        """How many the other servers have of a key, if that was read within `known_s`; else 0."""
        if not self._elsewhere:  # no other server, which is usual
            return 0
        found = self._elsewhere.get(self._place(kind, key, is_of_minute=is_of_minute))
        return found[0] if found is not None and self._clock.monotonic_s() - found[1] <= known_s else 0

    def _place(self, kind: str, key: str, *, is_of_minute: bool) -> tuple[str, str]:
        return str(self.minute) if is_of_minute else OPEN, _name(kind, key)

    async def share(self) -> NoReturn:
        """Tell what changes, and judge what exceeds a limit, forever."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._until_verdict_s())
            self._wake.clear()
            await asyncio.sleep(GATHER_S)
            if len(self._changed) > CROWD:
                await asyncio.sleep(GATHER_CROWD_S)
            try:
                await self._tell_changes()
                await self._judge()
            except StateUnavailable:
                await asyncio.sleep(AGAIN_S)
                self._wake.set()

    async def keep(self) -> NoReturn:
        """Keep our counts alive, and tell all of them again if Valkey has lost them, forever."""
        while True:
            with contextlib.suppress(StateUnavailable):
                if not await self._counts.keep():
                    self._tell_all_again()
            if self._changed:
                self._wake.set()
            self._forget_old()
            await asyncio.sleep(KEEP_S)

    def _tell_all_again(self) -> None:
        if not self._own:
            return
        for name, count in self._own.items():
            self._changed.setdefault((OPEN, name), _Change(count=count))
        self._wake.set()

    def _until_verdict_s(self) -> float | None:
        due_s = min((excess.due_s for excess in self._excesses.values()), default=None)
        return None if due_s is None else max(0.0, due_s - self._clock.monotonic_s())

    def _staying(self, name: str, count: int) -> int:
        """So many of these connections are not about to be closed."""
        return max(0, count - self._closing.get(name, (0, 0.0))[0])

    async def _tell_changes(self) -> None:
        """Raises StateUnavailable; what is not told then stays changed."""
        periods = {period for period, _ in self._changed}
        for period in periods:
            changed = {name: change for (of, name), change in self._changed.items() if of == period}
            for name in changed:
                del self._changed[period, name]
            told = {name: change.count for name, change in changed.items()}
            if period == OPEN:
                told = {name: self._staying(name, count) for name, count in told.items()}
            try:
                found = await self._counts.tell(period, told)
            except StateUnavailable:
                self._put_back(period, changed)
                raise
            now_s = self._clock.monotonic_s()
            for name, change in changed.items():
                self._elsewhere.pop((period, name), None)
                if found[name]:
                    self._elsewhere[period, name] = found[name], now_s
                self._note_excess(name, change, told[name] + found[name], now_s)

    def _put_back(self, period: str, changed: dict[str, _Change]) -> None:
        for name, change in changed.items():
            newer = self._changed.setdefault((period, name), change)
            if newer is not change:
                newer.grown += change.grown

    def _note_excess(self, name: str, change: _Change, total: int, now_s: float) -> None:
        limit = self._limits.get(change.kind)
        if limit is None:
            return
        count = min(change.grown, total - limit)
        if count > 0:
            excess = self._excesses.setdefault(name, _Excess(change.kind, change.key, 0, now_s, now_s))
            excess.count += count
            excess.due_s = min(now_s + VERDICT_S, excess.since_s + VERDICT_S_MAX)

    async def _judge(self) -> None:
        """Close what is still beyond a limit. Raises StateUnavailable."""
        now_s = self._clock.monotonic_s()
        due = {name: excess for name, excess in self._excesses.items() if excess.due_s <= now_s}
        if not due:
            return
        found = await self._counts.judge(
            {
                name: Judged(
                    self._staying(name, self._own.get(name, 0)), excess.count, self._limits[excess.kind]
                )
                for name, excess in due.items()
            }
        )
        to_close: dict[tuple[str, str], int] = {}
        for name, excess in due.items():
            del self._excesses[name]
            if count := found[name]:
                to_close[excess.kind, excess.key] = count
                closing, _ = self._closing.get(name, (0, 0.0))
                self._closing[name] = closing + count, now_s + CLOSING_S
        if to_close:
            self.on_excess(to_close)

    def _forget_old(self) -> None:
        now_s = self._clock.monotonic_s()
        self._closing = {name: one for name, one in self._closing.items() if one[0] and one[1] > now_s}
        oldest_s = now_s - MINUTE_S
        self._elsewhere = {place: found for place, found in self._elsewhere.items() if found[1] > oldest_s}


@functools.lru_cache(maxsize=NAMES_KEPT_MAX)
def _name(kind: str, key: str) -> str:
    return hashlib.blake2b(f"{kind} {key}".encode(), digest_size=DIGEST_BYTES).hexdigest()


class SharedCounter:
    """The counts of one kind."""

    def __init__(self, shared: SharedCounts, kind: str, *, is_of_minute: bool, can_wait: bool) -> None:
        self._shared = shared
        self._kind = kind
        self._is_of_minute = is_of_minute
        self._can_wait = can_wait

    @property
    def minute(self) -> int:
        """The number of the present minute."""
        return self._shared.minute

    def tell(self, key: str, count: int) -> None:
        """Note that this process has so many of a key."""
        self._shared.tell(self._kind, key, count, is_of_minute=self._is_of_minute, can_wait=self._can_wait)

    def elsewhere(self, key: str, known_s: float) -> int:
        """How many the other servers have of a key, if that was read within `known_s`; else 0."""
        return self._shared.elsewhere(self._kind, key, is_of_minute=self._is_of_minute, known_s=known_s)

"""Marks that may be behind, because their consumer writes rarely while nobody watches.

The key of a feed says that it is idle before its consumer puts anything off. When somebody begins to watch,
the consumer writes all marks at once and names its sources in that batch. A publication waits for this batch,
for WAKE_S_MAX at most. Then the marks of the source count as stale until the batch comes.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Final

from portfolio_realtime.clock import Clock

WAKE_S_MAX: Final = 0.5
# After a batch that names its source a consumer puts nothing off for longer than this. So a key that still
# says idle was read too early.
WOKEN_S: Final = 2.0


class IdleMarks:
    """The idle sources. `on_changed` is called when `overdue` has changed."""

    def __init__(self, clock: Clock, on_changed: Callable[[], None]) -> None:
        self.overdue: frozenset[str] = frozenset()  # idle sources that were waited for in vain
        self._clock = clock
        self._on_changed = on_changed
        self._sources: frozenset[str] = frozenset()
        self._woken_s: dict[str, float] = {}  # source -> when a batch last named it
        self._may_publish = asyncio.Event()  # not before the keys are read

    def read(self, sources: Collection[str]) -> None:
        """Note which sources are idle as their keys say."""
        early_s = self._clock.monotonic_s() - WOKEN_S
        self._set(frozenset(one for one in sources if self._woken_s.get(one, early_s) <= early_s))

    def hear(self, woken: Collection[str]) -> None:
        """Note that a batch has brought all marks of these sources."""
        if woken:
            self._woken_s.update(dict.fromkeys(woken, self._clock.monotonic_s()))
            self._set(self._sources.difference(woken))

    async def wait(self) -> None:
        """Wait until no mark may be behind, or count those of the idle sources as stale."""
        try:
            async with asyncio.timeout(WAKE_S_MAX):
                await self._may_publish.wait()
        except TimeoutError:
            self._may_publish.set()
            self._note_overdue(self._sources)

    def _set(self, sources: frozenset[str]) -> None:
        self._sources = sources
        self._note_overdue(self.overdue & sources)
        if sources == self.overdue:
            self._may_publish.set()
        else:
            self._may_publish.clear()

    def _note_overdue(self, sources: frozenset[str]) -> None:
        before, self.overdue = self.overdue, sources
        if before != sources:
            self._on_changed()

"""Hands the accounts that are due to those who fetch them, and sleeps until one is."""

import asyncio
from typing import Final

from portfolio_realtime.clock import NS_PER_S, Clock
from portfolio_realtime.symbol_collector.fetch_schedule import DueFetch, FetchSchedule
from portfolio_realtime.waiting import wait_at_most

LOOK_S_MAX: Final = 0.5  # between two looks, because a clock may be set
CLOCK_STEP_S: Final = 0.001  # a sleep may end so much early


class FetchTurns:
    """The schedule of one collector, and who waits for a turn."""

    def __init__(self, clock: Clock) -> None:
        self.schedule = FetchSchedule(self._note_queued)
        self._clock = clock
        self._looking = {True: asyncio.Lock(), False: asyncio.Lock()}
        self._queued = {True: asyncio.Event(), False: asyncio.Event()}

    async def next(self, *, is_urgent_only: bool) -> DueFetch:
        """The account to fetch now. One of those who wait looks; the others wait for that one."""
        async with self._looking[is_urgent_only]:
            while (turn := self.schedule.next(self._now_ns(), is_urgent_only=is_urgent_only)) is None:
                await self._until_due(is_urgent_only)
        return turn

    async def _until_due(self, is_urgent_only: bool) -> None:
        queued, due_ns = (
            self._queued[is_urgent_only],
            self.schedule.earliest_ns(is_urgent_only=is_urgent_only),
        )
        wait_s = LOOK_S_MAX if due_ns is None else (due_ns - self._now_ns()) / NS_PER_S + CLOCK_STEP_S
        await wait_at_most(min(wait_s, LOOK_S_MAX), queued)
        queued.clear()

    def _note_queued(self) -> None:
        for queued in self._queued.values():
            queued.set()

    def _now_ns(self) -> int:
        return int(self._clock.monotonic_s() * NS_PER_S)

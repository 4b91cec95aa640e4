"""Whether anybody watches any account. While nobody does, no mark is needed at once: the feeds are idle.

Who begins to watch is heard at once. That nobody watches any more is read, every WATCHED_CHECK_S, and must be
so for NOBODY_S: until then a calculator may not know it. What is not known counts as watched: before the
first reading, while interest cannot be heard, and where Valkey does not let us read it.
"""

import asyncio
from collections.abc import Callable
from typing import Final, NoReturn

import structlog

from portfolio_realtime.errors import StateRefused
from portfolio_realtime.service import Context, keep_running, together

WATCHED_CHECK_S: Final = 5.0  # between two checks whether anybody still watches
NOBODY_S: Final = 9.0  # more than between two readings of interest by a calculator

log = structlog.get_logger()


class AnyWatchers:
    """Follows interest in all accounts."""

    def __init__(self, context: Context) -> None:
        self.is_any = True
        self._context = context
        self._interest = context.state.interest
        self._shards = list(range(context.settings.shards))
        self._watched_s = context.clock.monotonic_s()  # when somebody was last known to watch
        self._on_begun: list[Callable[[], None]] = []

    def call(self, on_begun: Callable[[], None]) -> None:
        """Call it each time that somebody begins to watch after nobody did."""
        self._on_begun.append(on_begun)

    async def run(self) -> None:
        """Follow without end."""
        try:
            await keep_running(
                lambda: together(self._hear(), self._check()), self._context.clock, "interest in accounts"
            )
        except StateRefused as error:
            log.warning("marks are written at once for nobody, too", reason=str(error))
            self._begin()
            await asyncio.Event().wait()

    async def _hear(self) -> None:
        try:
            async for _ in self._interest.announcements(self._shards):
                self._begin()  # somebody watches, or something was missed
        finally:
            self._begin()

    async def _check(self) -> NoReturn:
        while True:
            await asyncio.sleep(WATCHED_CHECK_S)
            is_any = await self._interest.is_any_watched()
            if is_any or self._context.state.connection.has_lost_channels:
                self._begin()
            elif self._context.clock.monotonic_s() - self._watched_s > NOBODY_S:
                self.is_any = False

    def _begin(self) -> None:
        self._watched_s = self._context.clock.monotonic_s()
        if not self.is_any:
            self.is_any = True
            for call in self._on_begun:
                call()

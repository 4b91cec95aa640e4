"""Which feeds are live: one key for each source of marks, kept by its consumer; without it, an outage.

A consumer that is cut off, mute, killed or without Valkey stops keeping its key, so nobody has to notice and
say it: the marks of a source that is not live are stale, however young they are.
"""

from collections.abc import Iterable
from typing import Final

from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection, reports_unavailable

_LIVE: Final = b"live"


class Feeds:
    """The keys `feed:SOURCE`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @reports_unavailable
    async def keep(self, source: str) -> None:
        """This source is live for another FEED_TTL_MS. Raises StateUnavailable."""
        await self._connection.commands.set(keys.feed(source), _LIVE, px=keys.FEED_TTL_MS)

    @reports_unavailable
    async def live(self, sources: Iterable[str]) -> set[str]:
        """Those of the sources that are live now. Raises StateUnavailable."""
        asked = list(sources)
        found = await self._connection.commands.mget([keys.feed(source) for source in asked]) if asked else []
        return {source for source, kept in zip(asked, found, strict=True) if kept is not None}

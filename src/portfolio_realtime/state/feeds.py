"""Which feeds are live: one key for each source of marks, renewed by its consumer.

A consumer that is disconnected, mute, killed or without Valkey stops renewing its key, so no process has to
detect and report the outage. Without the key, all marks of the source are stale, however recent they are.
"""

from collections.abc import Awaitable, Iterable
from typing import Final, cast

from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection, reports_unavailable

ACCOUNTS: Final = "accounts"  # the source of account records: the broker, followed by the symbol collector
COLLECTOR: Final = "collector"  # the hop that is silent while the key of ACCOUNTS is missing
_LIVE: Final = b"live"
_CORE: Final = b"core"  # live, and the exchange is open


class Feeds:
    """The keys `{feed}:SOURCE`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @reports_unavailable
    async def keep(self, source: str, *, is_core: bool = False) -> None:
        """Mark a source as live for another FEED_TTL_MS.

        `is_core`: its exchange is in its core session. Raises StateUnavailable.
        """
        value = _CORE if is_core else _LIVE
        await self._connection.commands.set(keys.feed(source), value, px=keys.FEED_TTL_MS)

    @reports_unavailable
    async def drop(self, source: str) -> None:
        """Mark a source as not live. Raises StateUnavailable.

        If another consumer has taken over, it marks the source as live again.
        """
        await self._connection.commands.delete(keys.feed(source))

    @reports_unavailable
    async def live(self, sources: Iterable[str]) -> set[str]:
        """The sources that are live now. Raises StateUnavailable."""
        return set(await self.sessions(sources))

    @reports_unavailable
    async def sessions(self, sources: Iterable[str]) -> dict[str, bool]:
        """The sources that are live now -> whether their exchange is in its core session.

        Raises StateUnavailable.
        """
        asked = list(sources)
        if not asked:
            return {}
        names = [keys.feed(source) for source in asked]
        found = await cast("Awaitable[list[bytes | None]]", self._connection.commands.mget(names))
        return {source: kept == _CORE for source, kept in zip(asked, found, strict=True) if kept is not None}

"""Which feeds are live: one key for each source of marks, kept by its consumer; without it, an outage.

A consumer that is cut off, mute, killed or without Valkey stops keeping its key, so nobody has to notice and
say it: the marks of a source that is not live are stale, however young they are.
"""

from collections.abc import Awaitable, Iterable
from typing import Final, cast

from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection, reports_unavailable

ACCOUNTS: Final = "accounts"  # the source of account records: the broker, heard by the symbol collector
COLLECTOR: Final = "collector"  # the hop that is silent while nobody says that these are followed
_LIVE: Final = b"live"
_CORE: Final = b"core"  # live, and the exchange is open


class Feeds:
    """The keys `{feed}:SOURCE`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @reports_unavailable
    async def keep(self, source: str, *, is_core: bool = False) -> None:
        """This source is live for another FEED_TTL_MS; `is_core`: of an exchange in its core session.

        Raises StateUnavailable.
        """
        value = _CORE if is_core else _LIVE
        await self._connection.commands.set(keys.feed(source), value, px=keys.FEED_TTL_MS)

    @reports_unavailable
    async def drop(self, source: str) -> None:
        """This source is live no more; who keeps it in our place says so again. Raises StateUnavailable."""
        await self._connection.commands.delete(keys.feed(source))

    @reports_unavailable
    async def live(self, sources: Iterable[str]) -> set[str]:
        """Those of the sources that are live now. Raises StateUnavailable."""
        return set(await self._kept(sources))

    @reports_unavailable
    async def is_core_session(self, sources: Iterable[str]) -> bool:
        """Does one of these sources say that its exchange is in its core session? Raises StateUnavailable."""
        return _CORE in (await self._kept(sources)).values()

    async def _kept(self, sources: Iterable[str]) -> dict[str, bytes]:
        asked = list(sources)
        if not asked:
            return {}
        names = [keys.feed(source) for source in asked]
        found = await cast("Awaitable[list[bytes | None]]", self._connection.commands.mget(names))
        return {source: kept for source, kept in zip(asked, found, strict=True) if kept is not None}

"""Which feeds are live: one key for each source of marks, renewed by its consumer.

A consumer that is disconnected, mute, killed or without Valkey stops renewing its key, so no process has to
detect and report the outage. Without the key, all marks of the source are stale, however recent they are.

A key lives longer when Valkey's clock goes back, or is set to that of another server. So a reader also looks
at its expiry time, which each renewal changes: a key that was not renewed for FEED_TTL_MS by the reader's own
clock counts as gone.
"""

import asyncio
from collections.abc import Awaitable, Iterable
from enum import Enum
from typing import Any, Final, NamedTuple, cast

from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection, reports_unavailable

ACCOUNTS: Final = "accounts"  # the source of account records: the broker, followed by the symbol collector
COLLECTOR: Final = "collector"  # the hop that is silent while the key of ACCOUNTS is missing


class SourceStatus(Enum):
    """What the key of a live source says."""

    LIVE = b"live"
    CORE = b"core"  # live, and the exchange is open
    IDLE = b"idle"  # live, and its marks may be behind, because nobody watches


_STATUSES: Final = {status.value: status for status in SourceStatus}


class _Renewal(NamedTuple):
    expiry_ms: int  # by Valkey's clock
    seen_s: float  # when a reader first saw it, by the loop's clock


class Feeds:
    """The keys `{feed}:SOURCE`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._renewals: dict[str, _Renewal] = {}  # source -> the newest one that was read

    @reports_unavailable
    async def keep(self, source: str, status: SourceStatus = SourceStatus.LIVE) -> None:
        """Mark a source as live for another FEED_TTL_MS. Raises StateUnavailable."""
        await self._connection.commands.set(keys.feed(source), status.value, px=keys.FEED_TTL_MS)

    @reports_unavailable
    async def drop(self, source: str) -> None:
        """Mark a source as not live. Raises StateUnavailable.

        If another consumer has taken over, it marks the source as live again.
        """
        await self._connection.commands.delete(keys.feed(source))

    @reports_unavailable
    async def live(self, sources: Iterable[str]) -> set[str]:
        """The sources that are live now. Raises StateUnavailable."""
        return set(await self.read(sources))

    @reports_unavailable
    async def read(self, sources: Iterable[str]) -> dict[str, SourceStatus]:
        """The sources that are live now -> what they say. Raises StateUnavailable."""
        asked = sorted(sources)
        if not asked:
            return {}
        pipeline = self._connection.commands.pipeline(transaction=False)
        pipeline.mget([keys.feed(source) for source in asked])
        for source in asked:
            pipeline.pexpiretime(keys.feed(source))
        values, *expiries_ms = await cast("Awaitable[list[Any]]", pipeline.execute())
        return {
            source: _STATUSES.get(value, SourceStatus.LIVE)
            for source, value, expiry_ms in zip(asked, values, expiries_ms, strict=True)
            if value is not None and self._is_renewed(source, expiry_ms)
        }

    def _is_renewed(self, source: str, expiry_ms: int) -> bool:
        """Whether a key with this expiry time was renewed in the last FEED_TTL_MS, as far as we have seen."""
        now_s = asyncio.get_running_loop().time()
        newest = self._renewals.get(source)
        if newest is None or newest.expiry_ms != expiry_ms:
            newest = self._renewals[source] = _Renewal(expiry_ms, now_s)
        return now_s - newest.seen_s < keys.FEED_TTL_MS / 1000

"""Who is being watched: WebSocket servers say it, portfolio calculators value only those.

Interest expires by itself (INTEREST_MS) unless a server renews it, so a dead server leaves none behind.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final, cast

from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection, Message, Subscribed, reports_unavailable

INTEREST_MS: Final = 30_000
RENEW_S: Final = 10.0


@dataclass(frozen=True)
class Watched:
    """The accounts of a shard that somebody watches, and those among them with positions."""

    account_ids: frozenset[str]
    with_positions: frozenset[str]


class Interest:
    """The sorted sets `{sNN}:interest` and `{sNN}:interest:positions`, and the channel `{sNN}:interest`."""

    def __init__(self, connection: Connection, shards: int) -> None:
        self._connection = connection
        self._shards = shards

    @reports_unavailable
    async def renew(self, account_ids: Iterable[str], with_positions: Iterable[str]) -> None:
        """Prolong interest in accounts, silently. Raises StateUnavailable."""
        pipeline = self._connection.commands.pipeline(transaction=False)
        self._prolong(pipeline, account_ids, with_positions)
        await cast("Awaitable[Any]", pipeline.execute())

    @reports_unavailable
    async def announce_all(self, account_ids: Collection[str], with_positions: Collection[str]) -> None:
        """Begin to watch accounts: the calculator publishes them at once. Raises StateUnavailable."""
        pipeline = self._connection.commands.pipeline(transaction=False)
        self._prolong(pipeline, account_ids, with_positions)
        for account_id in account_ids:
            pipeline.publish(keys.interest(self._shard(account_id)), account_id)
        await cast("Awaitable[Any]", pipeline.execute())

    async def announce(self, account_id: str, *, with_positions: bool) -> None:
        """The same for one account. Raises StateUnavailable."""
        await self.announce_all([account_id], [account_id] if with_positions else [])

    def _prolong(self, pipeline: Any, account_ids: Iterable[str], with_positions: Iterable[str]) -> None:
        expiry_ms = _now_ms() + INTEREST_MS
        members: dict[str, dict[str, float]] = {}
        for account_id in account_ids:
            members.setdefault(keys.interest(self._shard(account_id)), {})[account_id] = expiry_ms
        for account_id in with_positions:
            members.setdefault(keys.position_interest(self._shard(account_id)), {})[account_id] = expiry_ms
        for key, scores in members.items():
            pipeline.zadd(key, scores)

    @reports_unavailable
    async def read(self, shard: int) -> Watched:
        """Who is watched in a shard now; expired interest is removed."""
        pipeline = self._connection.commands.pipeline(transaction=False)
        for key in (keys.interest(shard), keys.position_interest(shard)):
            pipeline.zremrangebyscore(key, "-inf", _now_ms())
            pipeline.zrange(key, 0, -1)
        _, watched, _, with_positions = await cast("Awaitable[list[Any]]", pipeline.execute())
        return Watched(
            frozenset(member.decode() for member in watched),
            frozenset(member.decode() for member in with_positions),
        )

    def announcements(self, shards: list[int]) -> AsyncIterator[Message | Subscribed]:
        """Account ids that somebody begins to watch, as message payloads."""
        return self._connection.follow(*(keys.interest(shard) for shard in shards))

    def _shard(self, account_id: str) -> int:
        return keys.shard_of(account_id, self._shards)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

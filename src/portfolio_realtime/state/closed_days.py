"""Accounts on closed days: requested by servers, fetched by the symbol collector, stored for a while."""

from collections.abc import Awaitable
from typing import Any, Final, cast

import msgspec

from portfolio_realtime.model import ClosedDays
from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection, reports_unavailable

WANTED_S: Final = 60  # a request that is not read expires

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(ClosedDays).decode


class ClosedDaysStore:
    """The keys `history:ACCOUNT`, and the set `history-wanted`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @reports_unavailable
    async def want(self, account_id: str) -> None:
        """Request an account's closed days from the symbol collector. Raises StateUnavailable."""
        commands = self._connection.commands
        await cast("Awaitable[Any]", commands.sadd(keys.history_wanted(), account_id))
        await cast("Awaitable[Any]", commands.expire(keys.history_wanted(), WANTED_S))

    @reports_unavailable
    async def take_wanted(self, count: int) -> list[str]:
        """Remove and return up to `count` requested accounts. Raises StateUnavailable."""
        found = await cast("Awaitable[Any]", self._connection.commands.spop(keys.history_wanted(), count))
        return [account_id.decode() for account_id in found or ()]

    @reports_unavailable
    async def write(self, days: ClosedDays) -> None:
        """Store an account's closed days for HISTORY_TTL_S. Raises StateUnavailable."""
        key = keys.history(days.account_id)
        await cast("Awaitable[Any]", self._connection.commands.set(key, _encode(days), ex=keys.HISTORY_TTL_S))

    @reports_unavailable
    async def read(self, account_id: str) -> ClosedDays | None:
        """An account's closed days as they were last fetched, or None. Raises StateUnavailable."""
        stored = await cast(
            "Awaitable[bytes | None]", self._connection.commands.get(keys.history(account_id))
        )
        return None if stored is None else _decode(stored)

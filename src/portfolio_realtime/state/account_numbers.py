"""The broker's number of each account, for people: written by the symbol collector, read by servers."""

from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, Final, cast

from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection, reports_unavailable

BATCH: Final = 1000  # accounts of one write


class AccountNumbers:
    """The hash `account-numbers`. Nobody's money depends on it, so nobody's lease guards it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @reports_unavailable
    async def count(self) -> int:
        """How many accounts have a number. Raises StateUnavailable."""
        return await self._connection.commands.hlen(keys.account_numbers())

    @reports_unavailable
    async def write(self, numbers: Mapping[str, str]) -> None:
        """Keep these numbers, by account, and no others. Raises StateUnavailable."""
        commands, key = self._connection.commands, keys.account_numbers()
        found = await cast("Awaitable[list[bytes]]", commands.hkeys(key))
        gone = [one for one in found if one.decode() not in numbers]
        for start in range(0, len(gone), BATCH):
            await cast("Awaitable[Any]", commands.hdel(key, *gone[start : start + BATCH]))
        items = list(numbers.items())
        for start in range(0, len(items), BATCH):
            some: dict[Any, Any] = dict(items[start : start + BATCH])
            await cast("Awaitable[Any]", commands.hset(key, mapping=some))

    @reports_unavailable
    async def read(self, account_ids: Iterable[str]) -> dict[str, str]:
        """The numbers that are known of these accounts. Raises StateUnavailable."""
        wanted = list(account_ids)
        if not wanted:
            return {}
        found = await cast(
            "Awaitable[list[bytes | None]]", self._connection.commands.hmget(keys.account_numbers(), wanted)
        )
        return {one: number.decode() for one, number in zip(wanted, found, strict=True) if number is not None}

"""The names of companies and coins, by symbol: written by the symbol collector, read by servers."""

from collections.abc import Awaitable, Iterable
from typing import Any, cast

from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection, reports_unavailable


class AssetNames:
    """The hash `asset-names`. It is written without a lease, because no value depends on it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @reports_unavailable
    async def symbols(self) -> set[str]:
        """The symbols that have a name. Raises StateUnavailable."""
        found = await cast("Awaitable[list[bytes]]", self._connection.commands.hkeys(keys.asset_names()))
        return {symbol.decode() for symbol in found}

    @reports_unavailable
    async def write(self, symbol: str, name: str) -> None:
        """Store the name of a symbol. Raises StateUnavailable."""
        await cast("Awaitable[Any]", self._connection.commands.hset(keys.asset_names(), symbol, name))

    @reports_unavailable
    async def read(self, symbols: Iterable[str]) -> dict[str, str]:
        """Symbol -> name, without symbols that have no name. Raises StateUnavailable."""
        wanted = list(symbols)
        if not wanted:
            return {}
        found = await cast(
            "Awaitable[list[bytes | None]]", self._connection.commands.hmget(keys.asset_names(), wanted)
        )
        return {symbol: name.decode() for symbol, name in zip(wanted, found, strict=True) if name is not None}

"""Asks Sentinels for the primary, each time a connection is opened.

The library's own Sentinel connections ask once and then retry the same address (redis-py#3874). Here every
try asks again.
"""

from collections.abc import Sequence
from typing import Any, Final

from redis import exceptions
from redis.asyncio import Connection, Redis, SSLConnection

from portfolio_realtime.config import valkey_url

ASK_S_MAX: Final = 1.0  # for one Sentinel, to connect and to answer


class Sentinels:
    """The Sentinels that know one primary by its name."""

    def __init__(self, url: str, name: str, places: Sequence[tuple[str, int]]) -> None:
        self._url = url  # without a login; gives the TLS options
        self._name = name
        self._places = list(places)

    async def primary(self) -> tuple[str, int]:
        """Host and port of the primary, from the first Sentinel that knows it. Raises RedisError."""
        failure: Exception = exceptions.ConnectionError("no Sentinel is named")
        for place in tuple(self._places):
            try:
                told = await self._ask(place)
            except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
                failure = exceptions.ConnectionError(f"no Sentinel answers: {error}")
                self._places.append(self._places.pop(0))  # ask another one first next time
                continue
            if told is not None:
                host, port = told
                return host.decode(), int(port)
            failure = exceptions.ConnectionError(f"no Sentinel knows a primary of this name: {self._name}")
        raise failure

    async def _ask(self, place: tuple[str, int]) -> list[bytes] | None:
        client: Redis = Redis.from_url(
            valkey_url.at(self._url, *place),
            socket_timeout=ASK_S_MAX,
            socket_connect_timeout=ASK_S_MAX,
            single_connection_client=True,
        )
        try:
            return await client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", self._name)
        finally:
            await client.aclose()


class _ToPrimary:
    """Finds the primary before a connection of the library is opened."""

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        super().__init__(**options)
        self._sentinels = sentinels

    async def _connect(self) -> None:
        self.host, self.port = await self._sentinels.primary()
        await super()._connect()  # type: ignore[misc]  # a method of the library's connection class


class PrimaryConnection(_ToPrimary, Connection):
    """A connection to the server that is the primary when it is opened."""


class SecurePrimaryConnection(_ToPrimary, SSLConnection):
    """As PrimaryConnection, with TLS."""

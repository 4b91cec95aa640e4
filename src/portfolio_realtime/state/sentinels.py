"""Asks Sentinels where the primary is, each time a connection is opened.

The library's own Sentinel connections ask once and then try the same address again (redis-py#3874); here each
try asks anew.
"""

from collections.abc import Sequence
from typing import Any, Final

from redis import exceptions
from redis.asyncio import Connection, Redis, SSLConnection

from portfolio_realtime.config import valkey_url

ASK_S_MAX: Final = 1.0  # for one Sentinel, to connect and to answer


class Sentinels:
    """Those that know one primary by its name."""

    def __init__(self, url: str, name: str, places: Sequence[tuple[str, int]]) -> None:
        self._url = url  # without a login: how TLS is spoken, if it is
        self._name = name
        self._places = list(places)

    async def primary(self) -> tuple[str, int]:
        """Host and port of the primary, by the first Sentinel that knows. Raises RedisError."""
        failure: Exception = exceptions.ConnectionError("no Sentinel is named")
        for place in tuple(self._places):
            try:
                told = await self._ask(place)
            except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
                failure = exceptions.ConnectionError(f"no Sentinel answers: {error}")
                self._places.append(self._places.pop(0))  # the next time another one is asked first
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
    """What a connection of the library does first."""

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        super().__init__(**options)
        self._sentinels = sentinels

    async def _connect(self) -> None:
        self.host, self.port = await self._sentinels.primary()
        await super()._connect()  # type: ignore[misc]  # of the library's connection beside it


class PrimaryConnection(_ToPrimary, Connection):
    """A connection to whoever is the primary when it is opened."""


class SecurePrimaryConnection(_ToPrimary, SSLConnection):
    """The same with TLS."""

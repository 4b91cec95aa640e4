"""What kind of server the shared state lives on, and how fast it answers; for the doctor."""

import statistics
import time
from dataclasses import dataclass
from typing import Any, Final

from redis import exceptions

from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.state.connection import Connection
from portfolio_realtime.state.error_answers import state_error

PINGS: Final = 20


@dataclass(frozen=True)
class Server:
    """One server as it describes itself."""

    name: str  # Valkey or Redis
    version: str
    round_trip_ms: float  # median
    eviction_policy: str
    replica: bool
    replicas: int = 0  # that are connected to it
    saved_s: int | None = None  # when it last wrote a snapshot, in seconds since 1970; None: it does not say

    @property
    def major_version(self) -> int:
        """The number before the first point; 0 when there is none."""
        digits = self.version.partition(".")[0]
        return int(digits) if digits.isdecimal() else 0


async def examine(url: str) -> Server:
    """The server at a URL. Raises StateUnavailable, StateRefused."""
    connection = Connection(url)
    try:
        await connection.ping()
        seconds: list[float] = []
        for _ in range(PINGS):
            began_s = time.perf_counter()
            await connection.ping()
            seconds.append(time.perf_counter() - began_s)
        return _server(await _info(connection), 1000 * statistics.median(seconds))
    finally:
        await connection.close()


async def _info(connection: Connection) -> dict[str, Any]:
    try:
        return await connection.commands.info()
    except (exceptions.RedisError, OSError) as error:
        meaning = state_error(error)
        raise meaning or StateUnavailable(f"Valkey did not answer INFO: {error}") from error


def _server(info: dict[str, Any], round_trip_ms: float) -> Server:
    is_valkey = "valkey_version" in info
    return Server(
        name="Valkey" if is_valkey else "Redis",
        version=str(info.get("valkey_version" if is_valkey else "redis_version", "")),
        round_trip_ms=round_trip_ms,
        eviction_policy=str(info.get("maxmemory_policy", "")),
        replica=info.get("role") == "slave",
        replicas=int(info.get("connected_slaves", 0)),
        saved_s=info.get("rdb_last_save_time"),
    )

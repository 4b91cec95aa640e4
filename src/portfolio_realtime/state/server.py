"""The kind of server that holds the shared state, its response time, and whether all service operations work.

For the doctor, with the rights of its user.
"""

import asyncio
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec
from redis import exceptions

from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.errors import StateRefused, StateUnavailable
from portfolio_realtime.state import keys, rights
from portfolio_realtime.state.connection import Connection, Message, reports_unavailable
from portfolio_realtime.state.error_answers import state_error
from portfolio_realtime.state.nodes import CLUSTER, hello

PINGS: Final = 20
TRIAL_MS: Final = 1  # lifetime of the entries that a trial writes
TRIAL_S_MAX: Final = 5.0  # until a published message arrives
LISTENING_S: Final = 0.5  # until a subscription is made


@dataclass(frozen=True)
class Server:
    """One server, as it describes itself."""

    name: str  # Valkey or Redis
    version: str
    round_trip_ms: float  # median
    eviction_policy: str
    replica: bool
    replicas: int = 0  # connected replicas
    saved_s: int | None = None  # when it last saved its data, in seconds since 1970; None: unknown
    is_cluster: bool = False
    lacking: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Service -> the words of its access string that this user does not have; empty: not asked."""

    @property
    def major_version(self) -> int:
        """The number before the first point, or 0 if there is none."""
        digits = self.version.partition(".")[0]
        return int(digits) if digits.isdecimal() else 0


async def examine(url: str, *, is_cluster: bool | None = None) -> Server:
    """The server at a URL, or a node of the cluster there. Raises StateUnavailable, StateRefused."""
    connection = Connection(url, is_cluster=is_cluster)
    try:
        await connection.meet()
        seconds: list[float] = []
        for _ in range(PINGS):
            began_s = time.perf_counter()
            await connection.ping()
            seconds.append(time.perf_counter() - began_s)
        server = _server(await _info(connection), 1000 * statistics.median(seconds))
        if not server.replica:
            await try_out(connection)
            server = replace(server, lacking=await lacking(connection))
        return server
    finally:
        await connection.close()


async def try_out(connection: Connection) -> None:
    """Write, run a script, publish and subscribe, as services do with this user in this database.

    Nothing is left behind. Raises StateRefused, with the step that was refused, and StateUnavailable.
    """
    renew = connection.script("renew_lease")
    channel = keys.probe(keys.settings(), f"doctor-{secrets.token_hex(4)}")
    heard = asyncio.create_task(_hear(connection, channel))

    async def publish() -> None:
        await asyncio.wait([heard], timeout=LISTENING_S)  # until the subscription is made, if it is allowed
        await connection.publish(channel, b"")

    steps: dict[str, Callable[[], Awaitable[object]]] = {
        "writing": lambda: connection.written_once(keys.settings(), "", TRIAL_MS),
        "a script": lambda: reports_unavailable(renew)(keys=[keys.settings()], args=["nobody", TRIAL_MS]),
        "publishing": publish,
        "subscribing": lambda: asyncio.wait_for(heard, TRIAL_S_MAX),
    }
    try:
        for step, attempt in steps.items():
            try:
                await attempt()
            except TimeoutError:
                raise StateRefused(
                    "Valkey accepts a subscription but delivers no messages: is it a proxy?"
                ) from None
            except StateRefused as error:
                raise StateRefused(f"{step} is refused: {error}") from error
    finally:
        await cancel_until_ended([heard])


@reports_unavailable
async def lacking(connection: Connection) -> dict[str, tuple[str, ...]]:
    """Service -> the words of its access string that this user does not have. Raises StateUnavailable."""
    check, found = connection.script("check_rights"), dict[str, tuple[str, ...]]()
    for service, user in rights.USER_OF.items():
        if user == "operator":
            continue
        needed = rights.needed(user, keys.prefix())
        asked = [msgspec.msgpack.encode(command) for command in needed.values()]
        refused = await check(keys=[keys.settings()], args=asked)
        words = list(needed)
        found[service] = tuple(words[place - 1] for place in refused)
    return found


async def _hear(connection: Connection, channel: str) -> None:
    async for event in connection.follow(channel):
        if isinstance(event, Message):
            return


async def _info(connection: Connection) -> dict[str, Any]:
    try:
        return await connection.commands.info()
    except exceptions.NoPermissionError:
        # Most services' users may not use INFO; HELLO says enough.
        return await _hello(connection)
    except (exceptions.RedisError, OSError) as error:
        meaning = state_error(error)
        raise meaning or StateUnavailable(f"Valkey did not answer INFO: {error}") from error


async def _hello(connection: Connection) -> dict[str, Any]:
    told = await hello(connection.commands)
    return {
        f"{told.server}_version": told.version,
        "redis_mode": told.mode,
        "role": "slave" if told.role in ("slave", "replica") else "master",
    }


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
        is_cluster=CLUSTER in (info.get("redis_mode"), info.get("server_mode")),
    )

"""One connection pool for commands, one for subscriptions, and the rule for what to do after a loss.

Pub/sub delivers at most once. `follow` therefore yields SUBSCRIBED each time it has (re)subscribed: the
reader then reads the whole state, and applies the messages that come after. Subscribe first, read second.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from importlib import resources
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar, cast

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript

from portfolio_realtime.errors import LeaseLost, StateUnavailable

SOCKET_TIMEOUT_S: Final = 5.0
HEALTH_CHECK_S: Final = 10
RECONNECT_S: Final = 0.2
CONNECTIONS_MAX: Final = 64
SUBSCRIPTION_READ_BYTES: Final = 256 * 1024  # a batch of publications in one read, not in several
WRITE_FIELDS_MAX: Final = 2000  # of one fenced write; larger ones are cut into several

P = ParamSpec("P")
R = TypeVar("R")

_UNAVAILABLE = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    OSError,
)


def unavailable(error: BaseException) -> bool:
    """Is this a loss of the server rather than a mistake of ours?"""
    return isinstance(error, _UNAVAILABLE)


def reports_unavailable(call: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """Turn the client library's connection errors into StateUnavailable."""

    @functools.wraps(call)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await call(*args, **kwargs)
        except _UNAVAILABLE as error:
            raise StateUnavailable(f"Valkey cannot be reached: {error}") from error

    return wrapped


Call = tuple[Sequence[str], Sequence[str | int]]
"""Keys and arguments of a script."""


class Message(NamedTuple):
    """One message of a channel."""

    channel: str
    payload: bytes


class Subscribed(NamedTuple):
    """From here on nothing is missed: read the state now."""


SUBSCRIBED: Final = Subscribed()


class Connection:
    """The server at one URL: commands, scripts, fenced writes, subscriptions."""

    def __init__(self, url: str) -> None:
        no_retry = Retry(NoBackoff(), 0)
        self.url = url
        self.commands: Redis = Redis.from_url(
            url,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
            health_check_interval=HEALTH_CHECK_S,
            max_connections=CONNECTIONS_MAX,
            retry=no_retry,
        )
        self._subscriptions: Redis = Redis.from_url(
            url,
            protocol=2,  # with RESP3 the client formats every message for a log that nobody asked for
            socket_connect_timeout=SOCKET_TIMEOUT_S,
            health_check_interval=HEALTH_CHECK_S,
            max_connections=CONNECTIONS_MAX,
            retry=no_retry,
            socket_read_size=SUBSCRIPTION_READ_BYTES,
        )
        self._fenced_write = self.script("fenced_write")

    def script(self, name: str) -> AsyncScript:
        """A script of the folder `lua`, called by its digest."""
        text = resources.files("portfolio_realtime.state").joinpath("lua", f"{name}.lua").read_text()
        return self.commands.register_script(text)

    @reports_unavailable
    async def call_all(self, script: AsyncScript, calls: Sequence[Call]) -> list[Any]:
        """What a script answers to each of these, in one round trip. Raises StateUnavailable."""

        def answers() -> Awaitable[list[Any]]:
            pipeline = self.commands.pipeline(transaction=False)
            for keys, arguments in calls:
                pipeline.evalsha(script.sha, len(keys), *keys, *arguments)
            return pipeline.execute()

        try:
            return await answers()
        except exceptions.NoScriptError:  # a server that does not know it yet
            await cast("Awaitable[Any]", self.commands.script_load(script.script))
        return await answers()

    @reports_unavailable
    async def ping(self) -> None:
        """Return when the server answers. Raises StateUnavailable."""
        await cast("Awaitable[Any]", self.commands.ping())

    async def wait_ready(self, deadline_s: float) -> None:
        """Wait until the server answers, at most `deadline_s` seconds. Raises StateUnavailable."""
        give_up = asyncio.get_running_loop().time() + deadline_s
        while True:
            try:
                return await self.ping()
            except StateUnavailable:
                if asyncio.get_running_loop().time() > give_up:
                    raise
                await asyncio.sleep(RECONNECT_S)

    async def close(self) -> None:
        """Close all connections."""
        await self.commands.aclose()
        await self._subscriptions.aclose()

    @reports_unavailable
    async def fenced_write(
        self,
        fence_key: str,
        hash_key: str,
        token: int,
        changed: list[tuple[str, bytes]],
        removed: list[str],
        announce: tuple[str, bytes] | None,
    ) -> None:
        """Set and delete fields of a hash, then announce it on a channel.

        One step for up to WRITE_FIELDS_MAX fields; more are written in several steps of which the last
        announces. Raises LeaseLost when a newer owner has written here, StateUnavailable.
        """
        steps = [changed[at : at + WRITE_FIELDS_MAX] for at in range(0, len(changed), WRITE_FIELDS_MAX)] or [
            []
        ]
        for index, step in enumerate(steps):
            is_last = index == len(steps) - 1
            channel, message = announce if announce and is_last else ("", b"")
            fields = [part for pair in step for part in pair]
            gone = removed if is_last else []
            written = await self._fenced_write(
                keys=[fence_key, hash_key], args=[token, channel, message, len(step), *fields, *gone]
            )
            if not written:
                raise LeaseLost(f"a newer owner writes {hash_key}")

    async def follow(self, *channels: str) -> AsyncIterator[Message | Subscribed]:
        """Messages of the channels, forever; SUBSCRIBED first and again after every reconnect."""
        while True:
            pubsub = self._subscriptions.pubsub()
            try:
                await pubsub.subscribe(*channels)
                for _ in channels:
                    if await pubsub.get_message(timeout=SOCKET_TIMEOUT_S) is None:
                        raise exceptions.TimeoutError("subscriptions are not confirmed")
                yield SUBSCRIBED
                while True:
                    raw = await pubsub.get_message(ignore_subscribe_messages=True, timeout=HEALTH_CHECK_S)
                    if raw is not None:
                        yield Message(cast("bytes", raw["channel"]).decode(), cast("bytes", raw["data"]))
            except _UNAVAILABLE:
                await asyncio.sleep(RECONNECT_S)
            finally:
                await pubsub.aclose()

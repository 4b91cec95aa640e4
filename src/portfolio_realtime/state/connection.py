"""One connection pool for commands, one for subscriptions, and the rule for what to do after a loss.

Pub/sub delivers at most once. `follow` therefore yields SUBSCRIBED each time it has (re)subscribed: the
reader then reads the whole state, and applies the messages that come after. Subscribe first, read second.

A subscription is believed only while it hears: every second a word is published on a channel of our own that
all our subscriptions hear. One that misses it is given up, though its connection may look healthy.
"""

import asyncio
import contextlib
import functools
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from importlib import resources
from typing import Any, Final, NamedTuple, NoReturn, ParamSpec, TypeVar, cast

from redis import exceptions
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript

from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.errors import LeaseLost, StateUnavailable
from portfolio_realtime.state import keys
from portfolio_realtime.state.error_answers import ROLE_CHANGED, Parser, is_lost, state_error, word_of

SOCKET_TIMEOUT_S: Final = 5.0
HEALTH_CHECK_S: Final = 10
RECONNECT_S: Final = 0.2
CLOCK_S: Final = 5.0  # between two questions what time it is at Valkey
PROBE_S: Final = 1.0  # between two words to our own subscriptions
PROBE_S_MAX: Final = 1.5  # for one of them; then its connection is given up
DEAF_S: Final = 2.5  # a subscription that has not heard what was published for so long is given up
CONNECTIONS_MAX: Final = 64
CLOSED_ALREADY: Final = "the handler is closed"  # in what uvloop says of a transport that is gone
SUBSCRIPTION_READ_BYTES: Final = 256 * 1024  # a batch of publications in one read, not in several
SCRIPT_LOADS_MAX: Final = 2  # for one call: a failover may lead to a server that does not know it, either
WRITE_FIELDS_MAX: Final = 2000  # of one fenced write; larger ones are cut into several

P = ParamSpec("P")
R = TypeVar("R")


def reports_unavailable(call: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """Turn the client library's errors into StateUnavailable and StateRefused; our own mistakes stay."""

    @functools.wraps(call)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await call(*args, **kwargs)
        except (exceptions.RedisError, OSError) as error:
            if (meaning := state_error(error)) is None:
                raise
            raise meaning from error

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


class _Telling(Retry):
    """Tells of a connection that was closed as it was opened: uvloop has an error of its own for that.

    A proxy that accepts us, finds nobody behind it and hangs up does this.
    """

    def __init__(self, retries: int) -> None:
        super().__init__(NoBackoff(), retries)

    async def call_with_retry(
        self,
        do: Callable[[], Awaitable[R]],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> R:
        """What `do` returns; see the library's `Retry`."""

        async def told() -> R:
            try:
                return await do()
            except RuntimeError as error:
                if CLOSED_ALREADY not in str(error):
                    raise
                raise exceptions.ConnectionError(f"closed as it was opened: {error}") from error

        return await super().call_with_retry(told, fail, is_retryable, with_failure_count)


class _OnceMore(_Telling):
    """One more try, on a new connection, where a connection was lost: every command here can be repeated.

    After a change of roles no connection is believed any more: the server's name may lead elsewhere now.
    """

    def __init__(self) -> None:
        super().__init__(retries=1)
        self.pool: ConnectionPool | None = None

    def __deepcopy__(self, _: dict[int, Any]) -> "_OnceMore":
        return self  # each connection would have one of its own

    async def call_with_retry(
        self,
        do: Callable[[], Awaitable[R]],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> R:
        """What `do` returns, at the second try at the latest; see the library's `Retry`."""

        async def failed(error: Exception, *count: int) -> None:
            await fail(error, *count)
            if self.pool is not None and word_of(error) in ROLE_CHANGED:
                await self.pool.update_active_connections_for_reconnect()
                await self.pool.disconnect(inuse_connections=False)

        return await super().call_with_retry(do, failed, is_lost, with_failure_count)


class _Script(AsyncScript):
    """A script that is also loaded where a failover leads to another server between loading and calling."""

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the script answers."""
        try:
            return await super().__call__(*args, **kwargs)
        except exceptions.NoScriptError:
            return await super().__call__(*args, **kwargs)


class Connection:
    """The server at one URL: commands, scripts, fenced writes, subscriptions."""

    def __init__(self, url: str) -> None:
        once_more = _OnceMore()
        self.url = url
        self.commands: Redis = Redis.from_url(
            url,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
            health_check_interval=HEALTH_CHECK_S,
            max_connections=CONNECTIONS_MAX,
            retry=once_more,
            parser_class=Parser,
        )
        once_more.pool = self.commands.connection_pool
        self._subscriptions: Redis = Redis.from_url(
            url,
            protocol=2,  # with RESP3 the client formats every message for a log that nobody asked for
            socket_connect_timeout=SOCKET_TIMEOUT_S,
            max_connections=CONNECTIONS_MAX,
            retry=_Telling(retries=0),  # a reader must be told that it has missed something
            socket_read_size=SUBSCRIPTION_READ_BYTES,
            parser_class=Parser,
        )
        self.token_floor = 0  # the newest fencing token that has refused a write of ours
        self._fenced_write = self.script("fenced_write")
        self._probe_channel = keys.probe(secrets.token_hex(8))
        self._clock: tuple[float, int] | None = None  # our seconds, Valkey's time in ms at that moment
        self._probed_s = 0.0  # when our own subscriptions were last spoken to
        self._probing: asyncio.Task[NoReturn] | None = None

    def script(self, name: str) -> AsyncScript:
        """A script of the folder `lua`, called by its digest."""
        text = resources.files("portfolio_realtime.state").joinpath("lua", f"{name}.lua").read_text()
        return _Script(self.commands, text)

    @reports_unavailable
    async def call_all(self, script: AsyncScript, calls: Sequence[Call]) -> list[Any]:
        """What a script answers to each of these, in one round trip. Raises StateUnavailable."""

        def answers() -> Awaitable[list[Any]]:
            pipeline = self.commands.pipeline(transaction=False)
            for names, arguments in calls:
                pipeline.evalsha(script.sha, len(names), *names, *arguments)
            return pipeline.execute()

        for _ in range(SCRIPT_LOADS_MAX):
            try:
                return await answers()
            except exceptions.NoScriptError:  # a server that does not know it yet
                await cast("Awaitable[Any]", self.commands.script_load(script.script))
        return await answers()

    @reports_unavailable
    async def now_ms(self) -> int:
        """Valkey's own time in ms since 1970: what several machines compare is measured by no other clock.

        Asked every CLOCK_S; in between our own seconds are counted on. Raises StateUnavailable.
        """
        now_s = asyncio.get_running_loop().time()
        if self._clock is None or now_s - self._clock[0] > CLOCK_S:
            seconds, micros = await self.commands.time()
            self._clock = now_s, 1000 * seconds + micros // 1000
        since_s, then_ms = self._clock
        return then_ms + int(1000 * (now_s - since_s))

    @reports_unavailable
    async def clock_ahead_s(self) -> float:
        """By how many seconds this machine's clock is ahead of Valkey's, as far as one question can tell.

        Less than the question took counts as nothing. Raises StateUnavailable.
        """
        asked_s = time.time()
        seconds, micros = await self.commands.time()
        answered_s = time.time()
        theirs_s = seconds + micros / 1_000_000
        return max(asked_s - theirs_s, 0.0) or min(answered_s - theirs_s, 0.0)

    @reports_unavailable
    async def written_once(self, key: str, value: str, ttl_ms: int | None = None) -> str:
        """Write a value where there is none; the one that is there then. Raises StateUnavailable."""
        writing = self.commands.set(key, value, nx=True, get=True, px=ttl_ms)
        before = await cast("Awaitable[bytes | None]", writing)
        return value if before is None else before.decode()

    @reports_unavailable
    async def ping(self) -> None:
        """Return when the server answers. Raises StateUnavailable."""
        await cast("Awaitable[Any]", self.commands.ping())

    async def wait_ready(
        self, deadline_s: float, waiting: Callable[[StateUnavailable], None] | None = None
    ) -> None:
        """Wait for the server at most `deadline_s` seconds, but for as long as it answers with what passes.

        `waiting` is told why. Raises StateUnavailable, StateRefused.
        """
        give_up = asyncio.get_running_loop().time() + deadline_s
        while True:
            try:
                return await self._first_ping()
            except StateUnavailable as error:
                if not error.word and asyncio.get_running_loop().time() > give_up:
                    raise
                if waiting is not None:
                    waiting(error)
                await asyncio.sleep(RECONNECT_S)

    async def _first_ping(self) -> None:
        try:
            await cast("Awaitable[Any]", self.commands.ping())
        except (exceptions.RedisError, OSError) as error:
            if (meaning := state_error(error, has_answered=False)) is None:
                raise
            raise meaning from error

    async def close(self) -> None:
        """Close all connections."""
        if self._probing is not None:
            await cancel_until_ended([self._probing])
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
            newer = await self._fenced_write(
                keys=[fence_key, hash_key], args=[token, channel, message, len(step), *fields, *gone]
            )
            if newer:
                raise self.refused(hash_key, newer)

    def refused(self, hash_key: str, newer: int) -> LeaseLost:
        """Our write was refused by this token: the next one that we are granted is greater."""
        self.token_floor = max(self.token_floor, newer)
        return LeaseLost(f"a newer owner writes {hash_key}")

    async def follow(self, *channels: str) -> AsyncIterator[Message | Subscribed]:
        """Messages of the channels, forever; SUBSCRIBED first and again after every reconnect.

        Raises StateRefused.
        """
        if self._probing is None:
            self._probing = asyncio.create_task(self._probe())
        while True:
            pubsub = self._subscriptions.pubsub()
            try:
                await self._subscribe(pubsub, channels)
                yield SUBSCRIBED
                async for message in self._heard(pubsub):
                    yield message
            except (exceptions.RedisError, OSError) as error:
                meaning = state_error(error)
                if meaning is None:
                    raise
                if not isinstance(meaning, StateUnavailable):
                    raise meaning from error
                await asyncio.sleep(RECONNECT_S)
            finally:
                await pubsub.aclose()

    async def _subscribe(self, pubsub: PubSub, channels: tuple[str, ...]) -> None:
        wanted = (*channels, self._probe_channel)
        await pubsub.subscribe(*wanted)
        for _ in wanted:
            if await pubsub.get_message(timeout=SOCKET_TIMEOUT_S) is None:
                raise exceptions.TimeoutError("subscriptions are not confirmed")

    async def _heard(self, pubsub: PubSub) -> AsyncIterator[Message]:
        now_s = asyncio.get_running_loop().time
        heard_s = now_s()
        while True:
            raw = await pubsub.get_message(ignore_subscribe_messages=True, timeout=PROBE_S)
            if raw is None:
                self._check_hearing(heard_s)
                continue
            heard_s = now_s()
            if (channel := cast("bytes", raw["channel"]).decode()) != self._probe_channel:
                yield Message(channel, cast("bytes", raw["data"]))

    def _check_hearing(self, heard_s: float) -> None:
        """Raises when what we have published to ourselves has not come, or nobody may publish to us."""
        if self._probing is not None and self._probing.done():
            self._probing.result()
        if self._probed_s - heard_s > DEAF_S:
            raise exceptions.TimeoutError("the subscription does not hear what is published")

    async def _probe(self) -> NoReturn:
        """Speak to our own subscriptions, forever. Raises StateRefused."""
        while True:
            with contextlib.suppress(StateUnavailable, TimeoutError):
                async with asyncio.timeout(PROBE_S_MAX):
                    await self._speak()
                self._probed_s = asyncio.get_running_loop().time()
            await asyncio.sleep(PROBE_S)

    @reports_unavailable
    async def _speak(self) -> None:
        await cast("Awaitable[Any]", self.commands.publish(self._probe_channel, b""))

"""The shared state's servers: commands, scripts, fenced writes and published messages.

The callers do not need to know which node holds a key or publishes: see `nodes.py`, `routing.py` and
`subscriptions.py`.
"""

import asyncio
import contextlib
import functools
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from importlib import resources
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar, cast

from redis import exceptions
from redis.asyncio import Redis

from portfolio_realtime.errors import LeaseLost, StateUnavailable
from portfolio_realtime.state import keys
from portfolio_realtime.state.client.watched_keys import WatchedKeys
from portfolio_realtime.state.error_answers import PassingError, result_or_unavailable, state_error
from portfolio_realtime.state.nodes import Nodes
from portfolio_realtime.state.routing import RoutedCommands
from portfolio_realtime.state.subscriptions import (
    PUBLISH,
    RECONNECT_S,
    SPUBLISH,
    SUBSCRIBED,
    Message,
    Subscribed,
    Subscriptions,
)
from portfolio_realtime.waiting import wait_at_most

__all__ = ["SUBSCRIBED", "Call", "Connection", "Message", "Script", "Subscribed", "reports_unavailable"]

US_PER_S: Final = 1_000_000
US_PER_MS: Final = 1_000
WRITE_FIELDS_MAX: Final = 2000  # per fenced write; larger ones are split

P = ParamSpec("P")
R = TypeVar("R")


def reports_unavailable(call: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """Turn the client library's errors into StateUnavailable and StateRefused.

    Errors that are our own mistakes are raised unchanged.
    """

    @functools.wraps(call)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await call(*args, **kwargs)
        except (exceptions.RedisError, OSError) as error:
            if (meaning := state_error(error)) is None:
                raise
            raise meaning from error

    return wrapped


Call = tuple[Sequence[str], Sequence[str | bytes | int]]
"""Keys and arguments of a script."""


class FencedWrite(NamedTuple):
    """Fields of a hash to set and to delete under a fencing token, and the announcement of it."""

    fence_key: str
    hash_key: str
    token: int
    changed: list[tuple[str, bytes]]
    removed: list[str]
    announce: tuple[str, bytes] | None

    def steps(self, publish_word: str) -> Iterator[Call]:
        """Calls of the script `fenced_write`, each with up to WRITE_FIELDS_MAX fields to set."""
        firsts = range(0, len(self.changed), WRITE_FIELDS_MAX) or range(1)
        for first in firsts:
            step, is_last = self.changed[first : first + WRITE_FIELDS_MAX], first == firsts[-1]
            channel, message = self.announce if self.announce and is_last else ("", b"")
            fields = [part for pair in step for part in pair]
            gone = self.removed if is_last else []
            arguments = [self.token, publish_word, channel, message, len(step), *fields, *gone]
            yield [self.fence_key, self.hash_key], arguments


@functools.cache
def _text_and_digest(name: str) -> tuple[str, str]:
    text = resources.files("portfolio_realtime.state").joinpath("lua", f"{name}.lua").read_text()
    return text, hashlib.sha1(text.encode()).hexdigest()  # noqa: S324  # the digest by which Valkey names scripts


class Script:
    """A script in the folder `lua`, called by its digest, or by its text if the server does not know it."""

    def __init__(self, commands: Redis, name: str) -> None:
        self._commands = commands
        self.text, self.digest = _text_and_digest(name)

    async def __call__(self, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        """The result of the script. Raises RedisError."""
        try:
            return await self._commands.evalsha(self.digest, len(keys), *keys, *args)
        except exceptions.NoScriptError:
            return await self._commands.eval(self.text, len(keys), *keys, *args)


class Connection:
    """The server or cluster at one URL. `is_cluster`: which of the two; None: the server tells."""

    def __init__(self, url: str, *, is_cluster: bool | None = None) -> None:
        self.url = url
        self._nodes = Nodes(url, is_cluster)
        self.commands: Redis = (
            self._nodes.first.commands if is_cluster is False else RoutedCommands(self._nodes)
        )
        self._subscriptions = Subscriptions(self._nodes, self.commands)
        self.token_floor = 0  # the newest fencing token that made the server refuse a write of ours
        self._fenced_write = self.script("fenced_write")

    @property
    def is_cluster(self) -> bool:
        """Whether it is a cluster, of which a part can fail alone. False until it has answered."""
        return bool(self._nodes.is_cluster)

    @property
    def has_lost_channels(self) -> bool:
        """Whether there is any followed channel from which nothing can arrive now."""
        return bool(self._subscriptions.lost_since_s)

    def lost_s(self, channels: Sequence[str]) -> float:
        """For how many seconds nothing that is published on one of these followed channels can arrive."""
        lost, now_s = self._subscriptions.lost_since_s, asyncio.get_running_loop().time()
        return max(now_s - lost.get(name, now_s) for name in channels)

    def keeper_of(self, key: str) -> tuple[str, int] | None:
        """Which server keeps a key, by its URL and how often it was replaced there; None if none does."""
        try:
            node = self._nodes.holder_of(key)
        except PassingError:
            return None
        return node.url, node.moves

    @property
    def turns(self) -> int:
        """How often a part of a cluster has had another node, or has answered again."""
        return self._nodes.turns

    async def wait_turn(self, wait_s: float, turns: int) -> None:
        """Wait `wait_s` seconds, or until there have been more than `turns`."""
        if self.turns == turns:
            await wait_at_most(wait_s, self._nodes.turned)

    def script(self, name: str) -> Script:
        """A script of the folder `lua`."""
        return Script(self.commands, name)

    def watched_keys(self) -> WatchedKeys:
        """Keys to be watched for the transactions of one writer. On a cluster nothing is done with them."""
        return WatchedKeys(
            lambda: None if self._nodes.is_cluster is not False else self._nodes.first.commands
        )

    async def publish_word(self) -> str:
        """The command with which a script publishes here. Raises RedisError, StateRefused."""
        return SPUBLISH if await self._nodes.learn() else PUBLISH

    @reports_unavailable
    async def publish(self, channel: str, payload: bytes) -> None:
        """Publish a message on a channel. Raises StateUnavailable."""
        await cast(
            "Awaitable[Any]", self.commands.execute_command(await self.publish_word(), channel, payload)
        )

    @reports_unavailable
    async def call_each(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        """The results of a script for all these calls, sent together.

        A call whose part of a cluster does not answer has a StateUnavailable in its place. Raises
        StateUnavailable.
        """
        answers = await self._answers(script, calls)
        # Nodes that do not know the script yet get its text.
        unknown = [
            place for place, answer in enumerate(answers) if isinstance(answer, exceptions.NoScriptError)
        ]
        if unknown:
            again = await self._answers(script, [calls[place] for place in unknown], with_text=True)
            for place, answer in zip(unknown, again, strict=True):
                answers[place] = answer
        return [result_or_unavailable(answer) for answer in answers]

    async def _answers(self, script: Script, calls: Sequence[Call], *, with_text: bool = False) -> list[Any]:
        """The answers to calls sent together, with the error in the place of each call that failed."""
        pipeline = self.commands.pipeline(transaction=False)
        for names, arguments in calls:
            if with_text:
                pipeline.eval(script.text, len(names), *names, *arguments)
            else:
                pipeline.evalsha(script.digest, len(names), *names, *arguments)
        return await pipeline.execute(raise_on_error=False)

    @reports_unavailable
    async def clock_ahead_s(self) -> float:
        """By how many seconds this machine's clock is ahead of Valkey's, as one request can tell.

        A difference below the duration of the request counts as 0. On a cluster, it is the clock of the node
        that holds the settings. Raises StateUnavailable.
        """
        asked_s = time.time()
        theirs_s = await self._now_us(keys.settings()) / US_PER_S
        answered_s = time.time()
        return max(asked_s - theirs_s, 0.0) or min(answered_s - theirs_s, 0.0)

    @reports_unavailable
    async def now_ms(self, key: str) -> int:
        """Milliseconds since the epoch by Valkey's clock, where this key is held. Raises StateUnavailable."""
        return await self._now_us(key) // US_PER_MS

    async def _now_us(self, key: str) -> int:
        await self._nodes.learn()
        seconds, micros = await self._nodes.holder_of(key).commands.time()
        return seconds * US_PER_S + micros

    @reports_unavailable
    async def written_once(self, key: str, value: str, ttl_ms: int | None = None) -> str:
        """Write a value if the key has none; return the value it then has. Raises StateUnavailable."""
        writing = self.commands.set(key, value, nx=True, get=True, px=ttl_ms)
        before = await cast("Awaitable[bytes | None]", writing)
        return value if before is None else before.decode()

    @reports_unavailable
    async def ping(self) -> None:
        """Return when the server, or any node of a cluster, answers. Raises StateUnavailable."""
        await cast("Awaitable[Any]", self.commands.ping())

    async def wait_ready(
        self, deadline_s: float, waiting: Callable[[StateUnavailable], None] | None = None
    ) -> None:
        """Wait until the server or cluster is ready.

        Gives up after `deadline_s` seconds without an answer. While it answers with an error that passes,
        such as LOADING, the wait has no limit. `waiting` is called with each error. Raises StateUnavailable,
        StateRefused.
        """
        give_up = asyncio.get_running_loop().time() + deadline_s
        while True:
            try:
                return await self.meet()
            except StateUnavailable as error:
                if not error.word and asyncio.get_running_loop().time() > give_up:
                    raise
                if waiting is not None:
                    waiting(error)
                await asyncio.sleep(RECONNECT_S)

    async def meet(self) -> None:
        """Return if the server answers, is of the expected kind and, for a cluster, holds all slots.

        Raises StateUnavailable, StateRefused.
        """
        try:
            await self._nodes.require_whole()
            await cast("Awaitable[Any]", self.commands.ping())
        except (exceptions.RedisError, OSError) as error:
            if (meaning := state_error(error, has_answered=False)) is None:
                raise
            raise meaning from error

    async def close(self) -> None:
        """Close all connections."""
        await self._nodes.close()

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

        Up to WRITE_FIELDS_MAX fields are written in one step. More are written in several steps, of which the
        last one announces. Raises LeaseLost if a newer owner has written here, StateUnavailable.
        """
        write = FencedWrite(fence_key, hash_key, token, changed, removed, announce)
        for names, arguments in write.steps(await self.publish_word()):
            if newer := await self._fenced_write(keys=names, args=arguments):
                raise self.refused(hash_key, newer)

    async def fenced_writes(
        self, writes: Sequence["FencedWrite"]
    ) -> list[LeaseLost | StateUnavailable | None]:
        """As `fenced_write` for several hashes, sent together. Returns the error of each write, or None.

        Raises StateUnavailable if the server does not answer. If only a part of a cluster does not, its
        writes have the error in the result.
        """
        word = await self.word()
        steps = [(place, call) for place, write in enumerate(writes) for call in write.steps(word)]
        failures: list[LeaseLost | StateUnavailable | None] = [None] * len(writes)
        answers = await self.call_each(self._fenced_write, [call for _, call in steps])
        for (place, _), answer in zip(steps, answers, strict=True):
            if isinstance(answer, StateUnavailable):
                failures[place] = answer
            elif answer:
                failures[place] = self.refused(writes[place].hash_key, answer)
        return failures

    @reports_unavailable
    async def word(self) -> str:
        """As `publish_word`. Raises StateUnavailable, StateRefused."""
        return await self.publish_word()

    def refused(self, hash_key: str, newer: int) -> LeaseLost:
        """The error for a write that a newer token has refused. Our next token will be greater."""
        self.token_floor = max(self.token_floor, newer)
        return LeaseLost(f"a newer owner has written {hash_key}")

    async def follow(self, *channels: str) -> AsyncIterator[Message | Subscribed]:
        """Messages of the channels, without end; SUBSCRIBED at first and again after every loss.

        Raises StateRefused.
        """
        async with contextlib.aclosing(self._subscriptions.follow(channels)) as events:
            async for event in events:
                yield event

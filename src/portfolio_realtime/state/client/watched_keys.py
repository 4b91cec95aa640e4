"""Transactions that are done only while some keys have expected values: WATCH, MULTI, EXEC.

The keys are watched on the connection that short commands share, and read right after; both are sent behind
the transaction before. So a transaction costs one answer, and a change in between refuses it.

An EXEC ends all that its connection watches. So the connection notes who has watched last: of two writers
that share it, only that one may do a transaction.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from redis import exceptions

from portfolio_realtime.state.client.lean_client import (
    Arguments,
    LeanClient,
    SharedConnection,
    answers_unless_lost,
)

REFUSED_S: Final = 60.0  # after an error, such as a missing right; then it is tried again
TRIAL: Final[tuple[Arguments, ...]] = (("MULTI",), ("EXEC",))
BEGIN: Final[Arguments] = ("MULTI",)
END: Final[Arguments] = ("EXEC",)


class _Watched(NamedTuple):
    connection: SharedConnection
    values: Mapping[str, bytes | None]


class WatchedKeys:
    """The watched keys of one writer. `client`: the client of the one server, or None if there is none."""

    def __init__(self, client: Callable[[], LeanClient | None]) -> None:
        self._client = client
        self._watched: _Watched | None = None
        self._is_asking = False  # what is watched next is not known yet
        self._again_s = 0.0  # after a refusal: when to try again, by the loop's clock

    async def watch(self, keys: Sequence[str]) -> None:
        """Watch these keys instead of those of before, if it is possible now."""
        client = self._client()
        connection = None if client is None else client.shared_connection()
        now_s = asyncio.get_running_loop().time()
        if connection is None or self._is_asking or not keys or now_s < self._again_s:
            return
        # Without the right to MULTI, the commands behind it would be done at once and under no condition.
        try:
            answers = await self._answers(connection, [*TRIAL, *_watching(keys)])
        except exceptions.RedisError:  # the next command tells it
            self._again_s = now_s + REFUSED_S
            return
        if answers is None:
            return
        if any(isinstance(answer, exceptions.RedisError) for answer in answers):
            self._again_s = now_s + REFUSED_S
            connection.retire()  # it may have begun a transaction that it cannot end
            return
        self._keep(connection, keys, answers[-1])

    async def transact(
        self, expected: Mapping[str, bytes], commands: Sequence[Arguments], keys: Sequence[str]
    ) -> list[Any] | None:
        """The answers to `commands`, done as one step; then watch `keys`.

        None if a key of `expected` is not watched, had or has another value, or the connection cannot be used
        or was lost, with or without the step done. Raises RedisError.
        """
        watched = self._watched
        if watched is None or self._is_asking or not _is_as_expected(watched.values, expected):
            return None
        client = self._client()
        if client is None or client.shared_connection() is not watched.connection:
            return None
        if watched.connection.watcher is not self:
            return None
        self._watched = None
        answers = await self._answers(watched.connection, [BEGIN, *commands, END, *_watching(keys)])
        if answers is None:
            return None
        done = answers[len(commands) + 1]
        if isinstance(answers[0], Exception) or isinstance(done, Exception):
            watched.connection.retire()  # whatever it watches or has queued ends with it
            raise answers[0] if isinstance(answers[0], Exception) else done
        self._keep(watched.connection, keys, answers[-1])
        for answer in done or ():
            if isinstance(answer, Exception):
                raise answer
        return done

    async def _answers(self, connection: SharedConnection, commands: Sequence[Arguments]) -> list[Any] | None:
        """The answers, or None if the connection was lost. Raises RedisError."""
        self._is_asking, connection.watcher = True, self
        try:
            return await answers_unless_lost(connection, commands)
        finally:
            self._is_asking = False

    def _keep(self, connection: SharedConnection, keys: Sequence[str], values: Any) -> None:
        if not isinstance(values, Exception):
            self._watched = _Watched(connection, dict(zip(keys, values, strict=True)))


def _watching(keys: Sequence[str]) -> list[Arguments]:
    return [("WATCH", *keys), ("MGET", *keys)]


def _is_as_expected(values: Mapping[str, bytes | None], expected: Mapping[str, bytes]) -> bool:
    return all(values.get(key) == value for key, value in expected.items())

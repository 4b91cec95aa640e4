"""The client library, with one shared connection for the commands with short answers.

The library takes a connection from its pool for each command, with a timer and several coroutines for each
write and read. Here such commands are written one after the other to one raw connection, and one future waits
for each. All else goes through the pool as before, and so do these whenever the shared connection cannot take
them: while there is none, while it is congested, after HEALTH_CHECK_S without an answer, and again after it
was lost. An error therefore means the same on both ways.
"""

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import hiredis
from redis import exceptions
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import Pipeline

from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.state.client.raw_connection import RawConnection, pack
from portfolio_realtime.state.client.receiver import Receiver
from portfolio_realtime.state.error_answers import is_lost

ANSWER_S_MAX: Final = 5.0  # for one answer; then the connection counts as lost
FRESH_S: Final = 10.0  # for so long after an answer the connection is used without a PING
OPEN_AFTER: Final = 8  # commands; short-lived clients need no second connection
OPEN_AGAIN_S: Final = 1.0  # between two attempts to open it
TOGETHER_MAX: Final = 256  # commands of one pipeline; longer ones have long answers
PING: Final = pack(("PING",))
SHORT: Final = frozenset(
    {"EVALSHA", "PUBLISH", "SPUBLISH", "GET", "SET", "MGET", "DEL", "HGET", "HMGET", "HLEN", "TIME", "PING"}
)
ONLY_LIBRARY: Final = frozenset({"NEVER_DECODE", "EMPTY_RESPONSE"})  # options that change how it reads

Arguments = tuple[Any, ...]


class _Question:
    """Commands that were sent together, and their answers so far."""

    __slots__ = ("answered", "answers", "count", "sent_s")

    def __init__(self, count: int, sent_s: float, answered: "asyncio.Future[list[Any]]") -> None:
        self.count = count
        self.sent_s = sent_s
        self.answered = answered
        self.answers: list[Any] = []


class SharedConnection:
    """The connection of short commands. It is used until `retire` is called or it is over."""

    def __init__(self) -> None:
        self.raw = RawConnection(self._take, self._lose)
        self.is_retired = False
        self.watcher: object = (
            None  # whose keys it watches (`WatchedKeys`): each EXEC ends all that is watched
        )
        self._loop = asyncio.get_running_loop()
        self._asked: deque[_Question] = deque()
        self._watch: asyncio.TimerHandle | None = None  # one for all that wait

    def is_usable(self) -> bool:
        """Whether commands may be sent now. Sends a PING if nothing was heard for long."""
        if self.is_retired or self.raw.is_over or self.raw.is_congested:
            return False
        if self._loop.time() - self.raw.heard_s > FRESH_S:
            if not self._asked:
                self._send(PING, 1)
            return False
        return True

    async def ask(self, commands: Sequence[Arguments]) -> list[Any]:
        """The answers, with errors in their places. Raises RedisError when the connection is lost."""
        try:
            packed = b"".join(map(pack, commands))
        except TypeError as error:
            raise exceptions.DataError(f"cannot be sent: {error}") from error
        question = self._send(packed, len(commands))
        try:
            answers = await question.answered
        except asyncio.CancelledError:
            # As in the library, nothing is sent behind a command that did not answer in time.
            self.retire()
            raise
        for answer in answers:
            if isinstance(answer, exceptions.ConnectionError):
                self.retire()
                raise answer
        return answers

    def _send(self, packed: bytes, count: int) -> _Question:
        question = _Question(count, self._loop.time(), self._loop.create_future())
        self._asked.append(question)
        self.raw.write(packed)
        if self._watch is None:
            self._watch = self._loop.call_later(ANSWER_S_MAX, self._check)
        return question

    def _check(self) -> None:
        self._watch = None
        if not self._asked:
            return
        due_s = self._asked[0].sent_s + ANSWER_S_MAX
        if due_s <= self._loop.time():
            self.raw.break_off(exceptions.TimeoutError("Timeout reading from the server"))
        else:
            self._watch = self._loop.call_at(due_s, self._check)

    def _take(self, answer: Any) -> None:
        if isinstance(answer, hiredis.PushNotification) or not self._asked:
            return
        question = self._asked[0]
        question.answers.append(answer)
        if len(question.answers) == question.count:
            self._asked.popleft()
            if not question.answered.done():
                question.answered.set_result(question.answers)
            if self.is_retired and not self._asked:
                self.close()

    def _lose(self, error: Exception) -> None:
        if self._watch is not None:
            self._watch.cancel()
        while self._asked:
            answered = self._asked.popleft().answered
            if not answered.done():
                answered.set_exception(error)
                answered.exception()  # nobody waits for the answer to a PING

    def retire(self) -> None:
        """Send nothing more, and close the connection when all answers have come."""
        self.is_retired = True
        if not self._asked:
            self.close()

    def close(self) -> None:
        """Close the connection at once."""
        self.raw.break_off(exceptions.ConnectionError("closed by us"))


async def answers_unless_lost(
    connection: SharedConnection, commands: Sequence[Arguments]
) -> list[Any] | None:
    """The answers, errors included, or None if the connection was lost. Raises RedisError."""
    try:
        return await connection.ask(commands)
    except exceptions.ConnectionError as error:
        if not is_lost(error):
            raise
        return None


class _Lane:
    """Opens the shared connection in the background, and again after it was lost."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._shared: SharedConnection | None = None
        self._leaving: list[SharedConnection] = []  # retired, with answers to come
        self._opening: asyncio.Task[None] | None = None
        self._left = 0  # how often all connections were left
        self._again_s = 0.0
        self._wished = 0  # commands that would have used it

    async def ask(self, commands: Sequence[Arguments]) -> list[Any] | None:
        """The answers, errors included; None if the pool is to be used. Raises RedisError."""
        shared = self.usable()
        if shared is None:
            self._wish()
            return None
        return await answers_unless_lost(shared, commands)

    def usable(self) -> SharedConnection | None:
        """The shared connection, if commands may be sent on it now."""
        shared = self._shared
        return shared if shared is not None and shared.is_usable() else None

    def _wish(self) -> None:
        self._wished += 1
        shared, now_s = self._shared, asyncio.get_running_loop().time()
        is_there = shared is not None and not (shared.is_retired or shared.raw.is_over)
        if is_there or self._opening is not None or self._wished < OPEN_AFTER or now_s < self._again_s:
            return
        self._again_s = now_s + OPEN_AGAIN_S
        self._opening = asyncio.create_task(self._open())

    async def _open(self) -> None:
        shared, left = SharedConnection(), self._left
        try:
            # The command that goes through the pool meanwhile tells the error.
            with contextlib.suppress(exceptions.RedisError, OSError):
                await shared.raw.open(self._pool)
                self._retire()
                self._shared = shared
                if left != self._left:
                    self._retire()
        finally:
            self._opening = None

    def leave(self) -> None:
        """Use no more what is open or being opened. The task that opens it may call this itself."""
        self._left += 1
        self._retire()

    def _retire(self) -> None:
        if self._shared is not None:
            self._shared.retire()
            self._leaving = [one for one in (*self._leaving, self._shared) if not one.raw.is_over]
        self._shared = None

    async def close(self) -> None:
        """Close all connections at once."""
        if self._opening is not None:
            await cancel_until_ended([self._opening])
        self._retire()
        for one in self._leaving:
            one.close()


class LeanClient(Redis):
    """A client of one server."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._lane = _Lane(self.connection_pool)
        self._receivers: weakref.WeakSet[Receiver] = weakref.WeakSet()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """The answer; see the library's `Redis`."""
        if args[0] in SHORT and ONLY_LIBRARY.isdisjoint(options):
            answers = await self._lane.ask((args,))
            if answers is not None:
                return _shaped(self.response_callbacks, args[0], _raised(answers[0]), options)
        return await super().execute_command(*args, **options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """A pipeline; see the library's `Redis`."""
        return _LeanPipeline(self, self._lane, transaction)

    def shared_connection(self) -> SharedConnection | None:
        """The connection that short commands share, if it can be used now."""
        return self._lane.usable()

    def receiver(self, heard: Callable[[str, bytes], None]) -> Receiver:
        """A connection for subscriptions, not opened yet."""
        receiver = Receiver(self.connection_pool, heard)
        self._receivers.add(receiver)
        return receiver

    async def leave_server(self) -> None:
        """Use no present connection again: the server's name may now lead to another server."""
        self._lane.leave()
        await self.connection_pool.update_active_connections_for_reconnect()
        await self.connection_pool.disconnect(inuse_connections=False)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all connections."""
        await self._lane.close()
        for receiver in tuple(self._receivers):
            receiver.close()
        await super().aclose(close_connection_pool)


class _LeanPipeline(Pipeline):
    def __init__(self, client: LeanClient, lane: _Lane, transaction: bool) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, None)
        self._lane = lane

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """All answers, in the order of the commands; see the library's `Pipeline`."""
        stack = cast("list[tuple[Arguments, dict[str, Any]]]", self.command_stack)
        is_plain = not (self.is_transaction or self.explicit_transaction or self.watching)
        if not (is_plain and 0 < len(stack) <= TOGETHER_MAX and all(map(_is_short, stack))):
            return await super().execute(raise_on_error)
        answers = await self._lane.ask([args for args, _ in stack])
        if answers is None:
            return await super().execute(raise_on_error)
        shaped = [
            answer
            if isinstance(answer, Exception)
            else _shaped(self.response_callbacks, args[0], answer, options)
            for answer, (args, options) in zip(answers, stack, strict=True)
        ]
        if raise_on_error:
            self.raise_first_error(self.command_stack, shaped)
        await self.reset()
        return shaped


def _is_short(command: tuple[Arguments, dict[str, Any]]) -> bool:
    args, options = command
    return args[0] in SHORT and ONLY_LIBRARY.isdisjoint(options)


def _raised(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


def _shaped(callbacks: Any, name: str, answer: Any, options: dict[str, Any]) -> Any:
    """The answer as the library would return it."""
    if name not in callbacks:
        return answer
    options.pop("keys", None)  # only for the library's cache
    return callbacks[name](answer, **options)

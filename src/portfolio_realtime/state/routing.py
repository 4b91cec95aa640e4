"""Sends each command to the node that holds its key.

A cluster answers MOVED if a slot has moved for good, ASK if its keys are being moved, and TRYAGAIN if a
script's keys are on two nodes. All three are followed. When a node is lost, the cluster is asked which node
has replaced it. With a single server every command goes there directly.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.crc import key_slot

from portfolio_realtime.state.error_answers import PassingError
from portfolio_realtime.state.nodes import LOST, Node, Nodes

TRIES_MAX: Final = 5  # of one command, at other nodes or later
TRY_AGAIN_S: Final = 0.05  # before the next try while keys are being moved
SCRIPT_CALLS: Final = frozenset({"EVALSHA", "EVAL"})
WITHOUT_KEY: Final = frozenset(
    {"PING", "INFO", "TIME", "HELLO", "DBSIZE", "FLUSHALL", "FLUSHDB", "SAVE", "REPLICAOF", "ECHO", "WAIT"}
)
IN_PARTS: Final = "TRYAGAIN"
# Answers after which a transaction can be sent again.
NOTHING_DONE: Final = frozenset({IN_PARTS, "EXECABORT"})

Command = tuple[tuple[Any, ...], Mapping[str, Any]]


class RoutedCommands(Redis):
    """The client library's commands, each sent to the node that holds its key."""

    def __init__(self, nodes: Nodes) -> None:
        super().__init__(connection_pool=nodes.first.commands.connection_pool)
        self._nodes = nodes

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """The node's answer; see the library's `Redis`."""
        if self._nodes.is_cluster is False or not await self._nodes.learn():
            return await self._nodes.first.commands.execute_command(*args, **options)
        key = key_of(args)
        if key is None:
            return await self._anywhere(args, options)
        slot = key_slot(key)
        for _ in range(TRIES_MAX - 1):
            node = self._nodes.holder(slot)
            try:
                return await node.answer(_Question(args, options))
            except exceptions.MovedError as error:
                self._nodes.move(error, node)
            except exceptions.AskError as error:
                return await _asking(self._nodes.move(error, node), args, options)
            except PassingError as error:
                if error.status_code != IN_PARTS:
                    raise
                await asyncio.sleep(TRY_AGAIN_S)
            except LOST:
                if not await self._has_other_holder(slot, node):
                    raise
        return await self._nodes.holder(slot).answer(_Question(args, options))

    async def _has_other_holder(self, slot: int, node: Node) -> bool:
        await self._nodes.read_view()
        return self._nodes.holder(slot) is not node

    async def _anywhere(self, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """The answer of the first node that can be reached."""
        failure: Exception | None = None
        for node in self._nodes.primaries():
            try:
                return await node.answer(_Question(args, options))
            except LOST as error:
                failure = error
        raise failure or PassingError("CLUSTERDOWN no slot has a node", status_code="CLUSTERDOWN")

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """A pipeline. The keys of a transaction must be in one slot."""
        return _RoutedPipeline(self, self._nodes, transaction)


class _Question(NamedTuple):
    """A command to send to a node."""

    args: tuple[Any, ...]
    options: Mapping[str, Any]

    async def __call__(self, commands: Redis) -> Any:
        return await cast("Awaitable[Any]", commands.execute_command(*self.args, **self.options))


class _RoutedPipeline(Pipeline):
    def __init__(self, commands: RoutedCommands, nodes: Nodes, transaction: bool) -> None:
        super().__init__(commands.connection_pool, commands.response_callbacks, transaction, None)
        self._one_by_one = commands
        self._nodes = nodes

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """All answers, in the order of the commands; see the library's `Pipeline`."""
        if self._nodes.is_cluster is False or not await self._nodes.learn():
            if self.watching or self.explicit_transaction:
                return await super().execute(raise_on_error)
            whole = self._nodes.first.commands.pipeline(transaction=self.is_transaction)
            whole.command_stack, self.command_stack = self.command_stack, []
            return await whole.execute(raise_on_error)
        stack, self.command_stack = cast("list[Command]", self.command_stack), []
        answers = await (self._transaction(stack) if self.is_transaction else self._spread(stack))
        for answer in answers:
            if raise_on_error and isinstance(answer, Exception):
                raise answer
        return answers

    async def _spread(self, stack: Sequence[Command]) -> list[Any]:
        """The answers of all nodes, asked at the same time; an error in the place of a failed command."""
        answers: list[Any] = [None] * len(stack)
        shares: dict[Node, list[int]] = {}
        for place, (args, _) in enumerate(stack):
            try:
                shares.setdefault(self._nodes.holder(_slot_of(args)), []).append(place)
            except PassingError as error:
                answers[place] = error
        told = await asyncio.gather(
            *(_send(node, [stack[place] for place in places], False) for node, places in shares.items()),
            return_exceptions=True,
        )
        for places, part in zip(shares.values(), told, strict=True):
            if isinstance(part, BaseException) and not isinstance(part, (exceptions.RedisError, OSError)):
                raise part
            each = [part] * len(places) if isinstance(part, BaseException) else part
            for place, answer in zip(places, each, strict=True):
                answers[place] = answer
        await self._follow_moves(stack, shares, answers)
        return answers

    async def _follow_moves(
        self, stack: Sequence[Command], shares: Mapping[Node, list[int]], answers: list[Any]
    ) -> None:
        """Send the commands whose keys have moved again, one by one."""
        if any(map(_is_lost, answers)):
            with contextlib.suppress(exceptions.RedisError, OSError):
                await self._nodes.read_view()
        for node, places in shares.items():
            for place in places:
                args, options = stack[place]
                has_moved = _is_lost(answers[place]) and not self._nodes.is_held_by(node, _slot_of(args))
                if not has_moved and not _is_elsewhere(answers[place]):
                    continue
                try:
                    answers[place] = await self._one_by_one.execute_command(*args, **options)
                except (exceptions.RedisError, OSError) as error:
                    answers[place] = error

    async def _transaction(self, stack: Sequence[Command]) -> list[Any]:
        slot = _slot_of(stack[0][0])
        for _ in range(TRIES_MAX - 1):
            node = self._nodes.holder(slot)
            try:
                return await _send(node, stack, True)
            except exceptions.MovedError as error:
                self._nodes.move(error, node)
            except PassingError as error:
                if error.status_code not in NOTHING_DONE:
                    raise
                await asyncio.sleep(TRY_AGAIN_S)
                await self._nodes.read_view()
            except LOST:
                await self._nodes.read_view()
                if self._nodes.holder(slot) is node:
                    raise
        return await _send(self._nodes.holder(slot), stack, True)


async def _send(node: Node, stack: Sequence[Command], is_transaction: bool) -> list[Any]:
    async def ask(commands: Redis) -> list[Any]:
        pipeline = commands.pipeline(transaction=is_transaction)
        pipeline.command_stack = list(stack)
        return await pipeline.execute(raise_on_error=is_transaction)

    return await node.answer(ask)


async def _asking(node: Node, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """The answer of a node about a key that is being moved there."""
    _, answer = await _send(node, [(("ASKING",), {}), (args, options)], False)
    if isinstance(answer, Exception):
        raise answer
    return answer


def _is_lost(answer: object) -> bool:
    return isinstance(answer, LOST) and not isinstance(answer, PassingError)


def _is_elsewhere(answer: object) -> bool:
    if isinstance(answer, PassingError):
        return answer.status_code == IN_PARTS
    return isinstance(answer, exceptions.AskError)


def _slot_of(args: Sequence[Any]) -> int:
    key = key_of(args)
    assert key is not None, f"{args[0]} has no key: it cannot be sent together with others"
    return key_slot(key)


def key_of(args: Sequence[Any]) -> bytes | None:
    """The key that decides where a command is sent; None if any node will do."""
    name = str(args[0]).upper()
    if name in SCRIPT_CALLS:
        return _bytes(args[3]) if int(args[2]) else None
    if name == "XREAD":
        words = [_bytes(word).upper() for word in args]
        return _bytes(args[words.index(b"STREAMS") + 1])
    # The pattern of a SCAN names the tag of its keys.
    if name == "SCAN":
        return next((_bytes(one) for one in args if b"}" in _bytes(one)), None)
    if name in WITHOUT_KEY or " " in name or len(args) < 2:
        return None
    return _bytes(args[1])


def _bytes(part: object) -> bytes:
    return part if isinstance(part, bytes) else str(part).encode()

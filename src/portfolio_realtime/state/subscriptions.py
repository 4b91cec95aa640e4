"""Follows channels: each at the node that holds it, for as long as messages are known to arrive.

Pub/sub delivers at most once. The reader therefore gets SUBSCRIBED each time a subscription of some or all
channels was made (again). It then reads the state and applies the messages that come after it: subscribe
first, read second.

Every second a probe is published on a channel of our own, which each subscription follows. A subscription
that misses it is given up, although its connection may look healthy.

On a cluster a message reaches only the nodes of one slot (SPUBLISH). There is a connection to each primary,
made again when slots move. The client library's own cluster subscriptions receive nothing after a failover
until some command is sent; `tests/faults/test_cluster_library.py` shows when that is fixed.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Awaitable, Iterable
from typing import Any, Final, NamedTuple, NoReturn, cast

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.crc import key_slot

from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.state import keys
from portfolio_realtime.state.clients import SOCKET_TIMEOUT_S
from portfolio_realtime.state.error_answers import state_error
from portfolio_realtime.state.nodes import Node, Nodes

RECONNECT_S: Final = 0.2
PROBE_S: Final = 1.0  # between two probes of a subscription
PROBE_S_MAX: Final = 1.5  # to publish one probe; then the attempt is given up
DEAF_S: Final = 2.5  # a subscription that has missed published probes for so long is given up
QUEUED_MAX: Final = 64  # messages that wait for their reader; further ones stay at the server
PUBLISH: Final = "PUBLISH"
SPUBLISH: Final = "SPUBLISH"
CONFIRMATIONS: Final = frozenset({"subscribe", "ssubscribe"})
MESSAGES: Final = frozenset({"message", "smessage"})


class Message(NamedTuple):
    """One message of a channel."""

    channel: str
    payload: bytes


class Subscribed(NamedTuple):
    """Nothing is missed from here on: read the state now."""


SUBSCRIBED: Final = Subscribed()


class _Events:
    """What the connections of one reader have received, in order of arrival."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Message | Subscribed | Exception] = asyncio.Queue(QUEUED_MAX)
        self._is_told = False  # a SUBSCRIBED is queued: one is enough until it is read

    async def put(self, event: Message | Subscribed | Exception) -> None:
        if isinstance(event, Subscribed):
            if self._is_told:
                return
            self._is_told = True
        await self._queue.put(event)

    async def get(self) -> Message | Subscribed:
        event = await self._queue.get()
        if isinstance(event, Exception):
            raise event
        if isinstance(event, Subscribed):
            self._is_told = False
        return event


class Subscriptions:
    """The messages of channels, from whichever nodes hold them."""

    def __init__(self, nodes: Nodes, commands: Redis) -> None:
        self._nodes = nodes
        self._commands = commands

    async def follow(self, channels: Iterable[str]) -> AsyncGenerator[Message | Subscribed]:
        """Messages of the channels; SUBSCRIBED at first and after every loss. Raises StateRefused."""
        events = _Events()
        listening = asyncio.create_task(self._listen_all(frozenset(channels), events))
        try:
            while True:
                yield await events.get()
        finally:
            await cancel_until_ended([listening])

    async def _listen_all(self, channels: frozenset[str], events: _Events) -> None:
        """Keep a connection to each node that holds channels, and renew it when it is lost or slots move."""
        listening: dict[Node, tuple[frozenset[str], int, asyncio.Task[None]]] = {}
        try:
            while True:
                turned = asyncio.create_task(self._nodes.turned.wait())
                try:
                    wanted = await self._by_node(channels)
                    for node, (names, moves, task) in list(listening.items()):
                        if task.done():
                            task.result()
                        if task.done() or wanted.get(node) != names or node.moves != moves:
                            await cancel_until_ended([task])
                            del listening[node]
                    for node in wanted.keys() - listening.keys():
                        task = asyncio.create_task(self._listen(node, wanted[node], events))
                        listening[node] = wanted[node], node.moves, task
                    is_whole = sum(map(len, wanted.values())) == len(channels)
                    await asyncio.wait(
                        [turned, *(task for _, _, task in listening.values())],
                        timeout=None if is_whole else RECONNECT_S,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                finally:
                    turned.cancel()
        except Exception as error:
            # `follow` raises it to the reader.
            await events.put(error)
        finally:
            await cancel_until_ended([task for _, _, task in listening.values()])

    async def _by_node(self, channels: frozenset[str]) -> dict[Node, frozenset[str]]:
        """Node -> the channels that it holds; empty while no node answers. Raises StateRefused."""
        try:
            await self._nodes.learn()
        except (exceptions.RedisError, OSError) as error:
            _raise_unless_passing(error)
            await asyncio.sleep(RECONNECT_S)
            return {}
        return self._nodes.by_holder(channels)

    async def _listen(self, node: Node, channels: frozenset[str], events: _Events) -> None:
        """Receive from one node until it is lost or slots have moved. Raises StateRefused."""
        ear = _Ear(node.subscriptions.pubsub(), self._commands, is_sharded=bool(self._nodes.is_cluster))
        try:
            await ear.subscribe(channels)
            await events.put(SUBSCRIBED)
            await ear.listen(events)
        except exceptions.AskError as error:
            if not self._nodes.is_cluster:
                _raise_unless_passing(error)
            self._nodes.move(error, node)
        except (exceptions.RedisError, OSError) as error:
            _raise_unless_passing(error)
            await asyncio.sleep(RECONNECT_S)
            if self._nodes.is_cluster:
                with contextlib.suppress(exceptions.RedisError, OSError):
                    await self._nodes.read_view()
        finally:
            await ear.close()


class _Ear:
    """One connection that receives channels and the probes of this process."""

    def __init__(self, pubsub: PubSub, commands: Redis, *, is_sharded: bool) -> None:
        self._pubsub = pubsub
        self._commands = commands
        self._is_sharded = is_sharded
        self._probe = ""  # the channel of our probes
        self._spoken_s = 0.0  # when the last probe was published
        self._speaking: asyncio.Task[NoReturn] | None = None

    async def subscribe(self, channels: frozenset[str]) -> None:
        """Return when all channels are subscribed. Raises RedisError."""
        self._probe = keys.probe(min(channels), secrets.token_hex(8))
        wanted = [*sorted(channels), self._probe]
        if self._is_sharded:
            by_slot: dict[int, list[str]] = {}
            for channel in wanted:
                by_slot.setdefault(key_slot(channel.encode()), []).append(channel)
            for names in by_slot.values():
                await self._pubsub.ssubscribe(*names)
        else:
            await self._pubsub.subscribe(*wanted)
        for _ in wanted:
            if await self._pubsub.get_message(timeout=SOCKET_TIMEOUT_S) is None:
                raise exceptions.TimeoutError("the server does not confirm subscriptions")

    async def listen(self, events: _Events) -> NoReturn:
        """Pass on messages until the connection is lost. Raises RedisError, StateRefused."""
        now_s = asyncio.get_running_loop().time
        heard_s = now_s()
        self._speaking = asyncio.create_task(self._speak())
        while True:
            told = await self._pubsub.get_message(timeout=PROBE_S)
            if told is None:
                self._check_hearing(heard_s)
                continue
            heard_s = now_s()
            if told["type"] in MESSAGES:
                channel = cast("bytes", told["channel"]).decode()
                if channel != self._probe:
                    await events.put(Message(channel, cast("bytes", told["data"])))
            elif told["type"] not in CONFIRMATIONS:
                # The server has ended the subscription, because the slot has moved.
                raise exceptions.ConnectionError(f"{told['type']}: a channel has moved to another node")

    def _check_hearing(self, heard_s: float) -> None:
        """Raises if published probes do not arrive, or if we may not publish them."""
        if self._speaking is not None and self._speaking.done():
            self._speaking.result()
        if self._spoken_s - heard_s > DEAF_S:
            raise exceptions.TimeoutError("the subscription does not receive what is published")

    async def _speak(self) -> NoReturn:
        while True:
            with contextlib.suppress(StateUnavailable, TimeoutError):
                async with asyncio.timeout(PROBE_S_MAX):
                    await self._say()
                self._spoken_s = asyncio.get_running_loop().time()
            await asyncio.sleep(PROBE_S)

    async def _say(self) -> None:
        saying: Awaitable[Any] = (
            self._commands.execute_command(SPUBLISH, self._probe, b"")
            if self._is_sharded
            else self._commands.publish(self._probe, b"")
        )
        try:
            await saying
        except (exceptions.RedisError, OSError) as error:
            raise state_error(error) or error from error

    async def close(self) -> None:
        """Stop the probes and close the connection."""
        if self._speaking is not None:
            await cancel_until_ended([self._speaking])
        await self._pubsub.aclose()


def _raise_unless_passing(error: exceptions.RedisError | OSError) -> None:
    """Raises StateRefused for a lasting error, and the error itself for a mistake of our own."""
    meaning = state_error(error)
    if meaning is None:
        raise error
    if not isinstance(meaning, StateUnavailable):
        raise meaning from error

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
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Iterable
from typing import Any, Final, NamedTuple, NoReturn

from redis import exceptions
from redis.asyncio import Redis

from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.state import keys
from portfolio_realtime.state.client.lean_client import LeanClient
from portfolio_realtime.state.client.receiver import Receiver
from portfolio_realtime.state.clients import SOCKET_TIMEOUT_S
from portfolio_realtime.state.error_answers import state_error
from portfolio_realtime.state.nodes import Node, Nodes

RECONNECT_S: Final = 0.2
PROBE_S: Final = 1.0  # between two probes of a subscription
PROBE_S_MAX: Final = 1.5  # to publish one probe; then the attempt is given up
MISSED_S_MAX: Final = 2.5  # a subscription that has missed published probes for so long is given up
QUEUED_MAX: Final = 64  # messages that wait for their reader; further ones stay at the server
PUBLISH: Final = "PUBLISH"
SPUBLISH: Final = "SPUBLISH"


class Message(NamedTuple):
    """One message of a channel."""

    channel: str
    payload: bytes


class Subscribed(NamedTuple):
    """Nothing is missed from here on: read the state now."""


SUBSCRIBED: Final = Subscribed()


class _Listening(NamedTuple):
    """A task that listens at one node; `moves` as of the node when it began."""

    channels: frozenset[str]
    moves: int
    task: asyncio.Task[None]


class _Events:
    """What the connections of one reader have received, in order of arrival."""

    def __init__(self) -> None:
        self._came: deque[Message | Subscribed | Exception] = deque()
        self._is_told = False  # a SUBSCRIBED is queued: one is enough until it is read
        self._waiter: asyncio.Future[None] | None = None
        self._paused: list[Receiver] = []

    def put(self, event: Message | Subscribed | Exception) -> None:
        if isinstance(event, Subscribed):
            if self._is_told:
                return
            self._is_told = True
        self._came.append(event)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def put_message(self, message: Message, receiver: Receiver) -> None:
        """Add a message; its connection pauses while QUEUED_MAX wait."""
        self.put(message)
        if len(self._came) >= QUEUED_MAX and not receiver.is_paused:
            receiver.pause()
            self._paused.append(receiver)

    async def get(self) -> Message | Subscribed:
        while not self._came:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        event = self._came.popleft()
        if self._paused and len(self._came) < QUEUED_MAX:
            paused, self._paused = self._paused, []
            for receiver in paused:
                receiver.resume()
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
        # Followed channel -> since when nothing that is published there can arrive, by the loop's clock.
        self.lost_since_s: dict[str, float] = {}

    async def follow(self, channels: Iterable[str]) -> AsyncGenerator[Message | Subscribed]:
        """Messages of the channels; SUBSCRIBED at first and after every loss. Raises StateRefused."""
        events, names = _Events(), frozenset(channels)
        self._note_lost(names, asyncio.get_running_loop().time())
        listening = asyncio.create_task(self._listen_all(names, events))
        try:
            while True:
                yield await events.get()
        finally:
            await cancel_until_ended([listening])
            self._note_received(names)

    def _note_lost(self, channels: Iterable[str], since_s: float) -> None:
        for name in channels:
            self.lost_since_s.setdefault(name, since_s)

    def _note_received(self, channels: Iterable[str]) -> None:
        for name in channels:
            self.lost_since_s.pop(name, None)

    async def _listen_all(self, channels: frozenset[str], events: _Events) -> None:
        """Keep a connection to each node that holds channels, and renew it when it is lost or slots move."""
        listening: dict[Node, _Listening] = {}
        try:
            while True:
                turned = asyncio.create_task(self._nodes.turned.wait())
                try:
                    await self._listen_until(turned, channels, events, listening)
                finally:
                    turned.cancel()
        except Exception as error:
            # `follow` raises it to the reader.
            events.put(error)
        finally:
            await cancel_until_ended([one.task for one in listening.values()])

    async def _listen_until(
        self,
        turned: asyncio.Task[Any],
        channels: frozenset[str],
        events: _Events,
        listening: dict[Node, _Listening],
    ) -> None:
        """Listen at each node that holds channels, until slots have `turned` or a connection is lost."""
        wanted = await self._by_node(channels)
        for node, one in list(listening.items()):
            if one.task.done():
                one.task.result()
            if one.task.done() or wanted.get(node) != one.channels or node.moves != one.moves:
                await cancel_until_ended([one.task])
                del listening[node]
        for node in wanted.keys() - listening.keys():
            task = asyncio.create_task(self._listen(node, wanted[node], events))
            listening[node] = _Listening(wanted[node], node.moves, task)
        is_whole = sum(map(len, wanted.values())) == len(channels)
        await asyncio.wait(
            [turned, *(one.task for one in listening.values())],
            timeout=None if is_whole else RECONNECT_S,
            return_when=asyncio.FIRST_COMPLETED,
        )

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
        subscription = _ProbedSubscription(
            node.subscriptions, self._commands, events, is_sharded=bool(self._nodes.is_cluster)
        )
        try:
            await subscription.subscribe(channels)
            self._note_received(channels)
            await subscription.listen()
        except exceptions.AskError as error:
            if not self._nodes.is_cluster:
                _raise_unless_passing(error)
            self._nodes.move(error, node)
        except (exceptions.RedisError, OSError) as error:
            _raise_unless_passing(error)
            self._note_lost(channels, subscription.heard_s)
            await asyncio.sleep(RECONNECT_S)
            if self._nodes.is_cluster:
                with contextlib.suppress(exceptions.RedisError, OSError):
                    await self._nodes.read_view()
        finally:
            self._note_lost(channels, subscription.heard_s)
            await subscription.close()


class _ProbedSubscription:
    """One connection that receives channels and the probes of this process."""

    def __init__(self, client: LeanClient, commands: Redis, events: _Events, *, is_sharded: bool) -> None:
        self._receiver = client.receiver(self._receive)
        self._commands = commands
        self._events = events
        self._is_sharded = is_sharded
        self._is_subscribed = False
        self._probe = ""  # the channel of our probes
        self._probed_s = 0.0  # when the last probe was published
        self._probing: asyncio.Task[NoReturn] | None = None

    @property
    def heard_s(self) -> float:
        """When something was last received, or the connection opened, by the loop's clock."""
        return self._receiver.heard_s

    async def subscribe(self, channels: frozenset[str]) -> None:
        """Return when all channels are subscribed and the reader is told. Raises RedisError."""
        self._probe = keys.probe(min(channels), secrets.token_hex(8))
        await self._receiver.subscribe(
            [*sorted(channels), self._probe], is_sharded=self._is_sharded, wait_s=SOCKET_TIMEOUT_S
        )
        self._events.put(SUBSCRIBED)
        self._is_subscribed = True

    def _receive(self, channel: str, payload: bytes) -> None:
        # What comes before the reader is told to read is in what it reads.
        if channel != self._probe and self._is_subscribed:
            self._events.put_message(Message(channel, payload), self._receiver)

    async def listen(self) -> NoReturn:
        """Return when the connection is lost, with its error. Raises RedisError, StateRefused."""
        self._probing = asyncio.create_task(self._keep_probing())
        while True:
            await asyncio.wait([self._receiver.lost], timeout=PROBE_S)
            if self._receiver.lost.done():
                self._receiver.lost.result()
            self._check_received(self._receiver.heard_s)

    def _check_received(self, heard_s: float) -> None:
        """Raises if published probes do not arrive, or if we may not publish them."""
        if self._receiver.is_paused or asyncio.get_running_loop().time() - heard_s < PROBE_S:
            return
        if self._probing is not None and self._probing.done():
            self._probing.result()
        if self._probed_s - heard_s > MISSED_S_MAX:
            raise exceptions.TimeoutError("the subscription does not receive what is published")

    async def _keep_probing(self) -> NoReturn:
        while True:
            with contextlib.suppress(StateUnavailable, TimeoutError):
                async with asyncio.timeout(PROBE_S_MAX):
                    await self._publish_probe()
                self._probed_s = asyncio.get_running_loop().time()
            await asyncio.sleep(PROBE_S)

    async def _publish_probe(self) -> None:
        publishing: Awaitable[Any] = (
            self._commands.execute_command(SPUBLISH, self._probe, b"")
            if self._is_sharded
            else self._commands.publish(self._probe, b"")
        )
        try:
            await publishing
        except (exceptions.RedisError, OSError) as error:
            raise state_error(error) or error from error

    async def close(self) -> None:
        """Stop the probes and close the connection."""
        if self._probing is not None:
            await cancel_until_ended([self._probing])
        self._receiver.close()


def _raise_unless_passing(error: exceptions.RedisError | OSError) -> None:
    """Raises StateRefused for a lasting error, and the error itself for a mistake of our own."""
    meaning = state_error(error)
    if meaning is None:
        raise error
    if not isinstance(meaning, StateUnavailable):
        raise meaning from error

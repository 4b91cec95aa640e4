"""Which server holds a key: a single server holds all keys, the primaries of a cluster share the slots.

Sentinels are asked every VIEW_S where the primary is: one that has handed over still takes writes for about
10 s, until they make it a replica, and what is written there is lost.

The view of a cluster is read again after every loss, when a node reports that a slot has moved, and every
VIEW_S. Several nodes are asked at once, and the most frequent answer counts: a node that was paused or cut
off may still report an old view.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, NoReturn, TypeVar, cast

from redis import exceptions
from redis.asyncio import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.config import valkey_url
from portfolio_realtime.errors import StateRefused
from portfolio_realtime.state.client.lean_client import LeanClient
from portfolio_realtime.state.clients import command_client, subscription_client
from portfolio_realtime.state.error_answers import DATABASE_0, INCOMPLETE, NOT_VALKEY, PassingError
from portfolio_realtime.state.sentinels import Sentinels

VIEW_S: Final = 2.0  # between two reads of the view
VIEW_S_MIN: Final = 0.1  # between two reads of the view, for any number of callers
ASKED_MAX: Final = 3  # nodes asked for their view at the same time
ASK_S_MAX: Final = 1.0  # for the view of one node
ANSWER_S_MAX: Final = 2.5  # for one command on a cluster; then the node counts as silent
TRIAL_S_MAX: Final = 1.0  # for the answer of a silent node to one PING
TRIAL_S: Final = 0.2  # between two PINGs to a silent node
VERSION_MIN: Final = 7  # of a cluster; older versions have no SPUBLISH
NO_HOSTS: Final = frozenset({"", "?"})  # sent by a node that does not know its own name
CLUSTER: Final = "cluster"
SENTINEL: Final = "sentinel"

R = TypeVar("R")
LOST: Final = (exceptions.ConnectionError, exceptions.TimeoutError, OSError)


class Slots(NamedTuple):
    """A range of slots, and the places (host, port) of its nodes: the primary first, then its replicas."""

    first: int
    last: int
    places: tuple[tuple[str, int], ...]


View = tuple[Slots, ...]


class Node:
    """One server: its commands and its subscriptions.

    A node of a cluster that has not answered in time is silent: all waiting commands fail at once, and so do
    new ones until it answers a PING. A node that hangs therefore delays its callers by ANSWER_S_MAX once, not
    at each command. `on_answer` is called when a silent node answers again.
    """

    def __init__(self, url: str, on_answer: Callable[[], None] = lambda: None) -> None:
        self.url = url
        self.commands: LeanClient = command_client(url)
        self.subscriptions: LeanClient = subscription_client(url)
        self.moves = 0  # how often the primary has become another server
        self.is_silent = False
        self._on_answer = on_answer
        self._waiting: set[asyncio.Timeout] = set()
        self._trying: asyncio.Task[None] | None = None

    async def answer(self, ask: Callable[[Redis], Awaitable[R]]) -> R:
        """The node's answer. Raises RedisError, and TimeoutError if it is silent or was given up."""
        if self.is_silent:
            raise self._silence()
        now_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(ANSWER_S_MAX) as deadline:
                self._waiting.add(deadline)
                try:
                    return await ask(self.commands)
                finally:
                    self._waiting.discard(deadline)
        except TimeoutError:
            # Otherwise `give_up` has ended the wait.
            if asyncio.get_running_loop().time() - now_s >= ANSWER_S_MAX and not self.is_silent:
                self.is_silent = True
                self._trying = asyncio.create_task(self._try())
                self.give_up()
            raise self._silence() from None
        except LOST as error:
            error.add_note(INCOMPLETE)  # `state_error` tells it
            raise

    async def _try(self) -> None:
        try:
            while not await self._has_answered():
                await asyncio.sleep(TRIAL_S)
        finally:
            self.is_silent = False
        self._on_answer()

    async def _has_answered(self) -> bool:
        """Whether it answers a PING, also with an error."""
        try:
            async with asyncio.timeout(TRIAL_S_MAX):
                await cast("Awaitable[Any]", self.commands.ping())
        except PassingError:
            return True
        except LOST:
            return False
        except exceptions.RedisError:
            return True
        return True

    def _silence(self) -> TimeoutError:
        silence = TimeoutError(f"{valkey_url.place_of(self.url)} does not answer")
        silence.add_note(INCOMPLETE)
        return silence

    def give_up(self) -> None:
        """End all waits for this node: it is silent, or another node holds its slots."""
        now_s = asyncio.get_running_loop().time()
        for deadline in self._waiting:
            if not deadline.expired():
                deadline.reschedule(now_s)

    async def give_up_connections(self) -> None:
        """Its name leads elsewhere: no connection is used again, and subscriptions must be made again."""
        self.moves += 1
        await self.commands.leave_server()

    async def close(self) -> None:
        """Close all connections."""
        if self._trying is not None:
            await cancel_until_ended([self._trying])
        await self.commands.aclose()
        await self.subscriptions.aclose()


class Nodes:
    """The servers at a URL. `is_cluster`: the kind that is expected; None: the server tells."""

    def __init__(self, url: str, is_cluster: bool | None) -> None:
        self.is_cluster = False if is_cluster is False else None  # None: not known yet
        # Set, and replaced, when slots have moved to other nodes or a silent node answers again.
        self.turned = asyncio.Event()
        self.turns = 0  # how often it was set
        self._expected = is_cluster
        self._has_sentinels = bool(valkey_url.sentinel_master_of(url))
        self._first = [Node(one) for one in ([url] if self._has_sentinels else valkey_url.each_host(url))]
        self._others: dict[tuple[str, int], Node] = {}
        self._holders: list[Node | None] = []
        self._learning = asyncio.Lock()
        self._read_s = -VIEW_S_MIN  # when the view was last asked for
        self._reading: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[NoReturn] | None = None
        self._leaving: set[asyncio.Task[None]] = set()  # closes the nodes that have left the cluster

    @property
    def first(self) -> Node:
        """The first server in the URL."""
        return self._first[0]

    async def learn(self) -> bool:
        """Whether it is a cluster; asks the server once. Raises RedisError, StateRefused."""
        if self.is_cluster is not None and (self._holders or not self.is_cluster):
            return self.is_cluster
        async with self._learning:
            if self.is_cluster is None:
                self.is_cluster = await self._ask_kind()
        if self.is_cluster and not self._holders:
            await self.read_view()
            if self._watching is None:
                self._watching = asyncio.create_task(self._watch())
        return self.is_cluster

    async def _ask_kind(self) -> bool:
        failure: Exception | None = None
        for node in self._first:
            try:
                told = await hello(node.commands)
            except LOST as error:
                failure = error
                continue
            self.check_kind(told, node)
            return told.mode == CLUSTER
        raise failure or AssertionError("a URL without a host")

    def check_kind(self, told: "Hello", node: Node) -> None:
        """Raises StateRefused if a server is of an unexpected kind, or a cluster that we cannot use."""
        place = valkey_url.place_of(node.url)
        if told.mode == SENTINEL:
            raise StateRefused(
                f"{place} is a Sentinel: name it in REDIS_SENTINELS, and its primary in REDIS_SENTINEL_MASTER"
            )
        if told.mode != CLUSTER:
            if self._expected or len(self._first) > 1:
                raise StateRefused(
                    f"{place} is not a node of a cluster: unset REDIS_CLUSTER and name one host, or name "
                    "nodes of a cluster"
                )
            return
        if self._expected is False:
            raise StateRefused(f"{place} is a node of a cluster: unset REDIS_CLUSTER")
        if told.major_version < VERSION_MIN:
            raise StateRefused(
                f"{place} is a cluster of version {told.version}: use Valkey, or Redis {VERSION_MIN} or newer"
            )
        if valkey_url.database_of(node.url):
            raise StateRefused(f"{place} is a cluster, where only database 0 can be used: {DATABASE_0}")

    def holder(self, slot: int) -> Node:
        """The node that holds a slot. Raises PassingError if none does."""
        node = self._holders[slot]
        if node is None:
            raise PassingError(f"CLUSTERDOWN slot {slot} has no node", status_code="CLUSTERDOWN")
        return node

    def is_held_by(self, node: Node, slot: int) -> bool:
        """Whether this node holds the slot."""
        return self._holders[slot] is node

    def holder_of(self, key: str) -> Node:
        """The node that holds a key. Raises PassingError if none does."""
        return self.holder(key_slot(key.encode())) if self.is_cluster else self.first

    def primaries(self) -> list[Node]:
        """The nodes that hold slots, in random order."""
        found = list(dict.fromkeys(node for node in self._holders if node is not None))
        random.shuffle(found)
        return found

    def by_holder(self, keys: Iterable[str]) -> dict[Node, frozenset[str]]:
        """Node -> those of the keys that it holds, without keys that no node holds."""
        if not self.is_cluster:
            return {self.first: frozenset(keys)}
        found: dict[Node, set[str]] = {}
        for key in keys:
            if (node := self._holders[key_slot(key.encode())]) is not None:
                found.setdefault(node, set()).add(key)
        return {node: frozenset(names) for node, names in found.items()}

    async def require_whole(self) -> None:
        """Return if the server is of the expected kind and every slot has a node.

        Raises RedisError, PassingError, StateRefused.
        """
        if self._expected is False:
            await self._ask_kind()
        if self._has_sentinels and self._watching is None:
            self._watching = asyncio.create_task(self._follow_primary())
        if await self.learn():
            await self.read_view()
            for slot in range(REDIS_CLUSTER_HASH_SLOTS):
                self.holder(slot)

    async def read_view(self) -> None:
        """Read which node holds which slot. Raises RedisError if no node answers."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_view())
            self._reading.add_done_callback(_looked_at)
        await asyncio.shield(self._reading)

    async def _read_view(self) -> None:
        now_s = asyncio.get_running_loop().time
        await asyncio.sleep(max(0.0, self._read_s + VIEW_S_MIN - now_s()))
        self._read_s = now_s()
        nodes = [*self._others.values(), *self._first]
        random.shuffle(nodes)
        nodes.sort(key=lambda node: node.is_silent)
        failures: list[BaseException] = []
        for at in range(0, len(nodes), ASKED_MAX):
            told = await asyncio.gather(
                *(self._ask_view(node) for node in nodes[at : at + ASKED_MAX]), return_exceptions=True
            )
            views = [one for one in told if not isinstance(one, BaseException)]
            if views:
                self._take(Counter(views).most_common(1)[0][0])
                return
            failures += [one for one in told if isinstance(one, BaseException)]
        raise failures[0]

    async def _ask_view(self, node: Node) -> View:
        async with asyncio.timeout(ASK_S_MAX):
            told: Any = await node.commands.execute_command("CLUSTER SLOTS")
        own = valkey_url.host_of(node.url)
        return tuple(sorted(Slots(one[0], one[1], _places(one[2:], own)) for one in told))

    def _take(self, view: View) -> None:
        before, holders = self._holders, list[Node | None]([None] * REDIS_CLUSTER_HASH_SLOTS)
        known = {place: self._node_at(place) for slots in view for place in slots.places}
        for slots in view:
            node = known[slots.places[0]]
            holders[slots.first : slots.last + 1] = [node] * (slots.last + 1 - slots.first)
        gone = [node for place, node in self._others.items() if place not in known]
        self._others, self._holders = known, holders
        for node in {node for node in before if node is not None}.difference(holders):
            node.give_up()
        for node in gone:
            node.give_up()
            task = asyncio.ensure_future(node.close())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        if before and holders != before:
            self._turn()

    def _node_at(self, place: tuple[str, int]) -> Node:
        return self._others.get(place) or Node(valkey_url.at(self.first.url, *place), self._turn)

    def move(self, error: exceptions.AskError, told_by: Node) -> Node:
        """The node that an answer names. After MOVED, it holds the slot from now on."""
        host = valkey_url.host_of(told_by.url) if error.host in NO_HOSTS else error.host
        place = (host, int(error.port))
        node = self._others[place] = self._node_at(place)
        if isinstance(error, exceptions.MovedError) and self._holders[error.slot_id] is not node:
            self._holders[error.slot_id] = node
            self._turn()
        return node

    def _turn(self) -> None:
        self.turns += 1
        self.turned.set()
        self.turned = asyncio.Event()

    async def _watch(self) -> NoReturn:
        while True:
            await asyncio.sleep(VIEW_S)
            with contextlib.suppress(exceptions.RedisError, OSError):
                await self.read_view()

    async def _follow_primary(self) -> NoReturn:
        """Leave the server that is the primary no more as soon as Sentinels name another one."""
        sentinels: Sentinels = self.first.commands.connection_pool.connection_kwargs["sentinels"]
        known: tuple[str, int] | None = None
        while True:
            with contextlib.suppress(exceptions.RedisError, OSError):
                place = await sentinels.primary()
                if known not in (None, place):
                    await self.first.give_up_connections()
                    self._turn()
                known = place
            await asyncio.sleep(VIEW_S)

    async def close(self) -> None:
        """Close all connections."""
        tasks = [task for task in (self._watching, self._reading) if task is not None]
        await cancel_until_ended(tasks)
        for node in (*self._first, *self._others.values()):
            await node.close()
        await asyncio.gather(*self._leaving, return_exceptions=True)


class Hello(NamedTuple):
    """A server's answer to HELLO."""

    server: str
    version: str
    mode: str  # standalone, cluster or sentinel
    role: str

    @property
    def major_version(self) -> int:
        """The number before the first point, or 0 if there is none."""
        digits = self.version.partition(".")[0]
        return int(digits) if digits.isdecimal() else 0


async def hello(commands: Redis) -> Hello:
    """The server's answer to HELLO. Raises RedisError; StateRefused if it is none."""
    answer: Any = await commands.execute_command("HELLO")
    said = dict(zip(answer[::2], answer[1::2], strict=False)) if isinstance(answer, list) else answer
    told = {_text(name): _text(value) for name, value in said.items()} if isinstance(said, dict) else {}
    if not told.keys() >= {"server", "version", "mode"}:
        raise StateRefused(f"Valkey: {NOT_VALKEY}")
    return Hello(told["server"], told["version"], told["mode"], told.get("role", ""))


def _text(raw: object) -> str:
    return raw.decode() if isinstance(raw, bytes) else str(raw)


def _places(told: Sequence[Any], own_host: str) -> tuple[tuple[str, int], ...]:
    hosts = ((_text(one[0] or ""), int(one[1])) for one in told)
    return tuple((own_host if host in NO_HOSTS else host, port) for host, port in hosts)


def _looked_at(task: asyncio.Task[None]) -> None:
    """Mark the task's error as retrieved: each waiting caller gets it, and otherwise it does not matter."""
    if not task.cancelled():
        task.exception()

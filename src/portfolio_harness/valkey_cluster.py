"""A real cluster of Valkey or Redis on loopback, whose nodes can be killed, stopped and failed over.

It needs no redis-cli. Each node is a process that ends with this one, and it loses its data when it ends. Its
view of the cluster is kept in a temporary folder, so that a restarted node joins again by itself.
"""

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, Self

from redis import exceptions
from redis.asyncio import Redis
from redis.crc import key_slot

from portfolio_harness.valkey_node import ValkeyNode
from portfolio_realtime.errors import PortfolioRealtimeError, StateUnavailable

SLOTS: Final = 16_384
NODE_TIMEOUT_MS: Final = 2000  # a node that is silent for longer is failed over
WAIT_S_MAX: Final = 60.0  # for what takes a cluster seconds, and longer on a busy machine
POLL_S: Final = 0.05
BACK_S: Final = 4.0  # longer than a failover: a primary that restarts sooner stays primary, and is empty
PORT_ATTEMPTS_MAX: Final = 5
FAILOVER_S: Final = 6.0  # after this time, the node itself has given up a planned failover
FAILOVERS_MAX: Final = 5
SLOTS_AT_ONCE: Final = 256  # per round trip
KEYS_AT_ONCE: Final = 100  # per MIGRATE
MIGRATE_MS: Final = 10_000
MIGRATED: Final = "success"
MIGRATION_FAILS: Final = frozenset({"failed", "canceled", "cancelled"})


class ClusterFailed(PortfolioRealtimeError):
    """A cluster did not start, or did not do what it was told."""


@dataclass(frozen=True)
class SeenNode:
    """One node of a cluster in the view of a node (CLUSTER NODES)."""

    node_id: str
    port: int
    is_primary: bool
    primary_id: str  # the primary of a replica; "" for a primary
    is_well: bool  # connected, and not failing
    slots: frozenset[int]


View = dict[int, SeenNode]
"""Port -> node."""


class ValkeyCluster:
    """A cluster of processes. Inside `async with ValkeyCluster() as cluster:` it is complete and serves.

    With `needs_all_slots` (cluster-require-full-coverage), all nodes refuse commands while a slot has no
    node: the default of Valkey, but not of ElastiCache. `is_debugged` allows `partition`.
    """

    def __init__(
        self,
        primaries: int = 3,
        replicas: int = 1,
        *,
        program: str = "",
        needs_all_slots: bool = False,
        is_debugged: bool = False,
    ) -> None:
        self.nodes: list[ValkeyNode] = []  # all members, running or not
        self._primaries = primaries
        self._replicas = replicas  # per primary
        self._program = program
        self._needs_all_slots = needs_all_slots
        self._is_debugged = is_debugged
        self._buses: dict[int, int] = {}  # port -> port of the cluster's bus
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def url(self) -> str:
        """The URL of a running node. Raises ClusterFailed when none runs."""
        return self._usable()[0].url

    @property
    def urls(self) -> str:
        """One URL that names all nodes, running or not."""
        return f"redis://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}/0"

    @property
    def pids(self) -> list[int]:
        """The process ids of the running nodes."""
        return [node.pid for node in self.nodes if node.is_running]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Form the cluster, or restart all nodes that have ended, and wait until it is complete.

        Raises ClusterFailed.
        """
        if self.nodes:
            await asyncio.gather(*(node.start() for node in self.nodes if not node.is_running))
            return await self.wait_whole()
        self._folder = tempfile.TemporaryDirectory(prefix="valkey-cluster-")
        try:
            await self._form()
        except BaseException:
            await self.stop()
            raise

    async def kill(self) -> None:
        """Kill all nodes, as a power cut would. Only the membership is kept."""
        await asyncio.gather(*(node.kill() for node in self.nodes))

    async def stop(self) -> None:
        """Kill all nodes and delete the temporary folder."""
        await self.kill()
        if self._folder is not None:
            self._folder.cleanup()

    async def flush(self) -> None:
        """Delete all keys of all nodes."""
        for node in await self.primaries():
            await node.flush()

    async def keep(self) -> NoReturn:
        """Restart nodes that have ended, forever, but only after their replicas could take over."""
        while True:
            ended = [node for node in self.nodes if not node.is_running]
            if ended:
                await asyncio.sleep(BACK_S)
                await asyncio.gather(*(node.start() for node in ended))
            await asyncio.sleep(POLL_S)

    async def _form(self) -> None:
        primaries = await asyncio.gather(*(self._start_node() for _ in range(self._primaries)))
        count = self._primaries * self._replicas
        replicas = await asyncio.gather(*(self._start_node() for _ in range(count)))
        for index, node in enumerate(primaries):
            first, end = SLOTS * index // len(primaries), SLOTS * (index + 1) // len(primaries)
            await node.do("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for epoch, node in enumerate(self.nodes, start=1):
            await node.do("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        await self._introduce(self.nodes)
        for index, node in enumerate(replicas):
            await self._replicate(node, primaries[index % len(primaries)])
        await self.wait_whole()

    async def _start_node(self) -> ValkeyNode:
        for _ in range(PORT_ATTEMPTS_MAX):
            port, bus = _free_ports(2)
            node = ValkeyNode(port, program=self._program, options=self._options(port, bus))
            with contextlib.suppress(StateUnavailable):  # another process has taken the port meanwhile
                await node.start()
                self.nodes.append(node)
                self._buses[port] = bus
                return node
        raise ClusterFailed("no node of the cluster starts: Valkey, or Redis 7 or newer, is needed")

    def _options(self, port: int, bus: int) -> Sequence[str]:
        assert self._folder is not None
        folder = Path(self._folder.name) / str(port)
        folder.mkdir(exist_ok=True)
        return (
            *("--dir", str(folder), "--cluster-enabled", "yes", "--cluster-port", str(bus)),
            *("--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--repl-diskless-sync-delay", "0"),
            *("--cluster-require-full-coverage", "yes" if self._needs_all_slots else "no"),
            *("--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no"),
            *(("--enable-debug-command", "yes") if self._is_debugged else ()),
        )

    async def _introduce(self, strangers: Sequence[ValkeyNode]) -> None:
        """Let each new node meet all others (CLUSTER MEET): gossip alone takes seconds."""
        for node in strangers:
            async with node.client() as client, client.pipeline(transaction=False) as pipeline:
                for other in self._usable():
                    if other is not node:
                        pipeline.execute_command(
                            "CLUSTER", "MEET", "127.0.0.1", other.port, self._buses[other.port]
                        )
                await pipeline.execute()
        everybody = {node.port for node in self._usable()}
        await self._wait(lambda views: all(everybody <= _well(view) for view in views), "all nodes have met")

    async def _replicate(self, node: ValkeyNode, primary: ValkeyNode) -> None:
        await node.do("CLUSTER", "REPLICATE", (await self._seen(primary)).node_id)

    # Reading the cluster

    def _usable(self) -> list[ValkeyNode]:
        if not (usable := [node for node in self.nodes if node.is_usable]):
            raise ClusterFailed("no node of the cluster runs")
        return usable

    async def view(self, at: ValkeyNode | None = None) -> View:
        """The cluster in the view of one node (default: any running one)."""
        found = await (at or self._usable()[0]).do("CLUSTER NODES")
        return {seen.port: seen for seen in map(_seen, found.items())}

    async def _seen(self, node: ValkeyNode) -> SeenNode:
        return (await self.view())[node.port]

    async def primaries(self) -> list[ValkeyNode]:
        """The primaries that own slots, in the order of their slots."""
        owners = [seen for seen in (await self.view()).values() if seen.is_primary and seen.slots]
        return [self._at(seen.port) for seen in sorted(owners, key=lambda seen: min(seen.slots))]

    async def primary_of(self, key: str) -> ValkeyNode:
        """The node that owns a key's slot. Raises ClusterFailed."""
        slot = key_slot(key.encode())
        for seen in (await self.view()).values():
            if seen.is_primary and slot in seen.slots:
                return self._at(seen.port)
        raise ClusterFailed(f"no node owns slot {slot}")

    async def replicas_of(self, primary: ValkeyNode) -> list[ValkeyNode]:
        """The running replicas of a primary."""
        view = await self.view()
        followers = [seen for seen in view.values() if seen.primary_id == view[primary.port].node_id]
        nodes = [self._at(seen.port) for seen in followers]
        return [node for node in nodes if node.is_usable]

    def _at(self, port: int) -> ValkeyNode:
        return next(node for node in self.nodes if node.port == port)

    async def wait_whole(self) -> None:
        """Wait until all nodes agree on the slots and serve, and replicas follow. Raises ClusterFailed."""
        await self._wait(_is_whole, "the cluster is complete")
        await self._until(self._do_all_serve, "all nodes serve")
        await self._until(self._do_replicas_follow, "replicas follow their primaries")

    async def wait_taken_over(self, primary: ValkeyNode, slots: frozenset[int]) -> None:
        """Wait until all running nodes see other owners of `slots` than `primary`. Raises ClusterFailed."""

        def is_taken(view: View) -> bool:
            owned = {slot for port in _well(view) - {primary.port} for slot in view[port].slots}
            return slots <= owned

        await self._wait(lambda views: all(map(is_taken, views)), "another node has taken over")

    async def slots_of(self, node: ValkeyNode) -> frozenset[int]:
        """The slots that a node owns."""
        return (await self._seen(node)).slots

    async def _do_all_serve(self) -> bool:
        """Whether all running nodes serve: a node that has just started refuses for two seconds."""
        told = [await node.do("CLUSTER INFO") for node in self._usable()]
        return all(one["cluster_state"] == "ok" for one in told)

    async def _do_replicas_follow(self) -> bool:
        told = [await node.do("INFO", "replication") for node in self._usable()]
        return all(one["role"] == "master" or one["master_link_status"] == "up" for one in told)

    async def _wait(self, is_so: Callable[[list[View]], bool], what: str) -> None:
        async def look() -> bool:
            return is_so([await self.view(node) for node in self._usable()])

        await self._until(look, what)

    async def _until(self, is_so: Callable[[], Awaitable[bool]], what: str) -> None:
        give_up_s = asyncio.get_running_loop().time() + WAIT_S_MAX
        while asyncio.get_running_loop().time() < give_up_s:
            # A node that changes its role fails for a moment.
            with contextlib.suppress(exceptions.RedisError, OSError, KeyError):
                if await is_so():
                    return
            await asyncio.sleep(POLL_S)
        raise ClusterFailed(f"timed out after {WAIT_S_MAX:.0f} s of waiting until {what}")

    # Changing the cluster

    async def kill_primary(self, primary: ValkeyNode) -> None:
        """Kill a primary, and wait until its replica has taken over. Raises ClusterFailed."""
        slots = await self.slots_of(primary)
        await primary.kill()
        await self.wait_taken_over(primary, slots)

    async def partition(self, node: ValkeyNode, *, is_cut: bool = True) -> None:
        """Cut a node off from the others, or restore it; clients reach it. Needs `is_debugged`, Valkey 9."""
        await node.do("DEBUG", "DROP-CLUSTER-PACKET-FILTER", -2 if is_cut else -1)
        for what in ("CLOSE-CLUSTER-LINK-ON-PACKET-DROP", "DISABLE-CLUSTER-RECONNECTION"):
            await node.do("DEBUG", what, int(is_cut))

    async def fail_over(self, primary: ValkeyNode) -> ValkeyNode:
        """Make a planned failover, which loses nothing, and return the new primary. Raises ClusterFailed."""
        slots = await self.slots_of(primary)
        replica = (await self.replicas_of(primary))[0]
        for _ in range(FAILOVERS_MAX):
            await replica.do("CLUSTER", "FAILOVER")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAILOVER_S):
                    await self.wait_taken_over(primary, slots)
                    return replica
        raise ClusterFailed(f"the node gave up {FAILOVERS_MAX} planned failovers")

    async def add_primary(self) -> ValkeyNode:
        """Add a primary without slots. Raises ClusterFailed."""
        node = await self._start_node()
        await self._introduce([node])
        return node

    async def add_replica(self, primary: ValkeyNode) -> ValkeyNode:
        """Add a replica of a primary. Raises ClusterFailed."""
        node = await self.add_primary()
        await self._replicate(node, primary)
        await self._until(self._do_replicas_follow, "the new replica follows its primary")
        return node

    async def remove(self, node: ValkeyNode) -> None:
        """Remove a node from the cluster and kill it. Raises ClusterFailed while it owns slots."""
        seen = await self._seen(node)
        if seen.slots:
            raise ClusterFailed(f"the node still owns {len(seen.slots)} slots: move them first")
        self.nodes.remove(node)
        for other in self._usable():
            await other.do("CLUSTER", "FORGET", seen.node_id)
        await node.kill()

    async def move_slots(self, slots: Iterable[int], to: ValkeyNode) -> None:
        """Move slots key by key, with SETSLOT and MIGRATE. Meanwhile the nodes answer ASK and TRYAGAIN.

        Valkey 9 with a replica takes about 30 ms per slot; `move_slots_whole` is faster for many slots.
        Raises ClusterFailed.
        """
        for source, theirs in await self._owners(slots, to):
            for at in range(0, len(theirs), SLOTS_AT_ONCE):
                await self._move(theirs[at : at + SLOTS_AT_ONCE], source, to)
        await self._wait(_agree, "all nodes know where the slots are")

    async def move_slots_whole(self, slots: Iterable[int], to: ValkeyNode) -> None:
        """Move slots in one step with MIGRATESLOTS, which needs Valkey 9. Raises ClusterFailed."""
        for source, theirs in await self._owners(slots, to):
            ranges = [bound for first, last in _ranges(theirs) for bound in (first, last)]
            target_id = (await self._seen(to)).node_id
            await source.do("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", *ranges, "NODE", target_id)
            await self._until(lambda node=source: _has_migrated(node), "the slots have moved")
        await self._wait(_agree, "all nodes know where the slots are")

    async def _owners(self, slots: Iterable[int], to: ValkeyNode) -> list[tuple[ValkeyNode, list[int]]]:
        view, wanted = await self.view(), frozenset(slots)
        return [
            (self._at(seen.port), sorted(seen.slots & wanted))
            for seen in view.values()
            if seen.is_primary and seen.slots & wanted and seen.port != to.port
        ]

    async def _move(self, slots: Sequence[int], source: ValkeyNode, to: ValkeyNode) -> None:
        ids = {node: (await self._seen(node)).node_id for node in (source, to)}
        await _set_slots(to, slots, "IMPORTING", ids[source])
        await _set_slots(source, slots, "MIGRATING", ids[to])
        async with source.client() as client:
            for slot in slots:
                await _move_keys(client, slot, to.port)
        for node in dict.fromkeys((to, source, *await self.primaries())):
            await _set_slots(node, slots, "NODE", ids[to])


def _seen(entry: tuple[str, dict[str, Any]]) -> SeenNode:
    address, told = entry
    flags = frozenset(told["flags"].split(","))
    slots = (slot for bounds in told["slots"] for slot in range(int(bounds[0]), int(bounds[-1]) + 1))
    return SeenNode(
        node_id=told["node_id"],
        port=int(address.rpartition(":")[2]),
        is_primary="master" in flags,
        primary_id="" if told["master_id"] == "-" else told["master_id"],
        is_well=bool(told["connected"]) and not flags & {"fail", "fail?", "handshake", "noaddr"},
        slots=frozenset(slots),
    )


def _well(view: View) -> set[int]:
    return {port for port, seen in view.items() if seen.is_well}


def _owners(view: View) -> dict[int, int]:
    return {slot: seen.port for seen in view.values() if seen.is_primary for slot in seen.slots}


def _agree(views: list[View]) -> bool:
    owners = _owners(views[0])
    return len(owners) == SLOTS and all(_owners(view) == owners for view in views[1:])


def _is_whole(views: list[View]) -> bool:
    return _agree(views) and all(len(_well(view)) == len(view) for view in views)


def _ranges(slots: Sequence[int]) -> list[tuple[int, int]]:
    """The fewest ranges (first and last slot) that cover these sorted slots."""
    starts = [slot for before, slot in zip((None, *slots), slots, strict=False) if before != slot - 1]
    ends = [slot for slot, after in zip(slots, (*slots[1:], None), strict=True) if after != slot + 1]
    return list(zip(starts, ends, strict=True))


async def _set_slots(node: ValkeyNode, slots: Sequence[int], state: str, node_id: str) -> None:
    async with node.client() as client, client.pipeline(transaction=False) as pipeline:
        for slot in slots:
            pipeline.execute_command("CLUSTER", "SETSLOT", slot, state, node_id)
        await pipeline.execute()


async def _move_keys(client: Redis, slot: int, port: int) -> None:
    while keys := await client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, KEYS_AT_ONCE):
        await client.execute_command("MIGRATE", "127.0.0.1", port, "", 0, MIGRATE_MS, "KEYS", *keys)


async def _has_migrated(node: ValkeyNode) -> bool:
    jobs = await node.do("CLUSTER", "GETSLOTMIGRATIONS")
    newest = max(jobs, key=lambda job: job[b"create_time"])
    state = newest[b"state"].decode()
    if state in MIGRATION_FAILS:
        raise ClusterFailed(f"the slots were not moved: {state}, {newest[b'message'].decode()}")
    return state == MIGRATED


def _free_ports(count: int) -> list[int]:
    """Different ports that are free on loopback now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]

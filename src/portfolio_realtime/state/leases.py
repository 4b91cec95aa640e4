"""Leases: one symbol collector, one consumer per feed, one calculator per shard.

A lease lasts until a time and is kept by renewing it. Every write under a lease carries its fencing token.
The server refuses a write with an older token than the newest seen (`Connection.fenced_write`), so an owner
that was paused and wakes up late does no harm.
"""

import asyncio
import math
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Call, Connection, reports_unavailable
from portfolio_realtime.state.error_answers import result_or_unavailable

_LEFT: Final = -1  # result of acquire_lease.lua: left to another process


@dataclass(frozen=True)
class Lease:
    """A granted lease: its name, its holder, and the fencing token, which is also an epoch."""

    name: str
    holder: str
    fencing_token: int

    @property
    def value(self) -> str:
        """The value of the lease's key."""
        return f"{self.holder} {self.fencing_token}"


class Held(NamedTuple):
    """Who holds a lease, or None if it is free, and how much work there is under it."""

    holder: str | None
    work: int


class Members(NamedTuple):
    """The running members of a group, and when to look again."""

    running: frozenset[str]
    next_end_s: float  # seconds until the first other one ends unless it prolongs; infinite without others


class Leases:
    """Acquires, renews and releases leases for one holder."""

    def __init__(self, connection: Connection, holder: str, lease_ms: int) -> None:
        self._connection = connection
        self.holder = holder
        self._lease_ms = lease_ms
        self._left_s: dict[str, float] = {}  # lease -> since when we leave it to its former holder
        self._acquire = connection.script("acquire_lease")
        self._renew = connection.script("renew_lease")
        self._release = connection.script("release_lease")
        self._prolong = connection.script("prolong")
        self._read_members = connection.script("read_members")

    @reports_unavailable
    async def acquire(self, name: str, *, stands_by: bool = False) -> Lease | None:
        """The lease, or None if another process holds it. Raises StateUnavailable.

        `stands_by`: we have seen another holder. A lease that was never granted then shows that the state was
        lost. We leave it to that holder for LEASE_MS, because it knows more than we do.
        """
        token = await self._ask(name, leaves=stands_by)
        if token == _LEFT:
            now_s = asyncio.get_running_loop().time()
            if now_s - self._left_s.setdefault(name, now_s) < self._lease_ms / 1000:
                return None
            token = await self._ask(name, leaves=False)
        return self._granted(name, token)

    async def _ask(self, name: str, *, leaves: bool) -> int:
        floor = self._connection.token_floor
        return int(
            await self._acquire(
                keys=[keys.lease(name), keys.granted(name)],
                args=[self.holder, self._lease_ms, floor, int(leaves)],
            )
        )

    @reports_unavailable
    async def acquire_all(self, names: Sequence[str]) -> list[Lease | StateUnavailable | None]:
        """As `acquire` for several leases, in one round trip; or why a part of a cluster is away.

        Raises StateUnavailable.
        """
        args = [self.holder, self._lease_ms, self._connection.token_floor, 0]
        calls: list[Call] = [([keys.lease(name), keys.granted(name)], args) for name in names]
        answers = await self._connection.call_each(self._acquire, calls)
        return [
            token if isinstance(token, StateUnavailable) else self._granted(name, int(token))
            for name, token in zip(names, answers, strict=True)
        ]

    def _granted(self, name: str, token: int) -> Lease | None:
        self._left_s.pop(name, None)
        return Lease(name, self.holder, token) if token else None

    @reports_unavailable
    async def renew(self, lease: Lease) -> bool:
        """Renew a lease; False if it is lost. Raises StateUnavailable."""
        return bool(await self._renew(keys=[keys.lease(lease.name)], args=[lease.value, self._lease_ms]))

    async def renew_all(self, leases: Sequence[Lease]) -> list[bool | StateUnavailable]:
        """Renew leases that one server keeps, in one round trip; for each False if it is lost.

        A lease whose part of a cluster does not answer has a StateUnavailable in its place. Raises
        StateUnavailable.
        """
        calls: list[Call] = [([keys.lease(one.name)], [one.value, self._lease_ms]) for one in leases]
        answers = await self._connection.call_each(self._renew, calls)
        return [one if isinstance(one, StateUnavailable) else bool(one) for one in answers]

    @reports_unavailable
    async def release(self, lease: Lease) -> None:
        """Release a lease, so that the next owner need not wait. Raises StateUnavailable."""
        await self._release(keys=[keys.lease(lease.name)], args=[lease.value])

    @reports_unavailable
    async def enlist(self, group: str) -> Members:
        """Be a member of a group for LEASE_MS; return its running members, who hold leases by these names.

        Raises StateUnavailable.
        """
        key = keys.members(group)
        await self._prolong(keys=[key], args=[self._lease_ms, self.holder])
        left_ms, running = await self._read_members(keys=[key], args=[self.holder])
        # We run, also when the entry has been evicted or has expired since.
        names = frozenset((self.holder, *(member.decode() for member in running)))
        return Members(names, math.inf if left_ms < 0 else left_ms / 1000)

    @reports_unavailable
    async def leave(self, group: str) -> None:
        """Leave a group. Raises StateUnavailable."""
        await self._connection.commands.zrem(keys.members(group), self.holder)

    async def is_held_by_another(self, name: str) -> bool:
        """Does somebody hold it who is not us? Raises StateUnavailable."""
        return (await self.holders([name]))[name] not in (None, self.holder)

    @reports_unavailable
    async def holders(self, names: Sequence[str]) -> dict[str, str | None]:
        """Lease name -> its holder, or None if it is free. Raises StateUnavailable."""
        pipeline = self._connection.commands.pipeline(transaction=False)
        for name in names:
            pipeline.get(keys.lease(name))
        found = await cast("Awaitable[list[bytes | None]]", pipeline.execute())
        return {name: _holder(value) for name, value in zip(names, found, strict=True)}

    @reports_unavailable
    async def read_held(self, names: Mapping[str, str]) -> list[Held | None]:
        """Who holds each lease; None for those in a part of a cluster that is away.

        `names`: lease name -> key of the sorted set whose members are the work under it. Raises
        StateUnavailable.
        """
        pipeline = self._connection.commands.pipeline(transaction=False)
        for name, work in names.items():
            pipeline.get(keys.lease(name))
            pipeline.zcard(work)
        answers = [result_or_unavailable(one) for one in await pipeline.execute(raise_on_error=False)]
        return [
            None
            if isinstance(value, StateUnavailable) or isinstance(count, StateUnavailable)
            else Held(_holder(value), count)
            for value, count in zip(answers[::2], answers[1::2], strict=True)
        ]


def _holder(value: bytes | None) -> str | None:
    return None if value is None else value.decode().rpartition(" ")[0]

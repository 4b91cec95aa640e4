"""Witnesses of a session of chaos: what clients show, who publishes, who is let in, what processes hold."""

import asyncio
import contextlib
import ssl
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn, cast

import httpx
import msgspec
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from portfolio_harness.chaos.place import SHARDS, TOKEN_S, Place, ServiceProcess
from portfolio_harness.clients import CheckedClient
from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.state import keys, open_state
from portfolio_realtime.state.connection import Message
from portfolio_realtime.state.revocations import SubjectRevocation
from portfolio_realtime.state.valuations import decode_batch, is_stored

READ_S_MAX: Final = 1.0
ANSWER_S_MAX: Final = 5.0
ASK_S: Final = 1.0
RETRY_S: Final = 0.2
LET_IN: Final = 200
NOT_TOLD: Final[dict[str, Any]] = {"since": "", "reason": "not connected, or told that nothing fresh comes"}


class ShownClient:
    """A client as the judge reads it. While nothing fresh can reach it, everything it shows is marked."""

    def __init__(self, client: CheckedClient, server: ServiceProcess) -> None:
        self._client = client
        self._server = server
        self.account_id = client.account_id

    @property
    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """Symbol -> its newest position row."""
        return self._client.rows

    @property
    def is_excused(self) -> bool:
        """Whether it has no connection, its server is stopped, or it is told that a hop is silent."""
        client = self._client
        return client.lost_s is not None or self._server.is_stopped or bool(client.stale_hops)

    @property
    def newest(self) -> dict[str, Any] | None:
        """The newest message; with marks for the record and all prices while it is excused."""
        newest = self._client.newest
        if newest is None or not self.is_excused:
            return newest
        return {**newest, "unconfirmed": NOT_TOLD, "stale": list(self.rows)}


class ShownClients:
    """The part of `Clients` that `judging` uses."""

    def __init__(self, clients: list[ShownClient]) -> None:
        self.all = clients


class WriterWitness:
    """Reads what is published on the channels of all servers: in a shard, the epoch must never go back."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._epochs: dict[str, int] = {}
        self.publications = 0
        self.older = 0  # publications of an owner that had lost its shard
        self.is_fenced = True  # whether a former owner is refused all the time

    def forget(self) -> None:
        """Forget all epochs: after Valkey has lost its state, an epoch may be lower."""
        self._epochs.clear()

    async def watch(self) -> None:
        """Read publications until cancelled, and subscribe again after any failure."""
        if self._place.cluster is not None:
            await self._watch_cluster()
        while True:
            with contextlib.suppress(Exception):
                async with (
                    Redis.from_url(self._place.valkey.url, socket_timeout=None) as client,
                    client.pubsub() as pubsub,
                ):
                    await self._listen(pubsub)
            await asyncio.sleep(RETRY_S)

    async def _listen(self, pubsub: PubSub) -> NoReturn:
        await pubsub.psubscribe(*(f"{keys.valuations(shard)}*" for shard in range(SHARDS)))
        while True:
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=READ_S_MAX)
            if message is not None:
                self._hear(cast("bytes", message["channel"]).decode(), cast("bytes", message["data"]))

    async def _watch_cluster(self) -> NoReturn:
        """The same of the signs of life, with the product's own way to the nodes, whose slots may move."""
        while True:
            state = open_state(self._place.url, holder="witness", shards=SHARDS, lease_ms=3000)
            try:
                async for item in state.valuations.batches():
                    if isinstance(item, Message):
                        self._hear(item.channel, item.payload)
            except StateUnavailable:
                await asyncio.sleep(RETRY_S)
            finally:
                await state.close()

    def _hear(self, channel: str, payload: bytes) -> None:
        if is_stored(payload):
            return
        batch = decode_batch(payload)
        self.publications += len(batch.account_ids)
        shard = channel.partition(":")[0]
        if self.is_fenced and batch.epoch < self._epochs.get(shard, 0):
            self.older += 1
        self._epochs[shard] = max(batch.epoch, self._epochs.get(shard, 0))


class RevokedWitness:
    """Sends requests with a revoked token, none of which may be answered with 200."""

    def __init__(self, place: Place, account_id: str) -> None:
        self._place = place
        self._account_id = account_id
        self._token = place.token_for(account_id)
        self.answers = Counter[int]()
        self._certificates = ssl.create_default_context()  # made once: reading them takes long

    async def revoke(self) -> None:
        """Revoke the tokens of the client."""
        state = open_state(self._place.url, holder="operator", shards=SHARDS, lease_ms=3000)
        subject = SubjectRevocation(f"client of {self._account_id}", int(time.time()) + 60)
        await state.revocations.write(subject, TOKEN_S)
        await state.close()

    async def watch(self) -> None:
        """Ask every ASK_S until cancelled, also servers that have just started."""
        while True:
            await self.ask()
            await asyncio.sleep(ASK_S)

    async def ask(self) -> None:
        """Send one request to every server, and count the answers by status."""
        for url in self._place.urls:
            with contextlib.suppress(httpx.HTTPError):
                async with httpx.AsyncClient(
                    base_url=url, timeout=ANSWER_S_MAX, trust_env=False, verify=self._certificates
                ) as client:
                    path = f"/v1/portfolio/{self._account_id}"
                    answer = await client.get(path, headers={"Authorization": f"Bearer {self._token}"})
                    self.answers[answer.status_code] += 1

    @property
    def let_in(self) -> int:
        """How often a request was answered with 200."""
        return self.answers[LET_IN]


class ProcessHolding(msgspec.Struct, frozen=True):
    """The resources of a process."""

    files: int
    memory_mb: float
    threads: int


def holdings(place: Place) -> dict[str, tuple[int, ProcessHolding]]:
    """Name of a service process -> its process id and resources; without those that do not run."""
    found: dict[str, tuple[int, ProcessHolding]] = {}
    for service in place.services.values():
        with contextlib.suppress(OSError, ValueError):
            found[service.name] = service.pid, _holding(service.pid)
    return found


def _holding(pid: int) -> ProcessHolding:
    folder = Path(f"/proc/{pid}")
    fields = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
    files = sum(1 for _ in (folder / "fd").iterdir())
    return ProcessHolding(files, round(int(fields["VmRSS"].split()[0]) / 1024, 1), int(fields["Threads"]))


class LoopWitness:
    """Measures how late this process's event loop runs. Time limits grow with it."""

    LOOK_S: Final = 0.05

    def __init__(self) -> None:
        self.late_s = 0.0

    async def watch(self) -> None:
        """Measure until cancelled; `late_s` is the maximum."""
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(self.LOOK_S)
            self.late_s = max(self.late_s, time.monotonic() - began_s - self.LOOK_S)

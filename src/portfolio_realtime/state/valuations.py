"""Publications: sent by the portfolio calculator to every WebSocket server; the newest are stored."""

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import NamedTuple, cast

import msgspec

from portfolio_realtime.errors import LeaseLost, StateUnavailable
from portfolio_realtime.model import Publication, PublicationBatch
from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import (
    Connection,
    FencedWrite,
    Message,
    Subscribed,
    reports_unavailable,
)
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.wire.frames import text_frame

_encode = msgspec.msgpack.Encoder().encode
_batch = msgspec.msgpack.Decoder(PublicationBatch)


class StoredPublication(NamedTuple):
    """A stored publication as JSON, and whether a calculator keeps it up to date."""

    message: bytes
    is_kept: bool


class Valuations:
    """The hashes and channels `{sNN}:valuations`."""

    def __init__(self, connection: Connection, shards: int) -> None:
        self._connection = connection
        self._shards = shards
        self._raise_fence = connection.script("raise_fence")

    async def publish_all(
        self,
        shards: Sequence[tuple[int, Lease, list[Publication]]],
        stale_hops: tuple[str, ...] = (),
        traceparents: Mapping[str, str] | None = None,
    ) -> list[LeaseLost | StateUnavailable | None]:
        """Store and announce the publications of one flush, with the lease's token as epoch.

        Each shard is one step; all are sent together. A shard without publications sends a sign of life.
        `stale_hops`: the hops before the calculator from which nothing fresh arrives. `traceparents`: account
        id -> trace context, of traced accounts. Returns for each shard None, or the error if another
        calculator owns it or its part of a cluster does not answer. Raises StateUnavailable.
        """
        writes: list[FencedWrite] = []
        for shard, lease, publications in shards:
            key = keys.valuations(shard)
            stored = [(publication.account_id, with_rows(publication)) for publication in publications]
            batch = batch_of(lease.fencing_token, publications, stale_hops, traceparents)
            announce = key, _encode(batch)
            writes.append(FencedWrite(keys.fence(key), key, lease.fencing_token, stored, [], announce))
        return await self._connection.fenced_writes(writes)

    async def publish(
        self,
        lease: Lease,
        shard: int,
        publications: list[Publication],
        stale_hops: tuple[str, ...] = (),
        traceparents: Mapping[str, str] | None = None,
    ) -> None:
        """As `publish_all` for one shard. Raises LeaseLost, StateUnavailable."""
        (refusal,) = await self.publish_all([(shard, lease, publications)], stale_hops, traceparents)
        if refusal is not None:
            raise refusal

    @reports_unavailable
    async def insist(self, shard: int, epoch: int) -> None:
        """Refuse every publication of a shard with a lower epoch than this one, which clients have seen.

        A refused calculator acquires the shard again with a greater epoch. Raises StateUnavailable.
        """
        await self._raise_fence(keys=[keys.fence(keys.valuations(shard))], args=[epoch])

    async def forget(self, lease: Lease, shard: int, account_ids: list[str]) -> None:
        """Remove publications that are not kept up to date any more. Raises LeaseLost, StateUnavailable."""
        key = keys.valuations(shard)
        await self._connection.fenced_write(keys.fence(key), key, lease.fencing_token, [], account_ids, None)

    @reports_unavailable
    async def read(self, account_id: str) -> bytes | None:
        """An account's newest publication as JSON, or None if it has none. Raises StateUnavailable."""
        key = keys.valuations(keys.shard_of(account_id, self._shards))
        return await cast("Awaitable[bytes | None]", self._connection.commands.hget(key, account_id))

    @reports_unavailable
    async def read_ids(self, shard: int) -> list[str]:
        """The accounts of a shard that have a stored publication. Raises StateUnavailable."""
        found = await cast("Awaitable[list[bytes]]", self._connection.commands.hkeys(keys.valuations(shard)))
        return [account_id.decode() for account_id in found]

    def batches(self) -> AsyncIterator[Message | Subscribed]:
        """Batches of all shards; decode each with `decode_batch`."""
        return self._connection.follow(*(keys.valuations(shard) for shard in range(self._shards)))


def batch_of(
    epoch: int,
    publications: Sequence[Publication],
    stale_hops: tuple[str, ...] = (),
    traceparents: Mapping[str, str] | None = None,
) -> PublicationBatch:
    """The publications of one shard in columns, with each value as a WebSocket text frame."""
    return PublicationBatch(
        epoch,
        [one.account_id for one in publications],
        [one.sequence for one in publications],
        [text_frame(one.value) for one in publications],
        {place: one.rows for place, one in enumerate(publications) if one.rows is not None},
        stale_hops,
        _by_place(publications, traceparents) if traceparents else {},
    )


def _by_place(publications: Sequence[Publication], traceparents: Mapping[str, str]) -> dict[int, str]:
    places = enumerate(one.account_id for one in publications)
    return {place: traceparents[account_id] for place, account_id in places if account_id in traceparents}


def decode_batch(payload: bytes) -> PublicationBatch:
    """The publications of an announced flush. Raises MsgspecError."""
    return _batch.decode(payload)


def with_rows(publication: Publication) -> bytes:
    """The value as one JSON object, with `positions` if the publication has rows."""
    if publication.rows is None:
        return publication.value
    rows = b",".join(row for _, row in publication.rows)
    return publication.value[:-1] + b',"positions":[' + rows + b"]}"

"""Publications: sent by the portfolio calculator to the WebSocket servers that watch; the newest are stored.

Each server has a channel of its own in each shard. A server that begins to watch an account reads its stored
publication in the same step. The next publication reaches it, even if the calculator does not know of it yet:
the script that stores it compares the changes of interest with what the calculator knows.
"""

from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, cast

import msgspec

from portfolio_realtime.errors import LeaseLost, StateUnavailable
from portfolio_realtime.model import PositionRows, Publication, PublicationBatch, Publications
from portfolio_realtime.state import interest as interest_of
from portfolio_realtime.state import keys
from portfolio_realtime.state.client.lean_client import Arguments
from portfolio_realtime.state.connection import (
    WRITE_FIELDS_MAX,
    Call,
    Connection,
    Message,
    Subscribed,
    reports_unavailable,
)
from portfolio_realtime.state.interest import Servers
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.wire.frames import text_frames

_encode = msgspec.msgpack.Encoder().encode
_batch = msgspec.msgpack.Decoder(PublicationBatch)


ALL_SERVERS: Final = ""
BEGINNING: Final = "0-0"  # before all changes of interest


class KnownInterest(NamedTuple):
    """Who watches the accounts of a shard, as a calculator knows it."""

    servers: Mapping[str, Servers]  # account -> servers
    until: str  # the newest change that it knows (`InterestChanges.until`)
    only: str | None = None  # the server that watches them all, if it is only one


class Valuations:
    """The hashes and channels `{sNN}:valuations`, and the channels `{sNN}:valuations:SERVER`.

    `server`: the name under which this process watches.
    """

    def __init__(self, connection: Connection, shards: int, server: str) -> None:
        self._connection = connection
        self._shards = shards
        self._server = server
        self._publish = connection.script("publish_values")
        self._raise_fence = connection.script("raise_fence")
        self._watched = connection.watched_keys()
        self._fences = dict[str, None]()  # of the shards that we have written, in one order

    @reports_unavailable
    async def publish_all(
        self,
        shards: Sequence[tuple[int, Lease, Publications]],
        stale_hops: tuple[str, ...] = (),
        traceparents: Mapping[str, str] | None = None,
        interest: Mapping[int, KnownInterest] | None = None,
    ) -> list[LeaseLost | StateUnavailable | None]:
        """Store and announce the publications of one flush, with the lease's token as epoch.

        WRITE_FIELDS_MAX publications are one step, on a cluster of one shard; all steps are sent together. A
        single step is a transaction if the fences can be watched (`WatchedKeys`), else a call of a script. A
        shard without publications sends a sign of life. `stale_hops`: the hops before the calculator from
        which nothing fresh arrives. `traceparents`: account id -> trace context, of traced accounts.
        `interest`: shard -> who watches there; the publications of other shards go to all servers. Returns
        for each shard None, or the error if another calculator owns it or its part of a cluster does not
        answer. Raises StateUnavailable.
        """
        word = await self._connection.word()
        parts = [
            _part(
                place,
                shard,
                lease,
                publications.part(at, at + WRITE_FIELDS_MAX),
                (interest or {}).get(shard),
                stale_hops,
                traceparents,
            )
            for place, (shard, lease, publications) in enumerate(shards)
            for at in range(0, len(publications), WRITE_FIELDS_MAX) or range(1)
        ]
        begun = await self._transact(word, parts)
        if begun is None:
            refusals = await self._call_script(word, parts, is_again=False)
        else:
            refusals = await self._call_script(word, begun, is_again=True) if begun else {}
        for part in parts:
            self._fences.pop(part.fence, None)
            if part.place not in refusals:
                self._fences[part.fence] = None
        if begun is None:
            await self._watched.watch(tuple(self._fences))
        return [refusals.get(place) for place in range(len(shards))]

    async def _transact(self, word: str, parts: Sequence["_Part"]) -> list["_Part"] | None:
        """Write parts as one transaction, which costs Valkey two thirds of the script.

        None if it could not be done: then the script does it, or tells which shard is refused. Else the parts
        of which somebody may have begun to watch accounts since: the script sends them what they miss.
        """
        if not self._fences or sum(part.size for part in parts) > WRITE_FIELDS_MAX:
            return None
        commands, looks = list[Arguments](), dict[int, _Part]()
        for part in parts:
            if part.size:
                commands.append(("HSET", keys.valuations(part.shard), *part.stored))
                looks[len(commands)] = part
                changes = keys.interest_changes(part.shard)
                commands.append(("XRANGE", changes, f"({part.until}", "+", "COUNT", 1))
            for server, message in part.messages.items():
                of_server = keys.server_valuations(part.shard, server)
                channel = keys.valuations(part.shard) if server == ALL_SERVERS else of_server
                commands.append((word, channel, message))
        expected = {part.fence: b"%d" % part.token for part in parts}
        answers = await self._watched.transact(expected, commands, tuple(self._fences))
        return None if answers is None else [part for place, part in looks.items() if answers[place]]

    async def _call_script(
        self, word: str, parts: Sequence["_Part"], *, is_again: bool
    ) -> dict[int, LeaseLost | StateUnavailable]:
        """Write parts by the script `publish_values`; `is_again`: their messages have been sent.

        Returns place -> error of the shards that were refused. Raises StateUnavailable.
        """
        steps = list(_steps(parts, is_cluster=self._connection.is_cluster))
        answers = await self._connection.call_each(
            self._publish, [_call(word, step, is_again=is_again) for step in steps]
        )
        refusals: dict[int, LeaseLost | StateUnavailable] = {}
        for step, answer in zip(steps, answers, strict=True):
            if isinstance(answer, StateUnavailable):
                refusals.update((part.place, answer) for part in step)
                continue
            for part, newer in zip(step, answer, strict=True):
                if newer:
                    refusals[part.place] = self._connection.refused(keys.valuations(part.shard), newer)
        return refusals

    async def publish(
        self,
        lease: Lease,
        shard: int,
        publications: Iterable[Publication],
        stale_hops: tuple[str, ...] = (),
        traceparents: Mapping[str, str] | None = None,
    ) -> None:
        """As `publish_all` for one shard. Raises LeaseLost, StateUnavailable."""
        batch = [(shard, lease, Publications.of(publications))]
        (refusal,) = await self.publish_all(batch, stale_hops, traceparents)
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
        """What is published for this server, and for all.

        Each message is a stored publication (`is_stored`), or a batch: decode it with `decode_batch`.
        """
        return self._connection.follow(*self.channels())

    def channels(self) -> dict[str, int]:
        """The channels of this server and of all servers -> the shard of each."""
        every = range(self._shards)
        common = {keys.valuations(shard): shard for shard in every}
        return common | {keys.server_valuations(shard, self._server): shard for shard in every}


class _Part(NamedTuple):
    """Publications of one shard that are written in one step."""

    place: int  # of the shard in the call of `publish_all`
    shard: int
    fence: str
    token: int
    until: str  # the newest change of interest that the calculator knows
    messages: Mapping[str, bytes]  # server, or ALL_SERVERS -> what it is told
    size: int  # publications
    stored: list[str | bytes | int]  # account and publication of each, in turn

    def arguments(self) -> list[str | bytes | int]:
        """The arguments of the script `publish_values` for this shard."""
        told = [text for message in self.messages.items() for text in message]
        return [self.token, self.until, len(self.messages), self.size, *told, *self.stored]


def _part(
    place: int,
    shard: int,
    lease: Lease,
    publications: Publications,
    known: KnownInterest | None,
    stale_hops: tuple[str, ...],
    traceparents: Mapping[str, str] | None,
) -> _Part:
    batch = batch_of(lease.fencing_token, publications, stale_hops, traceparents)
    stored: list[str | bytes | int] = [b""] * (2 * len(publications))
    stored[::2], stored[1::2] = publications.account_ids, publications.values
    for index, rows in publications.rows.items():
        stored[2 * index + 1] = with_rows(publications.values[index], rows)
    return _Part(
        place,
        shard,
        keys.fence(keys.valuations(shard)),
        lease.fencing_token,
        (known and known.until) or BEGINNING,
        {server: _encode(message) for server, message in _by_server(batch, known).items()},
        len(publications),
        stored,
    )


def _steps(parts: Iterable[_Part], *, is_cluster: bool) -> Iterator[list[_Part]]:
    """Parts that one call of the script can write: of one shard on a cluster, elsewhere of many shards."""
    step, size = list[_Part](), 0
    for part in parts:
        size += part.size
        if step and (is_cluster or size > WRITE_FIELDS_MAX):
            yield step
            step, size = [], part.size
        step.append(part)
    if step:
        yield step


def _call(word: str, step: Sequence[_Part], *, is_again: bool) -> Call:
    """A call of the script `publish_values`."""
    shards = [part.shard for part in step]
    told = (argument for part in step for argument in part.arguments())
    fences = (part.fence for part in step)
    names = (*fences, *map(keys.valuations, shards), *map(keys.interest_changes, shards))
    return names, (word, interest_of.CHANGES_MAX, int(is_again), *told)


def _by_server(batch: PublicationBatch, known: KnownInterest | None) -> dict[str, PublicationBatch]:
    """Server -> what it watches; ALL_SERVERS if it is not known who watches, and for a sign of life."""
    if known is None or not batch.account_ids:
        return {ALL_SERVERS: batch}
    if known.only is not None:
        return {known.only: batch}
    places: dict[str, list[int]] = {}
    for place, account_id in enumerate(batch.account_ids):
        for server in known.servers.get(account_id, ()):
            places.setdefault(server, []).append(place)
    return {server: batch.only(some) for server, some in places.items()}


def is_stored(payload: bytes) -> bool:
    """Whether a message is one stored publication, for a server that has just begun to watch its account."""
    return payload.startswith(b"{")


def batch_of(
    epoch: int,
    publications: Publications,
    stale_hops: tuple[str, ...] = (),
    traceparents: Mapping[str, str] | None = None,
) -> PublicationBatch:
    """The publications of one shard, with each value as a WebSocket text frame."""
    return PublicationBatch(
        epoch,
        publications.account_ids,
        publications.sequences,
        text_frames(publications.values),
        publications.rows,
        stale_hops,
        _by_place(publications.account_ids, traceparents) if traceparents else {},
    )


def _by_place(account_ids: Sequence[str], traceparents: Mapping[str, str]) -> dict[int, str]:
    places = enumerate(account_ids)
    return {place: traceparents[account_id] for place, account_id in places if account_id in traceparents}


def decode_batch(payload: bytes) -> PublicationBatch:
    """The publications of an announced flush. Raises MsgspecError."""
    return _batch.decode(payload)


def with_rows(value: bytes, rows: PositionRows) -> bytes:
    """The value as one JSON object, with `positions`."""
    return value[:-1] + b',"positions":[' + b",".join(row for _, row in rows) + b"]}"

"""Account records and the universe: written by the symbol collector, read by all other services."""

import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

import msgspec
import structlog

from portfolio_realtime.errors import LeaseLost, StateUnavailable
from portfolio_realtime.model import Account, AccountChange, Bookings, Pending
from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import (
    Connection,
    FencedWrite,
    Message,
    Subscribed,
    reports_unavailable,
)
from portfolio_realtime.state.error_answers import result_or_unavailable
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.state.unreadable import readable

READ_FIELDS_MAX: Final = 2000
PAGE_FIELDS: Final = 250  # requested per page; a page may be larger
LISTED: Final = ""  # in the pending accounts of a shard: all accounts that the broker lists are written

T = TypeVar("T")
log = structlog.get_logger()

_encode = msgspec.json.Encoder().encode
_account = msgspec.json.Decoder(Account)
_bookings = msgspec.json.Decoder(Bookings)
_pending = msgspec.json.Decoder(Pending)
_changes = msgspec.json.Decoder(list[AccountChange])


@dataclass
class _Part:
    """Fields of one hash to set and to remove, and what is announced of them on its channel."""

    changed: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])
    removed: list[str] = field(default_factory=list[str])
    announced: list[AccountChange] = field(default_factory=list[AccountChange])

    def under(self, lease: Lease, key: str) -> FencedWrite:
        """The write of this part under a lease."""
        announce = (key, _encode(self.announced)) if self.announced else None
        return FencedWrite(keys.fence(key), key, lease.fencing_token, self.changed, self.removed, announce)


class Accounts:
    """The hashes `{sNN}:accounts`, `{sNN}:bookings`, `{sNN}:pending` and `{universe}`."""

    def __init__(self, connection: Connection, shards: int) -> None:
        self._connection = connection
        self._shards = shards

    @property
    def is_in_parts(self) -> bool:
        """Whether shards may be away alone, as in a cluster."""
        return self._connection.is_cluster

    def shard_of(self, account_id: str) -> int:
        """The shard of an account."""
        return keys.shard_of(account_id, self._shards)

    async def write(
        self, lease: Lease, accounts: Sequence[Account], bookings: Sequence[Bookings] = ()
    ) -> None:
        """Write records, each after its bookings, and announce them. Raises LeaseLost, StateUnavailable."""
        for error in (await self.write_parts(lease, accounts, bookings, ())).values():
            raise error

    async def remove(self, lease: Lease, account_ids: Sequence[str]) -> None:
        """Remove records and their bookings, and announce it. Raises LeaseLost, StateUnavailable."""
        for error in (await self.write_parts(lease, (), (), account_ids)).values():
            raise error

    async def write_parts(
        self, lease: Lease, accounts: Sequence[Account], bookings: Sequence[Bookings], gone: Sequence[str]
    ) -> dict[int, StateUnavailable]:
        """As `write` and `remove`, of all shards together: one round trip, however many shards there are.

        Returns why a shard is away, for those that are. Raises LeaseLost, StateUnavailable.
        """
        booked, records = defaultdict[int, _Part](_Part), defaultdict[int, _Part](_Part)
        for one in bookings:
            booked[self.shard_of(one.account_id)].changed.append((one.account_id, _encode(one)))
        for account in accounts:
            part = records[self.shard_of(account.account_id)]
            part.changed.append((account.account_id, _encode(account)))
            part.announced.append(AccountChange(account.account_id, account.version))
        for account_id in gone:
            shard = self.shard_of(account_id)
            booked[shard].removed.append(account_id)
            records[shard].removed.append(account_id)
            records[shard].announced.append(AccountChange(account_id, 0))
        return await self._write_all(
            lease,
            [
                *((shard, keys.bookings(shard), part) for shard, part in booked.items()),
                *((shard, keys.accounts(shard), part) for shard, part in records.items()),
            ],
        )

    async def write_pending(
        self, lease: Lease, pending: Iterable[Pending], gone: Iterable[str]
    ) -> dict[int, StateUnavailable]:
        """Write why accounts have no record, and remove the entries of accounts in `gone`.

        Returns why a shard is away, for those that are. Raises LeaseLost, StateUnavailable.
        """
        parts = defaultdict[int, _Part](_Part)
        for one in pending:
            parts[self.shard_of(one.account_id)].changed.append((one.account_id, _encode(one)))
        for account_id in gone:
            parts[self.shard_of(account_id)].removed.append(account_id)
        return await self._write_all(
            lease, [(shard, keys.pending(shard), part) for shard, part in parts.items()]
        )

    @reports_unavailable
    async def _write_all(
        self, lease: Lease, parts: Sequence[tuple[int, str, "_Part"]]
    ) -> dict[int, StateUnavailable]:
        """Write parts (shard, hash, part) in this order. Returns why a shard is away."""
        writes = [part.under(lease, key) for _, key, part in parts]
        failures = await self._connection.fenced_writes(writes) if writes else []
        away = dict[int, StateUnavailable]()
        for (shard, *_), failure in zip(parts, failures, strict=True):
            if isinstance(failure, LeaseLost):
                raise failure
            if failure is not None:
                away[shard] = failure
        return away

    @reports_unavailable
    async def write_listed(self, lease: Lease, shards: Sequence[int]) -> None:
        """Say in these shards that all accounts which the broker lists are written; some may be away.

        Whoever has neither a record nor a pending reason there does not exist. Raises LeaseLost,
        StateUnavailable.
        """
        pipeline = self._connection.commands.pipeline(transaction=False)
        for shard in shards:
            pipeline.hmget(keys.pending(shard), [LISTED])
        found = await pipeline.execute(raise_on_error=False) if shards else []
        said = map(result_or_unavailable, found)
        names = [keys.pending(shard) for shard, one in zip(shards, said, strict=True) if one == [None]]
        writes = [
            FencedWrite(keys.fence(name), name, lease.fencing_token, [(LISTED, b"1")], [], None)
            for name in names
        ]
        for failure in await self._connection.fenced_writes(writes):
            if isinstance(failure, LeaseLost):
                raise failure

    @reports_unavailable
    async def read_pending(self, account_ids: Sequence[str]) -> dict[str, Pending]:
        """Account id -> why it has no record, for those of these accounts that the broker lists.

        Raises StateUnavailable.
        """
        pipeline = self._connection.commands.pipeline(transaction=False)
        for account_id in account_ids:
            pipeline.hget(keys.pending(self.shard_of(account_id)), account_id)
        found = await cast("Awaitable[list[bytes | None]]", pipeline.execute()) if account_ids else []
        pending = _readable(_pending, [raw for raw in found if raw is not None])
        return {one.account_id: one for one in pending}

    async def read(self, shard: int, account_ids: Sequence[str]) -> list[Account]:
        """The records of these accounts of one shard, without missing ones. Raises StateUnavailable."""
        records: list[Account] = []
        for at in range(0, len(account_ids), READ_FIELDS_MAX):
            found = (await self.read_parts({shard: account_ids[at : at + READ_FIELDS_MAX]}))[shard]
            if isinstance(found, StateUnavailable):
                raise found
            records.extend(found)
        return records

    @reports_unavailable
    async def read_parts(
        self, wanted: Mapping[int, Sequence[str]]
    ) -> dict[int, list[Account] | StateUnavailable]:
        """As `read`, of several shards in one round trip; or why a shard is away. Raises StateUnavailable.

        `wanted`: shard -> accounts of it, READ_FIELDS_MAX at most.
        """
        pipeline = self._connection.commands.pipeline(transaction=False)
        for shard, account_ids in wanted.items():
            pipeline.hmget(keys.accounts(shard), list(account_ids))
        answers = await pipeline.execute(raise_on_error=False)
        found = dict[int, list[Account] | StateUnavailable]()
        for shard, answer in zip(wanted, map(result_or_unavailable, answers), strict=True):
            is_away = isinstance(answer, StateUnavailable)
            found[shard] = (
                answer if is_away else _readable(_account, [raw for raw in answer if raw is not None])
            )
        return found

    async def read_one(self, account_id: str) -> Account | None:
        """One account's record, or None. Raises StateUnavailable."""
        found = await self.read(self.shard_of(account_id), [account_id])
        return found[0] if found else None

    @reports_unavailable
    async def read_with_bookings(self, account_id: str) -> tuple[Account, Bookings | None] | None:
        """An account's record and its bookings; None if it has no record. Raises StateUnavailable.

        Bookings of another version than the record are left out as None: the two are written one after the
        other.
        """
        shard = self.shard_of(account_id)
        pipeline = self._connection.commands.pipeline(transaction=True)
        pipeline.hget(keys.accounts(shard), account_id)
        pipeline.hget(keys.bookings(shard), account_id)
        record, booked = cast("list[bytes | None]", await pipeline.execute())
        if record is None:
            return None
        readable = _readable(_account, [record])
        if not readable:
            return None
        (account,) = readable
        (bookings,) = _readable(_bookings, [] if booked is None else [booked]) or [None]
        is_pair = bookings is not None and bookings.version == account.version
        return account, bookings if is_pair else None

    @reports_unavailable
    async def unknown(self, account_ids: list[str]) -> dict[str, Pending | None]:
        """The accounts without a record that will never get one: account id -> Pending, or None.

        None: the broker does not list the account. This is concluded only if some other account has a record,
        or if all that the broker lists is written; on a cluster, in the same shard, because a part of it may
        have come back empty alone. Raises StateUnavailable.
        """
        missing, _ = await self._missing(account_ids, [])
        # Nearly always the case; the counts of shards are not needed then.
        if not missing:
            return {}
        pending = await self.read_pending(missing)
        final: dict[str, Pending | None] = {name: one for name, one in pending.items() if one.is_final}
        missing = [one for one in missing if one not in pending]
        is_cluster = self._connection.is_cluster
        telling = sorted(set(map(self.shard_of, missing))) if is_cluster else range(self._shards)
        missing, known = await self._missing(missing, telling)
        judged = known if is_cluster else range(self._shards if known else 0)
        return final | {one: None for one in missing if self.shard_of(one) in judged}

    async def _missing(self, account_ids: list[str], counted: Sequence[int]) -> tuple[list[str], set[int]]:
        """Those of the accounts without a record, and those of the counted shards that tell who exists."""
        pipeline = self._connection.commands.pipeline(transaction=False)
        for account_id in account_ids:
            pipeline.hexists(keys.accounts(self.shard_of(account_id)), account_id)
        for shard in counted:
            pipeline.hlen(keys.accounts(shard))
            pipeline.hexists(keys.pending(shard), LISTED)
        found = await cast("Awaitable[list[int]]", pipeline.execute())
        missing = [account_id for account_id, exists in zip(account_ids, found, strict=False) if not exists]
        told = found[len(account_ids) :]
        telling = zip(counted, told[::2], told[1::2], strict=True)
        return missing, {shard for shard, count, is_listed in telling if count or is_listed}

    @reports_unavailable
    async def read_all(self, shard: int) -> list[Account]:
        """Every record of a shard, read in steps that do not block the server. Raises StateUnavailable."""
        return _readable(_account, [raw async for _, raw in _scan(self._connection, keys.accounts(shard))])

    @reports_unavailable
    async def read_page(self, shard: int, cursor: int) -> tuple[int | None, list[Account]]:
        """The next cursor (None at the end) and some hundred records of a shard. The first cursor is 0.

        A record that exists during the whole reading is returned at least once. Raises StateUnavailable.
        """
        following, found = await cast(
            "Awaitable[tuple[int, dict[bytes, bytes]]]",
            self._connection.commands.hscan(keys.accounts(shard), cursor, count=PAGE_FIELDS),
        )
        return following or None, _readable(_account, list(found.values()))

    @reports_unavailable
    async def count(self, shards: Iterable[int]) -> int:
        """The number of records in these shards. Raises StateUnavailable."""
        pipeline = self._connection.commands.pipeline(transaction=False)
        for shard in shards:
            pipeline.hlen(keys.accounts(shard))
        return sum(await cast("Awaitable[list[int]]", pipeline.execute()))

    @reports_unavailable
    async def counts(self, shards: Sequence[int]) -> list[int | StateUnavailable]:
        """The number of records with bookings in each of these shards, or why it is away.

        Each record is written with its bookings, so the lower of the two counts tells. Raises
        StateUnavailable.
        """
        pipeline = self._connection.commands.pipeline(transaction=False)
        for shard in shards:
            pipeline.hlen(keys.accounts(shard))
            pipeline.hlen(keys.bookings(shard))
        found = await pipeline.execute(raise_on_error=False) if shards else []
        said = [result_or_unavailable(one) for one in found]
        counts = list[int | StateUnavailable]()
        for pair in zip(said[::2], said[1::2], strict=True):
            failures = [one for one in pair if isinstance(one, StateUnavailable)]
            counts.append(failures[0] if failures else min(pair))
        return counts

    def keeper(self, shard: int | None) -> object:
        """Which server keeps a shard, or the universe (None): another one may lack the last writes."""
        return self._connection.keeper_of(keys.universe() if shard is None else keys.accounts(shard))

    @property
    def turns(self) -> int:
        """How often a part of a cluster has had another server, or has answered again."""
        return self._connection.turns

    async def wait_turn(self, wait_s: float, turns: int) -> None:
        """Wait `wait_s` seconds, or until there have been more than `turns`."""
        await self._connection.wait_turn(wait_s, turns)

    @reports_unavailable
    async def count_universe(self) -> int:
        """The number of symbols in the universe. Raises StateUnavailable."""
        return await self._connection.commands.hlen(keys.universe())

    @reports_unavailable
    async def ids(self, shards: Iterable[int] | None = None) -> list[str]:
        """The sorted ids of all accounts with a record, or of those in `shards`. Raises StateUnavailable."""
        found = [
            await cast("Awaitable[list[bytes]]", self._connection.commands.hkeys(keys.accounts(shard)))
            for shard in (range(self._shards) if shards is None else shards)
        ]
        return sorted(account_id.decode() for account_id in itertools.chain(*found))

    @reports_unavailable
    async def listed(self) -> tuple[set[str], bool]:
        """The ids of all accounts with a record or a pending reason, and whether the broker lists no others.

        Raises StateUnavailable.
        """
        pipeline = self._connection.commands.pipeline(transaction=False)
        for shard in range(self._shards):
            pipeline.hkeys(keys.pending(shard))  # first: a record is written before its reason is removed
            pipeline.hkeys(keys.accounts(shard))
        found = await cast("Awaitable[list[list[bytes]]]", pipeline.execute())
        are_all = all(LISTED.encode() in pending for pending in found[::2])
        return {one.decode() for one in itertools.chain(*found)} - {LISTED}, are_all

    @reports_unavailable
    async def ids_with_bookings(self, shards: Iterable[int]) -> set[str]:
        """The accounts of these shards whose record and bookings are stored. Raises StateUnavailable."""
        pipeline = self._connection.commands.pipeline(transaction=False)
        for shard in shards:
            pipeline.hkeys(keys.accounts(shard))
            pipeline.hkeys(keys.bookings(shard))
        found = await cast("Awaitable[list[list[bytes]]]", pipeline.execute())
        recorded, booked = (set(itertools.chain(*part)) for part in (found[::2], found[1::2]))
        return {account_id.decode() for account_id in recorded & booked}

    def changes(self, shards: list[int]) -> AsyncIterator[Message | Subscribed]:
        """Announcements of these shards' accounts; decode each with `decode_changes`."""
        return self._connection.follow(*(keys.accounts(shard) for shard in shards))

    async def write_universe(self, lease: Lease, added: dict[str, str], removed: list[str]) -> None:
        """Add symbols (symbol -> asset class), remove others, and announce it.

        Raises LeaseLost, StateUnavailable.
        """
        encoded = [(symbol, asset_class.encode()) for symbol, asset_class in added.items()]
        await self._connection.fenced_write(
            keys.fence(keys.universe()),
            keys.universe(),
            lease.fencing_token,
            encoded,
            removed,
            (keys.universe(), b"changed"),
        )

    @reports_unavailable
    async def read_universe(self) -> dict[str, str]:
        """Symbol -> asset class, of every symbol that an account holds. Raises StateUnavailable."""
        found = await cast(
            "Awaitable[dict[bytes, bytes]]", self._connection.commands.hgetall(keys.universe())
        )
        return {symbol.decode(): asset_class.decode() for symbol, asset_class in found.items()}

    def universe_changes(self) -> AsyncIterator[Message | Subscribed]:
        """A message after each change of the universe."""
        return self._connection.follow(keys.universe())

    @reports_unavailable
    async def write_cursor(self, event_id: str) -> None:
        """Store the id of the newest processed event of the activity stream. Raises StateUnavailable."""
        await cast("Awaitable[Any]", self._connection.commands.set(keys.cursor_activities(), event_id))

    @reports_unavailable
    async def read_cursor(self) -> str | None:
        """The id of the newest processed event of the activity stream, or None. Raises StateUnavailable."""
        found = await cast("Awaitable[bytes | None]", self._connection.commands.get(keys.cursor_activities()))
        return found.decode() if found else None


def decode_changes(payload: bytes) -> list[AccountChange]:
    """The accounts that an announcement names. Raises MsgspecError."""
    return _changes.decode(payload)


def readable_changes(payload: bytes) -> list[AccountChange]:
    """As `decode_changes`, but an unreadable announcement is logged and gives an empty list."""
    return readable(decode_changes, payload, "accounts") or []


def _readable(decoder: msgspec.json.Decoder[T], raws: Iterable[bytes]) -> list[T]:
    """The decoded entries, without unreadable ones."""
    found = (readable(decoder.decode, raw, "accounts") for raw in raws)
    return [one for one in found if one is not None]


async def _scan(connection: Connection, key: str) -> AsyncIterator[tuple[bytes, bytes]]:
    async for name, value in connection.commands.hscan_iter(key, count=READ_FIELDS_MAX):
        yield name, value

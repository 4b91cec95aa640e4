"""Which accounts which WebSocket servers watch: they announce it, portfolio calculators value only those.

Interest expires after INTEREST_MS unless a server renews it, so the interest of a dead server ends by itself.
An account is watched until the interest of its last server ends.

Most watched accounts stay watched. A reader therefore reads only what has changed since its last reading,
from a stream of changes. It reads all accounts of a shard if it has missed too much, and every ALL_READ_S.
"""

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Call, Connection, Message, Subscribed, reports_unavailable
from portfolio_realtime.state.error_answers import result_or_unavailable
from portfolio_realtime.state.unreadable import readable

INTEREST_MS: Final = 30_000
RENEW_S: Final = 10.0
BEGIN_ACCOUNTS_MAX: Final = 500  # of one shard per call
CHANGES_MAX: Final = 1000  # entries in a shard's stream of changes, each of up to BEGIN_ACCOUNTS_MAX accounts
ALL_READ_S: Final = 300.0  # at least this often all accounts are read, in case a change was missed
UNREAD: Final = ""  # before the first reading
RENEWED: Final = ""  # in place of the command that announces
NAME_BYTES: Final = 4  # 25 servers have two equal names once in ten million starts


@dataclass(frozen=True)
class Watched:
    """The watched accounts of a shard, and those of them that are watched with positions."""

    account_ids: frozenset[str]
    with_positions: frozenset[str]


Servers = Mapping[str, bool]
"""The servers that watch an account -> with positions?"""


class InterestChanges(NamedTuple):
    """What has changed in a shard since a reading, or all that is watched in it."""

    until: str  # where the next reading begins
    is_all: bool
    watched: dict[str, dict[str, bool]]  # account -> servers that have begun to watch it -> with positions?
    ended: list[tuple[str, str]]  # account, server that does not watch it any more; empty if `is_all`

    def apply_to(
        self, known: dict[str, Servers], accounts_of: Counter[str] | None = None
    ) -> tuple[list[str], list[str]]:
        """Bring the watched accounts of a shard up to date, and `accounts_of`: how many each server watches.

        Returns the accounts that must be published again, and those that no server watches any more. After a
        loss of changes, an account with a new server is published again: what that server was told is not
        certain.
        """
        gone: dict[str, set[str]] = {}
        for account_id, server in self.ended:
            gone.setdefault(account_id, set()).add(server)
        new, ended = list[str](), list[str]()
        for account_id in dict.fromkeys((*(known if self.is_all else gone), *self.watched)):
            before, left = known.get(account_id, {}), gone.get(account_id, ())
            kept = {} if self.is_all else {one: before[one] for one in before if one not in left}
            now = {**kept, **self.watched.get(account_id, {})}
            if accounts_of is not None:
                accounts_of.subtract(before.keys())
                accounts_of.update(now.keys())
            if not now:
                known.pop(account_id, None)
                ended.append(account_id)
                continue
            known[account_id] = now
            is_other = not before or any(now.values()) != any(before.values())
            if is_other or (self.is_all and now.keys() - before.keys()):
                new.append(account_id)
        if accounts_of is not None:
            for server in [one for one, count in accounts_of.items() if not count]:
                del accounts_of[server]
        return new, ended


def only_server(servers: Collection[str]) -> str | None:
    """The one server that watches, if it is only one."""
    return next(iter(servers)) if len(servers) == 1 else None


def server_name(holder: str) -> str:
    """The short name of a server process in interest and channels, from its name in leases."""
    return hashlib.blake2b(holder.encode(), digest_size=NAME_BYTES).hexdigest()


class StoredPublication(NamedTuple):
    """A stored publication as JSON, and whether a calculator keeps it up to date."""

    message: bytes
    is_kept: bool


class PartlyBegun(StateUnavailable):
    """A part of a cluster does not answer: the accounts in `missed` are not watched, all others are.

    `stored`: account id -> its publication so far, for the others.
    """

    def __init__(
        self, why: StateUnavailable, stored: dict[str, StoredPublication], missed: list[str]
    ) -> None:
        super().__init__(str(why), why.word)
        self.stored = stored
        self.missed = missed


class Interest:
    """The sorted sets `{sNN}:interest` and `{sNN}:interest:positions`, and their stream and channel.

    `server`: the name under which this process watches.
    """

    def __init__(self, connection: Connection, shards: int, server: str) -> None:
        self._connection = connection
        self._shards = shards
        self._server = server
        self._watch = connection.script("watch_accounts")
        self._read = connection.script("read_interest")

    async def renew(self, account_ids: Iterable[str], with_positions: Iterable[str]) -> set[str]:
        """Renew our interest in accounts, without an announcement.

        Returns the accounts whose interest had ended: something may have been published meanwhile, so `begin`
        with them. Parts of a cluster that do not answer are left out. Raises StateUnavailable if none does.
        """
        by_shard, detailed = self._by_shard(account_ids), self._by_shard(with_positions)
        calls: list[Call] = []
        for shard in by_shard.keys() | detailed.keys():
            wanting = detailed.get(shard, [])
            head = (INTEREST_MS, CHANGES_MAX, self._server, len(wanting), RENEWED)
            calls.append((self._keys(shard), (*head, *wanting, *by_shard.get(shard, []))))
        answers = await self._connection.call_each(self._watch, calls)
        failures = [answer for answer in answers if isinstance(answer, StateUnavailable)]
        if failures and len(failures) == len(answers):
            raise failures[0]
        renewed = (answer for answer in answers if not isinstance(answer, StateUnavailable))
        return {account_id.decode() for ended in renewed for account_id in ended}

    async def begin(
        self, account_ids: Iterable[str], with_positions: Collection[str] = ()
    ) -> dict[str, StoredPublication]:
        """Watch accounts, so that calculators publish them at once; return what was published so far.

        `with_positions`: the accounts that are watched with positions. Accounts without a stored publication
        are not in the result. Raises PartlyBegun, StateUnavailable.
        """
        word = await self._connection.publish_word()
        detailed = frozenset(with_positions)
        parts = [
            (shard, found[at : at + BEGIN_ACCOUNTS_MAX])
            for shard, found in self._by_shard(account_ids).items()
            for at in range(0, len(found), BEGIN_ACCOUNTS_MAX)
        ]
        calls: list[Call] = []
        for shard, part in parts:
            wanting = [account_id for account_id in part if account_id in detailed]
            names = (*self._keys(shard), keys.valuations(shard), keys.lease(keys.shard_lease(shard)))
            head = (INTEREST_MS, CHANGES_MAX, self._server, len(wanting), word)
            calls.append((names, (*head, *wanting, *part)))
        stored: dict[str, StoredPublication] = {}
        missed, why = list[str](), None
        for (_, part), answer in zip(
            parts, await self._connection.call_each(self._watch, calls), strict=True
        ):
            if isinstance(answer, StateUnavailable):
                missed, why = missed + part, answer
                continue
            is_kept, messages = bool(answer[0]), answer[1]
            stored |= {
                account_id: StoredPublication(message, is_kept)
                for account_id, message in zip(part, messages, strict=True)
                if message is not None
            }
        if why is not None:
            raise PartlyBegun(why, stored, missed)
        return stored

    def _keys(self, shard: int) -> tuple[str, ...]:
        return keys.interest(shard), keys.position_interest(shard), keys.interest_changes(shard)

    def _by_shard(self, account_ids: Iterable[str]) -> dict[int, list[str]]:
        by_shard: dict[int, list[str]] = {}
        for account_id in account_ids:
            by_shard.setdefault(keys.shard_of(account_id, self._shards), []).append(account_id)
        return by_shard

    async def life(self, ours: str) -> str:
        """The name of this life of the state: `ours` if it has none yet.

        If it has another name than before, all data was lost. Raises StateUnavailable.
        """
        return await self._connection.written_once(keys.life(), ours)

    @reports_unavailable
    async def is_gone(self, account_ids: Iterable[str], with_positions: Iterable[str] = ()) -> bool:
        """Whether we are not among those who watch, for one of these accounts in each shard.

        The same for one of those that are watched with positions. Raises StateUnavailable.
        """
        pipeline = self._connection.commands.pipeline(transaction=False)
        for watched, key_of in ((account_ids, keys.interest), (with_positions, keys.position_interest)):
            for shard, (account_id, *_) in self._by_shard(watched).items():
                pipeline.zscore(key_of(shard), f"{account_id} {self._server}")
        return None in await cast("Awaitable[list[float | None]]", pipeline.execute())

    @reports_unavailable
    async def is_any_watched(self) -> bool:
        """Whether any account is watched, or may be: a part of a cluster does not answer.

        Interest that has expired counts until a calculator has read it. Raises StateUnavailable.
        """
        pipeline = self._connection.commands.pipeline(transaction=False)
        for shard in range(self._shards):
            pipeline.zcard(keys.interest(shard))
        counts = [result_or_unavailable(one) for one in await pipeline.execute(raise_on_error=False)]
        failures = [one for one in counts if isinstance(one, StateUnavailable)]
        if len(failures) == len(counts):
            raise failures[0]
        return bool(failures) or any(counts)

    @reports_unavailable
    async def read(self, shard: int) -> Watched:
        """The accounts of a shard that are watched now. Raises StateUnavailable."""
        watched = (await self.read_changes(shard)).watched
        detailed = (account_id for account_id, servers in watched.items() if any(servers.values()))
        return Watched(frozenset(watched), frozenset(detailed))

    async def read_changes(self, shard: int, since: str = UNREAD) -> InterestChanges:
        """What has changed in a shard since the reading that ended at `since`, or all if that is not known.

        Raises StateUnavailable.
        """
        found = (await self.read_parts({shard: since}))[shard]
        if isinstance(found, StateUnavailable):
            raise found
        return found

    @reports_unavailable
    async def read_parts(self, since: Mapping[int, str]) -> dict[int, InterestChanges | StateUnavailable]:
        """As `read_changes`, of several shards in one round trip; or why a shard is away.

        `since`: shard -> where its last reading ended. Raises StateUnavailable.
        """
        calls: list[Call] = [
            (self._keys(shard), [until, CHANGES_MAX, BEGIN_ACCOUNTS_MAX]) for shard, until in since.items()
        ]
        answers = await self._connection.call_each(self._read, calls)
        return {
            shard: answer if isinstance(answer, StateUnavailable) else _changes_of(*answer)
            for shard, answer in zip(since, answers, strict=True)
        }

    def announcements(self, shards: list[int]) -> AsyncIterator[Message | Subscribed]:
        """Accounts that are newly watched; decode each message with `decode_begun`."""
        return self._connection.follow(*(keys.interest(shard) for shard in shards))


class WatchedAccounts:
    """The watched accounts of some shards, as a reader of changes knows them."""

    def __init__(
        self, interest: Interest, shards: Iterable[int], on_away: Callable[[StateUnavailable], None]
    ) -> None:
        """`on_away` is called with the error of each shard that cannot be read, and may raise it."""
        self._interest = interest
        self._on_away = on_away
        self._watched: dict[int, dict[str, Servers]] = {shard: {} for shard in shards}
        self._until = dict.fromkeys(self._watched, UNREAD)
        self._all_due_s = 0.0

    async def read(self, now_s: float) -> set[str]:
        """The accounts that are watched now, of a shard that is away those of before.

        `now_s`: monotonic seconds. Raises what `on_away` raises.
        """
        if now_s >= self._all_due_s:
            self._all_due_s, self._until = now_s + ALL_READ_S, dict.fromkeys(self._watched, UNREAD)
        try:
            parts = await self._interest.read_parts(self._until)
        except StateUnavailable as error:
            parts = dict.fromkeys(self._watched, error)
        for shard, found in parts.items():
            if isinstance(found, StateUnavailable):
                self._on_away(found)
                continue
            found.apply_to(self._watched[shard])
            self._until[shard] = found.until
        return set().union(*self._watched.values())


def _changes_of(
    until: bytes, is_all: int, watched: list[bytes], with_positions: list[bytes], ended: list[bytes]
) -> InterestChanges:
    """The answer of the script `read_interest`."""
    detailed = frozenset(with_positions)
    by_account: dict[str, dict[str, bool]] = {}
    for pair in watched:
        account_id, server = _parted(pair)
        by_account.setdefault(account_id, {})[server] = pair in detailed
    return InterestChanges(until.decode(), bool(is_all), by_account, [_parted(pair) for pair in ended])


def _parted(pair: bytes) -> tuple[str, str]:
    account_id, _, server = pair.decode().rpartition(" ")
    return account_id, server


def decode_begun(payload: bytes) -> list[str]:
    """The accounts that an announcement names, all of one shard; empty if it is unreadable."""
    text = readable(bytes.decode, payload, "interest") or ""
    return [account_id for account_id in text.split(",") if account_id]

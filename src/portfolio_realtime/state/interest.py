"""Who is being watched: WebSocket servers say it, portfolio calculators value only those.

Interest expires by itself (INTEREST_MS) unless a server renews it, so a dead server leaves none behind.
"""

from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass
from typing import Final

from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Call, Connection, Message, Subscribed, reports_unavailable
from portfolio_realtime.state.unreadable import readable
from portfolio_realtime.state.valuations import StoredPublication

INTEREST_MS: Final = 30_000
RENEW_S: Final = 10.0
BEGIN_ACCOUNTS_MAX: Final = 500  # of one shard in one call


@dataclass(frozen=True)
class Watched:
    """The accounts of a shard that somebody watches, and those among them with positions."""

    account_ids: frozenset[str]
    with_positions: frozenset[str]


class PartlyBegun(StateUnavailable):
    """A part of a cluster is away: all but those `missed` are watched; `stored` was published of them."""

    def __init__(
        self, why: StateUnavailable, stored: dict[str, StoredPublication], missed: list[str]
    ) -> None:
        super().__init__(str(why), why.word)
        self.stored = stored
        self.missed = missed


class Interest:
    """The sorted sets `{sNN}:interest` and `{sNN}:interest:positions`, and the channel `{sNN}:interest`."""

    def __init__(self, connection: Connection, shards: int) -> None:
        self._connection = connection
        self._shards = shards
        self._begin = connection.script("begin_watching")
        self._prolong = connection.script("prolong")
        self._read = connection.script("read_unexpired")

    async def renew(self, account_ids: Iterable[str], with_positions: Iterable[str]) -> None:
        """Prolong interest in accounts, silently. Raises StateUnavailable."""
        members: dict[str, list[str]] = {}
        for account_id in account_ids:
            members.setdefault(keys.interest(self._shard(account_id)), []).append(account_id)
        for account_id in with_positions:
            members.setdefault(keys.position_interest(self._shard(account_id)), []).append(account_id)
        calls: list[Call] = [((key,), (INTEREST_MS, *names)) for key, names in members.items()]
        await self._connection.call_all(self._prolong, calls)

    async def begin(
        self, account_ids: Iterable[str], with_positions: Collection[str] = ()
    ) -> dict[str, StoredPublication]:
        """Begin to watch accounts: the calculators publish them at once. What was published of them so far.

        With the positions of those in `with_positions`. Raises PartlyBegun, StateUnavailable.
        """
        word = await self._connection.publish_word()
        detailed = frozenset(with_positions)
        by_shard: dict[int, list[str]] = {}
        for account_id in account_ids:
            by_shard.setdefault(self._shard(account_id), []).append(account_id)
        parts = [
            (shard, found[at : at + BEGIN_ACCOUNTS_MAX])
            for shard, found in by_shard.items()
            for at in range(0, len(found), BEGIN_ACCOUNTS_MAX)
        ]
        calls: list[Call] = []
        for shard, part in parts:
            wanting = [account_id for account_id in part if account_id in detailed]
            calls.append((self._keys(shard), (word, INTEREST_MS, len(wanting), *wanting, *part)))
        stored: dict[str, StoredPublication] = {}
        missed, why = list[str](), None
        for (_, part), answer in zip(
            parts, await self._connection.call_each(self._begin, calls), strict=True
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
        lease = keys.lease(keys.shard_lease(shard))
        return keys.interest(shard), keys.position_interest(shard), keys.valuations(shard), lease

    async def life(self, ours: str) -> str:
        """Which life of this state it is: `ours` where nobody has named it yet. Another one: all is lost.

        Raises StateUnavailable.
        """
        return await self._connection.written_once(keys.life(), ours)

    @reports_unavailable
    async def read(self, shard: int) -> Watched:
        """Who is watched in a shard now; expired interest is removed."""
        watched, with_positions = await self._read(
            keys=[keys.interest(shard), keys.position_interest(shard)], args=[]
        )
        return Watched(
            frozenset(member.decode() for member in watched),
            frozenset(member.decode() for member in with_positions),
        )

    def announcements(self, shards: list[int]) -> AsyncIterator[Message | Subscribed]:
        """Accounts that somebody begins to watch; decode each message with `decode_begun`."""
        return self._connection.follow(*(keys.interest(shard) for shard in shards))

    def _shard(self, account_id: str) -> int:
        return keys.shard_of(account_id, self._shards)


def decode_begun(payload: bytes) -> list[str]:
    """The accounts that an announcement names, all of one shard; none where it cannot be read."""
    text = readable(bytes.decode, payload, "interest") or ""
    return [account_id for account_id in text.split(",") if account_id]

"""Which accounts are watched: WebSocket servers announce it, portfolio calculators value only those.

Interest expires after INTEREST_MS unless a server renews it, so the interest of a dead server ends by itself.
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
BEGIN_ACCOUNTS_MAX: Final = 500  # of one shard per call


@dataclass(frozen=True)
class Watched:
    """The watched accounts of a shard, and those of them that are watched with positions."""

    account_ids: frozenset[str]
    with_positions: frozenset[str]


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
    """The sorted sets `{sNN}:interest` and `{sNN}:interest:positions`, and the channel `{sNN}:interest`."""

    def __init__(self, connection: Connection, shards: int) -> None:
        self._connection = connection
        self._shards = shards
        self._begin = connection.script("begin_watching")
        self._prolong = connection.script("prolong")
        self._read = connection.script("read_unexpired")

    async def renew(self, account_ids: Iterable[str], with_positions: Iterable[str]) -> None:
        """Renew interest in accounts, without an announcement. Raises StateUnavailable."""
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
        """Watch accounts, so that calculators publish them at once; return what was published so far.

        `with_positions`: the accounts that are watched with positions. Accounts without a stored publication
        are not in the result. Raises PartlyBegun, StateUnavailable.
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
        """The name of this life of the state: `ours` if it has none yet.

        If it has another name than before, all data was lost. Raises StateUnavailable.
        """
        return await self._connection.written_once(keys.life(), ours)

    @reports_unavailable
    async def read(self, shard: int) -> Watched:
        """The accounts of a shard that are watched now. Raises StateUnavailable."""
        watched, with_positions = await self._read(
            keys=[keys.interest(shard), keys.position_interest(shard)], args=[]
        )
        return Watched(
            frozenset(member.decode() for member in watched),
            frozenset(member.decode() for member in with_positions),
        )

    def announcements(self, shards: list[int]) -> AsyncIterator[Message | Subscribed]:
        """Accounts that are newly watched; decode each message with `decode_begun`."""
        return self._connection.follow(*(keys.interest(shard) for shard in shards))

    def _shard(self, account_id: str) -> int:
        return keys.shard_of(account_id, self._shards)


def decode_begun(payload: bytes) -> list[str]:
    """The accounts that an announcement names, all of one shard; empty if it is unreadable."""
    text = readable(bytes.decode, payload, "interest") or ""
    return [account_id for account_id in text.split(",") if account_id]

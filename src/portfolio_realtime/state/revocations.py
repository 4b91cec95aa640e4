"""Credentials that are good no more, as a stream: every server reads what is new and forgets nothing.

An entry is needed until the last token that it may concern has expired, so writing one drops those that are
older, and the whole key lives as long as its newest entry.

Beside it stands since when the stream is complete. Whoever finds that missing has found an empty Valkey, and
knows nothing of what was revoked before: see docs/decisions/0014-who-cannot-know-refuses.md.
"""

import time
from collections.abc import Awaitable, Sequence
from typing import Any, Final, NamedTuple, cast

import msgspec

from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection, reports_unavailable
from portfolio_realtime.state.unreadable import readable

BLOCK_MS: Final = 1000  # shorter than the socket's timeout
READ_ENTRIES_MAX: Final = 1000
WRITE_ENTRIES_MAX: Final = 1000
NO_ENTRY: Final = "0-0"
ALWAYS: Final = 0  # complete since ever, because an operator says so or nothing can have been revoked
FIELD: Final = b"revocation"
SINCE: Final = "since_s"
SEEN: Final = "seen_s"
TOLD: Final = "newest"


class TokenRevocation(msgspec.Struct, frozen=True, tag="token"):
    """One token, by who issued it and its `jti`: the raw text of a token can be varied, these cannot."""

    issuer: str
    token_id: str


class SubjectRevocation(msgspec.Struct, frozen=True, tag="subject"):
    """Every token of a subject that was issued (`iat`) up to this second since 1970."""

    subject: str
    issued_until_s: int


Revocation = TokenRevocation | SubjectRevocation

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Revocation).decode


class Known(NamedTuple):
    """What Valkey says of the stream: every revocation since `since_s` is in it (None: nobody says so), a
    server last saw it at `seen_s`, `newest` is its newest entry, and `told` the newest that ever was, as far
    as anybody has told. Seconds since 1970."""

    since_s: int | None
    seen_s: int
    newest: str
    told: str = NO_ENTRY

    def is_evicted(self, lifetime_s: int, now_s: float) -> bool:
        """Has the stream lost entries that still matter, while what is said of it lives on?"""
        return is_older(self.newest, self.told) and entry_s(self.told) > now_s - lifetime_s


class Revocations:
    """The stream `{revocations}`, and what is known of it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @reports_unavailable
    async def write(self, revocation: Revocation, lifetime_s: int) -> None:
        """Revoke; no token lives longer than `lifetime_s` seconds. Raises StateUnavailable."""
        oldest_ms = int(time.time() - lifetime_s) * 1000
        pipeline = self._connection.commands.pipeline(transaction=True)
        pipeline.xadd(keys.revocations(), {FIELD: _encode(revocation)}, minid=oldest_ms, approximate=False)
        pipeline.expire(keys.revocations(), lifetime_s)
        entry, _ = await cast("Awaitable[Any]", pipeline.execute())
        await cast("Awaitable[Any]", self._connection.commands.hset(keys.revocations_known(), TOLD, entry))

    @reports_unavailable
    async def read_after(self, entry: str, *, waits: bool = True) -> tuple[str, list[Revocation]]:
        """The revocations after `entry` ("0": all), and the newest entry's name.

        At most READ_ENTRIES_MAX; `waits`: up to BLOCK_MS, for the first. Raises StateUnavailable.
        """
        block_ms = BLOCK_MS if waits else None
        answer = await cast(
            "Awaitable[Any]",
            self._connection.commands.xread(
                {keys.revocations(): entry}, count=READ_ENTRIES_MAX, block=block_ms
            ),
        )
        found: list[tuple[bytes, dict[bytes, bytes]]] = _entries(answer)
        newest = found[-1][0].decode() if found else entry
        decoded = (readable(_decode, fields[FIELD], keys.revocations()) for _, fields in found)
        return newest, [revocation for revocation in decoded if revocation is not None]

    async def read_all(self) -> list[Revocation]:
        """Every revocation that is there. Raises StateUnavailable."""
        entry, found, all_found = "0", True, list[Revocation]()
        while found:
            entry, part = await self.read_after(entry, waits=False)
            all_found += part
            found = bool(part)
        return all_found

    @reports_unavailable
    async def write_again(self, revocations: Sequence[Revocation], lifetime_s: int) -> None:
        """Write revocations that Valkey has lost; their lifetime begins anew. Raises StateUnavailable."""
        for at in range(0, len(revocations), WRITE_ENTRIES_MAX):
            pipeline = self._connection.commands.pipeline(transaction=True)
            for revocation in revocations[at : at + WRITE_ENTRIES_MAX]:
                pipeline.xadd(keys.revocations(), {FIELD: _encode(revocation)})
            pipeline.expire(keys.revocations(), lifetime_s)
            await cast("Awaitable[Any]", pipeline.execute())

    @reports_unavailable
    async def known(self) -> Known:
        """What Valkey says of the stream. Raises StateUnavailable."""
        pipeline = self._connection.commands.pipeline(transaction=True)
        pipeline.hmget(keys.revocations_known(), [SINCE, SEEN, TOLD])
        pipeline.xrevrange(keys.revocations(), count=1)
        (since, seen, told), newest = await cast("Awaitable[Any]", pipeline.execute())
        name = newest[0][0].decode() if newest else NO_ENTRY
        said = NO_ENTRY if told is None else told.decode()
        return Known(None if since is None else int(since), int(seen or 0), name, said)

    @reports_unavailable
    async def begin(self, since_s: int) -> None:
        """Say that the stream is complete from now on, unless something is said. Raises StateUnavailable."""
        await cast(
            "Awaitable[Any]", self._connection.commands.hsetnx(keys.revocations_known(), SINCE, str(since_s))
        )

    @reports_unavailable
    async def confirm(self, since_s: int = ALWAYS) -> None:
        """Say that every revocation since then is in the stream, now. Raises StateUnavailable."""
        pipeline = self._connection.commands.pipeline(transaction=True)
        pipeline.hset(keys.revocations_known(), SINCE, str(since_s))
        pipeline.hset(keys.revocations_known(), SEEN, str(int(time.time())))
        await cast("Awaitable[Any]", pipeline.execute())

    @reports_unavailable
    async def see(self, seen_s: int, newest: str) -> None:
        """Say that a server has read the stream up to now, and its newest entry. Raises StateUnavailable."""
        pipeline = self._connection.commands.pipeline(transaction=True)
        pipeline.hset(keys.revocations_known(), SEEN, str(seen_s))
        pipeline.hset(keys.revocations_known(), TOLD, newest)
        await cast("Awaitable[Any]", pipeline.execute())

    @reports_unavailable
    async def valkey_up_s(self) -> int:
        """For how many seconds this process of Valkey has been running. Raises StateUnavailable."""
        info = await self._connection.commands.info("server")
        return int(info["uptime_in_seconds"])


def is_older(entry: str, than: str) -> bool:
    """Was this entry of a stream written before the other one?"""
    return _parts(entry) < _parts(than)


def entry_s(entry: str) -> float:
    """When an entry was written, in seconds since 1970."""
    return _parts(entry)[0] / 1000


def _parts(entry: str) -> tuple[int, int]:
    milliseconds, _, count = entry.partition("-")
    return int(milliseconds), int(count or 0)


def _entries(answer: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The entries of the one stream in the answer, in RESP2 and RESP3 alike."""
    if not answer:
        return []
    if isinstance(answer, dict):
        (batches,) = answer.values()
        return [entry for batch in batches for entry in batch]
    ((_, entries),) = answer
    return entries

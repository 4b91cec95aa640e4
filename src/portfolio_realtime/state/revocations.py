"""Revoked credentials, as a stream: every server reads the new entries and keeps all that it has read.

An entry is needed until the last token that it may concern has expired. Writing one removes the older ones,
and the whole key expires with its newest entry.

A second key says since when the stream is complete. If it is missing, Valkey was empty, and nothing is known
of earlier revocations: see docs/decisions/0014-who-cannot-know-refuses.md.
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
ALWAYS: Final = 0  # always complete: an operator says so, or nothing can have been revoked
FIELD: Final = b"revocation"
SINCE: Final = "since_s"
SEEN: Final = "seen_s"
TOLD: Final = "newest"


class TokenRevocation(msgspec.Struct, frozen=True, tag="token"):
    """The revocation of one token, by issuer and `jti`: its raw text can be varied, these cannot."""

    issuer: str
    token_id: str


class SubjectRevocation(msgspec.Struct, frozen=True, tag="subject"):
    """The revocation of every token of a subject issued (`iat`) up to this second since 1970."""

    subject: str
    issued_until_s: int


Revocation = TokenRevocation | SubjectRevocation

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Revocation).decode


class Known(NamedTuple):
    """What Valkey says about the stream; times are seconds since 1970.

    `since_s`: every revocation since then is in the stream; None: not known. `seen_s`: when a server last
    read it. `newest`: its newest entry. `told`: the newest entry that it ever had, as far as was written
    down.
    """

    since_s: int | None
    seen_s: int
    newest: str
    told: str = NO_ENTRY

    def is_evicted(self, lifetime_s: int, now_s: float) -> bool:
        """Whether the stream has lost entries that still matter, although this hash has been kept."""
        return is_older(self.newest, self.told) and entry_s(self.told) > now_s - lifetime_s


class Revocations:
    """The stream `{revocations}` and the hash `{revocations}:known`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @reports_unavailable
    async def write(self, revocation: Revocation, lifetime_s: int) -> None:
        """Add a revocation. No token lives longer than `lifetime_s` seconds. Raises StateUnavailable."""
        oldest_ms = int(time.time() - lifetime_s) * 1000
        pipeline = self._connection.commands.pipeline(transaction=True)
        pipeline.xadd(keys.revocations(), {FIELD: _encode(revocation)}, minid=oldest_ms, approximate=False)
        pipeline.expire(keys.revocations(), lifetime_s)
        entry, _ = await cast("Awaitable[Any]", pipeline.execute())
        await cast("Awaitable[Any]", self._connection.commands.hset(keys.revocations_known(), TOLD, entry))

    @reports_unavailable
    async def read_after(self, entry: str, *, waits: bool = True) -> tuple[str, list[Revocation]]:
        """The id of the newest entry read, and at most READ_ENTRIES_MAX revocations after `entry` ("0": all).

        `waits`: wait up to BLOCK_MS for the first one. Raises StateUnavailable.
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
        """Every revocation in the stream. Raises StateUnavailable."""
        entry, found, all_found = "0", True, list[Revocation]()
        while found:
            entry, part = await self.read_after(entry, waits=False)
            all_found += part
            found = bool(part)
        return all_found

    @reports_unavailable
    async def write_again(self, revocations: Sequence[Revocation], lifetime_s: int) -> None:
        """Write revocations that Valkey has lost; their lifetime starts again. Raises StateUnavailable."""
        for at in range(0, len(revocations), WRITE_ENTRIES_MAX):
            pipeline = self._connection.commands.pipeline(transaction=True)
            for revocation in revocations[at : at + WRITE_ENTRIES_MAX]:
                pipeline.xadd(keys.revocations(), {FIELD: _encode(revocation)})
            pipeline.expire(keys.revocations(), lifetime_s)
            await cast("Awaitable[Any]", pipeline.execute())

    @reports_unavailable
    async def known(self) -> Known:
        """What Valkey says about the stream. Raises StateUnavailable."""
        pipeline = self._connection.commands.pipeline(transaction=True)
        pipeline.hmget(keys.revocations_known(), [SINCE, SEEN, TOLD])
        pipeline.xrevrange(keys.revocations(), count=1)
        (since, seen, told), newest = await cast("Awaitable[Any]", pipeline.execute())
        name = newest[0][0].decode() if newest else NO_ENTRY
        said = NO_ENTRY if told is None else told.decode()
        return Known(None if since is None else int(since), int(seen or 0), name, said)

    @reports_unavailable
    async def begin(self, since_s: int) -> None:
        """Declare the stream complete since `since_s`, unless a time is set. Raises StateUnavailable."""
        await cast(
            "Awaitable[Any]", self._connection.commands.hsetnx(keys.revocations_known(), SINCE, str(since_s))
        )

    @reports_unavailable
    async def confirm(self, since_s: int = ALWAYS) -> None:
        """Declare that every revocation since `since_s` is in the stream now. Raises StateUnavailable."""
        pipeline = self._connection.commands.pipeline(transaction=True)
        pipeline.hset(keys.revocations_known(), SINCE, str(since_s))
        pipeline.hset(keys.revocations_known(), SEEN, str(int(time.time())))
        await cast("Awaitable[Any]", pipeline.execute())

    @reports_unavailable
    async def see(self, seen_s: int, newest: str) -> None:
        """Write when a server has last read the stream, and its newest entry. Raises StateUnavailable."""
        pipeline = self._connection.commands.pipeline(transaction=True)
        pipeline.hset(keys.revocations_known(), SEEN, str(seen_s))
        pipeline.hset(keys.revocations_known(), TOLD, newest)
        await cast("Awaitable[Any]", pipeline.execute())

    @reports_unavailable
    async def valkey_up_s(self) -> int:
        """For how many seconds this Valkey process has been running. Raises StateUnavailable."""
        info = await self._connection.commands.info("server")
        return int(info["uptime_in_seconds"])


def is_older(entry: str, than: str) -> bool:
    """Whether this stream entry was written before the other one."""
    return _parts(entry) < _parts(than)


def entry_s(entry: str) -> float:
    """When an entry was written, in seconds since 1970."""
    return _parts(entry)[0] / 1000


def _parts(entry: str) -> tuple[int, int]:
    milliseconds, _, count = entry.partition("-")
    return int(milliseconds), int(count or 0)


def _entries(answer: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The entries of the one stream in the answer, which RESP2 and RESP3 shape differently."""
    if not answer:
        return []
    if isinstance(answer, dict):
        (batches,) = answer.values()
        return [entry for batch in batches for entry in batch]
    ((_, entries),) = answer
    return entries

"""Credentials that are good no more, as a stream: every server reads what is new and forgets nothing.

An entry is needed until the last token that it may concern has expired, so writing one drops those that are
older, and the whole key lives as long as its newest entry.
"""

import time
from collections.abc import Awaitable
from typing import Any, Final, cast

import msgspec

from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection, reports_unavailable

BLOCK_MS: Final = 1000  # shorter than the socket's timeout
READ_ENTRIES_MAX: Final = 1000
FIELD: Final = b"revocation"


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


class Revocations:
    """The stream `revocations`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @reports_unavailable
    async def write(self, revocation: Revocation, lifetime_s: int) -> None:
        """Revoke; no token lives longer than `lifetime_s` seconds. Raises StateUnavailable."""
        oldest_ms = int(time.time() - lifetime_s) * 1000
        pipeline = self._connection.commands.pipeline(transaction=True)
        pipeline.xadd(keys.revocations(), {FIELD: _encode(revocation)}, minid=oldest_ms, approximate=False)
        pipeline.expire(keys.revocations(), lifetime_s)
        await cast("Awaitable[Any]", pipeline.execute())

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
        return newest, [_decode(fields[FIELD]) for _, fields in found]


def _entries(answer: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The entries of the one stream in the answer, in RESP2 and RESP3 alike."""
    if not answer:
        return []
    if isinstance(answer, dict):
        (batches,) = answer.values()
        return [entry for batch in batches for entry in batch]
    ((_, entries),) = answer
    return entries

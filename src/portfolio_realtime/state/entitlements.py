"""Which accounts a subject may see, where the back end keeps it in Valkey (ACCOUNT_ACCESS=entitlements).

Servers look again every AUTHZ_INTERVAL, so a plain `HSET entitlements SUBJECT '["ACCOUNT"]'` or
`HDEL entitlements SUBJECT` of the back end is all it takes.
"""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection, reports_unavailable

READ_SUBJECTS_MAX: Final = 1000  # in one round trip
_decode = msgspec.json.Decoder(list[str]).decode


class Entitlements:
    """The hash `entitlements`: subject -> list of account ids as JSON."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @reports_unavailable
    async def read(self, subjects: Sequence[str]) -> dict[str, frozenset[str]]:
        """The accounts of each subject; none for one that is not there, or written wrong."""
        found: dict[str, frozenset[str]] = {}
        for at in range(0, len(subjects), READ_SUBJECTS_MAX):
            part = list(subjects[at : at + READ_SUBJECTS_MAX])
            texts = await cast(
                "Awaitable[list[bytes | None]]", self._connection.commands.hmget(keys.entitlements(), part)
            )
            found.update((subject, _accounts(text)) for subject, text in zip(part, texts, strict=True))
        return found

    @reports_unavailable
    async def read_all(self) -> dict[str, frozenset[str]]:
        """The accounts of every subject."""
        texts = await cast(
            "Awaitable[dict[bytes, bytes]]", self._connection.commands.hgetall(keys.entitlements())
        )
        return {subject.decode(): _accounts(text) for subject, text in texts.items()}

    @reports_unavailable
    async def write_missing(self, entitlements: Mapping[str, Sequence[str]]) -> int:
        """Write those of subjects that have none; how many. What was written since is newer."""
        pipeline = self._connection.commands.pipeline(transaction=False)
        for subject, account_ids in entitlements.items():
            text = msgspec.json.encode(sorted(set(account_ids)))
            pipeline.hsetnx(keys.entitlements(), subject, cast("str", text))
        return sum(await cast("Awaitable[list[int]]", pipeline.execute()))

    @reports_unavailable
    async def write(self, subject: str, account_ids: Sequence[str]) -> None:
        """Let a subject see these accounts and no others; with none, forget it."""
        commands = self._connection.commands
        if account_ids:
            text = msgspec.json.encode(sorted(set(account_ids)))
            await cast("Awaitable[Any]", commands.hset(keys.entitlements(), subject, cast("str", text)))
        else:
            await cast("Awaitable[Any]", commands.hdel(keys.entitlements(), subject))


def _accounts(text: bytes | None) -> frozenset[str]:
    try:
        return frozenset(_decode(text)) if text is not None else frozenset()
    except msgspec.DecodeError:
        return frozenset()

"""Which accounts a subject may see, as the back end stores it in Valkey (ACCOUNT_ACCESS=entitlements).

Servers read it again every AUTHZ_INTERVAL. The back end only needs `HSET entitlements SUBJECT '["ACCOUNT"]'`
and `HDEL entitlements SUBJECT`.
"""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection, reports_unavailable

READ_SUBJECTS_MAX: Final = 1000  # per round trip
_decode = msgspec.json.Decoder(list[Any]).decode


class Entitlements:
    """The hash `entitlements`: subject -> list of account ids as JSON."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @reports_unavailable
    async def read(self, subjects: Sequence[str]) -> dict[str, frozenset[str]]:
        """Subject -> its account ids: empty for a subject without an entry or with an unreadable one.

        Raises StateUnavailable.
        """
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
        """Subject -> its account ids, for every subject. Raises StateUnavailable."""
        texts = await cast(
            "Awaitable[dict[bytes, bytes]]", self._connection.commands.hgetall(keys.entitlements())
        )
        return {subject.decode(errors="backslashreplace"): _accounts(text) for subject, text in texts.items()}

    @reports_unavailable
    async def write_missing(self, entitlements: Mapping[str, Sequence[str]]) -> int:
        """Write the entries of subjects that have none; return how many were written.

        An existing entry is newer and stays. Raises StateUnavailable.
        """
        pipeline = self._connection.commands.pipeline(transaction=False)
        for subject, account_ids in entitlements.items():
            text = msgspec.json.encode(sorted(set(account_ids)))
            pipeline.hsetnx(keys.entitlements(), subject, cast("str", text))
        return sum(await cast("Awaitable[list[int]]", pipeline.execute()))

    @reports_unavailable
    async def write(self, subject: str, account_ids: Sequence[str]) -> None:
        """Let a subject see exactly these accounts. Without accounts, its entry is removed.

        Raises StateUnavailable.
        """
        commands = self._connection.commands
        if account_ids:
            text = msgspec.json.encode(sorted(set(account_ids)))
            await cast("Awaitable[Any]", commands.hset(keys.entitlements(), subject, cast("str", text)))
        else:
            await cast("Awaitable[Any]", commands.hdel(keys.entitlements(), subject))


def _accounts(text: bytes | None) -> frozenset[str]:
    """What can be read of one line; an account id that is no text is nobody's."""
    try:
        return frozenset(one for one in _decode(text or b"[]") if isinstance(one, str))
    except (ValueError, RecursionError):
        return frozenset()

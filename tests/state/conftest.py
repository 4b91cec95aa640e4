"""After every test of this folder: the database holds nothing that the table of keys does not allow."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import cast

import pytest
from redis.asyncio import Redis

from portfolio_harness.valkey_kinds import Valkeys
from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Message, Subscribed

GONE = -2  # answer of PTTL
PLACEHOLDERS = {"SHA256": "[0-9a-f]{64}", "{sNN}": r"\{s\d\d[a-z]{2}\}"}


@dataclass(frozen=True)
class Row:
    """One row of the table in `state/keys.py`."""

    pattern: str
    type: str
    is_permanent: bool

    def matches(self, key: str) -> bool:
        """Is it a key of this row?"""
        parts = re.split(r"(\{sNN\}|[A-Z][A-Z0-9]+)", self.pattern)
        words = [
            PLACEHOLDERS.get(part, ".+") if index % 2 else re.escape(part) for index, part in enumerate(parts)
        ]
        return re.fullmatch("".join(words), key) is not None


def table() -> list[Row]:
    """The keys (not the channels) of the table, the most telling pattern first."""
    lines = [line for line in (keys.__doc__ or "").splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rows = [Row(cell[0], cell[1], cell[3] == "none") for cell in cells if not cell[0].startswith("channel ")]
    return sorted(rows, key=lambda row: -len(row.pattern))


async def strays(commands: Redis) -> list[str]:
    """What the database holds against the table: unknown keys, other types, a life without end."""
    found: list[str] = []
    async for raw in commands.scan_iter(count=1000):
        key = raw.decode()
        row = next((row for row in table() if row.matches(key)), None)
        if row is None:
            found.append(f"{key} is not in the table of state/keys.py")
            continue
        kind, lives_ms = cast("bytes", await commands.type(key)).decode(), await commands.pttl(key)
        if kind == "none" or lives_ms == GONE:  # it has expired meanwhile
            continue
        if kind.replace("zset", "sorted set") != row.type:
            found.append(f"{key} is a {kind}, the table says {row.type}")
        elif not row.is_permanent and lives_ms < 0:
            found.append(f"{key} never expires, the table says that it does")
    return found


@pytest.fixture(autouse=True)
async def only_known_keys(session_valkey: Valkeys) -> AsyncGenerator[None]:
    """Fail a test that leaves a key which the table does not know or calls temporary without a TTL."""
    await session_valkey.flush()  # what a test elsewhere has left
    yield
    found: list[str] = []
    for node in await session_valkey.primaries():
        async with node.client() as commands:
            found += await strays(commands)
    await session_valkey.flush()
    assert found == []


Messages = AsyncIterator[Message | Subscribed]
Followed = Callable[[Messages], Messages]


@pytest.fixture
async def followed() -> AsyncGenerator[Followed]:
    """`followed(state.marks.batches())`: the same messages, and the subscription ends with the test."""
    opened: list[Messages] = []

    def follow(messages: Messages) -> Messages:
        opened.append(messages)
        return messages

    yield follow
    for messages in opened:
        await cast("AsyncGenerator[Message | Subscribed]", messages).aclose()

"""How many connections each server has of each user and address, so that limits hold over all servers.

Each server writes its own counts and reads those of the others. The counts of open connections expire
LIVING_MS after a server has ended or has lost Valkey, those of a minute some time after that minute.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection, reports_unavailable

LIVING_MS: Final = 2000
MINUTE_MS: Final = 120_000  # the clocks of machines differ
NAMES_MAX: Final = 500  # in one call
OPEN: Final = "open"  # the period of open connections; any other is a minute


class Judged(NamedTuple):
    """Our count of a name, how many of them may be taken off, and the limit of all servers together."""

    ours: int
    excess_max: int = 0
    limit: int = 0


class ConnectionCounts:
    """The keys `{connections}:…`, for one server."""

    def __init__(self, connection: Connection, server: str) -> None:
        self._connection = connection
        self._server = server
        self._tell = connection.script("tell_counts")

    async def keep(self) -> bool:
        """Keep the counts of open connections for another LIVING_MS; were they still there?

        Raises StateUnavailable.
        """
        was_there, *_ = await self._call(OPEN, {})
        return was_there

    async def tell(self, period: str, counts: dict[str, int]) -> dict[str, int]:
        """Replace our counts of these names in a period; return how many the other servers have of them.

        Raises StateUnavailable.
        """
        elsewhere: dict[str, int] = {}
        for part in _in_parts({name: Judged(count) for name, count in counts.items()}):
            _, found, _ = await self._call(period, part)
            elsewhere.update(zip(part, found, strict=True))
        return elsewhere

    async def judge(self, counts: Mapping[str, Judged]) -> dict[str, int]:
        """Take what exceeds a limit off our counts of open connections; return how many of each name.

        Raises StateUnavailable.
        """
        taken_off: dict[str, int] = {}
        for part in _in_parts(counts):
            _, _, found = await self._call(OPEN, part)
            taken_off.update(zip(part, found, strict=True))
        return taken_off

    @reports_unavailable
    async def _call(self, period: str, counts: Mapping[str, Judged]) -> tuple[bool, list[int], list[int]]:
        before, behind = keys.connection_counts("\n", period).split("\n")
        was_there, elsewhere, taken_off = await self._tell(
            keys=[keys.counting_servers(), keys.connection_counts(self._server, period)],
            args=[
                self._server,
                LIVING_MS,
                LIVING_MS if period == OPEN else MINUTE_MS,
                before,
                behind,
                # One argument, because each has a price of its own.
                msgspec.msgpack.encode([word for name, judged in counts.items() for word in (name, *judged)]),
            ],
        )
        return bool(was_there), elsewhere, taken_off


def _in_parts(counts: Mapping[str, Judged]) -> list[dict[str, Judged]]:
    items = list(counts.items())
    return [dict(items[first : first + NAMES_MAX]) for first in range(0, len(items), NAMES_MAX)]

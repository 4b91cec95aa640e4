"""How many connections each server has of each user and address, so that limits hold over all servers.

Each server writes its own counts and reads those of the others. The counts of open connections expire
LIVING_MS after a server has ended or has lost Valkey, those of a minute some time after that minute.
"""

from typing import Final

from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection, reports_unavailable

LIVING_MS: Final = 2000
MINUTE_MS: Final = 120_000  # the clocks of machines differ
NAMES_MAX: Final = 500  # in one call
OPEN: Final = "open"  # the period of open connections; any other is a minute


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
        was_there, _ = await self._call(OPEN, {}, [])
        return was_there

    async def tell(self, period: str, counts: dict[str, int]) -> dict[str, int]:
        """Replace our counts of these names in a period; return how many the other servers have of them.

        Raises StateUnavailable.
        """
        names, elsewhere = list(counts), dict[str, int]()
        for first in range(0, len(names), NAMES_MAX):
            part = names[first : first + NAMES_MAX]
            _, found = await self._call(period, counts, part)
            elsewhere.update(zip(part, found, strict=True))
        return elsewhere

    @reports_unavailable
    async def _call(self, period: str, counts: dict[str, int], names: list[str]) -> tuple[bool, list[int]]:
        before, behind = keys.connection_counts("\n", period).split("\n")
        was_there, elsewhere = await self._tell(
            keys=[keys.counting_servers(), keys.connection_counts(self._server, period)],
            args=[
                self._server,
                LIVING_MS,
                LIVING_MS if period == OPEN else MINUTE_MS,
                before,
                behind,
                *(word for name in names for word in (name, counts[name])),
            ],
        )
        return bool(was_there), elsewhere

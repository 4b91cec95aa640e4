"""Settings on which all processes that share a state must agree.

The first process writes them; a process with other values is refused. The number of shards is fixed for the
life of the state. The other settings expire AGREED_MS after the last process that holds them has ended, so
that they can be changed by stopping all processes.

The version of the wire between services is one of them. A process that finds another version waits until the
last process of that version has ended.
"""

from typing import Final

from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection, reports_unavailable

AGREED_MS: Final = 15_000
WIRE: Final = "WIRE"
# Version of all entries and messages between services; it grows when older services cannot read them.
WIRE_VERSION: Final = "4"
NO_VERSION: Final = "0"  # of a process that names none


class Agreement:
    """The keys `shards` and `settings`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def shards(self, ours: int) -> int:
        """The agreed number of shards: `ours` if none was written yet. Raises StateUnavailable."""
        return int(await self._connection.written_once(keys.shards(), str(ours)))

    async def settings(self, ours: dict[str, str]) -> dict[str, str]:
        """The agreed settings: `ours` if no running process has written others. Raises StateUnavailable."""
        theirs = await self._connection.written_once(keys.settings(), _text(ours), AGREED_MS)
        return {name: value for name, _, value in (word.partition("=") for word in theirs.split())}

    @reports_unavailable
    async def keep(self, ours: dict[str, str]) -> None:
        """Renew the agreed settings for AGREED_MS. Raises StateUnavailable."""
        await self._connection.commands.set(keys.settings(), _text(ours), px=AGREED_MS)


def _text(settings: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items())

"""Settings on which all who share a state must agree: written once, refused where they differ.

Into how many shards accounts are divided holds for the life of the state. The others are forgotten AGREED_MS
after the last process that holds them has ended, so that they can be changed by stopping all.

The version of the wire is one of them. Who meets another one waits until the last process of it has ended.
"""

from typing import Final

from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection, reports_unavailable

AGREED_MS: Final = 15_000
WIRE: Final = "WIRE"
WIRE_VERSION: Final = "1"  # of all that services tell each other here; grows when older ones cannot read it
NO_VERSION: Final = "0"  # of those who name none


class Agreement:
    """The keys `shards` and `settings`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def shards(self, ours: int) -> int:
        """The number of shards that holds here: ours where nobody has said any. Raises StateUnavailable."""
        return int(await self._connection.written_once(keys.shards(), str(ours)))

    async def settings(self, ours: dict[str, str]) -> dict[str, str]:
        """What holds here of these: ours where nobody lives who says otherwise. Raises StateUnavailable."""
        theirs = await self._connection.written_once(keys.settings(), _text(ours), AGREED_MS)
        return {name: value for name, _, value in (word.partition("=") for word in theirs.split())}

    @reports_unavailable
    async def keep(self, ours: dict[str, str]) -> None:
        """We live, and hold these. Raises StateUnavailable."""
        await self._connection.commands.set(keys.settings(), _text(ours), px=AGREED_MS)


def _text(settings: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items())

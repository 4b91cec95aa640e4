"""A client as a page is: what it shows, what it has been told about that, and whether it ever went back."""

import json
from typing import Any

from websockets.asyncio.client import ClientConnection


class WatchedPage:
    """One account on a page."""

    def __init__(self) -> None:
        self.value: dict[str, Any] = {}
        self.hops: list[str] = []
        self.moves = 0  # values with another (epoch, sequence) than the one before
        self.steps_back = 0

    async def read(self, socket: ClientConnection) -> None:
        """Take in all that comes, until the socket closes."""
        async for text in socket:
            message = json.loads(text)
            if message["type"] == "portfolio":
                self._take(message)
            elif message["type"] == "freshness":
                self.hops = message["stale_hops"]

    def _take(self, message: dict[str, Any]) -> None:
        if self.value:
            before, now = ((one["epoch"], one["sequence"]) for one in (self.value, message))
            self.steps_back += now < before
            self.moves += now != before
        self.value = message

    @property
    def is_live(self) -> bool:
        """Whether it has a value and nothing says that it is old."""
        is_whole = bool(self.value) and self.value["equity"] is not None
        return is_whole and not self.value["stale"] and not self.hops

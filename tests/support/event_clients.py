"""A client of the simulator's event streams."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from alpaca_sim.core.ledger import Activity
from tests.alpaca_sim.conftest import Running

PATH = "/v2beta1/events/activities"
FIRST_ID = "0" * 26
READ_S_MAX = 10


class Stream:
    """One open stream: its comments and events."""

    def __init__(self, response: httpx.Response) -> None:
        """The response is being streamed."""
        self.response = response
        self.comments: list[str] = []
        self._lines = response.aiter_lines()

    async def next(self) -> dict[str, Any] | None:
        """The next event; None at the end of the stream."""
        async with asyncio.timeout(READ_S_MAX):
            async for line in self._lines:
                if line.startswith("data: "):
                    return json.loads(line[6:])
                if line.startswith(":"):
                    self.comments.append(line)
        return None

    async def comment(self, text: str) -> None:
        """Read on until a comment holds this text."""
        async with asyncio.timeout(READ_S_MAX):
            async for line in self._lines:
                assert not line.startswith("data"), line
                if text in line:
                    return

    async def rest(self) -> list[dict[str, Any]]:
        """All events until the end of the stream."""
        found: list[dict[str, Any]] = []
        while event := await self.next():
            found.append(event)
        return found


@asynccontextmanager
async def open_stream(running: Running, path: str = PATH, **params: str) -> AsyncGenerator[Stream]:
    """One stream, closed at the end."""
    async with running.http.stream("GET", path, params=params, timeout=READ_S_MAX) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Stream(response)


def act(running: Running, count: int = 1) -> list[Activity]:
    """Some random activities."""
    return [running.sim.trader.act(running.account_ids[index % 4]) for index in range(count)]


def ids(happened: list[Activity]) -> list[str]:
    """Their event ids."""
    return [activity.event_id for activity in happened]

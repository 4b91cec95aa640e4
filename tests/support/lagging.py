"""A server that hears what is published a moment late."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.state.connection import Connection, Message, Subscribed

Follow = Callable[..., AsyncIterator[Message | Subscribed]]

LAG_S: Final = 1.0


def late(follow: Follow, is_heard: asyncio.Event | None = None) -> Follow:
    """What a server hears of values: each LAG_S after it was said, or only while `is_heard`."""

    async def followed(self: Connection, *channels: str) -> AsyncIterator[Message | Subscribed]:
        if not any("valuations" in name for name in channels):
            async for event in follow(self, *channels):
                yield event
            return
        now_s = asyncio.get_running_loop().time
        waiting: asyncio.Queue[tuple[float, Message | Subscribed]] = asyncio.Queue()

        async def hear() -> None:
            async for event in follow(self, *channels):
                waiting.put_nowait((now_s() + LAG_S, event))

        hearing = asyncio.create_task(hear())
        try:
            while True:
                due_s, event = await waiting.get()
                await (is_heard.wait() if is_heard else asyncio.sleep(max(0.0, due_s - now_s())))
                yield event
        finally:
            await cancel_until_ended([hearing])

    return followed

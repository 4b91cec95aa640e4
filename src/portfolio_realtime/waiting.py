"""Waits for an event, but not for longer than a given time."""

import asyncio
import contextlib


async def wait_at_most(wait_s: float | None, event: asyncio.Event) -> None:
    """Return when the event is set, or after `wait_s` seconds; None: however long it takes."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            await event.wait()

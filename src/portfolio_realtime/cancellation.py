"""Ends tasks reliably: a single cancellation can be lost."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

CANCEL_AGAIN_S: Final = 0.5


async def cancel_until_ended(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel tasks repeatedly until all have ended.

    Once is not enough: `asyncio.wait_for` of Python 3.11, in which the Valkey client writes, loses a
    cancellation that arrives as it returns. Callers cancel repeatedly as well, so being cancelled here does
    not end the wait; CancelledError is raised at the end.
    """
    pending = set(tasks)
    is_cancelled = False
    while pending:
        for task in pending:
            task.cancel()
        try:
            _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
        except asyncio.CancelledError:
            is_cancelled = True
            pending = {task for task in pending if not task.done()}
    for task in tasks:
        if not task.cancelled():
            task.exception()  # marks it as retrieved; the caller raises the first failure
    if is_cancelled:
        raise asyncio.CancelledError

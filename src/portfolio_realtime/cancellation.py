"""Ending tasks for certain: one cancellation can be lost."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

CANCEL_AGAIN_S: Final = 0.5


async def cancel_until_ended(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel until all have ended.

    Once is not enough: `asyncio.wait_for` of Python 3.11, in which the Valkey client writes, loses a
    cancellation that comes as it returns. Whoever waits for us does the same, so being cancelled here is no
    reason to leave the tasks alone.
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
            task.exception()  # it has been seen; the first failure is raised by the caller
    if is_cancelled:
        raise asyncio.CancelledError

"""How long a check may take. A peer that answers byte by byte is as bad as one that is mute."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from portfolio_realtime.cli.doctor.findings import Finding, Status

CHECK_S_MAX: Final = 10.0
START_S_MAX: Final = 25.0  # of the embedded Valkey, which a busy machine starts slowly
CLEAN_UP_S_MAX: Final = 1.0  # a connection to such a peer may not end in order, either

R = TypeVar("R")


@dataclass
class Asked:
    """Whom a check asks now, and what to do if it does not answer; a check that asks two says which."""

    peer: str
    remedy: str


async def in_time(
    check: str, asked: Asked, work: Awaitable[R], seconds_max: float | None = None
) -> R | Finding:
    """The result of a check, or after `seconds_max` (CHECK_S_MAX) a Finding that says who was too slow."""
    seconds_max = CHECK_S_MAX if seconds_max is None else seconds_max
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait({task}, timeout=seconds_max)
    if done:
        return task.result()
    task.add_done_callback(_retrieve)
    task.cancel()
    await asyncio.wait({task}, timeout=CLEAN_UP_S_MAX)
    found = f"{asked.peer} is too slow: no whole answer within {seconds_max:.0f} s"
    return Finding(check, Status.FAIL, found, asked.remedy)


def _retrieve(task: asyncio.Future[Any]) -> None:
    """Let nothing be logged about a check that was given up."""
    if not task.cancelled():
        task.exception()

"""Waits until every client shows the oracle's value."""

import asyncio
import time
from typing import Any, Final, Protocol

from portfolio_harness.clients import Clients
from portfolio_harness.comparison import ACCOUNT_RECORD
from portfolio_harness.oracle import Oracle, Truth
from portfolio_harness.progress import say

CONVERGE_S_MAX: Final = 15.0
UNMARKED_S_MAX: Final = 75.0  # a contradicting REST is accepted after a minute; then two more statements
MARKS_S: Final = 0.2
COMPARE_S_MIN: Final = 0.02  # the pause between comparisons; at least the duration of the last one


class Compared(Protocol):
    """Clients that can be compared with the truth: `Clients` or `ClientProcesses`."""

    async def mismatches(self, truths: dict[str, Truth]) -> dict[str, list[str]]:
        """Account id -> names of the figures that differ, for each client that differs."""
        ...


async def converge(
    oracle: Oracle, clients: Compared, deadline_s: float = CONVERGE_S_MAX
) -> tuple[dict[str, list[str]], float | None]:
    """Wait until every client shows the oracle's value.

    Returns what still differs (account id -> figures) and the seconds it took; None: not within `deadline_s`.
    The market must stand still.
    """
    started_s = time.monotonic()
    truths = await oracle.truth()
    while True:
        asked_s = time.monotonic()
        differing = await clients.mismatches(truths)
        waited_s = time.monotonic() - started_s
        if not differing:
            say(f"every account equals the oracle {waited_s:.2f} s after the market stopped")
            return differing, round(waited_s, 3)
        if waited_s > deadline_s:
            say(f"{len(differing)} accounts still differ after {waited_s:.0f} s")
            return differing, None
        await asyncio.sleep(max(COMPARE_S_MIN, time.monotonic() - asked_s))


async def until_unmarked(clients: Clients, deadline_s: float = UNMARKED_S_MAX) -> dict[str, list[str]]:
    """Wait until no account record is marked as unsure any more: the broker's next statement confirms it.

    Returns account id -> the marks that are left after `deadline_s`.
    """
    started_s = time.monotonic()
    while True:
        marked = {
            client.account_id: marks for client in clients.all if (marks := record_marks(client.newest))
        }
        if not marked or time.monotonic() - started_s > deadline_s:
            waited_s = time.monotonic() - started_s
            say(f"{len(marked)} accounts are still marked {waited_s:.1f} s after all were equal")
            return marked
        await asyncio.sleep(MARKS_S)


def record_marks(newest: dict[str, Any] | None) -> list[str]:
    """The marks of a message that say that its account record is not certain."""
    if newest is None:
        return []
    marks = [name for name in ("unconfirmed", "unexplained", "unvalued") if name in newest]
    return marks + [name for name in newest["stale"] if name == ACCOUNT_RECORD]

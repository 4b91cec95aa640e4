"""Waiting until every client shows the oracle's value."""

import asyncio
import sys
import time
from typing import Any, Final, Protocol

from portfolio_harness.clients import Clients
from portfolio_harness.oracle import Oracle, Truth

CONVERGE_S_MAX: Final = 15.0
ACCOUNT_RECORD: Final = "account_record"  # in `stale`: docs/api.md
UNMARKED_S_MAX: Final = 75.0  # a REST that trails is believed after a minute, and two looks more
MARKS_S: Final = 0.2
COMPARE_S_MIN: Final = 0.02  # between two comparisons; as long as the last one took if that is longer


class Compared(Protocol):
    """Clients that can be compared with the truth: a fleet, or several processes of them."""

    async def mismatches(self, truths: dict[str, Truth]) -> dict[str, list[str]]:
        """Account -> names of the figures that differ, for every client that differs."""
        ...


async def converge(
    oracle: Oracle, clients: Compared, deadline_s: float = CONVERGE_S_MAX
) -> tuple[dict[str, list[str]], float | None]:
    """Wait until every client shows the oracle's value: what still differs, and how long it took."""
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


async def until_unmarked(fleet: Clients, deadline_s: float = UNMARKED_S_MAX) -> dict[str, list[str]]:
    """Wait until no right value is marked any more, as the broker's next statement shows it to be right.

    Returns account -> what still marks its account record, for every client that is still told so.
    """
    started_s = time.monotonic()
    while True:
        marked = {
            client.account_id: marks for client in fleet.clients if (marks := record_marks(client.newest))
        }
        if not marked or time.monotonic() - started_s > deadline_s:
            say(
                f"{len(marked)} accounts are marked {time.monotonic() - started_s:.1f} s after all were equal"
            )
            return marked
        await asyncio.sleep(MARKS_S)


def record_marks(newest: dict[str, Any] | None) -> list[str]:
    """What of a message says that its account record is not sure."""
    if newest is None:
        return []
    marks = [name for name in ("unconfirmed", "unexplained", "unvalued") if name in newest]
    return marks + [name for name in newest["stale"] if name == ACCOUNT_RECORD]


def say(text: str) -> None:
    """Progress, for people."""
    print(text, file=sys.stderr, flush=True)

"""Waiting until every client shows the oracle's value."""

import asyncio
import sys
import time
from typing import Final, Protocol

from portfolio_harness.oracle import Oracle, Truth

CONVERGE_S_MAX: Final = 15.0
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


def say(text: str) -> None:
    """Progress, for people."""
    print(text, file=sys.stderr, flush=True)

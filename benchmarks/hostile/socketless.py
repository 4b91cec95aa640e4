"""Many hostile connections without a socket: what is sent follows from seed and number alone."""

import asyncio
import multiprocessing
import os
import random
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Final

from benchmarks.hostile.inputs import KINDS
from benchmarks.hostile.victim import OWN_CODES, Surprise, Victim
from portfolio_harness.progress import say
from portfolio_realtime import logs

PROGRESS_S: Final = 5.0


async def without_sockets(numbers: range, seed: int) -> Counter[str]:
    """Connections of all kinds, one for each number; how many of each close code.

    Raises Surprise with what repeats it.
    """
    victims = (Victim(is_open=True), Victim(is_open=False))
    kinds = list(KINDS)
    codes = Counter[str]()
    told_s = time.monotonic()
    for done, number in enumerate(numbers):
        sent = KINDS[kinds[number % len(kinds)]](random.Random(f"{seed}/{number}"))
        try:
            verdict = await victims[number % 2].meet(sent)
        except Exception as error:
            raise Surprise(f"seed {seed}, number {number}: {error!r}; sent {sent!r}") from error
        codes[str(verdict.code) if verdict.code in OWN_CODES else "none, or the client's own"] += 1
        if time.monotonic() - told_s > PROGRESS_S:
            told_s = time.monotonic()
            say(f"{done + 1} of {len(numbers)} connections without sockets")
    return codes


def side_by_side(count: int, seed: int) -> Counter[str]:
    """The same for the first `count` numbers, in a process for each core. Raises Surprise."""
    processes = os.cpu_count() or 1
    parts = [range(first, count, processes) for first in range(processes)]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(partial(_part, seed=seed), parts), Counter[str]())


def _part(numbers: range, seed: int) -> Counter[str]:
    logs.configure("hostile", "error", "console")
    return asyncio.run(without_sockets(numbers, seed))

"""The machine of a trial: its clocks and its chance, instead of those of the machine on which it runs.

Whatever the product asks of `time`, `random`, `secrets`, `uuid` or `os.urandom` is answered by the virtual
time and the seed. So no trial depends on how busy this machine is, or on what ran before.
"""

import contextlib
import os
import random
import secrets
import time
from collections.abc import Callable, Generator
from typing import Any, Final
from unittest import mock

from portfolio_harness.simulation.broker_truth import NS, wall_ns
from portfolio_harness.simulation.virtual_loop import VirtualLoop, current_process

WALL_CLOCKS: Final = ("time",)
STEADY_CLOCKS: Final = ("monotonic", "perf_counter", "process_time", "thread_time")


@contextlib.contextmanager
def simulated_machine(loop: VirtualLoop, seed: int) -> Generator[None]:
    """Run the block with the clocks of the loop, and with chance that the seed decides."""
    random.seed(seed)
    chance = random.Random(f"machine {seed}")
    with contextlib.ExitStack() as patches:

        def put(owner: Any, name: str, value: Any) -> None:
            patches.enter_context(mock.patch.object(owner, name, value))

        for names, now_ns in ((WALL_CLOCKS, _wall(loop)), (STEADY_CLOCKS, lambda: int(loop.time() * NS))):
            for name in names:
                put(time, name, _seconds(now_ns))
                put(time, f"{name}_ns", now_ns)
        put(os, "urandom", chance.randbytes)
        put(secrets, "token_bytes", lambda count=32: chance.randbytes(count or 32))
        put(secrets, "randbits", chance.getrandbits)
        put(secrets, "randbelow", chance.randrange)
        put(secrets, "choice", chance.choice)
        yield


def _seconds(now_ns: Callable[[], int]) -> Callable[[], float]:
    return lambda: now_ns() / NS


def _wall(loop: VirtualLoop) -> Callable[[], int]:
    """The wall clock, which is wrong in a process whose clock was shifted."""

    def now_ns() -> int:
        process = current_process()
        return wall_ns(loop.time() + (process.skew_s if process is not None else 0.0))

    return now_ns

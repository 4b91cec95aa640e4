"""Measures the delay of the event loop."""

import asyncio
from collections.abc import Callable
from typing import Final

from portfolio_realtime.clock import Clock
from portfolio_realtime.telemetry import CalculatorMetrics

PAUSE_LOOK_S: Final = 0.05  # between two measurements …
UNWATCHED_LOOK_S: Final = 1.0  # … while nobody watches, so that no publication can be late
PAUSE_WINDOW_S: Final = 60.0  # the longest delay of the last one to two windows is shown


async def measure(clock: Clock, metrics: CalculatorMetrics, is_watched: Callable[[], bool]) -> None:
    """Measure the delay of the event loop without end: at worst, a publication is this late."""
    window_ends_s, before_s, longest_s = clock.monotonic_s() + PAUSE_WINDOW_S, 0.0, 0.0
    while True:
        look_s = PAUSE_LOOK_S if is_watched() else UNWATCHED_LOOK_S
        due_s = clock.monotonic_s() + look_s
        await asyncio.sleep(look_s)
        late_s = max(0.0, clock.monotonic_s() - due_s)
        metrics.pause.observe(late_s)
        longest_s = max(longest_s, late_s)
        if clock.monotonic_s() > window_ends_s:
            window_ends_s, before_s, longest_s = clock.monotonic_s() + PAUSE_WINDOW_S, longest_s, 0.0
        metrics.longest_pause.set(max(before_s, longest_s))

"""Simulated trading days: where they begin, and how to let them pass."""

from datetime import time
from typing import Any

from alpaca_sim.core.clock import MovableClock, parse_time_ns
from tests.alpaca_sim.conftest import Running, Start

MONDAY_PRE = "2026-11-23T04:00:00-05:00"  # Thanksgiving week: Thursday is closed, Friday ends at 13:00
ROLL = {"calendar": "nyse", "roll_at": time(2, 15)}


async def begin(start: Start, at: str = MONDAY_PRE, **settings: Any) -> Running:
    """A simulator in virtual time, on New York's calendar."""
    return await start(clock=MovableClock(parse_time_ns(at), 0), **{**ROLL, **settings})


async def go(running: Running, to: str) -> None:
    """Move the clock ahead."""
    await running.post("/_sim/clock", set=to)

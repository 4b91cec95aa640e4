"""The real services under a clock that is moved by hand, so that days go by in seconds.

The simulator is a process whose clock stands still between two moves (`--speed 0`). The services are tasks of
this process, the same coroutines that `service.main` runs; they know no simulator, only the Clock of their
Context, and it is moved together with the simulator's. What belongs to the calendar follows that clock:
sessions, dates, the age of marks, which booking is in which statement. What belongs to sockets stays in the
time of the wall: timeouts, leases, rate limits, `monotonic_s`.

A program and its broker never differ much in time. So the market moves, and bookings are made, in steps of
STEP_S only, both clocks set after each; hours without either are jumped over in one move.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry

from portfolio_harness.oracle import Oracle
from portfolio_harness.system import free_port, settings_for, start_simulator
from portfolio_realtime import config, service
from portfolio_realtime.clock import NS_PER_S, parse_rfc3339, rfc3339
from portfolio_realtime.market_data_consumer import consumer
from portfolio_realtime.portfolio_calculator import calculator
from portfolio_realtime.processes import end_all
from portfolio_realtime.service import Context, Run
from portfolio_realtime.state import open_state
from portfolio_realtime.state.embedded import EmbeddedServer
from portfolio_realtime.symbol_collector import collector
from portfolio_realtime.websocket_server import server

STEP_S: Final = 1.0  # of a stretch in which the market moves
READY_S_MAX: Final = 20.0
SERVICES: Final[dict[str, Run]] = {
    "symbol_collector": collector.run,
    "market_data_consumer": consumer.run,
    "portfolio_calculator": calculator.run,
    "websocket_server": server.run,
}


class VirtualClock:
    """The calendar's time stands still until it is moved; deadlines are the wall's."""

    def __init__(self, now_ns: int) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC, as last moved."""
        return self._now_ns

    def monotonic_s(self) -> float:
        """Seconds of the wall that never go back."""
        return time.monotonic()

    def move_to(self, now_ns: int) -> None:
        """Go ahead; never back."""
        self._now_ns = max(self._now_ns, now_ns)


@dataclass(frozen=True)
class VirtualSystem:
    """A running system and the hand that moves its time."""

    url: str  # of the WebSocket server
    oracle: Oracle
    clock: VirtualClock

    async def jump(self, to_ns: int) -> None:
        """Go to a moment. The market stands still; the broker's own work happens at its own time."""
        if to_ns > self.clock.now_ns():
            await self._move(to_ns, moves=False)

    async def live(self, seconds: float) -> None:
        """Let the market trade and the accounts act for so long."""
        for _ in range(round(seconds / STEP_S)):
            await self._move(self.clock.now_ns() + int(STEP_S * NS_PER_S), moves=True)

    async def wait(self, seconds: float) -> None:
        """So long in the wall's time and in the calendar's; the market stands still."""
        await asyncio.sleep(seconds)
        await self.jump(self.clock.now_ns() + int(seconds * NS_PER_S))

    async def _move(self, to_ns: int, *, moves: bool) -> None:
        answer = await self.oracle.pull("clock", set=rfc3339(to_ns), moves=moves)
        self.clock.move_to(parse_rfc3339(answer["now"]))


async def use(
    options: Sequence[str],
    overrides: dict[str, Any],
    start: str,
    work: Callable[[VirtualSystem], Awaitable[None]],
) -> None:
    """Start everything at a moment (RFC 3339), do `work`, and end everything.

    `options` are the simulator's, `overrides` are settings. Raises SystemFailed, SettingsError, and what a
    service or `work` raises.
    """
    simulator, simulator_url = await start_simulator([*options, "--start", start, "--speed", "0"])
    oracle, valkey, port = Oracle(simulator_url), EmbeddedServer(), free_port(0)
    try:
        await valkey.start()
        named = {name.lower(): value for name, value in settings_for(simulator_url, port, "").items()}
        settings = config.load(**{**named, **overrides})
        system = VirtualSystem(f"http://127.0.0.1:{port}", oracle, VirtualClock(parse_rfc3339(start)))
        contexts = {name: _context(name, settings, valkey.url, system.clock) for name in SERVICES}
        try:
            running = [SERVICES[name](context) for name, context in contexts.items()]
            await service.together(*running, work(system))
        finally:
            for context in contexts.values():
                await context.state.close()
    finally:
        await oracle.close()
        await valkey.stop()
        await end_all([simulator])


def _context(name: str, settings: config.Settings, url: str, clock: VirtualClock) -> Context:
    state = open_state(url, holder=name, shards=settings.shards, lease_ms=settings.lease_ms)
    return Context(settings, state, clock, CollectorRegistry(), name)

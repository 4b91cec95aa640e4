"""Runs the real services under a clock that is moved by hand, so that days take seconds.

The simulator is a process whose clock only moves when it is told to (`--speed 0`). The services are tasks of
this process, the same coroutines that `service.main` runs. They use the Clock of their Context, which is
moved together with the simulator's. Calendar time follows that clock: sessions, dates, the age of marks, and
which booking is in which statement. Wall-clock time remains for timeouts, leases, rate limits and
`monotonic_s`.

The clocks of a service and its broker never differ much. So the market trades and bookings are made in steps
of STEP_S, with both clocks set after each step. Hours without trades and bookings are one jump.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry

from portfolio_harness.oracle import Oracle
from portfolio_harness.system import settings_for, start_simulator
from portfolio_realtime import config, service
from portfolio_realtime.clock import NS_PER_S, parse_rfc3339, rfc3339
from portfolio_realtime.market_data_consumer import consumer
from portfolio_realtime.portfolio_calculator import calculator
from portfolio_realtime.processes import end_all
from portfolio_realtime.service import Context, Run
from portfolio_realtime.state import open_state
from portfolio_realtime.state.embedded import EmbeddedServer, free_port
from portfolio_realtime.symbol_collector import collector
from portfolio_realtime.websocket_server import server

STEP_S: Final = 1.0  # virtual seconds per step while the market trades
READY_S_MAX: Final = 20.0
SERVICES: Final[dict[str, Run]] = {
    "symbol_collector": collector.run,
    "market_data_consumer": consumer.run,
    "portfolio_calculator": calculator.run,
    "websocket_server": server.run,
}


class VirtualClock:
    """A clock whose calendar time only changes by `move_to`, and whose monotonic time is real."""

    def __init__(self, now_ns: int) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        """Virtual nanoseconds since the epoch."""
        return self._now_ns

    def monotonic_s(self) -> float:
        """Real monotonic seconds."""
        return time.monotonic()

    def move_to(self, now_ns: int) -> None:
        """Move ahead to `now_ns`; an earlier time changes nothing."""
        self._now_ns = max(self._now_ns, now_ns)


@dataclass(frozen=True)
class VirtualSystem:
    """A running system in virtual time."""

    url: str  # of the WebSocket server
    oracle: Oracle
    clock: VirtualClock

    async def jump(self, to_ns: int) -> None:
        """Jump to a time without market trades; the simulator's jobs run, each at its own time."""
        if to_ns > self.clock.now_ns():
            await self._move(to_ns, moves=False)

    async def live(self, seconds: float) -> None:
        """Let the market and the accounts trade for `seconds` of virtual time."""
        for _ in range(round(seconds / STEP_S)):
            await self._move(self.clock.now_ns() + int(STEP_S * NS_PER_S), moves=True)

    async def wait(self, seconds: float) -> None:
        """Wait `seconds` of wall-clock time and of virtual time, without market trades."""
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
    """Start everything at the virtual time `start` (RFC 3339), run `work`, and stop everything.

    `options` are the simulator's, `overrides` are settings. Raises SystemFailed, SettingsError, and whatever
    a service or `work` raises.
    """
    simulator, simulator_url = await start_simulator([*options, "--start", start, "--speed", "0"])
    oracle, port = Oracle(simulator_url), free_port()
    try:
        async with EmbeddedServer() as valkey:
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
        await end_all([simulator])


def _context(name: str, settings: config.Settings, url: str, clock: VirtualClock) -> Context:
    state = open_state(url, holder=name, shards=settings.shards, lease_ms=settings.lease_ms)
    return Context(settings, state, clock, CollectorRegistry(), name)

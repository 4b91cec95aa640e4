"""One trial: a seed makes a world, a plan of faults and all random choices; the judge notes what failed."""

import asyncio
import contextlib
import gc
import logging
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from unittest import mock

import structlog

from portfolio_harness.simulation import nemeses
from portfolio_harness.simulation.broker_truth import NS, TrueBooking, TrueTrade, wall_ns
from portfolio_harness.simulation.judge import Fault
from portfolio_harness.simulation.links import SimulatedClient
from portfolio_harness.simulation.machine import simulated_machine
from portfolio_harness.simulation.makers import REPEAT_RATIO
from portfolio_harness.simulation.stories import TrialStory
from portfolio_harness.simulation.virtual_loop import EPOCH_S, SimulationStuck, VirtualLoop
from portfolio_harness.simulation.world import LEASE_MS, OPERATOR_URL, SETTINGS, SHARDS, SharedMetrics, World
from portfolio_realtime.portfolio_calculator import loop_delay, totals_refresh
from portfolio_realtime.state import clients, open_state
from portfolio_realtime.state.revocations import SubjectRevocation
from portfolio_realtime.websocket_server.access.identity import Identity

# After the last fault and the last booking: takeovers, two statements of a record, and 2 s.
QUIET_S_MAX: Final = 15.0
LOOK_S: Final = 0.5
TRADES_PER_S: Final = 3.0
BOOKINGS_PER_S: Final = 0.8
EVENT_LATE_S_MAX: Final = 1.0
FEED_LATE_S_MAX: Final = 0.05
VISITOR: Final = "visitor"  # the subject whose tokens are revoked
VISIT_S: Final = 0.25
COLLECT_TRIALS: Final = (
    25  # garbage is collected after as many: it takes 25 ms, and 4 MB of memory until then
)
TOTALS_S: Final = 5.0  # as in a busy calculator


@dataclass(frozen=True)
class Verdict:
    """The result of one seed."""

    seed: int
    plan: tuple[str, ...]
    faults: tuple[Fault, ...]  # broken promises
    converged_s: float | None  # from the last fault until every client was right; None: not in time
    messages: int  # that clients received
    history: int  # a checksum of all commands that Valkey ran and all messages to clients, with their times

    def __str__(self) -> str:
        return "\n  ".join([f"seed {self.seed}", *self.plan, *map(str, self.faults[:5])])


class Simulation:
    """Runs trials, in a process that does nothing else; what all trials share is made once."""

    def __init__(self, story: TrialStory) -> None:
        self._story = story
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        self._metrics = SharedMetrics()
        self._trials = 0
        # No garbage is collected in the middle of a trial: it would finalize killed coroutines.
        gc.collect()
        gc.freeze()
        gc.disable()
        sys.unraisablehook = _ignore

    def run(self, seed: int) -> Verdict:
        """Run one trial. The same seed gives the same verdict."""
        loop = VirtualLoop()
        with simulated_machine(loop, seed), _without_network():
            self._trials += 1
            try:
                return loop.run_until_complete(self._trial(seed, loop))
            finally:
                loop.close()
                if not self._trials % COLLECT_TRIALS:
                    gc.collect()

    def run_all(self, seeds: Sequence[int]) -> list[Verdict]:
        """Run one trial for each of these seeds."""
        return list(map(self.run, seeds))

    async def _trial(self, seed: int, loop: VirtualLoop) -> Verdict:
        world = World(seed, self._story, loop, self._metrics)
        plan = nemeses.drawn(world.rng, list(world.services), self._story)
        over_s = EPOCH_S + max(fault.at_s + fault.for_s for fault in plan) + nemeses.RECONNECT_S
        suffering = [loop.create_task(nemeses.suffer(world, fault)) for fault in plan]
        life = [
            loop.create_task(part)
            for part in (_trade(world, over_s), _book(world, over_s), _visit(world, self._story.warm_s))
        ]
        loop.call_at(EPOCH_S + self._story.clients_s, world.attach_clients)
        converged_s: float | None = None
        try:
            while loop.time() < over_s + QUIET_S_MAX and converged_s is None:
                await asyncio.sleep(LOOK_S)
                world.judge.look(world.histories, loop.time())
                is_quiet = loop.time() > over_s + EVENT_LATE_S_MAX
                if is_quiet and not world.judge.differing(world.histories):
                    converged_s = loop.time() - over_s
                if world.judge.faults:
                    break
        except SimulationStuck as stuck:
            world.judge.note("P13", loop.time(), str(stuck))
        if converged_s is None and not world.judge.faults:
            for wrong in world.judge.differing(world.histories):
                world.judge.note("P1", loop.time(), wrong)
        for failure in [task.exception() for task in (*suffering, *life) if task.done()]:
            if failure is not None:
                raise failure
        for failure in world.failures():
            world.judge.note("P13", loop.time(), failure)
        return Verdict(
            seed,
            tuple(map(str, plan)),
            tuple(world.judge.faults),
            converged_s,
            world.judge.seen.total(),
            world.history.checksum,
        )


async def _trade(world: World, until_s: float) -> None:
    """Make random trades; each reaches every consumer a little later."""
    loop, rng = world.loop, world.rng
    while loop.time() < until_s:
        await asyncio.sleep(rng.expovariate(TRADES_PER_S))
        trade = world.truth.trade(loop.time())
        loop.call_later(rng.uniform(0, FEED_LATE_S_MAX), _tell_trade, world, trade)


def _tell_trade(world: World, trade: TrueTrade) -> None:
    if world.is_feed_there:
        world.each("consumer", lambda consumer: consumer.take(trade))


async def _book(world: World, until_s: float) -> None:
    """Make random bookings; their events arrive late, in order, and sometimes twice."""
    loop, rng = world.loop, world.rng
    told_s = 0.0
    while loop.time() < until_s:
        await asyncio.sleep(rng.expovariate(BOOKINGS_PER_S))
        booking = world.truth.book(rng.choice(list(world.truth.accounts)), loop.time())
        told_s = max(told_s, loop.time() + rng.uniform(0, EVENT_LATE_S_MAX))
        loop.call_at(told_s, _tell_booking, world, booking)
        if rng.random() < REPEAT_RATIO:
            loop.call_at(told_s + rng.uniform(0, 2), _tell_booking, world, booking)


def _tell_booking(world: World, booking: TrueBooking) -> None:
    world.each("collector", lambda collector: collector.take(booking))


async def _visit(world: World, warm_s: float) -> None:
    """Revoke somebody's tokens; then try to get in with one, again and again, at every server (P12)."""
    began_s = wall_ns(world.loop.time()) / NS
    state = open_state(OPERATOR_URL, holder="operator", shards=SHARDS, lease_ms=LEASE_MS, is_cluster=False)
    await state.revocations.confirm()  # as in a system that has been running for long
    await state.revocations.write(SubjectRevocation(VISITOR, int(began_s) + 1), SETTINGS.jwt_lifetime_max)
    identity = Identity(
        VISITOR, frozenset(world.truth.accounts), expires_at_s=began_s + 3600, issued_at_s=began_s - 1
    )
    await asyncio.sleep(warm_s)
    while True:
        for running in world.services.values():
            is_asked = running.name.startswith("server") and not running.process.is_frozen
            if is_asked and not running.process.is_dead and await running.part.admits(identity):
                world.judge.note("P12", world.loop.time(), f"{running.name} lets in a revoked token")
        await asyncio.sleep(VISIT_S)


@contextlib.contextmanager
def _without_network() -> Generator[None]:
    """Patch the product to use the simulated network, and not to measure the machine."""

    async def measure_nothing(*_: Any) -> None:
        await asyncio.Event().wait()

    with (
        mock.patch.object(clients, "LeanClient", SimulatedClient),
        mock.patch.object(loop_delay, "measure", measure_nothing),
        mock.patch.object(totals_refresh, "TOTALS_S", TOTALS_S),
    ):
        SimulatedClient.links.clear()
        yield


def _ignore(_: Any) -> None:
    """Drop warnings about coroutines of killed processes, which never end."""

"""Who fetches accounts sleeps until one is due, and wakes for one that is due sooner; in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from portfolio_harness.simulation.virtual_loop import VirtualLoop
from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.symbol_collector.fetch_schedule import DueFetch, FetchSchedule
from portfolio_realtime.symbol_collector.fetch_turns import CLOCK_STEP_S, LOOK_S_MAX, FetchTurns
from tests.support.clocks import LoopClock

LATE_S_MAX: Final = 2 * CLOCK_STEP_S
LOOKS_MAX: Final = 25  # in the 10 s of the quiet test; a look every 50 ms would make 200


def run(scenario: Callable[[VirtualLoop, FetchTurns], Awaitable[None]]) -> None:
    loop = VirtualLoop()
    try:
        loop.run_until_complete(asyncio.wait_for(scenario(loop, FetchTurns(LoopClock(loop))), 60))
    finally:
        loop.close()


def due_in(loop: VirtualLoop, seconds: float) -> int:
    return int((loop.time() + seconds) * NS_PER_S)


def test_an_account_has_its_turn_when_it_is_due() -> None:
    async def scenario(loop: VirtualLoop, turns: FetchTurns) -> None:
        began_s = loop.time()
        turns.schedule.set_due("A", due_in(loop, 10.0))
        assert await turns.next(is_urgent_only=False) == DueFetch("A", is_urgent=False)
        assert 10.0 <= loop.time() - began_s < 10.0 + LATE_S_MAX

    run(scenario)


def test_an_account_that_is_due_sooner_does_not_wait_for_the_next_look() -> None:
    """Two wait for turns: one for any account, and one for those that clients wait for."""

    async def scenario(loop: VirtualLoop, turns: FetchTurns) -> None:
        turns.schedule.set_due("later", due_in(loop, 3600.0))
        any_turn = asyncio.ensure_future(turns.next(is_urgent_only=False))
        await asyncio.sleep(LOOK_S_MAX / 5)
        sooner_s = loop.time()
        turns.schedule.set_due("sooner", due_in(loop, 0.0))
        assert (await any_turn).account_id == "sooner"
        assert loop.time() - sooner_s < LATE_S_MAX

        urgent = asyncio.ensure_future(turns.next(is_urgent_only=True))
        await asyncio.sleep(LOOK_S_MAX / 5)
        assert not urgent.done()
        watched_s = loop.time()
        turns.schedule.done("sooner", due_in(loop, 0.0))
        turns.schedule.begin_to_watch("sooner")
        assert await urgent == DueFetch("sooner", is_urgent=True)
        assert loop.time() - watched_s < LATE_S_MAX

    run(scenario)


def test_a_quiet_collector_looks_seldom() -> None:
    """Each look is a wake-up of the process, which costs more than the look."""

    class Counted(FetchSchedule):
        looks = 0

        def next(self, now_ns: int, *, is_urgent_only: bool = False) -> DueFetch | None:
            self.looks += 1
            return super().next(now_ns, is_urgent_only=is_urgent_only)

    async def scenario(loop: VirtualLoop, turns: FetchTurns) -> None:
        turns.schedule = schedule = Counted()
        schedule.set_due("A", due_in(loop, 10.0))
        await turns.next(is_urgent_only=False)
        assert schedule.looks < LOOKS_MAX

    run(scenario)

"""A broker whose event stream falls mute is told within seconds, however seldom its heartbeats come."""

import asyncio
import time

import httpx

from portfolio_realtime.state import State, feeds
from portfolio_realtime.symbol_collector.sources.stream_probe import SILENT_S
from tests.conftest import StartSimulator, Until
from tests.support.collectors import all_known, context_of, running


async def test_mute_events_are_told_whatever_the_rhythm_of_their_heartbeats(
    simulator: StartSimulator, state: State, until: Until
) -> None:
    """Within seconds, long before a heartbeat is missed; and live again with an answer, not with one."""
    broker = await simulator(activities_per_second=0, heartbeat=600)
    context = context_of(broker, state)

    async def is_heard() -> bool:
        return bool(await state.feeds.live([feeds.ACCOUNTS]))

    async def is_silent() -> bool:
        return not await is_heard()

    async with running(context):
        await until(all_known(broker, state), "all accounts are known")
        await until(is_heard, "the broker is heard")
        await asyncio.sleep(2 * SILENT_S)
        assert await is_heard(), "a quiet broker is not silent"
        began_s = time.monotonic()
        await broker.post("/_sim/faults", {"faults": [{"kind": "events.mute", "for_s": 600}]})
        await until(is_silent, "told")
        print(f"told after {time.monotonic() - began_s:.1f} s")
        await asyncio.sleep(2 * SILENT_S)
        assert await is_silent()
        async with httpx.AsyncClient(base_url=broker.url) as client:
            await client.delete("/_sim/faults")
        await until(is_heard, "heard again")

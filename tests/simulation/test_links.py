"""The network of the simulation: what becomes of messages that are on their way."""

import asyncio
import random

from portfolio_harness.simulation.links import SimulatedLink, SimulatedNetwork, SimulatedReceiver
from portfolio_harness.simulation.made_up_valkey import MadeUpValkey
from portfolio_harness.simulation.virtual_loop import SimulatedProcess, VirtualLoop


def test_a_message_arrives_though_its_sender_is_killed() -> None:
    """Valkey has it already. A follower that is killed hears nothing more."""
    loop = VirtualLoop()
    network = SimulatedNetwork(MadeUpValkey(lambda: 0), random.Random(1))
    heard = dict[str, list[bytes]](living=[], dead=[])
    living, dead, sender = (SimulatedProcess(name, loop) for name in ("living", "dead", "sender"))

    async def follow(name: str) -> None:
        receiver = SimulatedReceiver(SimulatedLink(network), lambda _, payload: heard[name].append(payload))
        await receiver.subscribe(["news"], is_sharded=False, wait_s=5.0)

    async def publish() -> None:
        await asyncio.sleep(1.0)
        assert await SimulatedLink(network).request([("PUBLISH", "news", "first")]) == [2]
        sender.kill()
        dead.kill()

    living.start(follow("living"))
    dead.start(follow("dead"))
    sender.start(publish())
    loop.run_until_complete(asyncio.sleep(5.0))
    loop.close()

    assert heard == {"living": [b"first"], "dead": []}

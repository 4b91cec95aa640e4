"""Servers come, go and are killed while accounts move once more and rest: nobody is left with an old value.

A value that rests is published to nobody again. So a server that begins to watch while the last publication
is made must get it, whether the calculators know of it yet or not.
"""

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from portfolio_harness.chaos.place import Place, ServiceProcess
from portfolio_harness.oracle import Oracle
from portfolio_harness.system import wait_ready
from portfolio_realtime.cancellation import cancel_until_ended
from tests.conftest import KIND, Until
from tests.support.pages import WatchedPage

ACCOUNTS: Final = 4
ROUNDS: Final = 5
RIGHT_S_MAX: Final = 60.0  # 2 s on a machine that has time
PAUSE_S: Final = 0.2
CALCULATORS_CHANGE: Final = 0.4  # in so many of the rounds
SEED: Final = 35
OVERRIDES: Final = {"MIN_UPDATE_INTERVAL": "0.2"}

pytestmark = pytest.mark.timeout(900)  # a machine with much else to do


class Viewer:
    """A client that goes on with what it has seen, at whichever server."""

    def __init__(self, place: Place, account_id: str) -> None:
        self.page = WatchedPage()
        self.account_id = account_id
        self._place = place
        self._reading: asyncio.Task[None] | None = None

    async def go_to(self, url: str) -> None:
        """Leave the server where it is, and connect to this one until it is there."""
        await self.leave()
        self._reading = asyncio.create_task(self._read(url))

    async def leave(self) -> None:
        """Close the connection."""
        if self._reading is not None:
            await cancel_until_ended([self._reading])

    async def _read(self, url: str) -> None:
        headers = {"Authorization": f"Bearer {self._place.token_for(self.account_id)}"}
        address = url.replace("http", "ws", 1) + f"/ws/portfolio/{self.account_id}"
        while True:
            seen = self.page.value
            have = f"?epoch={seen['epoch']}&sequence={seen['sequence']}" if seen else ""
            with contextlib.suppress(OSError, WebSocketException):
                async with connect(address + have, additional_headers=headers, ping_interval=None) as socket:
                    self.page.hops = []  # what another connection was told
                    await self.page.read(socket)
            await asyncio.sleep(PAUSE_S)


async def replaced(service: ServiceProcess, url: str, how: signal.Signals) -> None:
    """End a server, and start its successor, which has another name."""
    await service.kill(how)
    await service.start()
    await wait_ready(url)


@contextlib.asynccontextmanager
async def viewed(folder: Path) -> AsyncGenerator[tuple[Place, Oracle, list[Viewer]]]:
    """Two of everything, and for each account a client at each server."""
    place = Place(folder, SEED, ACCOUNTS, kind=KIND)
    async with place.running(OVERRIDES) as oracle, contextlib.AsyncExitStack() as stack:
        viewers = [Viewer(place, one) for one in await oracle.account_ids() for _ in place.urls]
        for number, viewer in enumerate(viewers):
            stack.push_async_callback(viewer.leave)
            await viewer.go_to(place.urls[number % 2])
        yield place, oracle, viewers


async def test_nobody_is_left_with_an_old_value_that_rests(tmp_path: Path, until: Until) -> None:
    """Killed or drained in turn; clients change servers at the moment at which the market stops."""
    rng = random.Random(SEED)
    async with viewed(tmp_path) as (place, oracle, viewers):

        async def are_right() -> bool:
            truth = await oracle.truth()
            return all(
                viewer.page.is_live
                and viewer.page.value["equity"] == truth[viewer.account_id].figures["equity"]
                for viewer in viewers
            )

        for number in range(ROUNDS):
            await oracle.resume()
            changing = number % 2
            service, url = place.of("websocket_server")[changing], place.urls[changing]
            how = rng.choice((signal.SIGKILL, signal.SIGTERM))
            replacing = asyncio.create_task(replaced(service, url, how))
            if rng.random() < CALCULATORS_CHANGE:
                calculator = rng.choice(place.of("portfolio_calculator"))
                await calculator.kill()
                await calculator.start()
            for viewer in rng.sample(viewers, len(viewers) // 2):
                await viewer.go_to(rng.choice(place.urls))
            await asyncio.gather(replacing)
            moving = [
                asyncio.create_task(viewer.go_to(url)) for viewer in rng.sample(viewers, len(viewers) // 2)
            ]
            await asyncio.sleep(rng.uniform(0, PAUSE_S))
            await oracle.pause()
            await asyncio.gather(*moving)
            await until(are_right, f"all are right at rest in round {number}", RIGHT_S_MAX)
        assert [viewer.page.steps_back for viewer in viewers] == [0] * len(viewers)

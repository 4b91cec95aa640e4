"""Each hop between the broker and a client is stopped in turn: the client is told which, and told again."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect

from portfolio_harness.system import System, running
from portfolio_realtime.cancellation import cancel_until_ended
from tests.conftest import KIND, Until

MARKED_S_MAX: Final = 30.0  # 5 s on a machine that has time
OPTIONS: Final = ("--accounts", "6", "--symbols", "12", "--seed", "5", "--trades-per-second", "60")
OVERRIDES: Final = {"MIN_UPDATE_INTERVAL": "0.2", "LOG_LEVEL": "warning"}


class Page:
    """A client as a page is: what it shows, and what it has been told about that."""

    def __init__(self) -> None:
        self.value: dict[str, Any] = {}
        self.hops: list[str] = []

    async def read(self, socket: ClientConnection) -> None:
        """Take in all that comes, until the socket closes."""
        async for text in socket:
            message = json.loads(text)
            if message["type"] == "portfolio":
                self.value = message
            elif message["type"] == "freshness":
                self.hops = message["stale_hops"]

    @property
    def is_live(self) -> bool:
        """Whether it has a value and nothing says that it is old."""
        return bool(self.value) and not self.value["stale"] and not self.hops


@contextlib.asynccontextmanager
async def watching(system: System, account_id: str) -> AsyncGenerator[Page]:
    """A page on an account; its socket must be open at the end."""
    page = Page()
    url = system.url.replace("http", "ws", 1) + f"/ws/portfolio/{account_id}"
    headers = {"Authorization": f"Bearer {system.token_for(account_id)}"}
    async with connect(url, additional_headers=headers, ping_interval=None) as socket:
        reading = asyncio.create_task(page.read(socket))
        yield page
        assert not reading.done(), socket.close_code
        await cancel_until_ended([reading])


def send(pids: list[int], number: signal.Signals) -> None:
    """To each of these processes."""
    for pid in pids:
        os.kill(pid, number)


async def test_each_hop_that_stops_is_told(until: Until) -> None:
    """Calculator, collector, consumer, Valkey: marked, nobody cut off, and live again afterwards."""
    told: dict[str, Callable[[Page], bool]] = {
        "portfolio_calculator": lambda page: page.hops == ["calculator"],
        "symbol_collector": lambda page: (
            page.hops == ["collector"] and page.value["stale"] == ["account_record"]
        ),
        "market_data_consumer": lambda page: bool(page.value["stale"]) and not page.hops,
        "valkey": lambda page: page.hops in (["calculator"], ["valkey"]),
    }
    async with running(OPTIONS, port=0, overrides=OVERRIDES, valkey=KIND) as system:
        account_ids = await system.oracle.account_ids()
        async with watching(system, account_ids[0]) as page:
            await until(lambda: page.is_live, "a live value")
            for name, is_told in told.items():
                pids, began_s = system.pids_of(name), time.monotonic()
                send(pids, signal.SIGSTOP)
                try:
                    await until(lambda told=is_told: told(page), f"{name} is told", MARKED_S_MAX)
                    marked_s = time.monotonic() - began_s
                    if name == "portfolio_calculator":
                        async with watching(system, account_ids[0]) as late:
                            await until(lambda late=late: late.hops or late.value, "something comes")
                            assert not late.is_live
                finally:
                    send(pids, signal.SIGCONT)
                began_s = time.monotonic()
                await until(lambda: page.is_live, f"live again after {name}", MARKED_S_MAX)
                print(f"{name}: marked after {marked_s:.1f} s, live {time.monotonic() - began_s:.1f} s after")

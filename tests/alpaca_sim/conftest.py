"""A simulator inside the test's own event loop, on a real port: sockets are real, its state can be seen."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from decimal import Decimal
from typing import Any

import httpx
import pytest

from alpaca_sim.app import bind, serve
from alpaca_sim.core.clock import Clock
from alpaca_sim.core.market import Market
from alpaca_sim.simulator import Settings, Simulator, TradeSource
from portfolio_realtime import config
from portfolio_realtime.alpaca.http import basic

START_S_MAX = 10
BASIC = httpx.BasicAuth("sim-key", "sim-secret")
BROKER = basic("sim-key", "sim-secret")  # the same for the product's own client
AUTH_MESSAGE = {"action": "auth", "key": "sim-key", "secret": "sim-secret"}


class Running:
    """One served simulator. `get` and `post` speak JSON; `get` brings the credentials."""

    def __init__(self, sim: Simulator, url: str) -> None:
        """`url` has no path."""
        self.sim = sim
        self.url = url
        self.ws_url = url.replace("http", "ws", 1)
        self.http = httpx.AsyncClient(base_url=url, auth=BASIC, timeout=20)

    async def get(self, path: str, **params: Any) -> Any:
        """The JSON body of a 200."""
        response = await self.http.get(path, params=params or None)
        assert response.status_code == 200, response.text
        return response.json()

    async def status(self, path: str, **params: Any) -> int:
        """The status code of a GET."""
        return (await self.http.get(path, params=params or None)).status_code

    async def fault(self, kind: str, **fields: Any) -> None:
        """Let one fault begin now."""
        await self.post("/_sim/faults", faults=[{"kind": kind, **fields}])

    async def post(self, path: str, **body: Any) -> Any:
        """The JSON body of a 200."""
        response = await self.http.post(path, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    @property
    def account_ids(self) -> list[str]:
        """All accounts, oldest first."""
        return list(self.sim.ledger.accounts)


Start = Callable[..., Awaitable[Running]]


def quiet(**settings: Any) -> Settings:
    """Settings of a small simulator in which nothing moves by itself."""
    still: dict[str, Any] = {
        "account_count": 4,
        "symbol_count": 24,
        "trades_per_second": 0.0,
        "activities_per_second": 0.0,
        "has_history": False,
    }
    return Settings(**{**still, **settings})


@pytest.fixture
async def start() -> AsyncGenerator[Start]:
    """`await start(**settings)` serves a quiet simulator until the end of the test."""
    stop = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []
    clients: list[httpx.AsyncClient] = []

    async def begin(
        source: Callable[[Market], TradeSource] | None = None, clock: Clock | None = None, **settings: Any
    ) -> Running:
        sim = Simulator(quiet(**settings), clock or Clock(), source)
        listener = bind("127.0.0.1", 0)
        ready = asyncio.Event()
        tasks.append(asyncio.create_task(serve(sim, listener, stop, ready.set)))
        await asyncio.wait_for(ready.wait(), START_S_MAX)
        running = Running(sim, f"http://127.0.0.1:{listener.getsockname()[1]}")
        clients.append(running.http)
        return running

    yield begin
    for client in clients:
        await client.aclose()
    stop.set()
    await asyncio.gather(*tasks)


def decimals(row: dict[str, Any], *names: str) -> list[Decimal]:
    """Money fields of a row, exact."""
    return [Decimal(row[name]) for name in names]


def trading_settings(running: Running, pair: dict[str, str]) -> config.Settings:
    """The product's settings for one account of a simulator."""
    chosen: dict[str, Any] = {
        "_env_file": None,
        "apca_api_key_id": pair["key"],
        "apca_api_secret_key": pair["secret"],
        "alpaca_trading_url": running.url,
    }
    return config.load(**chosen)

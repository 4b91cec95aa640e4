"""The stage of the journey: the whole system with a quiet market, which the tests move by hand."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable
from decimal import Decimal
from typing import Any, Final

import httpx
import msgspec
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect

from portfolio_harness.system import System, running
from portfolio_realtime import config
from portfolio_realtime.state import keys
from tests.conftest import KIND

QUIET: Final = (
    "--accounts",
    "1",
    "--symbols",
    "1",
    "--trades-per-second",
    "0",
    "--activities-per-second",
    "0",
)
OVERRIDES: Final = {
    "MIN_UPDATE_INTERVAL": "0.1",
    "SYMBOL_COLLECTION_INTERVAL": "1",  # a new account is noticed within this
    "LOG_LEVEL": "warning",
}
DEADLINE_S: Final = 15

Valuation = dict[str, Any]


class Watching:
    """One browser that watches one account; positions are kept by symbol as the changes arrive."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.positions: dict[str, dict[str, Any]] = {}

    async def next(self) -> Valuation:
        """The next publication."""
        while True:
            message = msgspec.json.decode(await asyncio.wait_for(self._socket.recv(), DEADLINE_S))
            if message["type"] == "portfolio":
                self.positions.update({row["symbol"]: row for row in message.get("positions", ())})
                return message

    async def priced(self) -> Valuation:
        """The first publication in which every position has a mark; a new symbol takes a moment."""
        return await self.until(lambda valuation: valuation["equity"] is not None)

    async def until(self, is_wanted: Callable[[Valuation], bool]) -> Valuation:
        """The first publication that is as wanted."""
        async with asyncio.timeout(DEADLINE_S):
            while not is_wanted(valuation := await self.next()):
                pass
            return valuation


class Journey:
    """What a test may do: open accounts, trade, move prices, watch."""

    def __init__(self, system: System, simulator: httpx.AsyncClient) -> None:
        self.system = system
        self._simulator = simulator
        self._sockets: list[ClientConnection] = []

    async def symbol(
        self, symbol: str, price: str, previous_close: str | None = None, asset_class: str = "us_equity"
    ) -> None:
        """List a symbol at a price."""
        body = {
            "symbol": symbol,
            "price": price,
            "previous_close": previous_close or price,
            "asset_class": asset_class,
        }
        await self._post("/_sim/symbols", body)

    async def account(self, cash: str, positions: dict[str, str], last_equity: str | None = None) -> str:
        """Open an account; its id."""
        body: dict[str, Any] = {"cash": cash, "positions": positions}
        if last_equity is not None:
            body["last_equity"] = last_equity
        return (await self._post("/_sim/accounts", body))["account_id"]

    async def print(self, symbol: str, price: str, conditions: tuple[str, ...] = ("@",)) -> None:
        """One trade in the market, with its condition codes."""
        await self._post(
            "/_sim/print", {"symbol": symbol, "price": price, "size": 100, "conditions": list(conditions)}
        )

    async def cash(self, account_id: str, activity_type: str, amount: str) -> None:
        """Money comes in (CSD), goes out (CSW, negative), a fee (FEE), a dividend (DIV) …"""
        await self._post(
            "/_sim/cash", {"account_id": account_id, "activity_type": activity_type, "amount": amount}
        )

    async def trade(self, account_id: str, symbol: str, quantity: str) -> None:
        """The account buys (or, with a minus, sells) at the market."""
        await self._post("/_sim/trade", {"account_id": account_id, "symbol": symbol, "quantity": quantity})

    async def watch(self, account_id: str, detail: str = "positions") -> Watching:
        """Open a browser on the account."""
        async with asyncio.timeout(DEADLINE_S):
            while not await self._is_known(account_id):
                pass
        url = self.system.url.replace("http", "ws", 1)
        socket = await connect(f"{url}/ws/portfolio/{account_id}?detail={detail}", compression=None)
        self._sockets.append(socket)
        hello = {"type": "auth", "token": self.system.token_for(account_id)}
        await socket.send(msgspec.json.encode(hello).decode())
        return Watching(socket)

    async def truth(self, account_id: str) -> dict[str, Decimal]:
        """What the broker's own ledger says, exactly."""
        answer = (await self._simulator.get(f"/_sim/accounts/{account_id}")).json()
        return {name: Decimal(answer[name]) for name in ("equity", "cash", "day_pnl")}

    def stranger_beside(self, account_id: str) -> str:
        """An account that does not exist, in the shard of one that does: a cluster needs that proof."""
        shards = config.load(_env_file=None).shards
        names = map("nobody-{}".format, itertools.count())
        return next(one for one in names if keys.shard_of(one, shards) == keys.shard_of(account_id, shards))

    async def close(self) -> None:
        """Close all browsers."""
        for socket in self._sockets:
            await socket.close()

    async def _is_known(self, account_id: str) -> bool:
        headers = {"Authorization": f"Bearer {self.system.token_for(account_id)}"}
        async with httpx.AsyncClient(base_url=self.system.url, headers=headers) as client:
            return (await client.get(f"/v1/portfolio/{account_id}")).status_code != 404

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self._simulator.post(path, json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else {}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage() -> AsyncGenerator[System]:
    """One running system for a part of the journey: until the end of all tests it would slow the others."""
    async with running(QUIET, port=0, overrides=OVERRIDES, valkey=KIND) as system:
        yield system


@pytest_asyncio.fixture(loop_scope="session")
async def journey(stage: System) -> AsyncGenerator[Journey]:
    """The stage, with browsers that close after the test."""
    async with httpx.AsyncClient(base_url=stage.simulator_url, timeout=10) as simulator:
        travelling = Journey(stage, simulator)
        yield travelling
        await travelling.close()

"""What the simulator sends is enough: a plain client of its streams arrives at the oracle's figures."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from typing import Any

import msgpack
from websockets.asyncio.client import ClientConnection, connect

from alpaca_sim.core.clock import parse_time_ns
from tests.alpaca_sim.conftest import AUTH_MESSAGE, Running, Start
from tests.conftest import Until
from tests.support.condition_rows import ROWS
from tests.support.event_clients import FIRST_ID, Stream, open_stream

MOVING = {(code, tape) for code, tapes, minute in ROWS if minute == "yes" for tape in tapes}
FEEDS = {
    "us_equity": ("/v2/sip", "/v2/stocks/snapshots"),
    "crypto": ("/v1beta3/crypto/us", "/v1beta3/crypto/us/snapshots"),
    "us_option": ("/v1beta1/opra", "/v1beta1/options/snapshots"),
}


class Follower:
    """Marks from snapshots and trades, cash and quantities from events: nothing of the simulator's state."""

    def __init__(self) -> None:
        """Knows nothing yet."""
        self.marks: dict[str, tuple[int, Decimal]] = {}  # symbol → time in ns, price
        self.cash: dict[str, Decimal] = {}
        self.flow: dict[str, Decimal] = {}
        self.held: dict[str, dict[str, Decimal]] = {}
        self.last_size: dict[str, Decimal] = {}  # asset class → size of the last trade seen
        self.event_ids: set[str] = set()

    def take_trade(self, asset_class: str, trade: dict[str, Any]) -> None:
        """Apply one message of a market stream."""
        self.last_size[asset_class] = Decimal(str(trade["s"]))
        at_ns = trade["t"].to_unix_nano()
        if moves(asset_class, trade) and at_ns > self.marks.get(trade["S"], (0, Decimal(0)))[0]:
            self.marks[trade["S"]] = at_ns, Decimal(str(trade["p"]))

    def take_event(self, event: dict[str, Any]) -> None:
        """Apply one activity."""
        account_id, details = event["account_id"], event["details"]
        self.event_ids.add(event["event_id"])
        self.cash[account_id] += Decimal(event["net_amount"])
        if event["activity_type"] in ("CSD", "CSW", "JNLC"):
            self.flow[account_id] += Decimal(event["net_amount"])
        if event["activity_type"] == "TRD":
            held, symbol = self.held[account_id], details["symbol"].replace("/", "")
            sign = 1 if details["side"] == "buy" else -1
            held[symbol] = held.get(symbol, Decimal(0)) + sign * Decimal(event["qty"])

    def equity(self, account_id: str) -> Decimal:
        """Cash plus quantity × multiplier × mark."""
        marks = {symbol.replace("/", ""): price for symbol, (_, price) in self.marks.items()}
        held = self.held[account_id]
        values = [
            quantity * contract_size(symbol) * marks[symbol] for symbol, quantity in held.items() if quantity
        ]
        return sum(values, self.cash[account_id])


def contract_size(symbol: str) -> int:
    """100 for an OCC symbol."""
    return 100 if len(symbol) > 12 else 1


def moves(asset_class: str, trade: dict[str, Any]) -> bool:
    """Alpaca's rule, from the test's own copy of the table."""
    if asset_class == "us_equity":
        return all((code, trade["z"]) in MOVING for code in trade["c"])
    return asset_class == "crypto" or trade["c"] not in "ABCDEFG"


@asynccontextmanager
async def market_stream(running: Running, path: str) -> AsyncGenerator[ClientConnection]:
    """A MessagePack stream, subscribed to all trades."""
    headers = {"Content-Type": "application/msgpack"}
    async with connect(running.ws_url + path, additional_headers=headers) as socket:
        for message in (AUTH_MESSAGE, {"action": "subscribe", "trades": ["*"]}):
            await socket.recv()
            packed = msgpack.packb(message)
            assert packed is not None
            await socket.send(packed)
        assert b"subscription" in bytes(await socket.recv(decode=False))
        yield socket


async def read_market(follower: Follower, asset_class: str, socket: ClientConnection) -> None:
    """Follow one market stream until cancelled."""
    async for frame in socket:
        for trade in msgpack.unpackb(bytes(frame)):  # pyright: ignore[reportArgumentType] - msgpack frames are binary
            follower.take_trade(asset_class, trade)


async def read_events(follower: Follower, stream: Stream) -> None:
    """Follow the event stream until cancelled."""
    while event := await stream.next():
        follower.take_event(event)


async def bootstrap(follower: Follower, running: Running) -> None:
    """State of the last close by REST, and a first mark of each symbol by snapshot."""
    daily = (await running.get("/v1/reporting/eod/positions"))["positions"]
    for account_id in running.account_ids:
        balance = await running.get(f"/v1/trading/accounts/{account_id}/account")
        follower.cash[account_id] = Decimal(balance["last_cash"])
        follower.flow[account_id] = Decimal(0)
        rows = daily.get(account_id, [])
        follower.held[account_id] = {row["symbol"]: Decimal(row["qty"]) for row in rows}
    for asset_class, (_, path) in FEEDS.items():
        assets = await running.get("/v1/assets", asset_class=asset_class)
        response = await running.http.get(path, params={"symbols": ",".join(row["symbol"] for row in assets)})
        body = json.loads(response.text, parse_float=Decimal)
        for symbol, snapshot in body.get("snapshots", body).items():
            trade = snapshot["latestTrade"]
            at_ns = parse_time_ns(trade["t"])
            if at_ns > follower.marks.get(symbol, (0, Decimal(0)))[0]:
                follower.marks[symbol] = at_ns, Decimal(trade["p"])


async def test_a_client_of_the_streams_arrives_at_the_oracles_figures(start: Start, until: Until) -> None:
    """Equity, cash and external cash flow of each account, exactly, when the market has gone quiet."""
    running = await start(
        account_count=30,
        symbol_count=60,
        trades_per_second=800.0,
        activities_per_second=60.0,
        has_history=True,
    )
    follower = Follower()
    async with AsyncExitStack() as opened:
        readers: list[asyncio.Task[None]] = []
        for asset_class, (path, _) in FEEDS.items():
            socket = await opened.enter_async_context(market_stream(running, path))
            readers.append(asyncio.create_task(read_market(follower, asset_class, socket)))
        await bootstrap(follower, running)
        stream = await opened.enter_async_context(open_stream(running, since_id=FIRST_ID))
        readers.append(asyncio.create_task(read_events(follower, stream)))
        await until(lambda: running.sim.market.trade_count > 1_200, "there was some trading")
        await running.post("/_sim/pause")
        happened = {activity.event_id for activity in running.sim.ledger.activities}
        sizes = {"us_equity": 777_777, "crypto": 888_888, "us_option": 999_999}
        for asset_class, size in sizes.items():
            await print_last(running, asset_class, size)
        await until(lambda: follower.last_size == sizes and follower.event_ids == happened, "all is read")
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
    truths = (await running.get("/_sim/truth"))["accounts"]
    assert len(happened) > 60
    for account_id, truth in truths.items():
        assert follower.cash[account_id] == Decimal(truth["cash"])
        assert follower.flow[account_id] == Decimal(truth["external_cash_flow"])
        assert follower.equity(account_id) == Decimal(truth["equity"])
        equity, last_equity = follower.equity(account_id), Decimal(truth["last_equity"])
        assert equity - last_equity - follower.flow[account_id] == Decimal(truth["day_pnl"])


async def print_last(running: Running, asset_class: str, size: int) -> None:
    """A trade of a size that no other trade has, so that the reader knows it has read all."""
    states = running.sim.market.symbols.values()
    symbol = next(state.listing.symbol for state in states if state.listing.asset_class == asset_class)
    await running.post("/_sim/print", symbol=symbol, price="12.5", size=size)

"""Alpaca's own SDK reads the simulator: what it cannot parse, Alpaca would not have sent."""

import asyncio
import threading
from decimal import Decimal
from typing import Any, cast

import pytest
from alpaca.broker import BrokerClient
from alpaca.broker.requests import GetAccountActivitiesRequest, ListAccountsRequest
from alpaca.data.enums import DataFeed
from alpaca.data.historical import (
    CryptoHistoricalDataClient,
    OptionHistoricalDataClient,
    StockHistoricalDataClient,
)
from alpaca.data.live import CryptoDataStream, OptionDataStream, StockDataStream
from alpaca.data.requests import (
    CryptoSnapshotRequest,
    OptionSnapshotRequest,
    StockLatestTradeRequest,
    StockSnapshotRequest,
)
from alpaca.trading.client import TradingClient
from alpaca.trading.requests import GetCalendarRequest

from tests.alpaca_sim.conftest import Running, Start

CREDENTIALS = ("sim-key", "sim-secret")
STREAM_S_MAX = 20


@pytest.fixture
async def running(start: Start) -> Running:
    """A simulator whose accounts have done things."""
    made = await start(account_count=8, symbol_count=40, has_history=True)
    for account_id in made.account_ids:
        for _ in range(25):
            made.sim.trader.act(account_id)
    return made


async def test_the_broker_client_reads_accounts_balances_and_positions(running: Running) -> None:
    """Every account, its trading account and each position, exact where the SDK keeps strings."""
    client = BrokerClient(*CREDENTIALS, url_override=running.url)
    accounts: Any = await asyncio.to_thread(client.list_accounts, ListAccountsRequest())
    assert [str(account.id) for account in accounts] == running.account_ids[::-1]
    for account in accounts:
        truth = await running.get(f"/_sim/accounts/{account.id}")
        same: Any = await asyncio.to_thread(client.get_account_by_id, account.id)
        assert same.last_equity == truth["last_equity"]
        balance: Any = await asyncio.to_thread(client.get_trade_account_by_id, account.id)
        assert (balance.equity, balance.cash) == (truth["equity"], truth["cash"])
        positions: Any = await asyncio.to_thread(client.get_all_positions_for_account, account.id)
        assert {position.qty for position in positions} == {row["quantity"] for row in truth["positions"]}
        for position in positions[:2]:
            one: Any = await asyncio.to_thread(
                client.get_open_position_for_account, account.id, str(position.asset_id)
            )
            assert one == position


async def test_the_broker_client_reads_bulk_positions_and_pages_activities(running: Running) -> None:
    """The SDK pages by itself and gets each activity once."""
    client = BrokerClient(*CREDENTIALS, url_override=running.url)
    everything: Any = await asyncio.to_thread(client.get_all_accounts_positions)
    assert set(everything.positions) == {
        key for key, account in running.sim.ledger.accounts.items() if account.opening.positions
    }
    activities: Any = await asyncio.to_thread(client.get_account_activities, GetAccountActivitiesRequest())
    booked = running.sim.ledger.activities
    assert len(activities) == len({activity.id for activity in activities}) == len(booked)
    amounts = sum(
        Decimal(str(activity.net_amount)) for activity in activities if hasattr(activity, "net_amount")
    )
    assert amounts == sum(activity.net_amount for activity in booked if activity.activity_type != "TRD")


async def test_the_broker_client_reads_clock_calendar_and_assets(running: Running) -> None:
    """Equities, crypto pairs and options as assets."""
    client = BrokerClient(*CREDENTIALS, url_override=running.url)
    clock: Any = await asyncio.to_thread(client.get_clock)
    assert clock.is_open is True
    calendar: Any = await asyncio.to_thread(client.get_calendar, GetCalendarRequest())
    assert calendar[0].open.hour == 9
    assets: Any = await asyncio.to_thread(client.get_all_assets)
    assert {"AAPL", "SPY"} <= {asset.symbol for asset in assets}
    apple: Any = await asyncio.to_thread(client.get_asset, "AAPL")
    assert apple.exchange.value == "NASDAQ"


async def test_the_trading_client_reads_the_first_account(running: Running) -> None:
    """Account and positions by APCA headers."""
    client = TradingClient(*CREDENTIALS, url_override=running.url)
    account: Any = await asyncio.to_thread(client.get_account)
    truth = await running.get(f"/_sim/accounts/{running.account_ids[0]}")
    assert (str(account.id), account.equity) == (running.account_ids[0], truth["equity"])
    positions: Any = await asyncio.to_thread(client.get_all_positions)
    assert len(positions) == len(truth["positions"])


async def test_the_historical_clients_read_snapshots_and_latest_trades(running: Running) -> None:
    """Stocks, crypto and options."""
    marks = running.sim.market
    stocks = StockHistoricalDataClient(*CREDENTIALS, url_override=running.url)
    request = StockSnapshotRequest(symbol_or_symbols=["AAPL", "SPY"])
    snapshots: Any = await asyncio.to_thread(stocks.get_stock_snapshot, request)
    assert snapshots["AAPL"].latest_trade.price == float(marks.mark("AAPL"))
    assert snapshots["SPY"].previous_daily_bar.close == float(marks.listing("SPY").previous_close)
    latest: Any = await asyncio.to_thread(
        stocks.get_stock_latest_trade, StockLatestTradeRequest(symbol_or_symbols=["SPY"])
    )
    assert latest["SPY"].price == float(marks.mark("SPY"))
    crypto = CryptoHistoricalDataClient(*CREDENTIALS, url_override=running.url)
    coins: Any = await asyncio.to_thread(
        crypto.get_crypto_snapshot, CryptoSnapshotRequest(symbol_or_symbols=["BTC/USD"])
    )
    assert coins["BTC/USD"].latest_trade.price == float(marks.mark("BTC/USD"))
    contract = next(s for s, state in marks.symbols.items() if state.listing.asset_class == "us_option")
    options = OptionHistoricalDataClient(*CREDENTIALS, url_override=running.url)
    contracts: Any = await asyncio.to_thread(
        options.get_option_snapshot, OptionSnapshotRequest(symbol_or_symbols=[contract])
    )
    assert contracts[contract].latest_trade.price == float(marks.mark(contract))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDK uses a deprecated WebSocket client
@pytest.mark.parametrize("kind", ["stock", "crypto", "option"])
async def test_the_live_streams_deliver_trades(start: Start, kind: str) -> None:
    """The SDK's own loop connects, authenticates, subscribes in fragments and gets the prices."""
    running = await start(symbol_count=40, trades_per_second=400.0)
    stream = cast("Any", make_stream(kind, running.ws_url))
    asset_class = {"stock": "us_equity", "crypto": "crypto", "option": "us_option"}[kind]
    symbols = [
        s for s, state in running.sim.market.symbols.items() if state.listing.asset_class == asset_class
    ]
    enough = asyncio.Event()
    loop = asyncio.get_running_loop()
    trades: list[Any] = []

    async def receive(trade: Any) -> None:
        trades.append(trade)
        if len(trades) == 5:
            loop.call_soon_threadsafe(enough.set)

    stream.subscribe_trades(receive, *symbols)
    thread = threading.Thread(target=stream.run, daemon=True)
    thread.start()
    try:
        await asyncio.wait_for(enough.wait(), STREAM_S_MAX)
    finally:
        stream.stop()
        await asyncio.to_thread(thread.join, STREAM_S_MAX)
    assert not thread.is_alive()
    assert {trade.symbol for trade in trades} <= set(symbols)
    assert all(trade.price > 0 and trade.timestamp.year >= 2026 for trade in trades)


def make_stream(kind: str, ws_url: str) -> StockDataStream | CryptoDataStream | OptionDataStream:
    """The SDK's stream of a kind, pointed at the simulator."""
    if kind == "stock":
        return StockDataStream(*CREDENTIALS, feed=DataFeed.SIP, url_override=f"{ws_url}/v2/sip")
    if kind == "crypto":
        return CryptoDataStream(*CREDENTIALS, url_override=f"{ws_url}/v1beta3/crypto/us")
    return OptionDataStream(*CREDENTIALS, url_override=f"{ws_url}/v1beta1/indicative")

"""What companies and coins are called, through both of Alpaca's interfaces."""

from portfolio_realtime.symbol_collector.sources.asset_names import name_of
from portfolio_realtime.symbol_collector.sources.broker_client import BrokerClient
from portfolio_realtime.symbol_collector.sources.trading_client import TradingClient
from tests.alpaca_sim.conftest import BROKER, Start, trading_settings


async def test_both_interfaces_tell_names_also_of_a_symbol_with_a_slash(start: Start) -> None:
    """And of one that nobody lists there is no answer."""
    running = await start()
    pair = await running.get(f"/_sim/accounts/{running.account_ids[0]}/keys")
    async with (
        BrokerClient(running.url, BROKER) as broker,
        TradingClient(trading_settings(running, pair)) as trading,
    ):
        for source in (broker, trading):
            assert name_of(await source.asset("AAPL")) == "Apple Inc. Common Stock"
            assert name_of(await source.asset("BTC/USD")) == "Bitcoin / US Dollar"
            assert await source.asset("NOSUCH") is None

"""Opens the source of accounts that the settings name."""

from collections.abc import Callable

from portfolio_realtime.config import Settings, described_source
from portfolio_realtime.errors import SettingsError
from portfolio_realtime.symbol_collector.sources.account_source import AccountSource
from portfolio_realtime.symbol_collector.sources.broker_client import BrokerClient, credentials
from portfolio_realtime.symbol_collector.sources.trading_client import TradingClient


def open_client(settings: Settings, counted: Callable[[str], None]) -> AccountSource:
    """The client for the accounts of the configured keys. Raises SettingsError without a key."""
    if settings.account_source == "broker":
        return BrokerClient(settings.host("broker"), credentials(settings), counted)
    if settings.account_source == "trading":
        return TradingClient(settings, counted)
    raise SettingsError(described_source(settings))

"""The four services, each with settings of its own and nobody else to talk to but Valkey."""

from typing import Any, Final

from portfolio_realtime.config import Settings
from portfolio_realtime.market_data_consumer import consumer
from portfolio_realtime.portfolio_calculator import calculator
from portfolio_realtime.state.embedded import free_port
from portfolio_realtime.symbol_collector import collector
from portfolio_realtime.websocket_server import server

SERVICES: Final = {
    "symbol_collector": collector.run,
    "market_data_consumer": consumer.run,
    "portfolio_calculator": calculator.run,
    "websocket_server": server.run,
}


def settings_of(url: str, **more: Any) -> Settings:
    """A service's settings; the broker, the feed and all else that it asks are not there."""
    nobody = f"http://127.0.0.1:{free_port()}"
    return Settings(
        redis_url=url,  # type: ignore[arg-type]  # as from the environment
        broker_api_key="key",
        broker_secret_key="made-up",  # type: ignore[arg-type]
        alpaca_broker_url=nobody,
        alpaca_data_url=nobody,
        alpaca_stream_url=nobody.replace("http", "ws", 1),
        websocket_port=free_port(),
        websocket_host="127.0.0.1",
        shards=2,
        drain_grace_seconds=0,
        **more,
        _env_file=None,  # type: ignore[call-arg]  # pydantic-settings' own
    )

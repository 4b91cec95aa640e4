"""A patient for the doctor: settings in the environment, pointed at a simulator in this process."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from portfolio_realtime.cli.doctor.examine import examine
from portfolio_realtime.cli.doctor.findings import Finding
from portfolio_realtime.config import Settings
from portfolio_realtime.market_data_consumer import snapshots
from portfolio_realtime.state.embedded import free_port
from tests.alpaca_sim.conftest import Running, start

__all__ = ["start"]  # the fixture

Findings = dict[str, Finding]
Examine = Callable[..., Awaitable[Findings]]
KEYS = {"BROKER_API_KEY": "sim-key", "BROKER_SECRET_KEY": "sim-secret"}


def hosts(running: Running) -> dict[str, str]:
    """The settings that point at a simulator."""
    http = dict.fromkeys(("ALPACA_BROKER_URL", "ALPACA_TRADING_URL", "ALPACA_DATA_URL"), running.url)
    return {**http, "ALPACA_AUTH_URL": running.url, "ALPACA_STREAM_URL": running.ws_url}


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Examine:
    """`await doctor(NAME=value, …)`: the findings by check, with these settings and no others."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(snapshots, "PAUSE_S_MIN", 0.01)  # between attempts that are all in vain
    free = {"RUN_SERVICES_PORT": str(free_port()), "WEBSOCKET_PORT": str(free_port())}

    async def look(account_id: str = "", **settings: str) -> Findings:
        for name, value in {**free, **settings}.items():
            monkeypatch.setenv(name, value)
        found = await examine(account_id)
        by_check = {finding.check: finding for finding in found}
        assert len(by_check) == len(found)
        return by_check

    return look

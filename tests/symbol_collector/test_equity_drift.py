"""How far the broker's equity is from ours, where both count the same."""

from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from portfolio_realtime.clock import SystemClock
from portfolio_realtime.state import State
from portfolio_realtime.symbol_collector.records.account_records import AccountRecords
from portfolio_realtime.symbol_collector.records.equity_drift import EquityDrift
from portfolio_realtime.symbol_collector.sources import parse
from portfolio_realtime.telemetry import CollectorMetrics
from tests.support.broker_payloads import ACCOUNT
from tests.symbol_collector.bookings import at_s

BOND: dict[str, Any] = {
    "symbol": "912828YK0",
    "asset_class": "us_treasury",
    "qty": "10000",
    "side": "long",
    "current_price": "99",
    "avg_entry_price": "98",
}
STATE = {**ACCOUNT, "cash": "1000", "equity": "10900"}


async def drift_of(state: State, positions: list[dict[str, Any]]) -> tuple[float | None, str | None]:
    """How many comparisons were made of how much drift in all, and why the account is unconfirmed."""
    registry = CollectorRegistry()
    records = AccountRecords()
    records.list_accounts(["alice"])
    statement = parse.statement("alice", STATE, positions)
    records.observe(statement, at_s(0), at_s(0.1))
    EquityDrift(records, state, SystemClock(), CollectorMetrics(registry)).compare(statement)
    account = records.account("alice")
    assert account is not None
    unconfirmed = account.unconfirmed
    count = registry.get_sample_value("portfolio_realtime_equity_drift_ratio_count")
    assert count is not None
    drifts = registry.get_sample_value("portfolio_realtime_equity_drift_ratio_sum") if count else None
    return drifts, unconfirmed and unconfirmed.reason


@pytest.mark.parametrize("asset_class", ["us_treasury", "corporate_bond", "a_class_to_come"])
async def test_a_price_per_hundred_is_no_hundredfold_drift(state: State, asset_class: str) -> None:
    """By the broker's own products where it states them; without them nothing is compared."""
    bond = {**BOND, "asset_class": asset_class}
    told = {**bond, "market_value": "9900", "cost_basis": "9800"}
    assert await drift_of(state, [told]) == (0.0, None)
    assert await drift_of(state, [bond]) == (None, None)
    assert await drift_of(state, [{**told, "market_value": "9900", "cost_basis": "980000"}]) == (None, None)


async def test_what_the_broker_counts_and_we_do_not_is_told(state: State) -> None:
    """A share that both know is compared."""
    share = {**BOND, "symbol": "AAPL", "asset_class": "us_equity", "qty": "100"}
    drift, reason = await drift_of(state, [share])
    assert drift == 0.0
    drift, reason = await drift_of(state, [{**share, "qty": "50"}])
    assert (round(Decimal(drift or 0), 2), reason) == (Decimal("0.45"), "equity differs")

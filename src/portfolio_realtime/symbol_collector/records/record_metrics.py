"""The gauges of account records: their number, their age, and how many are unconfirmed."""

from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.symbol_collector.records.account_records import AccountRecords
from portfolio_realtime.telemetry import CollectorMetrics


def show_records(metrics: CollectorMetrics, records: AccountRecords, pending_count: int, now_ns: int) -> None:
    """Set the gauges. `pending_count` accounts are listed and have no record."""
    metrics.accounts.set(records.known_count)
    metrics.symbols.set(records.universe_size)
    metrics.unconfirmed.set(records.unconfirmed_count)
    metrics.pending.set(pending_count)
    metrics.record_age.set((now_ns - (records.oldest_as_of_ns or now_ns)) / NS_PER_S)

"""All metrics of the services. Secrets, tokens and account ids are never labels.

Each service has a registry of its own and writes its text to Valkey. The `/metrics` of any WebSocket server
shows all of them, distinguished by the labels `service` and `instance`.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

PREFIX = "portfolio_realtime"
FAST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# Of this process. Each service adds it to its own registry.
LOG_EVENTS: Final = Counter(f"{PREFIX}_log_events", "Log lines by level", ["level"], registry=None)
RATIOS = (0.000001, 0.00001, 0.0001, 0.001, 0.005, 0.01, 0.05, 0.1)


class CollectorMetrics:
    """The metrics of the symbol collector."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.accounts = Gauge(f"{PREFIX}_accounts", "Accounts followed", registry=registry)
        self.symbols = Gauge(f"{PREFIX}_symbols", "Symbols in the universe", registry=registry)
        self.unconfirmed = Gauge(
            f"{PREFIX}_unconfirmed_accounts",
            "Accounts that the broker contradicts or has not confirmed",
            registry=registry,
        )
        self.pending = Gauge(
            f"{PREFIX}_pending_accounts", "Listed accounts without a record", registry=registry
        )
        self.record_age = Gauge(
            f"{PREFIX}_record_age_seconds",
            "Longest time for which the broker has reported nothing about an account",
            registry=registry,
        )
        self.broker_heard = Gauge(
            f"{PREFIX}_broker_heard",
            "1 while the broker sends events and answers requests",
            registry=registry,
        )
        self.clock_difference = Gauge(
            f"{PREFIX}_broker_clock_difference_seconds",
            "By how much the clock of this machine is ahead of the broker's; negative: behind",
            registry=registry,
        )
        self.activities = Counter(
            f"{PREFIX}_activities", "Activity events by outcome", ["outcome"], registry=registry
        )
        self.event_stream_lag = Gauge(
            f"{PREFIX}_event_stream_lag_seconds",
            "Largest delay of an event in the last minute; without a stream, the time since it was lost",
            registry=registry,
        )
        self.reconciled = Counter(
            f"{PREFIX}_reconciled", "Accounts reconciled by outcome", ["outcome"], registry=registry
        )
        self.equity_drift = Histogram(
            f"{PREFIX}_equity_drift_ratio",
            "Our equity at the broker's prices compared with the broker's, as a share of equity or positions",
            buckets=RATIOS,
            registry=registry,
        )
        self.price_drift = Histogram(
            f"{PREFIX}_price_drift_ratio",
            "Our marks compared with the broker's prices of another moment, as a share of the positions",
            buckets=RATIOS,
            registry=registry,
        )
        self.broker_requests = Counter(
            f"{PREFIX}_broker_requests", "REST requests by status", ["status"], registry=registry
        )
        self.rejected = Counter(
            f"{PREFIX}_broker_rejected",
            "Payloads or fields from the broker that were refused",
            ["what"],
            registry=registry,
        )
        self.refused_days = self.rejected.labels("closed_day")


class MarketMetrics:
    """The metrics of the market data consumer."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.subscribed = Gauge(
            f"{PREFIX}_subscribed_symbols", "Symbols subscribed", ["feed"], registry=registry
        )
        self.messages = Counter(
            f"{PREFIX}_feed_messages", "Messages by type", ["feed", "type"], registry=registry
        )
        self.price_updates = Counter(f"{PREFIX}_price_updates", "Marks flushed", ["feed"], registry=registry)
        self.silence = Gauge(
            f"{PREFIX}_feed_silence_seconds",
            "Time for which a feed has not been live while its market is open; 0 otherwise",
            ["feed"],
            registry=registry,
        )
        self.ignored_trades = Counter(
            f"{PREFIX}_ignored_trades", "Trades that may not set a mark", ["feed"], registry=registry
        )
        self.refused_trades = Counter(
            f"{PREFIX}_refused_trades", "Trades with an impossible price or time", ["feed"], registry=registry
        )
        self.left_out = Gauge(
            f"{PREFIX}_left_out_symbols", "Symbols that the feed does not accept", ["feed"], registry=registry
        )
        self.renewed = Counter(
            f"{PREFIX}_renewed_subscriptions",
            "Symbols subscribed again because only they were silent",
            ["feed"],
            registry=registry,
        )
        self.pruned = Counter(
            f"{PREFIX}_pruned_marks", "Marks of symbols that nobody holds", ["feed"], registry=registry
        )
        self.reconnects = Counter(
            f"{PREFIX}_feed_reconnects", "Reconnects by reason", ["feed", "reason"], registry=registry
        )
        self.feed_lag = Histogram(
            f"{PREFIX}_feed_lag_seconds",
            "Time from a trade to the flush of its mark",
            ["feed"],
            buckets=FAST_S,
            registry=registry,
        )


class CalculatorMetrics:
    """The metrics of the portfolio calculator."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.accounts = Gauge(f"{PREFIX}_valued_accounts", "Accounts in the book", registry=registry)
        self.positions = Gauge(f"{PREFIX}_valued_positions", "Positions in the book", registry=registry)
        self.symbols = Gauge(
            f"{PREFIX}_valued_symbols", "Symbols in the book, held or marked", registry=registry
        )
        self.watched = Gauge(f"{PREFIX}_watched_accounts", "Accounts that clients watch", registry=registry)
        self.shards = Gauge(f"{PREFIX}_shards_owned", "Shards owned", registry=registry)
        self.recalculation = Histogram(
            f"{PREFIX}_recalculation_seconds",
            "Duration of a full valuation of the book",
            buckets=FAST_S,
            registry=registry,
        )
        self.recalculation_block = Histogram(
            f"{PREFIX}_recalculation_block_seconds",
            "Duration of one block of the full valuation; nothing is published meanwhile",
            buckets=FAST_S,
            registry=registry,
        )
        self.book_refresh = Histogram(
            f"{PREFIX}_book_refresh_seconds",
            "Duration of updating one block of the book to the current marks",
            buckets=FAST_S,
            registry=registry,
        )
        self.book_equity = Gauge(
            f"{PREFIX}_book_equity_dollars",
            "Total equity of all accounts without an unpriced position",
            registry=registry,
        )
        self.book_unpriced = Gauge(
            f"{PREFIX}_book_unpriced_accounts", "Accounts with an unpriced position", registry=registry
        )
        self.book_negative = Gauge(
            f"{PREFIX}_book_negative_accounts", "Accounts that owe more than they own", registry=registry
        )
        self.book_drift = Gauge(
            f"{PREFIX}_book_drift_dollars",
            "Largest error of an equity that the last full valuation corrected",
            registry=registry,
        )
        self.read_ratio = Gauge(
            f"{PREFIX}_accounts_read_ratio",
            "Share of the account records that have been read; 1 when complete",
            registry=registry,
        )
        self.pause = Histogram(
            f"{PREFIX}_calculator_pause_seconds",
            "Delay of the event loop",
            buckets=FAST_S,
            registry=registry,
        )
        self.longest_pause = Gauge(
            f"{PREFIX}_calculator_longest_pause_seconds",
            "Longest delay of the event loop in the last two minutes",
            registry=registry,
        )
        self.flush = Histogram(
            f"{PREFIX}_valuation_flush_seconds",
            "Duration of valuation and encoding in one flush",
            buckets=FAST_S,
            registry=registry,
        )
        self.publications = Counter(f"{PREFIX}_publications", "Publications", registry=registry)
        self.exact = Counter(
            f"{PREFIX}_exact_fallbacks",
            "Valuations of an account computed again in Decimal because float64 could not decide a cent",
            registry=registry,
        )
        self.lag = Histogram(
            f"{PREFIX}_publication_lag_seconds",
            "Time from the newest trade to the publication",
            buckets=FAST_S,
            registry=registry,
        )
        self.unpriced = Gauge(
            f"{PREFIX}_unpriced_accounts", "Watched accounts with an unpriced position", registry=registry
        )
        self.stale = Gauge(
            f"{PREFIX}_stale_accounts", "Watched accounts with a stale mark", registry=registry
        )
        self.stale_ratio = Gauge(
            f"{PREFIX}_stale_ratio",
            "Share of the watched accounts with a stale mark while the exchange is open; else 0",
            registry=registry,
        )


class ServerMetrics:
    """The metrics of the WebSocket server."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.connections = Gauge(f"{PREFIX}_connections", "Open client connections", registry=registry)
        self.connects = Counter(
            f"{PREFIX}_connects", "Connection attempts by result", ["result"], registry=registry
        )
        self.disconnects = Counter(
            f"{PREFIX}_disconnects", "Closed connections by close code", ["code"], registry=registry
        )
        self.sent = Counter(f"{PREFIX}_messages_sent", "Messages sent to clients", registry=registry)
        self.sent_bytes = Counter(f"{PREFIX}_sent_bytes", "Bytes sent to clients", registry=registry)
        self.conflated = Counter(
            f"{PREFIX}_conflated", "Publications replaced by a newer one before sending", registry=registry
        )
        self.received = Counter(
            f"{PREFIX}_messages_received", "Messages from clients by type", ["type"], registry=registry
        )
        self.auth_failures = Counter(
            f"{PREFIX}_auth_failures", "Refused credentials by reason", ["reason"], registry=registry
        )
        self.malformed = Counter(
            f"{PREFIX}_malformed_publications", "Publications that could not be decoded", registry=registry
        )
        self.stale_shards = Gauge(
            f"{PREFIX}_stale_shards",
            "Shards without fresh values, by the silent hop",
            ["hop"],
            registry=registry,
        )
        self.fan_out_lag = Histogram(
            f"{PREFIX}_fan_out_lag_seconds",
            "Time from a publication to its hand-over to the socket",
            buckets=FAST_S,
            registry=registry,
        )


def clock_ahead(registry: CollectorRegistry) -> Gauge:
    """A gauge of every service: how far its machine's clock is ahead of Valkey's."""
    return Gauge(f"{PREFIX}_clock_ahead_seconds", "This machine's clock minus Valkey's", registry=registry)


def wire_version(registry: CollectorRegistry) -> Gauge:
    """A gauge of every service: the version of the wire that it writes."""
    return Gauge(f"{PREFIX}_wire_version", "Version of the wire that this process writes", registry=registry)


def exposition(registry: CollectorRegistry) -> bytes:
    """The registry in Prometheus text format."""
    return generate_latest(registry)


class _Merged(Collector):
    def __init__(self, sources: Iterable[tuple[str, str, str]]) -> None:
        self._sources = list(sources)

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for service, instance, text in self._sources:
            for family in text_string_to_metric_families(text):
                merged = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels = {**sample.labels, "service": service, "instance": instance}
                    merged.add_sample(sample.name, labels, sample.value)
        yield from families.values()


def merge(sources: Iterable[tuple[str, str, str]]) -> bytes:
    """Merge the texts of several processes, given as (service, instance, text), into one."""
    return generate_latest(_Merged(sources))  # type: ignore[arg-type]  # any collector will do

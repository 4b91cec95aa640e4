"""Metrics for CloudWatch: lines in the embedded metric format (EMF) on standard output.

CloudWatch Logs turns such lines into metrics, without an agent, a permission or an API call. METRICS lists
everything that is written; alarms, scaling and dashboards read it from here. Every metric of a service is
written every INTERVAL_S, also when it is 0, so that missing data means a missing process. All of them come
from the registry behind `/metrics`. Nothing is written without EMF_DEPLOYMENT, the name of this installation.

Format: CloudWatch user guide, "Specification: Embedded metric format".
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NoReturn

import msgspec
from prometheus_client import CollectorRegistry

FIRST_S: Final = 5.0  # after the start, so that a deployment is visible soon
INTERVAL_S: Final = 60.0
NAMESPACE: Final = "PortfolioRealtime"
DIMENSIONS: Final = ("Deployment", "Service")  # CloudWatch aggregates the processes of a service
PREFIX: Final = "portfolio_realtime_"
BEYOND: Final = 1e9  # in place of infinity, the bound of the last bucket

COLLECTOR: Final = "symbol_collector"
CONSUMER: Final = "market_data_consumer"
CALCULATOR: Final = "portfolio_calculator"
SERVER: Final = "websocket_server"
SERVICES: Final = (COLLECTOR, CONSUMER, CALCULATOR, SERVER)


class Unit(Enum):
    """The units of CloudWatch."""

    COUNT = "Count"
    SECONDS = "Seconds"
    PER_SECOND = "Count/Second"
    NONE = "None"


class How(Enum):
    """How a figure is computed from a Prometheus family."""

    HIGHEST = "the maximum of its gauges"
    SUM = "the sum of its gauges"
    INCREASE = "the increase of its counters since the last line"
    RATE = "the increase per second"
    MEAN = "the mean of the observations of its histograms since the last line"
    WORST = "the upper bound of the highest bucket with an observation since the last line"


@dataclass(frozen=True)
class EmbeddedMetric:
    """One metric of one service.

    Of the family's samples, it uses those that have the labels `only` and none of the labels `but`.
    """

    service: str
    name: str
    unit: Unit
    family: str
    how: How
    only: Mapping[str, str] = field(default_factory=dict[str, str])
    but: Mapping[str, str] = field(default_factory=dict[str, str])


_C, _S, _R, _N = Unit.COUNT, Unit.SECONDS, Unit.PER_SECOND, Unit.NONE

METRICS: Final[tuple[EmbeddedMetric, ...]] = (
    *(
        EmbeddedMetric(name, "Errors", _C, "log_events", How.INCREASE, only={"level": "error"})
        for name in SERVICES
    ),
    EmbeddedMetric(COLLECTOR, "Accounts", _C, "accounts", How.SUM),
    EmbeddedMetric(COLLECTOR, "SymbolsTracked", _C, "symbols", How.SUM),
    EmbeddedMetric(COLLECTOR, "EventStreamLagSeconds", _S, "event_stream_lag_seconds", How.HIGHEST),
    EmbeddedMetric(COLLECTOR, "RecordDrifts", _C, "reconciled", How.INCREASE, only={"outcome": "drift"}),
    EmbeddedMetric(COLLECTOR, "EquityDriftRatio", _N, "equity_drift_ratio", How.WORST),
    EmbeddedMetric(
        COLLECTOR, "BrokerFailures", _C, "reconciled", How.INCREASE, only={"outcome": "unavailable"}
    ),
    EmbeddedMetric(CONSUMER, "FeedSilentSeconds", _S, "feed_silence_seconds", How.HIGHEST),
    EmbeddedMetric(
        CONSUMER, "FeedReconnects", _C, "feed_reconnects", How.INCREASE, but={"reason": "session"}
    ),
    EmbeddedMetric(CONSUMER, "PriceUpdates", _R, "price_updates", How.RATE),
    EmbeddedMetric(CONSUMER, "FeedLagSeconds", _S, "feed_lag_seconds", How.MEAN),
    EmbeddedMetric(CALCULATOR, "WatchedAccounts", _C, "watched_accounts", How.SUM),
    EmbeddedMetric(CALCULATOR, "StaleAccounts", _C, "stale_accounts", How.SUM),
    EmbeddedMetric(CALCULATOR, "StaleRatio", _N, "stale_ratio", How.HIGHEST),
    EmbeddedMetric(CALCULATOR, "UnpricedAccounts", _C, "unpriced_accounts", How.SUM),
    EmbeddedMetric(CALCULATOR, "ShardsOwned", _C, "shards_owned", How.SUM),
    EmbeddedMetric(CALCULATOR, "RecalculationSeconds", _S, "recalculation_seconds", How.MEAN),
    EmbeddedMetric(CALCULATOR, "PublicationLagSeconds", _S, "publication_lag_seconds", How.MEAN),
    EmbeddedMetric(SERVER, "Connections", _C, "connections", How.SUM),
    EmbeddedMetric(SERVER, "Connects", _C, "connects", How.INCREASE, only={"result": "accepted"}),
    # Connections that ended without a close frame: their clients reconnect.
    EmbeddedMetric(SERVER, "Reconnects", _C, "disconnects", How.INCREASE, only={"code": "1006"}),
    EmbeddedMetric(SERVER, "SlowConsumers", _C, "disconnects", How.INCREASE, only={"code": "4002"}),
    EmbeddedMetric(SERVER, "RefusedCredentials", _C, "auth_failures", How.INCREASE),
    EmbeddedMetric(
        SERVER,
        "RevocationsUnknown",
        _C,
        "auth_failures",
        How.INCREASE,
        only={"reason": "revocations_unknown"},
    ),
    EmbeddedMetric(SERVER, "MessagesSent", _R, "messages_sent", How.RATE),
    EmbeddedMetric(SERVER, "FanOutLagSeconds", _S, "fan_out_lag_seconds", How.MEAN),
)

Samples = dict[str, list[tuple[Mapping[str, str], float]]]
"""Name of a sample, such as `…_total` -> its series, as (labels, value)."""


def metrics_of(service: str) -> list[EmbeddedMetric]:
    """The metrics that a service writes."""
    return [metric for metric in METRICS if metric.service == service]


class EmbeddedMetrics:
    """Makes the lines of one process. Each line covers the time since the one before."""

    def __init__(
        self,
        deployment: str,
        service: str,
        instance: str,
        registry: CollectorRegistry,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics_of(service)
        self._head = {
            "Namespace": NAMESPACE,
            "Dimensions": [DIMENSIONS],
            "Metrics": [{"Name": metric.name, "Unit": metric.unit.value} for metric in self._metrics],
        }
        self._rest = {**dict(zip(DIMENSIONS, (deployment, service), strict=True)), "Instance": instance}
        self._registry = registry
        self._monotonic_s = monotonic_s
        self._before: Samples = {}
        self._before_s = monotonic_s()

    def line(self, now_ms: int) -> str:
        """The next line: one JSON object in EMF. `now_ms` is in milliseconds since the epoch."""
        now_s, samples = self._monotonic_s(), _samples(self._registry)
        elapsed_s = max(now_s - self._before_s, 1e-3)
        values = {metric.name: _value(metric, samples, self._before, elapsed_s) for metric in self._metrics}
        self._before, self._before_s = samples, now_s
        told = {"_aws": {"Timestamp": now_ms, "CloudWatchMetrics": [self._head]}, **self._rest, **values}
        return msgspec.json.encode(told).decode()


async def write_each_minute(
    lines: EmbeddedMetrics, now_ns: Callable[[], int], write: Callable[[str], None]
) -> NoReturn:
    """Write a line after FIRST_S, then every INTERVAL_S, until cancelled."""
    await asyncio.sleep(FIRST_S)
    while True:
        write(lines.line(now_ns() // 1_000_000))
        await asyncio.sleep(INTERVAL_S)


def _samples(registry: CollectorRegistry) -> Samples:
    found: Samples = {}
    for family in registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def _value(metric: EmbeddedMetric, now: Samples, before: Samples, elapsed_s: float) -> float:
    name = PREFIX + metric.family

    def grown(sample: str, **labels: str) -> float:
        return _total(metric, now.get(sample, ()), labels) - _total(metric, before.get(sample, ()), labels)

    match metric.how:
        case How.HIGHEST:
            return max((value for labels, value in now.get(name, ()) if _fits(metric, labels)), default=0.0)
        case How.SUM:
            return _total(metric, now.get(name, ()), {})
        case How.INCREASE:
            return grown(f"{name}_total")
        case How.RATE:
            return grown(f"{name}_total") / elapsed_s
        case How.MEAN:
            count = grown(f"{name}_count")
            return grown(f"{name}_sum") / count if count else 0.0
        case How.WORST:
            bounds = {labels["le"] for labels, _ in now.get(f"{name}_bucket", ())}
            count = grown(f"{name}_count")
            within = [float(le) for le in bounds if grown(f"{name}_bucket", le=le) == count]
            return _told(min(within, default=0.0)) if count else 0.0


def _told(bound: float) -> float:
    """The bound, or BEYOND for infinity, which JSON does not have."""
    return bound if math.isfinite(bound) else BEYOND


def _total(
    metric: EmbeddedMetric, samples: Iterable[tuple[Mapping[str, str], float]], labels: Mapping[str, str]
) -> float:
    return sum(
        value
        for has, value in samples
        if _fits(metric, has) and all(has.get(name) == wanted for name, wanted in labels.items())
    )


def _fits(metric: EmbeddedMetric, labels: Mapping[str, Any]) -> bool:
    return all(labels.get(name) == value for name, value in metric.only.items()) and not any(
        labels.get(name) == value for name, value in metric.but.items()
    )

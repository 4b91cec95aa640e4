"""What CloudWatch gets: every metric of the list in every line, with the numbers that /metrics shows."""

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from prometheus_client import CollectorRegistry

from portfolio_realtime import embedded_metrics as emf
from portfolio_realtime.embedded_metrics import METRICS, SERVICES, EmbeddedMetrics, How
from portfolio_realtime.telemetry import (
    LOG_EVENTS,
    CalculatorMetrics,
    CollectorMetrics,
    MarketMetrics,
    ServerMetrics,
)
from tests.conftest import Until

METRICS_OF: dict[str, Callable[[CollectorRegistry], Any]] = {
    emf.COLLECTOR: CollectorMetrics,
    emf.CONSUMER: MarketMetrics,
    emf.CALCULATOR: CalculatorMetrics,
    emf.SERVER: ServerMetrics,
}
UNITS = ["Seconds", "Count", "Count/Second", "None"]

# CloudWatch user guide, "Specification: Embedded metric format": what is demanded of such a line.
NAME = {"type": "string", "minLength": 1, "maxLength": 1024}
DIRECTIVE = {
    "type": "object",
    "required": ["Namespace", "Dimensions", "Metrics"],
    "properties": {
        "Namespace": NAME,
        "Dimensions": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "array", "maxItems": 30, "items": NAME},
        },
        "Metrics": {
            "type": "array",
            "maxItems": 100,
            "items": {
                "type": "object",
                "required": ["Name"],
                "properties": {"Name": NAME, "Unit": {"enum": UNITS}},
            },
        },
    },
}
FORMAT = {
    "type": "object",
    "required": ["_aws"],
    "properties": {
        "_aws": {
            "type": "object",
            "required": ["Timestamp", "CloudWatchMetrics"],
            "properties": {
                "Timestamp": {"type": "integer", "minimum": 1_000_000_000_000},
                "CloudWatchMetrics": {"type": "array", "minItems": 1, "items": DIRECTIVE},
            },
        }
    },
}


class Clock:
    """Seconds that a test sets."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def opened(service: str) -> tuple[Any, EmbeddedMetrics, Clock]:
    """A service's metrics, its lines, and the clock."""
    registry, clock = CollectorRegistry(), Clock()
    metrics = METRICS_OF[service](registry)
    registry.register(LOG_EVENTS)
    return metrics, EmbeddedMetrics("prod", service, "host-1", registry, monotonic_s=clock), clock


def told(lines: EmbeddedMetrics) -> dict[str, Any]:
    """The next line, as CloudWatch reads it."""
    text = lines.line(1_764_000_000_000)
    assert "\n" not in text
    line: dict[str, Any] = json.loads(text)
    jsonschema.validate(line, FORMAT)
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert all(isinstance(line[metric["Name"]], (int, float)) for metric in directive["Metrics"])
    assert all(isinstance(line[name], str) for name in directive["Dimensions"][0])
    return line


@pytest.mark.parametrize("service", SERVICES)
def test_every_metric_is_in_every_line_as_0_too(service: str) -> None:
    """So that missing data means a missing process."""
    _, lines, _ = opened(service)

    for _ in range(2):
        line = told(lines)
        wanted = {metric.name for metric in METRICS if metric.service == service}
        assert wanted <= line.keys() and len(wanted) >= 5
        assert line["Deployment"] == "prod" and line["Service"] == service
        assert {name: line[name] for name in wanted - {"Errors"}} == dict.fromkeys(wanted - {"Errors"}, 0)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: f"{metric.service}-{metric.name}")
def test_what_a_metric_is_made_of_exists(metric: emf.EmbeddedMetric) -> None:
    """A misspelt family would be 0 for ever, and its alarm would never ring."""
    registry = CollectorRegistry()
    METRICS_OF[metric.service](registry)
    registry.register(LOG_EVENTS)
    kinds = {family.name: family.type for family in registry.collect()}
    wanted = {
        How.HIGHEST: "gauge",
        How.SUM: "gauge",
        How.INCREASE: "counter",
        How.RATE: "counter",
        How.MEAN: "histogram",
        How.WORST: "histogram",
    }

    assert kinds[emf.PREFIX + metric.family] == wanted[metric.how]


def test_names_are_unique_within_a_service() -> None:
    """Else one would hide the other."""
    names = [(metric.service, metric.name) for metric in METRICS]

    assert len(set(names)) == len(names)


def test_the_numbers_of_a_minute() -> None:
    """Counters tell what they have grown by, a second or in all; gauges what they show; then again."""
    metrics, lines, clock = opened(emf.CONSUMER)
    metrics.silence.labels("stocks").set(7)
    metrics.silence.labels("crypto").set(90)
    metrics.price_updates.labels("stocks").inc(600)
    metrics.price_updates.labels("crypto").inc(60)
    metrics.reconnects.labels("stocks", "lost").inc(3)
    metrics.reconnects.labels("stocks", "session").inc(50)  # another feed had its turn: nothing was wrong
    for lag_s in (0.1, 0.3):
        metrics.feed_lag.labels("stocks").observe(lag_s)
    clock.now_s += 60

    line = told(lines)

    assert line["FeedSilentSeconds"] == 90
    assert line["PriceUpdates"] == pytest.approx(11)
    assert line["FeedReconnects"] == 3
    assert line["FeedLagSeconds"] == pytest.approx(0.2)
    clock.now_s += 60
    line = told(lines)
    assert (line["PriceUpdates"], line["FeedReconnects"], line["FeedLagSeconds"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("drifts", "shown"), [([], 0), ([0.0], 1e-6), ([0.00002, 0.004], 0.005), ([0.7], 1e9)]
)
def test_the_worst_drift_of_a_minute(drifts: list[float], shown: float) -> None:
    """The bound of its bucket: no drift beyond what is shown."""
    metrics, lines, _ = opened(emf.COLLECTOR)
    metrics.equity_drift.observe(0.09)
    told(lines)
    for drift in drifts:
        metrics.equity_drift.observe(drift)

    assert told(lines)["EquityDriftRatio"] == shown


def test_connections_that_were_cut_and_those_that_were_slow() -> None:
    """Two close codes of many."""
    metrics, lines, _ = opened(emf.SERVER)
    for code, count in (("1006", 5), ("4002", 2), ("1000", 100), ("4001", 50)):
        metrics.disconnects.labels(code).inc(count)

    line = told(lines)

    assert (line["Reconnects"], line["SlowConsumers"]) == (5, 2)


async def test_a_process_writes_its_line_when_it_is_asked_to(
    valkey_url: str, until: Until, tmp_path: Any
) -> None:
    """EMF_DEPLOYMENT switches it on, on standard output, where nothing else is written."""
    environment = {"REDIS_URL": valkey_url, "EMF_DEPLOYMENT": "here", "LOG_FORMAT": "json"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "portfolio_realtime.portfolio_calculator"),
        env=environment,
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        line = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        process.send_signal(signal.SIGTERM)
        assert await process.stdout.read() == b""
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
    jsonschema.validate(line, FORMAT)
    assert line["Deployment"] == "here" and line["Service"] == "portfolio_calculator"

"""The Prometheus side: every alert fires and clears in a drill, alone, and names a page that exists.

`promtool` (Debian: prometheus) evaluates the rules over made-up series; no Prometheus runs.
"""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from deploy.aws.alarms import RUNBOOK, alarms
from deploy.aws.sizes import SIZES, Size
from prometheus_client import CollectorRegistry

from portfolio_realtime.embedded_metrics import METRICS
from portfolio_realtime.telemetry import CalculatorMetrics, CollectorMetrics, MarketMetrics, ServerMetrics

ROOT: Final = Path(__file__).parent.parent
MONITORING: Final = ROOT / "deploy" / "monitoring"
RULES: Final = MONITORING / "alerts.yaml"
DASHBOARD: Final = MONITORING / "grafana-dashboard.json"
TROUBLE: Final = range(20, 60)  # minutes
END: Final = 120

SYMBOLS: Final = 'symbols{service="symbol_collector"}'
SHARDS: Final = 'shards_owned{service="portfolio_calculator"}'
SILENCE: Final = 'feed_silence_seconds{service="market_data_consumer",feed="stocks"}'
DRIFT: Final = 'reconciled_total{outcome="drift"}'
DRIFT_BUCKET: Final = 'equity_drift_ratio_bucket{le="0.01"}'
ERRORS: Final = 'log_events_total{service="websocket_server",level="error"}'
CUT: Final = 'disconnects_total{code="1006"}'
LOST: Final = 'feed_reconnects_total{feed="stocks",reason="lost"}'
EXPIRED: Final = 'auth_failures_total{reason="expired"}'
UNKNOWN: Final = 'auth_failures_total{reason="revocations_unknown"}'
WITHIN_1_S: Final = 'publication_lag_seconds_bucket{le="1.0"}'

# A healthy system in the middle of a trading day: what a gauge shows, and what a counter gains each minute.
GAUGES: Final = {
    SYMBOLS: 500,
    SHARDS: 16,
    'connections{service="websocket_server"}': 1000,
    SILENCE: 0,
    "event_stream_lag_seconds": 0,
    "stale_accounts": 10,
    "stale_ratio": 0.01,
    "watched_accounts": 1000,
    "redis_connected_slave_lag_seconds": 0,
}
COUNTERS: Final = {
    DRIFT: 0,
    "equity_drift_ratio_count": 200,
    DRIFT_BUCKET: 200,
    ERRORS: 0,
    CUT: 5,
    LOST: 0,
    'feed_reconnects_total{feed="stocks",reason="session"}': 1,
    EXPIRED: 2,
    UNKNOWN: 0,
    "recalculation_seconds_sum": 0.2,
    "recalculation_seconds_count": 4,
    "redis_evicted_keys_total": 0,
    WITHIN_1_S: 60_000,
    **{f'publication_lag_seconds_bucket{{le="{bound}"}}': 60_000 for bound in ("5.0", "+Inf")},
}


@dataclass(frozen=True)
class Drill:
    """Which alert fires, if any, while these series are otherwise; None: they are missing."""

    alert: str | None
    trouble: dict[str, float | None]


DRILLS: Final = [
    Drill("ServiceMissing", {SYMBOLS: None}),
    Drill("ServiceMissing", {SILENCE: None}),
    Drill("ServiceMissing", {SHARDS: None}),
    Drill("ServiceMissing", {**dict.fromkeys(GAUGES), **dict.fromkeys(COUNTERS)}),
    Drill("FeedSilent", {SILENCE: 90}),
    Drill("EventStreamLate", {"event_stream_lag_seconds": 90}),
    Drill("AccountsStale", {"stale_ratio": 0.4}),
    Drill("RecordDrift", {DRIFT: 1}),
    Drill("EquityDrift", {DRIFT_BUCKET: 195}),
    Drill("Errors", {ERRORS: 5}),
    Drill("Reconnects", {CUT: 200}),
    Drill("FeedReconnects", {LOST: 1}),
    Drill("CredentialsRefused", {EXPIRED: 60}),
    Drill("RevocationsUnknown", {UNKNOWN: 1}),
    Drill("RecalculationSlow", {"recalculation_seconds_sum": 8}),
    Drill("PublicationsLate", {WITHIN_1_S: 50_000}),
    Drill("ValkeyEvicts", {"redis_evicted_keys_total": 10}),
    Drill("ValkeyReplicaBehind", {"redis_connected_slave_lag_seconds": 30}),
    Drill(None, {"stale_accounts": 1000}),  # a night: nobody is woken
    Drill(None, {LOST: 0.1, CUT: 40, EXPIRED: 10}),  # an ordinary bad hour
]


@pytest.fixture(scope="module")
def promtool() -> str:
    """Where it is; a skip where it is not, a failure in the gate."""
    found = shutil.which("promtool")
    if found is None and os.environ.get("CI"):
        pytest.fail("promtool is missing: apt-get install prometheus")
    if found is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    return found


def run(*command: str) -> str:
    """What a program prints; its exit code must be 0."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> list[dict[str, Any]]:
    """The alerts of the file."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def drilled(drill: Drill) -> dict[str, Any]:
    """One test of `promtool test rules`: quiet, trouble, quiet again."""
    series = [*((name, float(value), False) for name, value in GAUGES.items())]
    series += [(name, float(growth), True) for name, growth in COUNTERS.items()]
    fires: list[dict[str, Any]] = (
        [] if drill.alert is None else [{"labels": f'{{alertname="{drill.alert}"}}'}]
    )
    expression = 'count by (alertname) (ALERTS{alertstate="firing"}) > bool 0'

    def at(minute: int, expected: list[dict[str, Any]]) -> dict[str, Any]:
        samples = [{**one, "value": 1} for one in expected]
        return {"expr": expression, "eval_time": f"{minute}m", "exp_samples": samples}

    return {
        "interval": "1m",
        "input_series": [
            {"series": full(name), "values": " ".join(values(drill, name, usual, is_counter=is_counter))}
            for name, usual, is_counter in series
        ],
        "promql_expr_test": [at(TROUBLE.start - 1, []), at(TROUBLE.stop - 1, fires), at(END, [])],
    }


def full(name: str) -> str:
    """With our prefix, but for what is not ours."""
    return name if name.startswith("redis_") else f"portfolio_realtime_{name}"


def values(drill: Drill, name: str, usual: float, *, is_counter: bool) -> list[str]:
    """What the series shows at each minute; `_`: nothing."""
    shown: list[str] = []
    total = 0.0
    for minute in range(END + 1):
        value = drill.trouble.get(name, usual) if minute in TROUBLE else usual
        total += value or 0.0
        shown.append(
            "_" if value is None else f"{total if is_counter else value:g}" if total < 1e5 else str(total)
        )
    return shown


def test_every_alert_fires_and_clears_and_no_other_does(promtool: str, tmp_path: Path) -> None:
    """An hour of trouble between two quiet ones, for each; a night and a bad hour wake nobody."""
    assert {drill.alert for drill in DRILLS} - {None} == {rule["alert"] for rule in rules()}
    tests = tmp_path / "alerts.test.yaml"
    drills = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [drilled(one) for one in DRILLS],
    }
    tests.write_text(yaml.safe_dump(drills))

    run(promtool, "test", "rules", str(tests))


def test_the_drill_can_fail(promtool: str, tmp_path: Path) -> None:
    """A rule whose threshold was turned round is found."""
    broken = tmp_path / "alerts.yaml"
    broken.write_text(RULES.read_text().replace("> 60", "< 60"))
    tests = tmp_path / "alerts.test.yaml"
    drill = drilled(Drill("FeedSilent", {SILENCE: 90}))
    tests.write_text(
        yaml.safe_dump({"rule_files": [str(broken)], "evaluation_interval": "1m", "tests": [drill]})
    )

    done = subprocess.run(
        [promtool, "test", "rules", str(tests)], capture_output=True, check=False, timeout=60
    )

    assert done.returncode == 1


def test_the_files_are_valid(promtool: str) -> None:
    """The rules, and the configuration that loads them."""
    run(promtool, "check", "rules", str(RULES))
    run(promtool, "check", "config", "--syntax-only", str(MONITORING / "prometheus.yaml"))


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_names_its_page_and_what_missing_data_means(rule: dict[str, Any]) -> None:
    """Whoever is woken finds what to do, and the page names the alert."""
    annotations = rule["annotations"]

    assert annotations.keys() == {"summary", "missing", "runbook"}
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert f"`{rule['alert']}`" in (ROOT / annotations["runbook"]).read_text()


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_an_alarm_of_cloudwatch_names_its_page_too(size: Size) -> None:
    """Which names it, and says what missing data means; what it watches is written as EMF."""
    for alarm in alarms(size):
        assert f"`{alarm.name}`" in (ROOT / RUNBOOK / f"{alarm.page}.md").read_text()
        assert alarm.why_missing
        if alarm.kind == "own":
            assert (alarm.of, alarm.metric) in {(each.service, each.name) for each in METRICS}


def test_no_page_is_left_alone() -> None:
    """The list of pages is the way to them."""
    index = (ROOT / RUNBOOK / "README.md").read_text()
    pages = {path.name for path in (ROOT / RUNBOOK).glob("*.md")} - {"README.md"}

    assert pages == set(re.findall(r"\]\(([a-z-]+\.md)\)", index))


def test_what_is_asked_for_is_measured() -> None:
    """Every series in the rules and on the dashboard is one that our services write."""
    written = {"portfolio_realtime_log_events"}
    for metrics in (CollectorMetrics, MarketMetrics, CalculatorMetrics, ServerMetrics):
        registry = CollectorRegistry()
        metrics(registry)
        written |= {family.name for family in registry.collect()}
    text = RULES.read_text() + DASHBOARD.read_text()
    asked = re.findall(r"portfolio_realtime_\w+", text)

    assert {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in asked} <= written


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    """Panels with an id, a place, a query in balanced brackets, and a page that exists where one is named."""
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]

    assert len({panel["id"] for panel in panels}) == len(panels) >= 15
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    for panel in panels:
        assert all(target["expr"].count("(") == target["expr"].count(")") for target in panel["targets"])
        assert all((ROOT / page).exists() for page in re.findall(r"docs/\S+\.md", panel["description"]))


def test_the_dashboards_queries_are_promql(promtool: str, tmp_path: Path) -> None:
    """promtool reads them as rules; Grafana's own interval stands for one of ours."""
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    recorded = [
        {"record": f"panel:{index}", "expr": query.replace("$__rate_interval", "1m")}
        for index, query in enumerate(queries)
    ]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))

    run(promtool, "check", "rules", str(path))

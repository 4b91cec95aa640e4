"""Every alarm: what it watches, when it rings, what missing data means, and the page that says what to do."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from deploy.aws.services import KEPT_RUNNING
from deploy.aws.sizes import SERVERS_MIN, Size

Missing = Literal["breaching", "notBreaching", "missing"]
Kind = Literal["own", "service", "balancer", "targets", "node"]
RUNBOOK: Final = "docs/runbook"
MINUTE_S: Final = 60


@dataclass(frozen=True)
class Alarm:
    """Rings when `datapoints` of the last `periods` values compare so with `threshold`."""

    name: str
    kind: Kind
    metric: str
    statistic: str
    comparison: Literal["GreaterThanThreshold", "GreaterThanOrEqualToThreshold", "LessThanThreshold"]
    threshold: float
    datapoints: int
    periods: int
    missing: Missing
    why_missing: str
    meaning: str
    page: str
    of: str = ""  # the service of `own` and `service`, the node of `node`: 001, 002, 003
    period_s: int = MINUTE_S

    @property
    def description(self) -> str:
        """What a person reads in the mail."""
        return f"{self.meaning} Missing data: {self.why_missing} {RUNBOOK}/{self.page}.md"


SILENT_LOG: Final = "a lost line of the log must not ring."
STARTING: Final = "a service without a task sends none; its alarm 'running' tells."


def alarms(size: Size) -> Iterator[Alarm]:
    """All alarms of an installation of this size."""
    for service in KEPT_RUNNING:
        yield from _of_service(service.name, size)
    yield from _of_product()
    yield from _of_balancer()
    for number in range(1, size.replicas + 2):
        yield from _of_node(f"{number:03d}")


def _of_service(name: str, size: Size) -> Iterator[Alarm]:
    wanted = size.counts[name]
    shown = name.replace("_", "-")
    yield Alarm(
        f"{shown}-running",
        "service",
        "CPUUtilization",
        "SampleCount",
        "LessThanThreshold",
        wanted,
        5,
        5,
        "breaching",
        "no task sends none.",
        f"Fewer than {wanted} tasks of {name} run.",
        "task-not-running",
        name,
    )
    for what, metric, threshold in (("cpu", "CPUUtilization", 85), ("memory", "MemoryUtilization", 85)):
        yield Alarm(
            f"{shown}-{what}",
            "service",
            metric,
            "Average",
            "GreaterThanThreshold",
            threshold,
            10,
            15,
            "missing",
            STARTING,
            f"{name} has used {threshold} % of its {what} for ten minutes.",
            f"high-{what}",
            name,
        )
    yield Alarm(
        f"{shown}-errors",
        "own",
        "Errors",
        "Sum",
        "GreaterThanThreshold",
        10,
        3,
        5,
        "notBreaching",
        SILENT_LOG,
        f"{name} has had more than ten errors a minute.",
        "errors",
        name,
    )


def _of_product() -> Iterator[Alarm]:
    yield Alarm(
        "feed-silent",
        "own",
        "FeedSilentSeconds",
        "Maximum",  # one that stands by writes 0
        "GreaterThanThreshold",
        60,
        3,
        5,
        "breaching",
        "the consumer writes 0 at night, so none means that it is away.",
        "No trade of an open market that is followed has come for a minute.",
        "feed-silent",
        "market_data_consumer",
    )
    yield Alarm(
        "stale-accounts",
        "own",
        "StaleRatio",  # 0 at night, when every price is old
        "Maximum",
        "GreaterThanThreshold",
        0.25,
        10,
        15,
        "notBreaching",
        SILENT_LOG,
        "A quarter of the watched accounts have old prices while the exchange is open.",
        "stale-prices",
        "portfolio_calculator",
    )
    yield Alarm(
        "drift",
        "own",
        "EquityDriftRatio",
        "Maximum",
        "GreaterThanThreshold",
        0.001,
        3,
        5,
        "notBreaching",
        SILENT_LOG,
        "Our value of an account differs from the broker's by more than 0.1 %.",
        "drift",
        "symbol_collector",
    )
    yield Alarm(
        "event-stream-lag",
        "own",
        "EventStreamLagSeconds",
        "Maximum",
        "GreaterThanThreshold",
        60,
        5,
        5,
        "breaching",
        "the collector writes 0 when nothing happens, so none means that it is away.",
        "Bookings come more than a minute late.",
        "event-stream-lag",
        "symbol_collector",
    )
    yield Alarm(
        "reconnects",
        "own",
        "Reconnects",
        "Sum",
        "GreaterThanThreshold",
        1000,
        3,
        5,
        "notBreaching",
        SILENT_LOG,
        "Clients reconnect more than a thousand times a minute: something cuts them.",
        "reconnects",
        "websocket_server",
    )
    yield Alarm(
        "revocations-unknown",
        "own",
        "RevocationsUnknown",
        "Sum",
        "GreaterThanThreshold",
        0,
        1,
        1,
        "notBreaching",
        SILENT_LOG,
        "Servers refuse older tokens: Valkey has lost what was revoked.",
        "revocations-lost",
        "websocket_server",
    )
    yield Alarm(
        "slow-consumers",
        "own",
        "SlowConsumers",
        "Sum",
        "GreaterThanThreshold",
        100,
        5,
        10,
        "notBreaching",
        SILENT_LOG,
        "More than a hundred clients a minute are cut because they do not read.",
        "slow-consumers",
        "websocket_server",
    )


def _of_balancer() -> Iterator[Alarm]:
    none_sent = "the balancer sends none while there is nothing to count."
    yield Alarm(
        "healthy-servers",
        "targets",
        "HealthyHostCount",
        "Minimum",
        "LessThanThreshold",
        SERVERS_MIN,
        5,
        5,
        "breaching",
        "a balancer without targets sends none.",
        f"Fewer than {SERVERS_MIN} servers are healthy.",
        "unhealthy-servers",
    )
    yield Alarm(
        "balancer-errors",
        "balancer",
        "HTTPCode_ELB_5XX_Count",
        "Sum",
        "GreaterThanThreshold",
        10,
        3,
        5,
        "notBreaching",
        none_sent,
        "The balancer itself answers 5xx: no server takes new clients.",
        "balancer-errors",
    )


def _of_node(number: str) -> Iterator[Alarm]:
    away = "a node that fails over sends none for some minutes; 'errors' of the services tell."
    for what, metric, statistic, threshold, meaning in (
        ("cpu", "EngineCPUUtilization", "Average", 80, "uses 80 % of its one core"),
        ("memory", "DatabaseMemoryUsagePercentage", "Average", 75, "has 75 % of its memory in use"),
        ("evictions", "Evictions", "Sum", 0, "evicts keys, which its policy forbids"),
        ("replication-lag", "ReplicationLag", "Average", 5, "is five seconds behind its primary"),
    ):
        yield Alarm(
            f"valkey-{number}-{what}",
            "node",
            metric,
            statistic,
            "GreaterThanThreshold",
            threshold,
            5,
            5,
            "missing",
            away,
            f"Valkey's node {number} {meaning}.",
            f"valkey-{what}",
            number,
        )

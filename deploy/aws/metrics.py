"""The metrics that alarms, scaling and the dashboard may use: the services' own, and AWS's."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

NAMESPACE: Final = "PortfolioRealtime"
DEPLOYMENT: Final = "Deployment"  # dimension: the stack's name, so that two stacks do not add up
SERVICE: Final = "Service"  # dimension: which of the four services

# What is used of what each service writes (portfolio_realtime.embedded_metrics), once a minute, as 0 too.
OWN: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "symbol_collector": ("EventStreamLagSeconds", "EquityDriftRatio", "Errors"),
        "market_data_consumer": ("FeedSilentSeconds", "FeedReconnects", "Errors"),
        "portfolio_calculator": ("StaleRatio", "Errors"),
        "websocket_server": ("Connections", "Reconnects", "RevocationsUnknown", "SlowConsumers", "Errors"),
    }
)


@dataclass(frozen=True)
class Family:
    """Metrics of AWS: their namespace, what tells one series from another, where AWS lists them."""

    namespace: str
    dimensions: tuple[str, ...]
    names: frozenset[str]
    source: str


ECS: Final = Family(
    "AWS/ECS",
    ("ClusterName", "ServiceName"),
    frozenset({"CPUUtilization", "MemoryUtilization"}),
    "Amazon ECS developer guide, Amazon ECS CloudWatch metrics",
)
BALANCER: Final = Family(
    "AWS/ApplicationELB",
    ("LoadBalancer",),
    frozenset(
        {"ActiveConnectionCount", "NewConnectionCount", "HTTPCode_ELB_5XX_Count", "RejectedConnectionCount"}
    ),
    "User guide for Application Load Balancers, CloudWatch metrics",
)
TARGETS: Final = Family(
    "AWS/ApplicationELB",
    ("LoadBalancer", "TargetGroup"),
    frozenset({"HealthyHostCount", "UnHealthyHostCount", "TargetConnectionErrorCount"}),
    "User guide for Application Load Balancers, CloudWatch metrics",
)
VALKEY: Final = Family(
    "AWS/ElastiCache",
    ("CacheClusterId",),
    frozenset(
        {
            "EngineCPUUtilization",
            "DatabaseMemoryUsagePercentage",
            "Evictions",
            "ReplicationLag",
            "CurrConnections",
        }
    ),
    "Amazon ElastiCache user guide, metrics for Valkey and Redis OSS and host-level metrics",
)
FAMILIES: Final = (ECS, BALANCER, TARGETS, VALKEY)

"""The two sizes of an installation, and what is alike in both."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

VPC_NETWORK: Final = "10.42.0.0/16"
SERVER_PORT: Final = 8001
VALKEY_PORT: Final = 6379
VALKEY_VERSION: Final = "9.1"  # the minor version that is embedded, too
VALKEY_FAMILY: Final = "valkey9"
SERVERS_MIN: Final = 2  # also at night
STOP_TIMEOUT_S: Final = 120  # Fargate's longest
DRAIN_GRACE_S: Final = 10  # a load balancer hears of a stop some 5 s late
DRAIN_S: Final = 50
CONNECTION_AGE_S: Final = 5400  # 68 to 90 minutes with its jitter, so that new servers get clients
LOG_DAYS: Final = 30
SNAPSHOT_DAYS: Final = 7


@dataclass(frozen=True)
class TaskSize:
    """Processor units (1024 are one) and memory of a task, as Fargate pairs them."""

    cpu: int
    memory_mib: int


@dataclass(frozen=True)
class Size:
    """What costs money, and how much of it there is."""

    name: str
    has_private_tasks: bool  # behind a NAT gateway, without public addresses
    valkey_node: str
    replicas: int
    tasks: Mapping[str, TaskSize]
    counts: Mapping[str, int]
    servers_by_day: int  # least number while the exchange is open
    servers_max: int
    connections_per_server: int  # what scaling aims at


_SMALLEST: Final = TaskSize(256, 512)

SIZES: Final[Mapping[str, Size]] = MappingProxyType(
    {
        "small": Size(
            name="small",
            has_private_tasks=False,
            valkey_node="cache.t4g.micro",
            replicas=1,
            tasks={
                "symbol_collector": _SMALLEST,
                "market_data_consumer": _SMALLEST,
                "portfolio_calculator": _SMALLEST,
                "websocket_server": _SMALLEST,
                "operator": _SMALLEST,
            },
            counts={
                "symbol_collector": 1,
                "market_data_consumer": 1,
                "portfolio_calculator": 1,
                "websocket_server": SERVERS_MIN,
            },
            servers_by_day=SERVERS_MIN,
            servers_max=4,
            connections_per_server=2000,
        ),
        "standard": Size(
            name="standard",
            has_private_tasks=True,
            valkey_node="cache.t4g.small",
            replicas=2,
            tasks={
                "symbol_collector": _SMALLEST,
                "market_data_consumer": _SMALLEST,
                "portfolio_calculator": TaskSize(512, 1024),
                "websocket_server": TaskSize(512, 1024),
                "operator": _SMALLEST,
            },
            counts={
                "symbol_collector": 1,
                "market_data_consumer": 1,
                "portfolio_calculator": 2,
                "websocket_server": SERVERS_MIN,
            },
            servers_by_day=3,
            servers_max=30,
            connections_per_server=4000,
        ),
    }
)

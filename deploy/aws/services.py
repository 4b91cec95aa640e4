"""What each service is told: its settings, its secrets, and where it may go."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from deploy.aws.sizes import CONNECTION_AGE_S, DRAIN_GRACE_S, DRAIN_S, SERVER_PORT, VALKEY_PORT

HEALTH_COMMAND: Final = (
    "CMD",
    "python",
    "-I",
    "-S",
    "/app/health.py",
)  # ECS ignores the image's own
IMAGE_USER: Final = "10001:10001"

BROKER_KEYS: Final = ("BROKER_API_KEY", "BROKER_SECRET_KEY")
ALPACA_KEYS: Final = (*BROKER_KEYS, "MARKET_API_KEY", "MARKET_SECRET_KEY")
CLIENT_KEYS: Final = ("JWT_SECRET", "JWT_SECRET_PREVIOUS", "API_KEY_SECRET", "METRICS_TOKEN")
VALKEY_KEY: Final = "REDIS_PASSWORD"

# Owner of a secret -> the keys of its JSON, each the name of a setting. Each service has one of Valkey, too.
SECRETS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"alpaca": ALPACA_KEYS, "clients": CLIENT_KEYS}
)

# The guide's values; the others are the product's own.
COMMON: Final[Mapping[str, str]] = MappingProxyType(
    {
        "LOG_FORMAT": "json",
        "REDIS_PORT": str(VALKEY_PORT),
        "REDIS_DB": "0",
        "REDIS_SSL": "true",
    }
)
COLLECTOR: Final[Mapping[str, str]] = MappingProxyType({"SYMBOL_COLLECTION_INTERVAL": "300"})
CALCULATOR: Final[Mapping[str, str]] = MappingProxyType(
    {"PRICE_TTL": "3600", "MIN_UPDATE_INTERVAL": "2", "RECALCULATION_INTERVAL": "30"}
)
SERVER: Final[Mapping[str, str]] = MappingProxyType(
    {
        "WEBSOCKET_HOST": "0.0.0.0",
        "WEBSOCKET_PORT": str(SERVER_PORT),
        "REQUIRE_TLS": "true",
        "DRAIN_GRACE_SECONDS": str(DRAIN_GRACE_S),
        "DRAIN_SECONDS": str(DRAIN_S),
        "MAX_CONNECTION_AGE_SECONDS": str(CONNECTION_AGE_S),
    }
)


@dataclass(frozen=True)
class Service:
    """A task definition: settings that are the same everywhere, its secrets, how it is run."""

    name: str
    settings: Mapping[str, str]
    secrets: Mapping[str, tuple[str, ...]]  # owner -> keys of its JSON
    asks_alpaca: bool = False
    is_server: bool = False
    is_on_spot: bool = False
    is_kept_running: bool = True


SERVICES: Final = (
    Service("symbol_collector", COLLECTOR, {"alpaca": BROKER_KEYS}, asks_alpaca=True, is_on_spot=True),
    # Which of the two pairs is the broker's decides how market data is asked for.
    Service("market_data_consumer", {}, {"alpaca": ALPACA_KEYS}, asks_alpaca=True),
    Service("portfolio_calculator", CALCULATOR, {}),
    Service("websocket_server", SERVER, {"clients": CLIENT_KEYS}, is_server=True),
    Service("operator", {}, {}, is_kept_running=False),
)

KEPT_RUNNING: Final = tuple(service for service in SERVICES if service.is_kept_running)


def title(name: str) -> str:
    """`symbol_collector` -> `SymbolCollector`, as logical ids are written."""
    return "".join(word.capitalize() for word in name.split("_"))

"""Settings from the environment and .env, checked at the start."""

from portfolio_realtime.config.settings import (
    SECRET_BYTES_MIN,
    Settings,
    child_environment,
    described,
    described_source,
    listed,
    load,
)

__all__ = [
    "SECRET_BYTES_MIN",
    "Settings",
    "child_environment",
    "described",
    "described_source",
    "listed",
    "load",
]

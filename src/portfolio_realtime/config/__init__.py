"""Settings from the environment and `.env`, validated when they are read."""

from portfolio_realtime.config.display import described, described_source
from portfolio_realtime.config.settings import (
    SECRET_BYTES_MIN,
    Settings,
    child_environment,
    load,
)
from portfolio_realtime.config.urls import listed

__all__ = [
    "SECRET_BYTES_MIN",
    "Settings",
    "child_environment",
    "described",
    "described_source",
    "listed",
    "load",
]

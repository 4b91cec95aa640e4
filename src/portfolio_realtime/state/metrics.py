"""The metrics of every process, so that one `/metrics` shows the whole system."""

from collections.abc import Awaitable
from typing import Any, cast

from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection, reports_unavailable


class Metrics:
    """The keys `{metrics}:SERVICE:INSTANCE`. They expire METRICS_TTL_S after their process has ended."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @reports_unavailable
    async def write(self, service: str, instance: str, exposition: bytes) -> None:
        """Store one process's metrics as Prometheus text. Raises StateUnavailable."""
        key = keys.metrics(service, instance)
        await cast("Awaitable[Any]", self._connection.commands.set(key, exposition, ex=keys.METRICS_TTL_S))

    @reports_unavailable
    async def read_all(self) -> list[tuple[str, str, str]]:
        """(service, instance, Prometheus text) of every running process. Raises StateUnavailable."""
        commands = self._connection.commands
        names = [name async for name in commands.scan_iter(match=keys.metrics_pattern(), count=1000)]
        found = await cast("Awaitable[list[bytes | None]]", commands.mget(names)) if names else []
        return [
            (*keys.metrics_source(name.decode()), text.decode())
            for name, text in zip(names, found, strict=True)
            if text is not None
        ]

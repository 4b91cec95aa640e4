"""WebSocket servers in processes of their own."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import httpx

from tests.conftest import SHARDS, end
from tests.support.websocket_servers import SECRET, Served


@contextlib.contextmanager
def started(url: str, port: int, **settings: str) -> Generator["subprocess.Popen[bytes]"]:
    """`python -m portfolio_realtime.websocket_server` with these settings."""
    environment = {"REDIS_URL": url, "SHARDS": str(SHARDS), "JWT_SECRET": SECRET, "WEBSOCKET_PORT": str(port)}
    process = subprocess.Popen(
        [sys.executable, "-m", "portfolio_realtime.websocket_server"],
        env={**os.environ, "LOG_LEVEL": "warning", **environment, **settings},
    )
    try:
        yield process
    finally:
        end(process)


class Remote(Served):
    """A server in another process."""

    def __init__(self, port: int) -> None:
        self.port = port
        # Both ends would otherwise give up an idle connection after the same 5 s.
        limits = httpx.Limits(keepalive_expiry=1.0)
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, limits=limits)


def children(pid: int) -> list[int]:
    """The processes that a process has started and that live."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in found.split()]

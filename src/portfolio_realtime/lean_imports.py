"""Keeps libraries from importing optional packages that no service uses.

structlog and httpx import Rich if it is installed, and the Valkey client imports OpenTelemetry: together 140
modules, 6 MB and a tenth of a second in each process. All three work without them.
"""

import contextlib
import sys
from collections.abc import Generator
from typing import Any, Final, cast

RICH: Final = "rich"
OPENTELEMETRY: Final = "opentelemetry"  # FastAPI needs it where it is used


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

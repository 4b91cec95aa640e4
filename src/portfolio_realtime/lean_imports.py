"""What other libraries import only because it is installed, and no service uses: left out where one starts.

structlog and httpx bring Rich, the Valkey client brings OpenTelemetry: together 140 modules, 6 MB and a tenth
of a second in each process. All of them do without where these cannot be imported.
"""

import contextlib
import sys
from collections.abc import Generator
from typing import Any, Final, cast

RICH: Final = "rich"
OPENTELEMETRY: Final = "opentelemetry"  # FastAPI needs it, where that is used


@contextlib.contextmanager
def lean_imports(*unused: str) -> Generator[None]:
    """Wrap imports. Afterwards these can be imported by whoever needs them, as tracing does."""
    modules = cast("dict[str, Any]", sys.modules)
    hidden = [name for name in unused if name not in modules]
    modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            modules.pop(name)

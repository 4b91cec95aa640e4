"""`python -m portfolio_realtime.websocket_server`."""

import importlib

from portfolio_realtime import interrupts, no_options
from portfolio_realtime.lean_imports import (
    COLOURS,
    CRYPTOGRAPHY,
    OPENTELEMETRY,
    RELOADING,
    RICH,
    bare_package,
    lean_imports,
)


def unused() -> tuple[str, ...]:
    """What the server does without, by its settings: only keys of others need cryptography."""
    from portfolio_realtime import config
    from portfolio_realtime.errors import SettingsError

    try:
        return () if config.load().jwks_url else CRYPTOGRAPHY
    except SettingsError:  # the service says what is wrong, and ends
        return CRYPTOGRAPHY


if __name__ == "__main__":
    with interrupts.quiet():
        no_options.refuse(
            "websocket_server", "Serve live values to browsers, on WEBSOCKET_PORT (8001).", "--worker"
        )
        with lean_imports(OPENTELEMETRY, RICH, RELOADING, COLOURS):
            hidden = unused()
            with lean_imports(*hidden), bare_package("uvicorn"):  # without its commands and supervisors
                import uvicorn.config

                uvicorn.Config = uvicorn.config.Config  # the next one imports it from the package
                importlib.import_module("uvicorn.lifespan.off")
                from portfolio_realtime.websocket_server.server import main
        main()

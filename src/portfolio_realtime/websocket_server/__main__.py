"""`python -m portfolio_realtime.websocket_server`."""

from portfolio_realtime import interrupts, no_options
from portfolio_realtime.lean_imports import COLOURS, RELOADING, RICH, lean_imports

if __name__ == "__main__":
    with interrupts.quiet():
        no_options.refuse(
            "websocket_server", "Serve live values to browsers, on WEBSOCKET_PORT (8001).", "--worker"
        )
        with lean_imports(RICH, RELOADING, COLOURS):
            from portfolio_realtime.websocket_server.server import main
        main()

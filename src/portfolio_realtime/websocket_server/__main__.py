"""`python -m portfolio_realtime.websocket_server`."""

from portfolio_realtime import interrupts
from portfolio_realtime.lean_imports import COLOURS, RELOADING, RICH, lean_imports

if __name__ == "__main__":
    with interrupts.quiet():
        with lean_imports(RICH, RELOADING, COLOURS):
            from portfolio_realtime.websocket_server.server import main
        main()

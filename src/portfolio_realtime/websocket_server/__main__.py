"""`python -m portfolio_realtime.websocket_server`."""

from portfolio_realtime import interrupts

if __name__ == "__main__":
    with interrupts.quiet():
        from portfolio_realtime.websocket_server.server import main

        main()

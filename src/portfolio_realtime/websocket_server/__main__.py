"""`python -m portfolio_realtime.websocket_server`."""

from portfolio_realtime.websocket_server.server import main

if __name__ == "__main__":
    main()

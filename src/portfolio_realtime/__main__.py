"""`python -m portfolio_realtime`: the command line."""

from portfolio_realtime.cli.app import app

if __name__ == "__main__":
    app()

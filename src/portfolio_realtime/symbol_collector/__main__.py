"""`python -m portfolio_realtime.symbol_collector`."""

from portfolio_realtime.service import main
from portfolio_realtime.symbol_collector.collector import NAME, run

if __name__ == "__main__":
    main(NAME, run)

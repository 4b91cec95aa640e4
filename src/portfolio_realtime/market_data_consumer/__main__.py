"""`python -m portfolio_realtime.market_data_consumer`."""

from portfolio_realtime.market_data_consumer.consumer import run
from portfolio_realtime.service import main

if __name__ == "__main__":
    main("market_data_consumer", run)

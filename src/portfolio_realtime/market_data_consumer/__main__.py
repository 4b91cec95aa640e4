"""`python -m portfolio_realtime.market_data_consumer`."""

from portfolio_realtime import interrupts

if __name__ == "__main__":
    with interrupts.quiet():
        from portfolio_realtime.market_data_consumer.consumer import run
        from portfolio_realtime.service import main

        main("market_data_consumer", run)

"""`python -m portfolio_realtime.market_data_consumer`."""

from portfolio_realtime import interrupts, no_options
from portfolio_realtime.lean_imports import OPENTELEMETRY, RICH, lean_imports

if __name__ == "__main__":
    with interrupts.quiet():
        no_options.refuse(
            "market_data_consumer", "Follow the prices of every held symbol, and write them to Valkey."
        )
        with lean_imports(OPENTELEMETRY, RICH):
            from portfolio_realtime.market_data_consumer.consumer import run
            from portfolio_realtime.service import main
        main("market_data_consumer", run)

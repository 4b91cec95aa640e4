"""`python -m portfolio_realtime.symbol_collector`."""

from portfolio_realtime import interrupts, no_options
from portfolio_realtime.lean_imports import OPENTELEMETRY, RICH, lean_imports

if __name__ == "__main__":
    with interrupts.quiet():
        no_options.refuse(
            "symbol_collector", "Follow accounts and positions of the broker, and write them to Valkey."
        )
        with lean_imports(OPENTELEMETRY, RICH):
            from portfolio_realtime.service import main
            from portfolio_realtime.symbol_collector.collector import NAME, run
        main(NAME, run)

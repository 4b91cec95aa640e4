"""`python -m portfolio_realtime.symbol_collector`."""

from portfolio_realtime import interrupts

if __name__ == "__main__":
    with interrupts.quiet():
        from portfolio_realtime.service import main
        from portfolio_realtime.symbol_collector.collector import NAME, run

        main(NAME, run)

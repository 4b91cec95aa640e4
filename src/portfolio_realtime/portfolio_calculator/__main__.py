"""`python -m portfolio_realtime.portfolio_calculator`."""

from portfolio_realtime import interrupts

if __name__ == "__main__":
    with interrupts.quiet():
        from portfolio_realtime.portfolio_calculator.calculator import run
        from portfolio_realtime.service import main

        main("portfolio_calculator", run)

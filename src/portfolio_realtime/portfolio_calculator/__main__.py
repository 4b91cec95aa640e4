"""`python -m portfolio_realtime.portfolio_calculator`."""

from portfolio_realtime import interrupts, no_options
from portfolio_realtime.lean_imports import OPENTELEMETRY, RICH, lean_imports

if __name__ == "__main__":
    with interrupts.quiet():
        no_options.refuse(
            "portfolio_calculator", "Value the accounts that somebody watches, and publish each new value."
        )
        with lean_imports(OPENTELEMETRY, RICH):
            from portfolio_realtime.portfolio_calculator.calculator import run
            from portfolio_realtime.service import main
        main("portfolio_calculator", run)

"""`python -m portfolio_realtime.portfolio_calculator`."""

from portfolio_realtime.portfolio_calculator.calculator import run
from portfolio_realtime.service import main

if __name__ == "__main__":
    main("portfolio_calculator", run)

"""Runs all four services in one terminal: `python -m portfolio_realtime.run_services`.

Ctrl-C ends everything within seconds and leaves no process and no folder behind.
"""

from collections.abc import Sequence
from typing import Final, NoReturn

from portfolio_realtime import interrupts
from portfolio_realtime.lean_imports import OPENTELEMETRY, RICH, lean_imports

SERVICES: Final = ("websocket_server", "symbol_collector", "market_data_consumer", "portfolio_calculator")


def main(services: Sequence[str] = SERVICES) -> NoReturn:
    """Run services until Ctrl-C, then exit with one of `exit_codes`."""
    with interrupts.quiet():
        with lean_imports(OPENTELEMETRY, RICH):
            # The import takes a second, in which Ctrl-C must already be quiet.
            from portfolio_realtime import supervisor

        supervisor.main(services)


if __name__ == "__main__":
    main()

"""Runs all four services in one terminal: `python -m portfolio_realtime.run_services`.

Ctrl-C ends everything within seconds and leaves no process and no folder behind.
"""

from collections.abc import Sequence
from typing import Final, NoReturn

from portfolio_realtime import interrupts, no_options, preloading
from portfolio_realtime.lean_imports import OPENTELEMETRY, RICH, lean_imports
from portfolio_realtime.preloading import Importing

SERVICES: Final = ("websocket_server", "symbol_collector", "market_data_consumer", "portfolio_calculator")


def main(services: Sequence[str] = SERVICES) -> NoReturn:
    """Run services until Ctrl-C, then exit with one of `exit_codes`."""
    with interrupts.quiet():
        importing: Importing | None = None
        if len(services) > 1 and preloading.is_possible():
            from portfolio_realtime import preloaded

            importing = preloaded.fork()
        with lean_imports(OPENTELEMETRY, RICH):
            # The import takes a moment, in which Ctrl-C must already be quiet.
            from portfolio_realtime import supervisor

        supervisor.main(services, importing)


if __name__ == "__main__":
    no_options.refuse("run_services", "Run all four services in this terminal, on RUN_SERVICES_PORT (8000).")
    main()

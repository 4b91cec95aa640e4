"""`alpaca-sim`, or `python -m alpaca_sim`: serves a simulated Alpaca on one local port.

Ctrl-C ends it at once and without a traceback, during start-up as well.
"""

import os
import signal
from typing import Final

EXIT_INTERRUPTED: Final = 130


def main() -> None:
    """Serve until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGINT, _leave)
    # The import takes a second, so the signal handler is installed first.
    from alpaca_sim.cli import app

    try:
        app()
    finally:
        # The interpreter's exit takes a moment. A second Ctrl-C in it would print a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _leave(_number: int, _frame: object) -> None:
    os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()

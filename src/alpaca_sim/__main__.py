"""`alpaca-sim`, or `python -m alpaca_sim`: a simulated Alpaca on one port of this machine.

Ctrl-C before it serves, and after, ends it at once without a traceback.
"""

import os
import signal
from typing import Final

EXIT_INTERRUPTED: Final = 130


def main() -> None:
    """Serve until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGINT, _leave)
    from alpaca_sim.cli import app  # takes a second

    try:
        app()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left takes a moment


def _leave(_number: int, _frame: object) -> None:
    os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()

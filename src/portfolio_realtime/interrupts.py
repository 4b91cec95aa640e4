"""Lets Ctrl-C end the process at once and without a traceback, before and after a command's work.

While a command works, its own signal handlers end what it has started.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Generator

from portfolio_realtime.exit_codes import INTERRUPTED


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Wrap a whole command, including its slow imports."""
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        # The interpreter's exit takes a moment. A second Ctrl-C in it would print a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _leave(_number: int, _frame: object) -> None:
    """Exit at once: nothing has been started yet that would have to be ended."""
    os._exit(INTERRUPTED)

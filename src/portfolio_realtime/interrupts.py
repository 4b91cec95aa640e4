"""Ctrl-C before and after the work: the process ends at once, without a traceback.

While a command runs it has handlers of its own, which end what it has started.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Generator

from portfolio_realtime.exit_codes import INTERRUPTED


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Wrap a whole command, its slow imports included."""
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left takes a moment


def _leave(_number: int, _frame: object) -> None:
    """Nothing has been started yet, so there is nothing to end."""
    os._exit(INTERRUPTED)

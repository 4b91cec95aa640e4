"""Lets Ctrl-C end the process at once and without a traceback, before and after a command's work.

While a command works, its own signal handlers end what it has started. A full disk behind the output ends a
command without a traceback, too.
"""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Generator

from portfolio_realtime import standard_streams
from portfolio_realtime.exit_codes import FAILED, INTERRUPTED


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Wrap a whole command, including its slow imports."""
    signal.signal(signal.SIGINT, _leave)
    standard_streams.make_usable()
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.exit(_cannot_write(error.strerror or str(error)))
    finally:
        # The interpreter's exit takes a moment. A second Ctrl-C in it would print a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _cannot_write(reason: str) -> int:
    """Say why, if that can be written. What is left in the buffers would fail again, so nobody gets it."""
    nobody = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nobody, sys.stdout.fileno())
    try:
        print(f"cannot write: {reason}", file=sys.stderr, flush=True)
    except OSError:
        os.dup2(nobody, sys.stderr.fileno())
    return FAILED


def _leave(_number: int, _frame: object) -> None:
    """Exit at once: nothing has been started yet that would have to be ended."""
    os._exit(INTERRUPTED)

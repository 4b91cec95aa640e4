"""Work that is written as a coroutine and never waits is done at once: no task is made for it."""

from collections.abc import Coroutine
from typing import Any


def run_at_once(never_waiting: Coroutine[Any, Any, None]) -> None:
    """Run it to its end."""
    try:
        never_waiting.send(None)
    except StopIteration:
        return
    raise AssertionError("it was not to wait for anything")

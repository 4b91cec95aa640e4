"""Runs a coroutine that never waits, without a task."""

from collections.abc import Coroutine
from typing import Any


def run_at_once(never_waiting: Coroutine[Any, Any, None]) -> None:
    """Run the coroutine to its end. Raises AssertionError if it waits."""
    try:
        never_waiting.send(None)
    except StopIteration:
        return
    raise AssertionError("the coroutine must not wait for anything")

"""Runs parts of a task in forked processes, some at a time: each begins as this process is now.

What one part leaves behind, another does not see, and its memory is given back at once when it ends.
"""

import multiprocessing
import os
from collections.abc import Callable, Generator, Iterable
from multiprocessing.connection import Connection, wait
from typing import Any, Final, TypeVar, cast

P = TypeVar("P")
R = TypeVar("R")

_FORK: Final = multiprocessing.get_context("fork")


def processor_count() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


def each_in_process(work: Callable[[P], R], parts: Iterable[P], processes: int) -> Generator[R]:
    """The results in the order of `parts`. Raises RuntimeError when a process ends without one."""
    waiting = list(enumerate(parts))[::-1]
    running: dict[Connection, tuple[int, Any]] = {}
    done: dict[int, R] = {}
    first = 0
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                number, part = waiting.pop()
                ours, theirs = _FORK.Pipe(duplex=False)
                process = _FORK.Process(target=_tell, args=(theirs, work, part))
                process.start()
                theirs.close()
                running[ours] = number, process
            for ready in cast("list[Connection]", wait(list(running))):
                number, process = running.pop(ready)
                try:
                    done[number] = ready.recv()
                except EOFError:
                    raise RuntimeError(f"the process of part {number} ended without a result") from None
                finally:
                    ready.close()
                    process.join()
            while first in done:
                yield done.pop(first)
                first += 1
    finally:
        for _, process in running.values():
            process.terminate()
            process.join()


def _tell(teller: Connection, work: Callable[[Any], Any], part: Any) -> None:
    teller.send(work(part))
    teller.close()

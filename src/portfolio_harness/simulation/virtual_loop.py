"""An event loop whose time jumps to the next due call, and processes that are groups of its tasks.

The same seed gives the same run: nothing waits for the machine, and tasks are ordered by number instead of
memory address. A frozen process does nothing until it is thawed. A killed process never runs again, and none
of its `finally` blocks run, as after SIGKILL.
"""

import asyncio
import contextvars
import heapq
import itertools
import sys
from asyncio import events
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import Any, Final

from portfolio_realtime.cancellation import cancel_until_ended

EPOCH_S: Final = 1_000.0  # the loop's time at the beginning
CALLS_MAX: Final = 1_000_000  # of one trial; more mean an endless loop

_running: contextvars.ContextVar["SimulatedProcess | None"] = contextvars.ContextVar("process", default=None)


class SimulationStuck(Exception):
    """No call is due any more, or the loop made more than CALLS_MAX calls."""


class NumberedTask(asyncio.Task[Any]):
    """A task with a hash that does not depend on its memory address, so that sets keep one order."""

    _log_destroy_pending = False

    def __init__(self, *args: Any, number: int, **kwargs: Any) -> None:
        self._number = number
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimulatedProcess:
    """A group of tasks that are frozen and killed together."""

    def __init__(self, name: str, loop: "VirtualLoop") -> None:
        self.name = name
        self.loop = loop
        self.is_dead = False
        self.is_frozen = False
        self.skew_s = 0.0  # the error of its wall clock
        self._work: asyncio.Task[Any] | None = None
        self._held: list[_Call] = []

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work` as the main task of the process."""
        context = contextvars.copy_context()
        context.run(_running.set, self)
        self._work = context.run(self.loop.create_task, work, context=context)

    @property
    def has_ended(self) -> bool:
        """Whether its main task has ended by itself."""
        return self._work is not None and self._work.done() and not self.is_dead

    async def end(self) -> None:
        """Cancel the main task, as SIGTERM does, and wait until it has cleaned up."""
        if self._work is not None:
            await cancel_until_ended([self._work])
        self.kill()

    def freeze(self) -> None:
        """Hold all its calls, as SIGSTOP does."""
        self.is_frozen = True

    def thaw(self) -> None:
        """Run all held calls and go on, as SIGCONT does."""
        self.is_frozen = False
        held, self._held = self._held, []
        self.loop.run_soon(held)

    def kill(self) -> None:
        """Never run any of its calls again, as SIGKILL does."""
        self.is_dead = True
        self._held.clear()

    def hold(self, call: "_Call") -> None:
        """Keep a call until the process is thawed."""
        self._held.append(call)


class VirtualLoop(asyncio.AbstractEventLoop):
    """An event loop in virtual time, without I/O, signals and threads.

    It is none of asyncio's own loops, whose turns cost more than the work that is simulated. Calls that are
    due at the same time run in the order in which they were made.
    """

    # Futures and tasks ask for it when they are made: an answer that needs no call of Python.
    get_debug = staticmethod(bool)  # type: ignore[assignment]

    def __init__(self) -> None:
        self._now_s = EPOCH_S
        self._ready: deque[_Call] = deque()
        self._due: list[tuple[float, int, _Call]] = []  # a heap
        self._numbers = itertools.count()
        self._is_running = self._is_closed = False
        self.failures: list[str] = []  # exceptions that nobody awaited

    def time(self) -> float:
        """Virtual time in seconds."""
        return self._now_s

    # Calls

    def call_soon(  # type: ignore[override]  # the library's own signature has type variables
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> "_Call":
        """Run it now, after what is due already; a call of a process waits while that is frozen."""
        call = _Call(callback, args, contextvars.copy_context() if context is None else context, self._now_s)
        self._ready.append(call)
        return call

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> "_Call":
        """Run it `delay` seconds from now."""
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> "_Call":
        """Run it at this time of the loop."""
        call = _Call(callback, args, contextvars.copy_context() if context is None else context, when)
        heapq.heappush(self._due, (when, next(self._numbers), call))
        return call

    def run_soon(self, calls: "Iterable[_Call]") -> None:
        """Run calls that were held."""
        self._ready.extend(calls)

    def create_future(self) -> "asyncio.Future[Any]":
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> NumberedTask:
        """A task of this loop."""
        return NumberedTask(coro, loop=self, name=name, context=context, number=next(self._numbers))

    # Running

    def run_until_complete(self, future: Any) -> Any:
        """Run until it is done, and return its result. Raises SimulationStuck."""
        main = asyncio.ensure_future(future, loop=self)
        former, self._is_running = sys.get_asyncgen_hooks(), True
        sys.set_asyncgen_hooks(finalizer=self._finish)
        events._set_running_loop(self)  # noqa: SLF001  # for those who write loops
        try:
            for _ in range(CALLS_MAX):
                if not self._ready:
                    if main.done():
                        return main.result()
                    self._jump()
                call = self._ready.popleft()
                if not call.is_cancelled:
                    call.run(self)
        finally:
            events._set_running_loop(None)  # noqa: SLF001
            sys.set_asyncgen_hooks(*former)
            self._is_running = False
        raise SimulationStuck(f"the loop made more than {CALLS_MAX} calls")

    def _finish(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Let a generator that nobody reads any more clean up."""
        self.create_task(generator.aclose())

    def _jump(self) -> None:
        """Advance the time to the next due calls. Raises SimulationStuck when there is none."""
        while self._due and self._due[0][2].is_cancelled:
            heapq.heappop(self._due)
        if not self._due:
            raise SimulationStuck("no call is due any more")
        self._now_s = max(self._now_s, self._due[0][0])
        while self._due and self._due[0][0] <= self._now_s:
            self._ready.append(heapq.heappop(self._due)[2])

    def is_running(self) -> bool:
        """Whether it runs."""
        return self._is_running

    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._is_closed

    def close(self) -> None:
        """Forget all calls."""
        self._is_closed = True
        self._ready.clear()
        self._due.clear()

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Note an exception that nobody awaited."""
        if (error := context.get("exception")) is not None:
            self.failures.append(repr(error))


def current_process() -> SimulatedProcess | None:
    """The process whose code is running; None outside of any."""
    return _running.get()


class _Call:
    """A call of a process, or of none: the loop's handle. It can be cancelled while the process is frozen."""

    __slots__ = ("_arguments", "_callback", "_context", "_process", "_when_s", "is_cancelled")

    def __init__(
        self,
        callback: Callable[..., Any],
        arguments: tuple[Any, ...],
        context: contextvars.Context,
        when_s: float,
    ) -> None:
        self._callback, self._arguments, self._context, self._when_s = callback, arguments, context, when_s
        self._process: SimulatedProcess | None = context.get(_running)
        self.is_cancelled = False

    def run(self, loop: VirtualLoop) -> None:
        """Run it now; hold it if the process is frozen, drop it if the process was killed."""
        if self._process is not None:
            if self._process.is_dead:
                return
            if self._process.is_frozen:
                self._process.hold(self)
                return
        try:
            self._context.run(self._callback, *self._arguments)
        except Exception as error:
            loop.call_exception_handler({"exception": error})

    # The interface of asyncio's handles

    def cancel(self) -> None:
        """Never run it."""
        self.is_cancelled = True

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.is_cancelled

    def when(self) -> float:
        """The time of the loop at which it is due."""
        return self._when_s

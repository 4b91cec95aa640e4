"""An event loop whose time jumps to the next due call, and processes that are groups of its tasks.

The same seed gives the same run: nothing waits for the machine, and tasks are ordered by number instead of
memory address. A frozen process does nothing until it is thawed. A killed process never runs again, and none
of its `finally` blocks run, as after SIGKILL.
"""

import asyncio
import contextvars
import itertools
from collections.abc import Callable, Coroutine
from typing import Any, Final

from portfolio_realtime.cancellation import cancel_until_ended

EPOCH_S: Final = 1_000.0  # the loop's time at the beginning
STEPS_MAX: Final = 400_000  # turns of the loop in one trial; more mean an endless loop

_running: contextvars.ContextVar["SimulatedProcess | None"] = contextvars.ContextVar("process", default=None)


class SimulationStuck(Exception):
    """No call is due any more, or the loop made more than STEPS_MAX turns."""


class NumberedTask(asyncio.Task[Any]):
    """A task with a hash that does not depend on its memory address, so that sets keep one order."""

    _numbers = itertools.count()
    _log_destroy_pending = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._number = next(self._numbers)
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
        for call in held:
            self.loop.call_soon(call.run_late)

    def kill(self) -> None:
        """Never run any of its calls again, as SIGKILL does."""
        self.is_dead = True
        self._held.clear()

    def hold(self, call: "_Call") -> None:
        """Keep a call until the process is thawed."""
        self._held.append(call)


class _JumpingSelector:
    """A selector that advances the loop's time instead of waiting."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise SimulationStuck("no call is due any more")
        self._loop.advance(timeout)
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop in virtual time, without I/O."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = EPOCH_S
        self._selector = _JumpingSelector(self)
        self._turns = 0
        self.failures: list[str] = []  # exceptions that nobody awaited
        self.set_task_factory(_numbered_task)
        self.set_exception_handler(self._note)

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if (error := context.get("exception")) is not None:
            self.failures.append(repr(error))

    def time(self) -> float:
        """Virtual time in seconds."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Advance the time. Raises SimulationStuck after STEPS_MAX turns."""
        self._turns += 1
        if self._turns > STEPS_MAX:
            raise SimulationStuck(f"the loop made more than {STEPS_MAX} turns")
        if seconds > 0:
            self._now_s += seconds

    def call_soon(  # type: ignore[override]  # the library's own signature has type variables
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Like the base class, but a call of a process is held while it is frozen and dropped once killed."""
        process = _process_of(context)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        context = contextvars.copy_context() if context is None else context
        call = _Call(process, callback, args, context)
        call.handle = super().call_soon(call.run, context=context)
        return call.handle

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Like the base class, with the same rule as `call_soon`."""
        process = _process_of(context)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        context = contextvars.copy_context() if context is None else context
        call = _Call(process, callback, args, context)
        call.handle = handle = super().call_at(when, call.run, context=context)
        return handle

    def _process_events(self, event_list: list[Any]) -> None:
        """Do nothing: there is no I/O."""

    def _write_to_self(self) -> None:
        """Do nothing: the loop never sleeps."""


def _numbered_task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> NumberedTask:
    return NumberedTask(work, loop=loop, **options)


def current_process() -> SimulatedProcess | None:
    """The process whose code is running; None outside of any."""
    return _running.get()


def _process_of(context: contextvars.Context | None) -> SimulatedProcess | None:
    return _running.get() if context is None else context.get(_running)


class _Call:
    """A call of a process. It can be cancelled while the process is frozen."""

    __slots__ = ("arguments", "callback", "context", "handle", "process")

    def __init__(
        self,
        process: SimulatedProcess,
        callback: Callable[..., Any],
        arguments: tuple[Any, ...],
        context: contextvars.Context,
    ) -> None:
        self.process, self.callback, self.arguments, self.context = process, callback, arguments, context
        self.handle: asyncio.Handle | None = None

    def run(self) -> None:
        """Run it now; hold it if the process is frozen, drop it if the process was killed."""
        if self.process.is_dead:
            return
        if self.process.is_frozen:
            self.process.hold(self)
        else:
            self.callback(*self.arguments)

    def run_late(self) -> None:
        """Run it after the process was thawed, unless it was cancelled meanwhile."""
        if self.handle is None or not self.handle.cancelled():
            self.context.run(self.run)

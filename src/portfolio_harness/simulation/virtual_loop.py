"""An event loop whose time jumps to whatever is due next, and processes that are nothing but tasks in it.

The same seed gives the same run: nothing waits for the machine, and tasks are ordered by number, not by where
they lie in memory. A process that is frozen does nothing until it is thawed; a killed one never does again,
and none of its `finally` blocks run, as after a SIGKILL.
"""

import asyncio
import contextvars
import itertools
from collections.abc import Callable, Coroutine
from typing import Any, Final

from portfolio_realtime.cancellation import cancel_until_ended

EPOCH_S: Final = 1_000.0  # what the loop's time begins at
STEPS_MAX: Final = 400_000  # turns of the loop in one trial: more are an endless loop

_running: contextvars.ContextVar["SimulatedProcess | None"] = contextvars.ContextVar("process", default=None)


class SimulationStuck(Exception):
    """Nothing is due any more, or no end is in sight."""


class NumberedTask(asyncio.Task[Any]):
    """A task whose place in a set does not depend on memory."""

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
    """Some tasks that are stopped and killed together; its clocks may be wrong."""

    def __init__(self, name: str, loop: "VirtualLoop") -> None:
        self.name = name
        self.loop = loop
        self.is_dead = False
        self.is_frozen = False
        self.skew_s = 0.0  # of its calendar
        self._work: asyncio.Task[Any] | None = None
        self._held: list[_Call] = []

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Let it do this."""
        context = contextvars.copy_context()
        context.run(_running.set, self)
        self._work = context.run(self.loop.create_task, work, context=context)

    @property
    def has_ended(self) -> bool:
        """Has it ended by itself?"""
        return self._work is not None and self._work.done() and not self.is_dead

    async def end(self) -> None:
        """SIGTERM, and wait until it has tidied up."""
        if self._work is not None:
            await cancel_until_ended([self._work])
        self.kill()

    def freeze(self) -> None:
        """SIGSTOP."""
        self.is_frozen = True

    def thaw(self) -> None:
        """SIGCONT: everything that has come due meanwhile happens now."""
        self.is_frozen = False
        held, self._held = self._held, []
        for call in held:
            self.loop.call_soon(call.run_late)

    def kill(self) -> None:
        """SIGKILL."""
        self.is_dead = True
        self._held.clear()

    def hold(self, call: "_Call") -> None:
        """Do this when thawed."""
        self._held.append(call)


class _JumpingSelector:
    """Waits by moving the time."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise SimulationStuck("nothing is due any more")
        self._loop.advance(timeout)
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs what is due, then jumps."""

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
        """Virtual seconds."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._turns += 1
        if self._turns > STEPS_MAX:
            raise SimulationStuck("no end is in sight")
        if seconds > 0:
            self._now_s += seconds

    def call_soon(  # type: ignore[override]  # the library's own signature has type variables
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """As every loop, but not while the process is frozen."""
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
        """The same at a moment."""
        process = _process_of(context)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        context = contextvars.copy_context() if context is None else context
        call = _Call(process, callback, args, context)
        call.handle = handle = super().call_at(when, call.run, context=context)
        return handle

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps."""


def _numbered_task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> NumberedTask:
    return NumberedTask(work, loop=loop, **options)


def current_process() -> SimulatedProcess | None:
    """Whose code is running."""
    return _running.get()


def _process_of(context: contextvars.Context | None) -> SimulatedProcess | None:
    return _running.get() if context is None else context.get(_running)


class _Call:
    """Something that a process is to do; it can still be cancelled while the process stands."""

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
        """Now, if the process can."""
        if self.process.is_dead:
            return
        if self.process.is_frozen:
            self.process.hold(self)
        else:
            self.callback(*self.arguments)

    def run_late(self) -> None:
        """After the process has stood still, unless somebody has cancelled it since."""
        if self.handle is None or not self.handle.cancelled():
            self.context.run(self.run)

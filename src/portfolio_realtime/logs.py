"""The log: lines on stderr, for people or as JSON, that nobody ever waits for.

A thread writes them. When it cannot keep up, because a pipe is not read or a disk is full, lines are lost and
counted; no value, start or answer is. What says the same again and again is folded. No secret passes.
"""

import atexit
import contextlib
import logging
import os
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, MutableMapping
from types import TracebackType
from typing import Any, Final, TextIO

import structlog

from portfolio_realtime.redaction import clean
from portfolio_realtime.telemetry import LOG_EVENTS

LINES_WAITING_MAX: Final = 10_000
FOLD_S: Final = 60.0  # warnings that say the same are told once in this time …
LINES_PER_EVENT_MAX: Final = 20  # … and of one event at one level so many
REMEMBERED_MAX: Final = 1000  # lines, or events; beyond, all is forgotten
FLUSH_S_MAX: Final = 1.0  # at the end, for what still waits
RETRY_S: Final = 0.1  # after a line that could not be written

_ONCE: Final = "_once"
_LOUD: Final = frozenset({"warning", "warn", "error", "exception", "critical", "fatal"})


def once(state: str) -> dict[str, str]:
    """To be passed to a log call: within FOLD_S one line of this event in this state, whatever it says."""
    return {_ONCE: state}


class Fold:
    """Keeps a flood out, as a processor: what it leaves out is counted and told by its event's next line."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._said_s: dict[tuple[str, ...], float] = {}
        self._counts: dict[tuple[str, str], tuple[float, int]] = {}  # event -> begin of its minute, lines
        self._left_out: Counter[tuple[str, str]] = Counter()

    def __call__(self, _: Any, method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """The line. Raises DropEvent."""
        now_s, event, state = self._now_s(), (method, str(line.get("event"))), line.pop(_ONCE, None)
        if method in _LOUD and self._is_repeated(now_s, event, state or repr(sorted(line.items(), key=str))):
            self._leave_out(event)
        if state is None and self._is_flood(now_s, event):
            self._leave_out(event)
        if count := self._left_out.pop(event, 0):
            line["left_out"] = count
        return line

    def _leave_out(self, event: tuple[str, str]) -> None:
        self._left_out[event] += 1
        raise structlog.DropEvent

    def _is_repeated(self, now_s: float, event: tuple[str, str], words: str) -> bool:
        if len(self._said_s) > REMEMBERED_MAX:
            self._said_s.clear()
        key = (*event, words)
        if now_s - self._said_s.get(key, -FOLD_S) < FOLD_S:
            return True
        self._said_s[key] = now_s
        return False

    def _is_flood(self, now_s: float, event: tuple[str, str]) -> bool:
        if len(self._counts) > REMEMBERED_MAX:
            self._counts.clear()
        began_s, count = self._counts.get(event, (now_s, 0))
        if now_s - began_s >= FOLD_S:
            began_s, count = now_s, 0
        self._counts[event] = began_s, count + 1
        return count >= LINES_PER_EVENT_MAX


class Writer:
    """Writes lines to a file from a thread of its own."""

    def __init__(self, file: TextIO, lost: Callable[[int], str] | None = None) -> None:
        """`lost` makes the line that says how many were lost; None: nobody is told."""
        self._write_text = _writing(file)
        self._lost = lost
        self._lines: queue.Queue[str] = queue.Queue(LINES_WAITING_MAX)
        self._lost_count = 0
        threading.Thread(target=self._write, name="log", daemon=True).start()
        atexit.register(self.flush)

    def put_line(self, line: str) -> None:
        """Have a line written, now or never."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._lost_count += 1

    def flush(self) -> None:
        """Wait until all is written, but not for long."""
        give_up = time.monotonic() + FLUSH_S_MAX
        while self._lines.unfinished_tasks and time.monotonic() < give_up:
            time.sleep(0.005)

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            if self._lost and self._lost_count and self._has_written(self._lost(self._lost_count)):
                self._lost_count = 0
            if not self._has_written(line):
                self._lost_count += 1
                time.sleep(RETRY_S)
            self._lines.task_done()

    def _has_written(self, line: str) -> bool:
        try:
            self._write_text(line + "\n")
        except (OSError, ValueError):  # full, closed at the other side, or closed by us
            return False
        return True


def _writing(file: TextIO) -> Callable[[str], Any]:
    """How to write to a file at once: what stays in a buffer fails again at the end of the process."""
    try:
        descriptor = os.dup(file.fileno())  # the number may be another file's by the time we write
    except OSError:  # a stand-in that is no file
        return file.write

    def write(text: str) -> None:
        rest = text.encode(errors="backslashreplace")
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    return write


class _Lines:
    """What structlog calls with a finished line."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def msg(self, message: str) -> None:
        """One line."""
        self._writer.put_line(clean(message))

    log = debug = info = warn = warning = err = error = failure = fatal = critical = exception = msg


class _Forwarded(logging.Handler):
    """Brings what libraries log by `logging` (uvicorn, asyncio, warnings) into the same lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """One record."""
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        structlog.get_logger().log(
            level, record.getMessage(), logger=record.name, exc_info=record.exc_info or None
        )


def configure(service: str, level: str, log_format: str) -> Writer:
    """Structured logs on stderr: lines for people (`console`) or one JSON object a line (`json`)."""
    is_console = log_format == "console"
    renderer = (
        structlog.dev.ConsoleRenderer(
            colors=has_colours(),
            exception_formatter=structlog.dev.plain_traceback,  # the other one shows variables, cut short
        )
        if is_console
        else structlog.processors.JSONRenderer(default=str)
    )
    exceptions = [] if is_console else [structlog.processors.format_exc_info]
    stamped: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if is_console else "iso", utc=not is_console),
        *exceptions,
        _clean_texts,
        renderer,
    ]

    def lost(count: int) -> str:
        line: Any = {"event": "lines of the log were lost", "lost": count, "service": service}
        for processor in stamped:
            line = processor(None, "warning", line)
        return line

    writer = Writer(sys.stderr, lost)
    lines = _Lines(writer)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, _count, Fold(), *stamped],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: lines,
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(handlers=[_Forwarded()], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    return writer


def _clean_texts(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Before they are rendered: a text that quotes is quoted once more by JSON."""
    return {name: clean(value) if isinstance(value, str) else value for name, value in line.items()}


def _count(_: Any, level: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    LOG_EVENTS.labels(level).inc()
    return line


def say(text: str) -> None:
    """A word on stderr from a process that ends; that stderr takes nothing is no reason to fail."""
    with contextlib.suppress(OSError, ValueError):
        _writing(sys.stderr)(clean(text) + "\n")


def has_colours() -> bool:
    """Does stderr show colours, and want them? https://no-color.org"""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    structlog.get_logger().critical("a bug", exc_info=(kind, error, traceback))

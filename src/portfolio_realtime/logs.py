"""The log: lines on stderr, for people or as JSON. The program never waits for the log.

A thread writes the lines. When it cannot keep up, because a pipe is not read or a disk is full, lines are
lost and counted; everything else goes on. Repeated warnings are folded. Secrets are removed.
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
# Within FOLD_S, equal warnings are logged once, and one event at one level LINES_PER_EVENT_MAX times.
FOLD_S: Final = 60.0
LINES_PER_EVENT_MAX: Final = 20
REMEMBERED_MAX: Final = 1000  # lines, and events, that are compared; above it, all are forgotten
FLUSH_S_MAX: Final = 1.0  # for the waiting lines when the process ends
RETRY_S: Final = 0.1  # the pause after a line that could not be written

_ONCE: Final = "_once"
_LOUD: Final = frozenset({"warning", "warn", "error", "exception", "critical", "fatal"})


def once(state: str) -> dict[str, str]:
    """Arguments of a line (`**once(state)`): log one line of this event, level and state in FOLD_S.

    The other arguments of the line are not compared. The limit of LINES_PER_EVENT_MAX holds as well.
    """
    return {_ONCE: state}


class Fold:
    """A structlog processor that drops repeated lines. The next line of the event has their number."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._said_s: dict[tuple[str, ...], float] = {}
        self._counts: dict[tuple[str, str], tuple[float, int]] = {}  # event -> beginning of its FOLD_S, lines
        self._left_out: Counter[tuple[str, str]] = Counter()

    def __call__(self, _: Any, method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """The line, with `left_out` if earlier lines were dropped. Raises structlog.DropEvent to drop it."""
        now_s, event, state = self._now_s(), (method, str(line.get("event"))), line.pop(_ONCE, None)
        if state is None and method in _LOUD:
            state = repr(sorted(line.items(), key=str))
        if (state is not None and self._is_repeated(now_s, event, state)) or self._is_flood(now_s, event):
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
    """Writes lines to a file in a thread of its own."""

    def __init__(self, file: TextIO, lost: Callable[[int], str] | None = None) -> None:
        """`lost` makes a line that reports the number of lost lines; None: it is not reported."""
        self._write_text = _writing(file)
        self._lost = lost
        self._lines: queue.Queue[str] = queue.Queue(LINES_WAITING_MAX)
        self._lost_count = 0
        threading.Thread(target=self._write, name="log", daemon=True).start()
        atexit.register(self.flush)

    def put_line(self, line: str) -> None:
        """Queue a line without waiting. When the queue is full, the line is lost and counted."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._lost_count += 1

    def flush(self) -> None:
        """Wait until all lines are written, at most FLUSH_S_MAX."""
        give_up = time.monotonic() + FLUSH_S_MAX
        while self._lines.unfinished_tasks and time.monotonic() < give_up:
            with contextlib.suppress(OSError):  # where a clock is being set
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
        except (OSError, ValueError):  # the disk is full, or the file was closed on either side
            return False
        return True


def _writing(file: TextIO) -> Callable[[str], Any]:
    """A function that writes text to a file without a buffer.

    Text that stays in a buffer after a failure would fail again when the process ends.
    """
    try:
        descriptor = os.dup(file.fileno())  # the original number may belong to another file later
    except OSError:  # an object that is not a real file
        return file.write

    def write(text: str) -> None:
        rest = text.encode(errors="backslashreplace")
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    return write


class _Lines:
    """The logger that structlog calls with a finished line."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def msg(self, message: str) -> None:
        """Write one line, without secrets."""
        self._writer.put_line(clean(message))

    log = debug = info = warn = warning = err = error = failure = fatal = critical = exception = msg


class _Forwarded(logging.Handler):
    """Forwards records of `logging` (uvicorn, asyncio, warnings) to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record at its level."""
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        structlog.get_logger().log(
            level, record.getMessage(), logger=record.name, exc_info=record.exc_info or None
        )


def configure(service: str, level: str, log_format: str) -> Writer:
    """Configure structlog and `logging` to write to stderr, and return the writer.

    `log_format` is `console`, lines for people, or `json`, one JSON object per line.
    """
    is_console = log_format == "console"
    renderer = (
        structlog.dev.ConsoleRenderer(
            colors=has_colours(),
            # The default formatter shows variables, which may contain parts of secrets.
            exception_formatter=structlog.dev.plain_traceback,
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
        line: Any = {"event": "log lines were lost", "lost": count, "service": service}
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
    """Remove secrets before rendering: JSON escapes texts, so that they would not be found afterwards."""
    return {name: clean(value) if isinstance(value, str) else value for name, value in line.items()}


def _count(_: Any, level: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    LOG_EVENTS.labels(level).inc()
    return line


def say(text: str) -> None:
    """Write a message to stderr from a process that ends. A failure to write is ignored."""
    with contextlib.suppress(OSError, ValueError):
        _writing(sys.stderr)(clean(text) + "\n")


def has_colours() -> bool:
    """Whether to use colours on stderr: on a terminal, unless NO_COLOR is set or TERM is `dumb`.

    See https://no-color.org.
    """
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    structlog.get_logger().critical(
        "unexpected error: a bug in this program", exc_info=(kind, error, traceback)
    )

"""The log: nobody waits for it, nothing secret is in it, and the same is not said again and again."""

import json
import logging
import os
import subprocess
import sys
import time
from typing import Any

import pytest
import structlog

from portfolio_realtime import logs, redaction

LINE: dict[str, Any] = {"event": "the broker is away", "reason": "503"}


def told(fold: logs.Fold, method: str, line: dict[str, Any]) -> dict[str, Any] | None:
    """What comes through, or None."""
    try:
        return dict(fold(None, method, dict(line)))
    except structlog.DropEvent:
        return None


def test_the_same_warning_is_told_once_a_minute() -> None:
    """Then the next one says how many were left out."""
    now_s = 0.0
    fold = logs.Fold(lambda: now_s)
    assert told(fold, "warning", LINE) == LINE
    for seconds in (1.0, 30.0, 59.0):
        now_s = seconds
        assert told(fold, "warning", LINE) is None
    now_s = 60.0
    assert told(fold, "warning", LINE) == {**LINE, "left_out": 3}


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_one_state_is_one_line_whatever_its_words(level: str) -> None:
    """Two readers of one outage have different words for it. A state excuses no level from the limits."""
    now_s = 0.0
    fold = logs.Fold(lambda: now_s)
    first = {**LINE, **logs.once("OOM")}
    assert told(fold, level, first) == LINE
    for word in range(2 * logs.LINES_PER_EVENT_MAX):
        assert told(fold, level, {**first, "reason": f"{word}"}) is None
    other = told(fold, level, {**LINE, **logs.once("MISCONF")})
    assert other == {**LINE, "left_out": 2 * logs.LINES_PER_EVENT_MAX}
    states = [told(fold, level, {**LINE, **logs.once(f"{number}")}) for number in range(1000)]
    assert sum(line is not None for line in states) == logs.LINES_PER_EVENT_MAX - 2
    now_s = logs.FOLD_S
    again = told(fold, level, first)
    assert again is not None
    assert again["left_out"] > 0


def test_a_flood_of_one_event_is_cut_off() -> None:
    """A line for each of a thousand accounts: some are told, the others counted."""
    now_s = 0.0
    fold = logs.Fold(lambda: now_s)
    lines = [told(fold, "info", {"event": "account could not be fetched", "account": n}) for n in range(1000)]
    assert sum(line is not None for line in lines) == logs.LINES_PER_EVENT_MAX
    assert told(fold, "info", {"event": "another"}) is not None
    now_s = 61.0
    line = told(fold, "info", {"event": "account could not be fetched", "account": 1})
    assert line is not None
    assert line["left_out"] == 1000 - logs.LINES_PER_EVENT_MAX


def test_what_is_lost_is_counted_and_told() -> None:
    """A pipe that nobody reads for a while: nobody waits, and later the log says how much is missing."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as file:
        writer = logs.Writer(file, lambda count: f"lost {count}")
        began_s = time.monotonic()
        for number in range(2 * logs.LINES_WAITING_MAX):
            writer.put_line(f"{number} " + 50 * "x")
        assert time.monotonic() - began_s < 30  # an hour, if it waited
        text = b""
        while b"lost " not in text:
            text += os.read(reading, 65536)
            writer.put_line("more")
    os.close(reading)
    assert int(text.partition(b"lost ")[2].split()[0]) > 0


PROGRAM = """
import logging, sys, warnings
from portfolio_realtime import logs
logs.configure("test", "info", "json")
logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
warnings.warn("old")
raise RuntimeError("two\\nlines")
"""


def test_every_line_is_json() -> None:
    """Lines of libraries, warnings and the traceback of a bug as well."""
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in run.stderr.splitlines()]
    assert [line["level"] for line in lines] == ["warning", "warning", "critical"]
    assert "Invalid HTTP request" in lines[0]["event"]
    assert "RuntimeError: two" in lines[2]["exception"]
    assert run.returncode == 1


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """https://no-color.org, and terminals that show none."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv(name, value)
    seen: list[bool] = []

    def renderer(*, colors: bool, exception_formatter: object) -> None:
        assert exception_formatter is structlog.dev.plain_traceback
        seen.append(colors)

    monkeypatch.setattr(structlog.dev, "ConsoleRenderer", renderer)
    logs.configure("test", "info", "console")
    assert seen == [False]


SECRET = 'p"ä/s s+word\\'


@pytest.mark.parametrize(
    "spelt",
    [
        SECRET,
        json.dumps({"key": SECRET}),
        json.dumps({"key": SECRET}, ensure_ascii=False),
        repr(SECRET),
        repr({"key": SECRET.encode()}),
        "redis://user:p%22%C3%A4%2Fs%20s%2Bword%5C@host",
        "key=p%22%C3%A4%2Fs+s%2Bword%5C",
    ],
)
def test_a_secret_is_hidden_however_it_is_spelt(spelt: str) -> None:
    """JSON, Python, URL: libraries quote as they like."""
    redaction.know([SECRET])
    try:
        shown = redaction.clean(f"no such header {spelt}")
        assert "s+word" not in shown
        assert "word" not in shown
        assert redaction.HIDDEN in shown
    finally:
        redaction.know([])


def test_a_secret_that_is_learnt_is_hidden_and_forgotten_in_time() -> None:
    """Access tokens come while we run, and are as secret."""
    redaction.learn("access-token-one")
    assert redaction.clean("Bearer access-token-one") == "Bearer (hidden)"
    for number in range(redaction.LEARNT_MAX):
        redaction.learn(f"token-number-{number}")
    assert redaction.clean("access-token-one") == "access-token-one"


def teardown_module() -> None:
    """Other tests have the log as it was."""
    logging.getLogger().handlers.clear()


def test_a_service_needs_no_stream_of_its_caller() -> None:
    """With all three closed there is no stream to log to, and the next file would get their numbers."""
    program = (
        "from portfolio_realtime import logs, standard_streams as s; import os, structlog; s.make_usable(); "
        "logs.configure('it', 'info', 'console'); structlog.get_logger().info('said'); print('said'); "
        "raise SystemExit(os.open(os.devnull, os.O_RDONLY) <= 2)"
    )
    closed = ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, program]
    assert subprocess.run(closed, timeout=60, check=False).returncode == 0

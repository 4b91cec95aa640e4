"""What a newcomer meets: quick help, plain refusals, and a Ctrl-C that ends without a traceback."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from portfolio_harness import commands
from portfolio_realtime import exit_codes, logs
from tests.conftest import end

ROOT = Path(__file__).parent.parent.parent
HEAVY = {
    "pandas",
    "numpy",
    "scipy",
    "redis",
    "httpx",
    "fastapi",
    "uvicorn",
    "pydantic_settings",
    "exchange_calendars",
}
COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-9]|38;5;[0-9]+)m")
END_S_MAX = 60.0
ACCOUNT = {"BROKER_API_KEY": "key", "BROKER_SECRET_KEY": "secret"}  # nothing is asked with them


@pytest.mark.parametrize("words", [("--help",), ("loadtest", "--help"), ("doctor", "--help")])
def test_help_loads_nothing_heavy(words: tuple[str, ...], tmp_path: Path) -> None:
    """It answers at once because it imports none of what the commands run."""
    code = (
        "import sys; sys.argv = ['portfolio-realtime', *sys.argv[1:]]\n"
        "from portfolio_realtime.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: print('LOADED', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path, check=True
    )

    told, loaded = done.stdout.split("LOADED")
    assert "Usage" in told
    assert HEAVY & set(loaded.split()) == set()


@pytest.mark.parametrize("module", ["portfolio_realtime.__main__", "portfolio_realtime.run_services"])
def test_ctrl_c_is_quiet_before_anything_slow_is_imported(module: str) -> None:
    """Its handler is installed by what these modules define, so they import only small modules themselves."""
    code = f"import sys; before = set(sys.modules); import {module}; print(*set(sys.modules) - before)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own = {name for name in loaded.stdout.split() if name.startswith("portfolio_realtime.")}
    small = {"interrupts", "exit_codes", "lean_imports", "no_options", "preloading", "standard_streams"}
    assert own - {module} <= {f"portfolio_realtime.{name}" for name in small}
    assert not {"importlib.metadata", "asyncio", "structlog"} & set(loaded.stdout.split())


def on_a_terminal(folder: Path, **settings: str) -> str:
    """What a command without its argument says on a terminal."""
    ours, theirs = os.openpty()
    try:
        subprocess.run(
            [sys.executable, "-m", "portfolio_realtime", "token"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
            env={**os.environ, "TERM": "xterm-256color", "NO_COLOR": "", **settings},
            timeout=END_S_MAX,
            check=False,
        )
        return os.read(ours, 65_536).decode()
    finally:
        os.close(ours)
        os.close(theirs)


def test_no_colours_where_nobody_wants_them(tmp_path: Path) -> None:
    """NO_COLOR: no colour; a dumb terminal: no escape at all. Elsewhere there are colours."""
    assert COLOUR.search(on_a_terminal(tmp_path))
    assert not COLOUR.search(on_a_terminal(tmp_path, NO_COLOR="1"))
    assert "\x1b" not in on_a_terminal(tmp_path, TERM="dumb")


@pytest.mark.parametrize(
    ("name", "value", "wanted"), [("TERM", "xterm", True), ("TERM", "dumb", False), ("NO_COLOR", "1", False)]
)
def test_logs_have_colours_only_where_they_are_wanted(
    name: str, value: str, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rule as for tables and help."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv(name, value)

    assert logs.has_colours() == wanted


@pytest.mark.parametrize(
    "words",
    [
        ("demo", "--duration", "600", "--json"),
        ("faults", "--json"),
        ("week", "--json"),
        ("loadtest", "--chart"),
        ("loadtest", "--chart", "ok.svg", "--chart-data"),
    ],
)
def test_results_that_cannot_be_written_are_refused_before_the_run(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after minutes of work."""
    monkeypatch.chdir(tmp_path)
    Path("file").touch()

    for path in ("file/out.json", str(tmp_path)):
        refused = CliRunner().invoke(commands.app, [*words, path])
        assert refused.exit_code == exit_codes.SETTINGS
        assert "cannot be" in refused.output


@pytest.mark.parametrize(
    ("words", "name", "remedy"),
    [
        (("-m", "portfolio_realtime.run_services"), "RUN_SERVICES_PORT", "RUN_SERVICES_PORT="),
        (("-m", "portfolio_realtime", "demo", "--port", "{port}"), "", "--port "),
    ],
)
def test_a_port_in_use_names_what_changes_it(
    words: tuple[str, ...], name: str, remedy: str, tmp_path: Path
) -> None:
    """One line, at once, with the setting or the option that helps."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, *(word.format(port=port) for word in words)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **ACCOUNT, **({name: str(port)} if name else {})},
            timeout=END_S_MAX,
            check=False,
        )

    assert done.returncode == exit_codes.SETTINGS
    assert f"port {port} is in use" in done.stderr
    assert f"{remedy}{port + 1}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("module", "moment"),
    [
        ("portfolio_realtime.run_services", "asyncio.events"),
        ("portfolio_realtime.run_services", "portfolio_realtime.config"),
        ("portfolio_realtime.run_services", "Valkey started"),
        ("portfolio_realtime.symbol_collector", "redis.asyncio"),
        ("portfolio_realtime.market_data_consumer", "websockets.asyncio.client"),
        ("portfolio_realtime.portfolio_calculator", "numpy.linalg"),
        ("portfolio_realtime.websocket_server", "portfolio_realtime.service"),
        ("portfolio_realtime.websocket_server", "serving"),
        ("alpaca_sim", "starlette.routing"),
    ],
)
def test_ctrl_c_leaves_no_traceback(module: str, moment: str, tmp_path: Path) -> None:
    """While a program is loaded, while it starts, and when it runs; `moment` is told on stderr."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", module],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **ACCOUNT, "WEBSOCKET_PORT": "0", "RUN_SERVICES_PORT": "0"},
    )
    try:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if moment in line:
                break
        process.send_signal(signal.SIGINT)
        said += process.stderr.read()
        process.wait(END_S_MAX)
    finally:
        end(process)

    assert moment in said
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said
    assert process.returncode in (exit_codes.OK, exit_codes.INTERRUPTED)


def test_every_exit_code_is_documented() -> None:
    """One meaning each, in the document as in the code."""
    codes = {value for name, value in vars(exit_codes).items() if name.isupper()}
    text = (ROOT / "docs/commands.md").read_text()

    assert codes == {0, 1, 2, 3, 130}
    assert [code for code in sorted(codes) if f"| {code} |" not in text] == []

"""The commands that people type: each explains itself, refuses what is wrong, and does what it says."""

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import jwt
import pytest

from portfolio_realtime.run_services import SERVICES

SECRET = secrets.token_urlsafe(48)
COMMANDS = (
    *("run", "status", "plan", "doctor", "check-config", "token", "revoke", "entitle", "revocations"),
    *("simulate", "demo", "loadtest", "faults", "week", "chaos"),
)


def portfolio_realtime(*words: str, folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command in an empty folder, with these settings."""
    environment = {**os.environ, **settings, "NO_COLOR": "1", "COLUMNS": "160"}
    return subprocess.run(
        [sys.executable, "-m", "portfolio_realtime", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, tmp_path: Path) -> None:
    """--help answers with words and exit code 0."""
    done = portfolio_realtime(command, "--help", folder=tmp_path)

    assert done.returncode == 0
    assert "Usage" in done.stdout


@pytest.mark.parametrize("module", [*SERVICES, "run_services"])
@pytest.mark.parametrize(("option", "code"), [("--help", 0), ("--port=8000", 2)])
def test_a_service_has_no_options_and_says_so(module: str, option: str, code: int, tmp_path: Path) -> None:
    """It does not start: neither for a question nor with a port that it would not listen to."""
    done = subprocess.run(
        [sys.executable, "-m", f"portfolio_realtime.{module}", option],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=100,
        check=False,
    )

    assert done.returncode == code
    assert f"python -m portfolio_realtime.{module}" in done.stdout + done.stderr
    assert "check-config" in " ".join((done.stdout + done.stderr).split())


def test_a_wrong_setting_is_refused_with_its_name_value_and_remedy(tmp_path: Path) -> None:
    """From `.env` too; a secret's value is never shown."""
    (tmp_path / ".env").write_text("MIN_UPDATE_INTERVAL=soon  # seconds\nJWT_SECRET=hunter2\n")

    done = portfolio_realtime("check-config", folder=tmp_path)

    assert done.returncode == 2
    assert "MIN_UPDATE_INTERVAL='soon'" in done.stderr
    assert "JWT_SECRET=(hidden): must be empty or at least 32 bytes" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_a_system_without_any_key_is_told_what_to_set(tmp_path: Path) -> None:
    """Not a part of one that others run: a server needs no key of Alpaca's."""
    keys = {"BROKER_API_KEY": "k", "BROKER_SECRET_KEY": "s"}

    whole = portfolio_realtime("check-config", folder=tmp_path)
    part = portfolio_realtime("check-config", folder=tmp_path, REDIS_HOST="valkey")
    keyed = portfolio_realtime("check-config", folder=tmp_path, **keys)

    assert (whole.returncode, part.returncode, keyed.returncode) == (2, 0, 0)
    assert whole.stderr.startswith("no account: set BROKER_API_KEY and BROKER_SECRET_KEY")


def test_the_services_end_without_any_key(tmp_path: Path) -> None:
    """At once and with the same line: a new start cannot help."""
    environment = {"PATH": os.environ["PATH"], "RUN_SERVICES_PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "portfolio_realtime.run_services"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=120,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.startswith("no account: set BROKER_API_KEY and BROKER_SECRET_KEY")


@pytest.mark.parametrize("service", ["run_services", "portfolio_calculator"])
def test_a_service_refuses_wrong_settings_at_start(service: str, tmp_path: Path) -> None:
    """Exit code 2, which no supervisor answers with a new start."""
    done = subprocess.run(
        [sys.executable, "-m", f"portfolio_realtime.{service}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "REDIS_PORT": "none"},
        timeout=100,
        check=False,
    )

    assert done.returncode == 2
    assert "REDIS_PORT='none'" in done.stderr


def test_a_token_opens_the_accounts_it_names(tmp_path: Path) -> None:
    """Signed with JWT_SECRET, with an end."""
    done = portfolio_realtime("token", "one", "two", "--seconds", "60", folder=tmp_path, JWT_SECRET=SECRET)

    claims = jwt.decode(done.stdout.strip(), SECRET, algorithms=["HS256"])

    assert claims["accounts"] == ["one", "two"]
    assert claims["exp"] - claims["iat"] == 60


def test_an_unknown_service_is_refused(tmp_path: Path) -> None:
    """The answer names the services that there are."""
    done = portfolio_realtime("run", "everything", folder=tmp_path)

    assert done.returncode == 2
    assert "portfolio_calculator" in done.stderr


def test_a_week_begins_with_a_date(tmp_path: Path) -> None:
    """What is none is refused, with the remedy."""
    done = portfolio_realtime("week", "--start", "monday", folder=tmp_path)

    assert done.returncode == 2
    assert "2026-11-23" in done.stderr


def test_an_unknown_nemesis_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """The answer names the nemeses that there are."""
    done = portfolio_realtime("chaos", "--only", "kil -9", folder=tmp_path)

    assert done.returncode == 2
    words = " ".join(done.stderr.replace("│", " ").split())
    assert all(f"'{name}'" in words for name in ("kill -9", "flush", "clock shifted"))


@pytest.mark.parametrize("seeds", ["200:100", "all"])
def test_a_simulation_of_no_seed_is_refused(seeds: str, tmp_path: Path) -> None:
    """A run without a trial has shown nothing; its exit code does not say that it has."""
    done = subprocess.run(
        [sys.executable, "-m", "portfolio_harness.simulation", f"--seeds={seeds}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=100,
        check=False,
    )

    assert done.returncode == 2
    assert "END, which is not run" in done.stderr or "write 0:2000" in done.stderr


def test_the_demo_proves_every_account(tmp_path: Path) -> None:
    """A short demo with all kinds of activity; the options of the simulator pass through."""
    report = tmp_path / "out.json"
    words = ("--port", "0", "--accounts", "30", "--symbols", "40", "--activities-per-second", "5")

    done = portfolio_realtime(
        "demo", *words, "--rest-lag", "0.5", "--duration", "8", "--json", str(report), folder=tmp_path
    )

    assert done.returncode == 0, done.stderr[-2000:]
    proof = json.loads(report.read_text())
    assert proof["accounts"] == proof["compared"] == 30
    assert [proof[name] for name in ("mismatches", "regressions", "gaps", "leaks", "unpriced")] == [0] * 5
    assert proof["messages"] > 30
    assert proof["trades"] > 100


def test_a_load_test_counts_what_its_clients_saw(tmp_path: Path) -> None:
    """One JSON object and nothing else on stdout; a chart; readers that stall; a storm that all survive."""
    chart = tmp_path / "lag.svg"
    words = ("--connections", "40", "--accounts", "20", "--symbols", "30", "--duration", "8", "--json")

    done = portfolio_realtime(
        *("loadtest", *words, "--stalled", "0.1", "--storm", "--chart", str(chart)),
        *("--p99-ms", "60000", "--storm-back-s", "60"),  # a loaded machine
        folder=tmp_path,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    load = json.loads(done.stdout)
    assert (load["connections"], load["accounts"], load["stalled"]) == (40, 20, 4)
    wrong = ("gaps_unexplained", "regressions", "leaks", "unreadable", "mismatches")
    assert [load[name] for name in wrong] == [0] * 5
    assert load["messages"] > 40
    assert 0 < load["lag_ms_p50"] <= load["lag_ms_p99"]
    assert 0 < load["delivery_ms_p50"] <= load["delivery_ms_p99"]
    assert load["delivery_ms_p50"] <= load["lag_ms_p50"]
    assert load["cpu_cores"].keys() >= {"simulator", "websocket_server", "portfolio_calculator", "clients"}
    assert 0 < load["first_value_ms_p50"] <= load["first_value_ms_p99"]
    connections = [step["connections"] for step in load["steps"]]
    assert 8 <= len(connections) <= 16  # the first ones hold only clients that stall
    assert connections == sorted(connections)
    assert connections[-1] == 40
    assert [load["storm"][name] for name in ("clients", "cut", "back")] == [36, 36, 36]
    assert load["failed"] == []
    assert "no knee up to" in chart.read_text()
    assert json.loads(chart.with_suffix(".json").read_text())["steps"] == load["steps"]


@pytest.mark.drill
def test_a_load_test_names_the_goals_that_it_failed(tmp_path: Path) -> None:
    """On stderr and in the JSON object; a chart ends once p99 is past its goal."""
    chart, figures = tmp_path / "lag.svg", tmp_path / "results" / "lag.json"
    words = ("--connections", "320", "--accounts", "20", "--symbols", "30", "--json")

    strict = portfolio_realtime(*("loadtest", *words, "--p99-ms", "0.1", "--duration", "2"), folder=tmp_path)
    drawn = portfolio_realtime(
        *("loadtest", *words, "--p99-ms", "0.1", "--duration", "64"),
        *("--chart", str(chart), "--chart-data", str(figures), "--storm", "--storm-back-s", "60"),
        folder=tmp_path,
    )

    assert strict.returncode == 3, strict.stderr[-2000:]
    assert "FAILED lag_ms_p99: " in strict.stderr
    failed = {goal["name"]: goal for goal in json.loads(strict.stdout)["failed"]}
    assert failed["lag_ms_p99"]["figure"] > failed["lag_ms_p99"]["limit"] == 0.1
    assert drawn.returncode == 0, drawn.stderr[-2000:]
    assert [step["connections"] for step in json.loads(figures.read_text())["steps"]] == [20, 40]
    load = json.loads(drawn.stdout)
    assert (load["knee_messages_per_s"], load["connections"]) == (0, 40)
    assert [load["storm"][name] for name in ("clients", "cut", "back")] == [40, 40, 40]
    assert 'id="knee"' in chart.read_text()


def test_a_terminal_that_knows_no_letters_ends_no_command(tmp_path: Path) -> None:
    """Help with a letter that is not in ASCII is shown all the same."""
    done = portfolio_realtime("demo", "--help", folder=tmp_path, PYTHONIOENCODING="ascii")

    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


@pytest.mark.parametrize(
    ("redirection", "code", "told"),
    [(">/dev/full", 1, "cannot write: No space left on device\n"), (">&-", 0, ""), ("2>&-", 0, "")],
)
def test_output_that_cannot_be_written_is_no_traceback(
    redirection: str, code: int, told: str, tmp_path: Path
) -> None:
    """A full disk is said; a stream that the caller has closed is nobody's."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -m portfolio_realtime check-config {redirection}', sys.executable],
        env={**os.environ, "REDIS_HOST": "127.0.0.1"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=100,
        check=False,
    )

    assert (done.returncode, done.stderr) == (code, told)


def test_a_proxy_that_cannot_be_used_is_named_before_the_start(tmp_path: Path) -> None:
    """`check-config` says what the services would end with."""
    done = portfolio_realtime(
        "check-config", folder=tmp_path, REDIS_HOST="127.0.0.1", HTTPS_PROXY="http://proxy:port", NO_PROXY=""
    )

    assert (done.returncode, "HTTPS_PROXY is not a usable proxy" in done.stderr) == (2, True)

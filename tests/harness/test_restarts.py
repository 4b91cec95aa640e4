"""`loadtest --rolling` and `--isolation`: what their figures are judged by, and how they are asked for."""

from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner

from portfolio_harness.commands import app
from portfolio_harness.goals import failed
from portfolio_harness.rolling_restart import Rolled, goals
from portfolio_harness.slow_readers import Isolation

ROLLED = Rolled(
    connections=10,
    restarts=2,
    restart_s=[1, 1],
    moved=10,
    without_s_p50=1,
    without_s_p99=2,
    without_s_max=5,
    regular=10,
    silence_s_max=5,
    never_back=0,
    gaps=0,
    regressions=0,
    leaks=0,
    mismatches=0,
    close_codes={"4001": 10},
)


@pytest.mark.parametrize(
    ("changed", "failing"),
    [
        ({}, []),
        ({"moved": 9}, ["moved"]),
        ({"without_s_max": 5.1}, ["without_s_max"]),
        ({"silence_s_max": 5.1}, ["silence_s_max"]),
        ({"regular": 0, "silence_s_max": None}, ["silence_s_max"]),
        ({"never_back": 1, "gaps": 1}, ["never_back", "gaps"]),
        ({"regressions": 1, "leaks": 1, "mismatches": 1}, ["regressions", "leaks", "mismatches"]),
    ],
)
def test_a_rolling_restart_is_judged_by_name(changed: dict[str, Any], failing: list[str]) -> None:
    """P8 promises 5 s; what nobody could measure is no success."""
    assert [goal.name for goal in goals(replace(ROLLED, **changed)) if not goal.is_met] == failing


@pytest.fixture(autouse=True)
def _logs_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def as_they_are(*_: object) -> None:
        pass

    monkeypatch.setattr("portfolio_realtime.logs.configure", as_they_are)


def test_the_command_restarts_and_its_exit_code_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options arrive; the goals that failed are named beside the JSON object."""
    asked: list[Any] = []

    async def rolling(connections: int, accounts: int, **options: Any) -> Rolled:
        asked.append((connections, accounts, options))
        rolled = replace(ROLLED, silence_s_max=6.5)
        return replace(rolled, failed=failed(goals(rolled)))

    monkeypatch.setattr("portfolio_harness.rolling_restart.rolling", rolling)
    words = ["loadtest", "--rolling", "--connections", "20", "--accounts", "10", "--json"]
    done = CliRunner().invoke(app, words)

    assert done.exit_code == 3
    market = {"symbols": 200, "trades_per_second": None, "seed": 7}
    assert asked == [(20, 10, {"rate": 1, **market})]
    assert "FAILED silence_s_max: 6.5, must be at most 5" in done.stderr
    assert '"failed":[{"name":"silence_s_max","figure":6.5,"limit":5' in done.stdout


def test_the_command_isolates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten messages a second, so that sockets are full within seconds; nothing failed is exit code 0."""
    asked: list[Any] = []

    async def isolate(connections: int, accounts: int, **options: Any) -> Isolation:
        asked.append(options["rate"])
        return Isolation(connections, accounts, options["rate"], [], 0)

    monkeypatch.setattr("portfolio_harness.slow_readers.isolate", isolate)
    done = [CliRunner().invoke(app, ["loadtest", "--isolation", *more]) for more in ([], ["--rate", "5"])]

    assert [one.exit_code for one in done] == [0, 0]
    assert asked == [10, 5]


@pytest.mark.parametrize(
    "words", [("--isolation", "--rolling"), ("--isolation", "--storm"), ("--rolling", "--stalled", "0.1")]
)
def test_what_goes_alone_is_not_mixed(words: tuple[str, ...]) -> None:
    """Rather than to leave something out silently."""
    done = CliRunner().invoke(app, ["loadtest", *words])

    assert done.exit_code == 2
    assert "--isolation and --rolling cannot be combined" in " ".join(done.stderr.split())

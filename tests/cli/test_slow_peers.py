"""A peer that is mute, or answers byte by byte, holds no command: each names it within its limit."""

import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from portfolio_realtime.cli import revocations_file, users
from portfolio_realtime.cli.app import app
from portfolio_realtime.cli.doctor import limits, machine
from portfolio_realtime.cli.doctor.findings import Status
from portfolio_realtime.config import Settings
from portfolio_realtime.exit_codes import FAILED
from portfolio_realtime.state.agreement import NEWEST
from tests.alpaca_sim.conftest import Start
from tests.cli.conftest import KEYS, Examine, hosts
from tests.support.slow_peers import HTTP, MUTE, VALKEY, slow_peer

LIMIT_S = 1.0  # instead of 10 or 15; the libraries' own limits are 5 s and more
BUSY_S = 6.0  # a busy machine


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the tests are short."""
    monkeypatch.setattr(limits, "CHECK_S_MAX", LIMIT_S)
    monkeypatch.setattr(users, "ANSWER_S_MAX", LIMIT_S)
    monkeypatch.setattr(revocations_file, "ALL_S_MAX", LIMIT_S)


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize("begins", [MUTE, HTTP], ids=["mute", "dripping"])
async def test_the_doctor_names_a_slow_alpaca(doctor: Examine, begins: bytes) -> None:
    """Every host at once: what depends on an answer is skipped, everything else is asked side by side."""
    with slow_peer(begins) as port:
        url = f"http://127.0.0.1:{port}"
        names = [f"ALPACA_{name}_URL" for name in ("BROKER", "TRADING", "DATA", "AUTH")]
        began_s = time.monotonic()
        found = await doctor(**KEYS, **dict.fromkeys(names, url), ALPACA_STREAM_URL=f"ws://127.0.0.1:{port}")
        took_s = time.monotonic() - began_s

    assert took_s < LIMIT_S + limits.CLEAN_UP_S_MAX + BUSY_S
    late = {
        check: one for check, one in found.items() if "is too slow: no whole answer within 1 s" in one.found
    }
    assert late.keys() >= {"Alpaca host", "snapshots", "feed stocks", "feed crypto", "feed options"}
    assert {one.status for one in late.values()} == {Status.FAIL}
    assert found["Alpaca host"].found.startswith(url)
    assert "ALPACA_BROKER_URL" in found["Alpaca host"].remedy
    assert found["feed stocks"].found.startswith(f"ws://127.0.0.1:{port}")
    assert "ALPACA_STREAM_URL" in found["feed stocks"].remedy
    assert "ALPACA_DATA_URL" in found["snapshots"].remedy
    assert found["equity"].status is Status.SKIP
    assert found["Valkey"].status is not Status.FAIL


async def test_the_doctor_names_a_slow_host_of_prices(
    start: Start, doctor: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker has answered: the equity's check says that it is not the broker who is slow."""
    monkeypatch.setattr(limits, "CHECK_S_MAX", 5.0)  # in which also a busy machine answers
    running = await start()
    with slow_peer(HTTP) as port:
        url = f"http://127.0.0.1:{port}"
        found = await doctor(**KEYS, **{**hosts(running), "ALPACA_DATA_URL": url})

    assert found["Alpaca keys"].status is Status.OK
    assert found["equity"].found == f"{url} is too slow: no whole answer within 5 s"
    assert "ALPACA_DATA_URL" in found["equity"].remedy


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize("begins", [MUTE, VALKEY], ids=["mute", "dripping"])
async def test_the_doctor_names_a_slow_valkey(doctor: Examine, begins: bytes) -> None:
    """Both checks that ask it."""
    with slow_peer(begins) as port:
        began_s = time.monotonic()
        found = await doctor(REDIS_HOST="127.0.0.1", REDIS_PORT=str(port))
        took_s = time.monotonic() - began_s

    assert took_s < 2 * (LIMIT_S + limits.CLEAN_UP_S_MAX) + BUSY_S
    for check in ("Valkey", "account records"):
        assert found[check].found == f"Valkey at 127.0.0.1:{port} is too slow: no whole answer within 1 s"
        assert found[check].remedy == machine.SHARED_REMEDY


def test_a_whole_doctor_ends_within_30_seconds() -> None:
    """The longest chains are two checks: the account source, then equity; Valkey, then account records."""
    checks_s = 2 * (limits.CHECK_S_MAX + limits.CLEAN_UP_S_MAX) + 2 * machine.HEALTH_TIMEOUT_S
    assert max(checks_s, limits.START_S_MAX + limits.CLEAN_UP_S_MAX) <= 30.0


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize("begins", [MUTE, VALKEY], ids=["mute", "dripping"])
@pytest.mark.parametrize(
    "command",
    [
        ["revoke", "--subject", "alice"],
        ["entitle", "alice", "acc"],
        ["status", "--once"],
        ["wire"],
        ["wire", "--hold", str(NEWEST)],
        ["wire", "--release"],
        ["revocations", "save", "saved.json"],
        ["revocations", "restore", "--none"],
    ],
    ids=" ".join,
)
def test_each_command_names_a_slow_valkey(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: list[str], begins: bytes
) -> None:
    """In one line, and ends with the code of a failure."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCOUNT_ACCESS", "entitlements")
    with slow_peer(begins) as port:
        monkeypatch.setenv("REDIS_HOST", "127.0.0.1")
        monkeypatch.setenv("REDIS_PORT", str(port))
        began_s = time.monotonic()
        ended = CliRunner().invoke(app, command)
        took_s = time.monotonic() - began_s

    assert took_s < LIMIT_S + BUSY_S
    assert ended.exit_code == FAILED, ended.output
    told = ended.output.splitlines()
    assert len(told) == 1, told
    assert told[0].startswith(f"Valkey at 127.0.0.1:{port} is too slow: no whole answer within 1 s; ")

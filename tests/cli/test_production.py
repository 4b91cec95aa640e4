"""`doctor --production`: the guide's production list, each line by what makes it fail."""

import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from portfolio_realtime import config
from portfolio_realtime.cli.doctor import production
from portfolio_realtime.cli.doctor.findings import Finding, Status
from portfolio_realtime.cli.doctor.production import check_production
from portfolio_realtime.state import State, keys
from portfolio_realtime.state.server import Server
from tests.support.secure_setups import make_certificate, tls_in_front
from tests.support.websocket_servers import SECRET, serving

OK, WARN, FAIL, SKIP = Status.OK, Status.WARN, Status.FAIL, Status.SKIP
GOOD: dict[str, Any] = {
    "_env_file": None,
    "redis_url": "rediss://server:secret@127.0.0.1:9/0",
    "alpaca_sandbox": False,
    "drain_grace_seconds": 10,
    "websocket_host": "0.0.0.0",
    "trusted_proxies": "127.0.0.1,162.158.0.0/15",
    "emf_deployment": "prod",
    "log_format": "json",
    "jwt_secret": SECRET,
    "require_tls": True,
    "allowed_origins": "https://app.example.com",
}


def by_name(found: list[Finding]) -> dict[str, Finding]:
    """Each line by what it checks."""
    return {one.check: one for one in found}


def judged(**changed: Any) -> dict[str, Finding]:
    """The lines about the settings."""
    return by_name(list(production._settings(config.load(**{**GOOD, **changed}))))


def test_good_settings_are_good() -> None:
    """Every line, with nothing to do."""
    found = judged()

    assert {one.status for one in found.values()} == {OK}
    assert not any(one.remedy for one in found.values())


@pytest.mark.parametrize(
    ("changed", "check", "status"),
    [
        ({"redis_url": "", "redis_host": ""}, "1 Valkey shared", FAIL),
        ({"redis_url": "redis://server:secret@127.0.0.1:9/0"}, "1 Valkey by TLS", FAIL),
        ({"redis_url": "rediss://127.0.0.1:9/0"}, "1 Valkey's user", FAIL),
        ({"alpaca_sandbox": True}, "2 production", FAIL),
        ({"drain_grace_seconds": 2}, "4 drain", WARN),
        ({"websocket_host": "127.0.0.1"}, "5 address", FAIL),
        ({"trusted_proxies": ""}, "5 proxies", FAIL),
        ({"emf_deployment": ""}, "8 metrics", FAIL),
        ({"log_format": "console"}, "8 log", WARN),
        ({"jwt_secret": ""}, "9 tokens", FAIL),
        ({"require_tls": False}, "9 TLS required", FAIL),
        ({"allowed_origins": ""}, "9 origins", FAIL),
        ({"allow_token_in_url": True}, "9 tokens in URLs", WARN),
        ({"demo_page": True}, "9 demo page", FAIL),
    ],
)
def test_a_wrong_setting_is_found_with_its_remedy(
    changed: dict[str, Any], check: str, status: Status
) -> None:
    """That line, with its remedy, and no other one by mistake."""
    found = judged(**changed)

    assert found[check].status is status and found[check].remedy
    others = {one.check for one in found.values() if one.status is not OK} - {check}
    assert others <= {"1 Valkey by TLS", "1 Valkey's user"}, "an embedded Valkey has neither"


@pytest.mark.parametrize(
    ("server", "check", "status"),
    [
        (Server("Valkey", "9.1.2", 0.1, "noeviction", False, 2, None), "1 replicas", OK),
        (Server("Valkey", "9.1.2", 0.1, "noeviction", False, 1, None), "1 replicas", WARN),
        (Server("Valkey", "9.1.2", 0.1, "noeviction", False, 0, None), "1 replicas", FAIL),
        (Server("Valkey", "9.1.2", 0.1, "volatile-lru", False, 2, None), "1 Valkey", WARN),
        (Server("Valkey", "9.1.2", 0.1, "noeviction", True, 0, None), "1 Valkey", FAIL),
        (Server("Valkey", "9.1.2", 0.1, "noeviction", False, 2, 1_000_000_000), "10 snapshots", WARN),
    ],
)
def test_a_wrong_valkey_is_found(server: Server, check: str, status: Status) -> None:
    """Replicas, eviction, role and snapshots."""
    assert by_name(list(production._server(server)))[check].status is status


async def test_what_runs_is_counted(state: State) -> None:
    """Two servers, one of each other service; revocations are known or not."""
    for name, count in production.COUNTS.items():
        for index in range(count):
            await state.metrics.write(name, str(index), b"")
    assert (await production._counts(state)).status is OK
    await state.connection.commands.delete(keys.metrics("websocket_server", "1"))
    found = await production._counts(state)
    assert found.status is FAIL and "websocket_server 1" in found.found
    settings = config.load(**GOOD)
    assert (await production._revocations(state, settings)).status is OK
    await state.connection.commands.flushall()
    assert (await production._revocations(state, settings)).status is WARN


@pytest.fixture
async def outside(valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[str]:
    """A server behind real TLS, as clients see it."""
    certificate = make_certificate(tmp_path)

    def trusting() -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(certificate))

    monkeypatch.setattr(production, "_context", trusting)
    async with (
        serving(valkey_url) as served,
        tls_in_front(served.port, tmp_path) as port,
    ):
        yield f"https://127.0.0.1:{port}"


async def test_what_clients_see(outside: str) -> None:
    """A server that answers, asks for a token and lets WebSockets begin; but that does not insist on TLS."""
    found = by_name(await production._outside(config.load(**GOOD), outside))

    assert {name: found[name].status for name in ("5 /health", "9 no token", "7 WebSocket")} == {
        "5 /health": OK,
        "9 no token": OK,
        "7 WebSocket": OK,
    }
    assert (found["9 HSTS"].status, found["9 HSTS"].remedy) == (FAIL, "REQUIRE_TLS=true")
    assert found["6 Cloudflare"].status is WARN, "grey"


@pytest.mark.parametrize(
    ("is_orange", "proxies", "status"),
    [
        (False, "10.0.0.0/16", WARN),
        (True, "10.0.0.0/16", FAIL),
        (True, "10.0.0.0/16,2400:cb00::/32,162.158.0.0/15", OK),
    ],
)
def test_behind_cloudflare_its_networks_are_trusted(is_orange: bool, proxies: str, status: Status) -> None:
    """Or all viewers behind one edge share the limits of its address."""
    settings = config.load(**{**GOOD, "trusted_proxies": proxies})

    assert production._colour(is_orange, settings).status is status


async def test_an_address_that_is_none() -> None:
    """Before anything is asked."""
    found = by_name(await check_production(config.load(**GOOD), "http://realtime.example.com"))

    assert found["5 from outside"].status is FAIL
    assert found["1 Valkey"].status is FAIL, "nothing listens there"
    assert found["11 load, chaos"].status is SKIP
    assert [int(name.split()[0]) for name in found] == sorted(int(name.split()[0]) for name in found)


async def test_nobody_answers() -> None:
    """The door is closed."""
    found = by_name(await production._outside(config.load(**GOOD), "https://127.0.0.1:9"))

    assert found["5 from outside"].status is FAIL and found["5 from outside"].remedy


def test_as_a_command() -> None:
    """--url without --production is a mistake; the help names both."""
    done = subprocess.run(
        [sys.executable, "-m", "portfolio_realtime", "doctor", "--url", "https://a.example.com"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 2 and "--production" in done.stderr

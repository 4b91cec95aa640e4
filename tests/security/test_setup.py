"""E22 to E24 and E26: secrets, Valkey's rights and TLS, the process, the locked dependencies."""

import asyncio
import base64
import ctypes
import gc
import os
import random
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from portfolio_realtime import config
from portfolio_realtime.config import SECRET_BYTES_MIN
from portfolio_realtime.config.weak_secrets import is_guessable
from portfolio_realtime.errors import SettingsError, StateRefused
from portfolio_realtime.model import Mark
from portfolio_realtime.portfolio_calculator.shard_owner import GROUP
from portfolio_realtime.state import State, keys, rights
from portfolio_realtime.state.accounts import LISTED
from portfolio_realtime.state.embedded import free_port
from portfolio_realtime.state.revocations import SubjectRevocation
from portfolio_realtime.wire.messages import is_account_id
from tests.conftest import SHARDS, end, one_server
from tests.security.conftest import opened, rights_of_all
from tests.support.access import words_of
from tests.support.secure_setups import make_certificate, tls_in_front
from tests.support.websocket_servers import SECRET, Calculator, bearer, receive, serving, write_accounts

pytestmark = pytest.mark.asyncio(loop_scope="package")

ROOT = Path(__file__).parents[2]
GOOD = "Zq3vT8xW1yB6nM4kP9sD2fG7hJ5lR0cV"
CAPABILITIES = 64
PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS, NO_ROOT = 24, 28, 38, 0b11
START_S_MAX = 30.0


@pytest.mark.parametrize("name", ["JWT_SECRET", "JWT_SECRET_PREVIOUS", "API_KEY_SECRET", "METRICS_TOKEN"])
@pytest.mark.parametrize(
    "secret",
    [
        GOOD[:-1],
        "your_jwt_secret_of_at_least_32_bytes_or_more",
        "your-256-bit-secret-your-256-bit-secret",
        "super-secret-jwt-token-with-at-least-32-characters-long",
        "changeme" * 8,
        "a" * 64,
        "0123456" * 8,
        "a-string-secret-at-least-256-bits-long",  # jwt.io
        "a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",  # FastAPI
        "09D25E094FAA6CA2556C818166B7A9563B93F7099F6F0F4CAA6CF63B88E8D3E7",
        "404E635266556A586E3272357538782F413F4428472B4B6250645367566B5970",  # tutorials of Spring Security
        (
            "DO NOT USE THIS VALUE. INSTEAD, CREATE A COMPLEX SECRET AND KEEP IT SAFE "
            "OUTSIDE OF THE SOURCE CODE."  # NestJS
        ),
        "my_super_secret_jwt_key_that_is_long_enough",
        "MySuperSecretJwtKey_MySuperSecretJwtKey!",
        "<your_jwt_secret_goes_here_at_least_32_chars>",
        "insert-a-long-random-string-of-32-characters",
        "some-sample-secret-for-the-demo-server",
        "a secret of at least thirty-two bytes",  # of these very tests, once
        "qwertyuiop" * 4,
        "qwertyuiopqwertyuiopqwertyuiopqw",
        "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,",
        "0123456789abcdef" * 3,
        "asdfghjkl;'zxcvbnm,./qwertyuiop[]",
        "9876543210zyxwvutsrqponmlkjihgfedcba",
        GOOD[:11] * 3,
    ],
)
async def test_e22_a_weak_or_known_secret_is_refused_at_start(
    monkeypatch: pytest.MonkeyPatch, name: str, secret: str
) -> None:
    """With the remedy, and without the secret."""
    monkeypatch.setenv("JWT_SECRET", GOOD)
    monkeypatch.setenv(name, secret)
    with pytest.raises(SettingsError) as refused:
        config.load(_env_file=None)
    assert f"{name}=(hidden)" in str(refused.value)
    assert "token_urlsafe" in str(refused.value)
    assert secret not in str(refused.value)


@pytest.mark.parametrize("size", [16, 24, 32, 48])
async def test_e22_no_random_secret_is_refused(size: int) -> None:
    """In hex and in base64, however it may look in places."""
    rng = random.Random(size)
    for _ in range(500):
        drawn = rng.randbytes(size)
        in_urls = base64.urlsafe_b64encode(drawn).decode().rstrip("=")
        for text in (in_urls, base64.b64encode(drawn).decode(), drawn.hex()):
            if len(text) >= SECRET_BYTES_MIN:
                assert not is_guessable(text), text
                assert not is_guessable(f"my_jwt_secret_{text}"), text


async def test_e22_a_secret_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As container platforms mount them; not from two places at once, and never shown."""
    path = tmp_path / "secret"
    path.write_text(f"{GOOD}\n")
    monkeypatch.setenv("JWT_SECRET_FILE", str(path))
    settings = config.load(_env_file=None)
    assert settings.jwt_secret.get_secret_value() == GOOD
    assert GOOD not in f"{settings!r} {settings} {config.described(settings)} {settings.model_dump_json()}"
    monkeypatch.setenv("JWT_SECRET", GOOD)
    with pytest.raises(SettingsError, match="both set"):
        config.load(_env_file=None)
    monkeypatch.delenv("JWT_SECRET")
    for content, reason in (
        ("", "must contain a secret"),
        ("x" * 20_000, "must contain a secret"),
        ("short", "32"),
    ):
        path.write_text(content)
        with pytest.raises(SettingsError, match=reason):
            config.load(_env_file=None)
    path.unlink()
    with pytest.raises(SettingsError, match=r"JWT_SECRET_FILE=.*cannot be read"):
        config.load(_env_file=None)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        (
            {"jwks_url": "https://a.example/keys", "jwt_secret": GOOD, "jwt_issuer": "i"},
            "cannot be used together",
        ),
        ({"jwks_url": "https://a.example/keys"}, "needs JWT_ISSUER"),
        ({"jwks_url": "https://a.example/keys", "jwt_issuer": "i"}, "JWT_AUDIENCE or JWT_REQUIRED_CLAIMS"),
        ({"jwks_url": "http://a.example/keys"}, "must be https"),
        ({"jwks_url": "https://u:p@a.example/keys"}, "without a password"),
        ({"jwks_url": "file:///etc/keys"}, "must be a URL"),
        (
            {
                "jwks_url": "https://a.example/k",
                "jwt_issuer": "i",
                "jwt_audience": "a",
                "demo_page": "true",
            },
            "cannot be used with JWKS_URL",
        ),
        ({"jwt_secret_previous": GOOD}, "JWT_SECRET_PREVIOUS needs JWT_SECRET"),
        ({"account_access": "webhook"}, "AUTHZ_URL go together"),
        ({"authz_url": "https://a.example/authz"}, "AUTHZ_URL go together"),
        ({"trusted_proxies": "10.0.0.0/8, everybody"}, "'everybody' is neither"),
        ({"allowed_origins": "*"}, "is not an origin"),
        ({"allowed_origins": "https://*.example.com"}, "is not an origin"),
        ({"allowed_origins": "app.example.com"}, "is not an origin"),
        ({"jwt_required_claims": "token_use"}, "must be name=value"),
    ],
)
async def test_e22_settings_that_would_let_too_many_in_are_refused(
    settings: dict[str, str], remedy: str
) -> None:
    """At start, with what to do."""
    with pytest.raises(SettingsError, match=re.escape(remedy)):
        config.load(_env_file=None, **settings)


async def test_e22_the_secret_can_be_changed_without_throwing_anybody_out(shared: State) -> None:
    """The one before is still accepted, and then no more."""
    async with (
        serving(shared.connection.url, jwt_secret=GOOD, jwt_secret_previous=SECRET) as rotating,
        rotating.open("/ws/portfolio/a", bearer()) as client,
    ):
        assert (await receive(client))["type"] == "portfolio"
    async with serving(shared.connection.url, jwt_secret=GOOD) as rotated:
        assert (await rotated.http.get("/v1/portfolio/a", headers=bearer())).status_code == 401


async def test_e23_a_user_limited_to_our_keys_is_enough() -> None:
    """The lines of the document, added up: everything that we do works, everything else is refused."""
    printed = [
        f"ACL SETUSER {user} resetkeys >PASSWORD {rights.access_string(user)}" for user in rights.COMMANDS
    ]
    assert "\n".join(printed) in (ROOT / "docs/security.md").read_text()
    async with one_server() as server:
        admin = Redis.from_url(server.url)
        await admin.execute_command("ACL", "SETUSER", "portfolio", *rights_of_all("PASSWORD"))
        await admin.execute_command("ACL", "SETUSER", "default", "off")
        limited = f"redis://portfolio:PASSWORD@127.0.0.1:{server.port}/0"
        async with opened(limited) as state, serving(limited) as served:
            await every_kind_of_access(state)
            calculator = Calculator(state)
            await calculator.publish("a", 1)
            ticket = (await served.http.post("/v1/tickets", headers=bearer())).json()["ticket"]
            async with served.open(f"/ws/portfolio/a?ticket={ticket}", {}) as client:
                assert (await receive(client))["sequence"] == 1
                await calculator.publish("a", 2)
                assert (await receive(client))["sequence"] == 2
            assert (await served.http.get("/metrics")).status_code == 200
            for command in (
                ("GET", "another:key"),
                ("SET", "users", "x"),
                ("FLUSHALL",),
                ("KEYS", "*"),
                ("CONFIG", "GET", "*"),
                ("ACL", "LIST"),
                ("PUBLISH", "another", "x"),
                ("EVAL", "return redis.call('GET', 'another:key')", "0"),
            ):
                with pytest.raises((NoPermissionError, ResponseError), match=r"(?i)no permission|NOPERM"):
                    await state.connection.commands.execute_command(*command)
        await admin.aclose()


async def test_e23_the_user_of_each_service_is_enough() -> None:
    """For what is asked only where there are several calculators, shards without a record, or back ends."""
    async with one_server() as server:
        admin = Redis.from_url(server.url)
        for user in ("calculator", "collector", "server"):
            words = words_of(rights.access_string(user))
            await admin.execute_command("ACL", "SETUSER", user, ">PASSWORD", *words)
        await admin.aclose()
        limited = f"redis://{{}}:PASSWORD@127.0.0.1:{server.port}/0"
        async with opened(limited.format("calculator")) as state:
            assert (await state.leases.enlist(GROUP)).running == {state.leases.holder}
            name = keys.shard_lease(0)
            assert await state.leases.acquire(name) is not None
            (held,) = await state.leases.read_held({name: keys.interest(0)})
            assert held is not None
            assert (held.holder, held.work) == (state.leases.holder, 0)
        async with opened(limited.format("collector")) as state:
            lease = await state.leases.acquire("symbol_collector")
            assert lease is not None
            for _ in range(2):
                await state.accounts.write_listed(lease, [0])
            key = keys.pending(0)
            assert await state.connection.commands.hgetall(key) == {LISTED.encode(): b"1"}
            assert await state.accounts.counts([0]) == [0]
        async with opened(limited.format("server")) as state:
            assert await state.accounts.listed() == (set(), False)


async def every_kind_of_access(state: State) -> None:
    """What the four services do with the state."""
    await write_accounts(state, "a", "b")
    lease = await state.leases.acquire("market_data:stocks")
    assert lease is not None
    await state.marks.write(lease, [Mark("AAPL", 150.0, 1, 1, "iex")])
    assert await state.marks.read(["AAPL"])
    await state.interest.begin(["a"], ["a"])
    await state.metrics.write("service", "instance", b"# TYPE x gauge\nx 1.0\n")
    assert await state.metrics.read_all()
    await state.revocations.write(SubjectRevocation("nobody", int(time.time())), 60)
    await state.entitlements.write("alice", ["a"])
    assert await state.accounts.ids()


@pytest.mark.parametrize(
    "account_id",
    ["", "a:b", "a b", "{s01}", "a\n", "a\x00", "*", "a*", "é", "../a", "a" * 65, "a/b", "a,b", "a|b", "１"],
)
async def test_e23_only_a_plain_account_id_can_become_part_of_a_key(account_id: str) -> None:
    """Letters, digits, hyphen and underscore; everything else stops at the edge."""
    assert not is_account_id(account_id)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # asyncio 3.11's, see below
async def test_e23_tls_to_valkey_checks_the_servers_certificate(tmp_path: Path) -> None:
    """A real Valkey behind real TLS; another authority, or another name, is not talked to."""
    certificate = make_certificate(tmp_path)
    async with one_server() as server, tls_in_front(server.port, tmp_path) as port:
        good = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}"
        async with opened(good) as state, serving(good) as served:
            await write_accounts(state, "a")
            await Calculator(state).publish("a", 1)
            async with served.open("/ws/portfolio/a") as client:
                assert (await receive(client))["sequence"] == 1
        for bad in (
            f"rediss://127.0.0.1:{port}/0",
            f"rediss://localhost:{port}/0?ssl_ca_certs={certificate}",
        ):
            async with opened(bad) as state:
                with pytest.raises(StateRefused, match="certificate"):
                    await state.connection.ping()
        gc.collect()  # asyncio of Python 3.11 leaves the transport of a handshake that failed to be collected


def confine() -> None:
    """As a strict container: no capabilities, no new privileges, and not one byte into any file."""
    prctl = ctypes.CDLL(None).prctl
    if os.geteuid() == 0:
        for capability in range(CAPABILITIES):
            prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        prctl(PR_SET_SECUREBITS, NO_ROOT, 0, 0, 0)
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
async def test_e24_the_server_needs_no_rights_and_writes_no_file(shared: State, tmp_path: Path) -> None:
    """So it can run in a container with everything dropped and a file system that is only read."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-B", "-m", "portfolio_realtime.websocket_server"],
        cwd=tmp_path,
        preexec_fn=confine,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "TMPDIR": str(tmp_path),
            "REDIS_URL": shared.connection.url,
            "SHARDS": str(SHARDS),
            "WEBSOCKET_HOST": "127.0.0.1",
            "WEBSOCKET_PORT": str(port),
            "DRAIN_GRACE_SECONDS": "0",
            "DRAIN_SECONDS": "0",
            "JWT_SECRET": GOOD,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(START_S_MAX):
            while not await is_healthy(port):
                assert process.poll() is None, f"the server ended with code {process.returncode}"
                await asyncio.sleep(0.1)
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
        assert list(tmp_path.iterdir()) == []
    finally:
        end(process)


async def is_healthy(port: int) -> bool:
    """Does it answer?"""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return b" 200 " in answer


@pytest.mark.parametrize(("name", "least"), [("runtime.txt", 50), ("dev.txt", 100), ("build.txt", 5)])
async def test_e26_every_dependency_is_locked_with_its_hashes(name: str, least: int) -> None:
    """One version each, and pip refuses what is not what was locked."""
    text = (ROOT / "requirements" / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(lines) > least
    for line in lines:
        assert re.match(r"^[A-Za-z0-9._-]+(\[[a-z,]+\])?==\S+ ", line), line
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), line
    assert "--require-hashes" in (ROOT / "Makefile").read_text()


async def test_e26_an_audit_that_nobody_could_answer_fails() -> None:
    """A package that the index knows nothing about is not one without weaknesses."""
    recipe = re.search(r"^audit:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    assert re.search(r"pip-audit==[\d.]+ --strict ", recipe[1])
    assert "-r requirements/runtime.txt -r requirements/build.txt" in recipe[1]

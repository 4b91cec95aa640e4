"""E24: the container image and compose.yaml, as written; `make image` builds and runs them."""

import asyncio
import os
import re
import runpy
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from pydantic import SecretStr

from portfolio_realtime import config
from portfolio_realtime.run_services import SERVICES
from portfolio_realtime.state import State
from portfolio_realtime.state.embedded import free_port
from tests.support.websocket_servers import serving

ROOT: Final = Path(__file__).parents[2]
IMAGE: Final = ROOT / "deploy" / "image"
HEALTH: Final = runpy.run_path(str(IMAGE / "health.py"))
WAIT_S_MAX: Final = 20
USER: Final = "10001:10001"
SECRET_NAME: Final = re.compile("SECRET|PASSWORD|TOKEN|KEY")
KEY_NAMES: Final = ("_key", "_key_id", "_client_id")


def stages() -> list[list[tuple[str, str]]]:
    """The Dockerfile: what comes before the first FROM, then each stage, as instructions and arguments."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[list[tuple[str, str]]] = [[]]
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, argument = line.partition(" ")
        if instruction == "FROM":
            found.append([])
        found[-1].append((instruction, argument.strip()))
    return found


def arguments(instruction: str) -> list[str]:
    """What this instruction is given, wherever it stands."""
    return [argument for stage in stages() for name, argument in stage if name == instruction]


def test_e24_the_base_has_a_version_and_can_be_replaced_by_a_digest() -> None:
    """One base for all stages, by name and exact version."""
    (base,) = arguments("ARG")
    assert re.fullmatch(r"BASE=[a-z/]+:\d+\.\d+\.\d+-[a-z-]+", base)
    assert [line.split()[0] for line in arguments("FROM")] == ["${BASE}"] * len(arguments("FROM"))


def test_e24_the_image_runs_as_nobody_and_says_how_it_is() -> None:
    """A number as the user, so that the platform can see that it is not root; nothing comes after it."""
    last = stages()[-1]
    (user,) = (argument for name, argument in last if name == "USER")
    assert user == USER
    after = {name for name, _ in last[last.index(("USER", user)) + 1 :]}
    assert not after & {"RUN", "COPY", "USER"}
    assert [argument for name, argument in last if name == "STOPSIGNAL"] == ["SIGTERM"]
    assert any(name == "HEALTHCHECK" and '"/app/health.py"' in argument for name, argument in last)


def test_e24_nothing_comes_into_the_image_but_what_is_locked() -> None:
    """No download by address, no package of a distribution, and pip takes only what has the right hash."""
    assert not arguments("ADD")
    assert not re.search(r"curl|wget|https?:|apt-get|apk |git clone", " ".join(arguments("RUN")))
    installs = re.findall(r"pip (?:--python \S+ )?install [^&]+", " ".join(arguments("RUN")))
    assert len(installs) == 3
    for install in installs:
        assert "--no-deps" in install
        assert "--no-index" in install or "--require-hashes --no-deps -r requirements/" in install


def test_e24_no_secret_is_baked_in() -> None:
    """Neither as a variable nor as a file."""
    assert not SECRET_NAME.search(" ".join(arguments("ENV") + arguments("ARG")))
    for path in (
        ".env",
        ".env.local",
        "src/.env",
        "src/portfolio_realtime/.env.bak",
        ".git/config",
        "key.pem",
    ):
        assert is_ignored(path), path


def test_e24_what_the_image_needs_is_sent_and_nothing_else() -> None:
    """Everything that COPY names is there, and tests, documents and deployments stay out."""
    copied = [argument.split()[:-1] for argument in arguments("COPY") if not argument.startswith("--from")]
    for path in (name.rstrip("/") for names in copied for name in names):
        assert (ROOT / path).exists() and not is_ignored(path), path
    for path in (
        "tests/conftest.py",
        "docs/security.md",
        "deploy/compose.yaml",
        "requirements/dev.txt",
        "dist/x",
    ):
        assert is_ignored(path), path


def is_ignored(path: str) -> bool:
    """As .dockerignore is read: the last line that fits the path, or a folder above it, decides."""
    names = [path, *(str(parent) for parent in Path(path).parents)]
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if not line or line.startswith("#"):
            continue
        if any(fnmatch(name, pattern) or fnmatch(f"/{name}", pattern) for name in names):
            ignored = not line.startswith("!")
    return ignored


@pytest.mark.parametrize(
    ("service", "command", "told"),
    [
        (None, [], "-m portfolio_realtime.run_services"),
        ("", [], "-m portfolio_realtime.run_services"),
        ("all", [], "-m portfolio_realtime.run_services"),
        *((name, [], f"-m portfolio_realtime.{name}") for name in SERVICES),
        (
            "symbol_collector",
            ["python", "-m", "portfolio_realtime.websocket_server"],
            "-m portfolio_realtime.websocket_server",
        ),
    ],
)
def test_e24_the_entry_point_becomes_the_service(
    tmp_path: Path, service: str | None, command: list[str], told: str
) -> None:
    """In the same process, so that signals reach it; SERVICE chooses, and a command wins."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$$ $*"\n')
    python.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"} | ({} if service is None else {"SERVICE": service})
    process = subprocess.Popen(
        [IMAGE / "entrypoint.sh", *command], env=environment, stdout=subprocess.PIPE, text=True
    )
    written, _ = process.communicate(timeout=WAIT_S_MAX)
    assert written.split(maxsplit=1) == [str(process.pid), f"{told}\n"]


def test_e24_an_unknown_service_is_refused_with_the_choice() -> None:
    """Not started as something else."""
    done = subprocess.run(
        [IMAGE / "entrypoint.sh"],
        env={"PATH": "/usr/bin:/bin", "SERVICE": "calculator"},
        capture_output=True,
        text=True,
        timeout=WAIT_S_MAX,
        check=False,
    )
    assert done.returncode == 2
    assert all(name in done.stderr for name in ("SERVICE=calculator", "all", *SERVICES))


@pytest.mark.parametrize(
    ("command", "healthy"),
    [
        (b"/sbin/init\0--\0/app/entrypoint.sh", True),
        (b"python\0-m\0portfolio_realtime.symbol_collector", True),
        (b"python\0-m\0portfolio_realtime.websocket_server", False),
        (b"python\0-m\0portfolio_realtime.run_services", False),
    ],
)
def test_e24_only_a_container_with_a_server_must_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: bytes, healthy: bool
) -> None:
    """Nothing listens; it depends on what runs."""
    monkeypatch.setenv("RUN_SERVICES_PORT", str(free_port()))
    monkeypatch.setenv("WEBSOCKET_PORT", str(free_port()))
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cmdline").write_bytes(command)
    assert HEALTH["is_healthy"](tmp_path) is healthy


@pytest.mark.parametrize("setting", ["RUN_SERVICES_PORT", "WEBSOCKET_PORT"])
@pytest.mark.asyncio(loop_scope="package")
async def test_e24_a_server_that_answers_is_healthy(shared: State, setting: str) -> None:
    """As the container asks it: a process of its own, without anything installed."""
    async with serving(shared.connection.url) as served:
        environment = {"RUN_SERVICES_PORT": str(free_port()), "WEBSOCKET_PORT": str(free_port())}
        environment[setting] = str(served.port)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(IMAGE / "health.py")), env=environment
        )
        assert await asyncio.wait_for(process.wait(), WAIT_S_MAX) == 0


def test_e24_the_health_check_knows_the_ports() -> None:
    """Those of the settings."""
    defaults = {name: config.Settings.model_fields[name.lower()].default for name in HEALTH["PORTS"]}
    assert HEALTH["PORTS"] == defaults
    assert {int(port) for port in " ".join(arguments("EXPOSE")).split()} == set(defaults.values())


def composed() -> dict[str, dict[str, Any]]:
    """The services of compose.yaml."""
    return compose()["services"]


def compose() -> dict[str, Any]:
    """All of compose.yaml."""
    return yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())


@pytest.mark.parametrize("name", [*SERVICES, "valkey"])
def test_e24_every_container_has_no_right_that_it_does_not_need(name: str) -> None:
    """Read-only, no capabilities, no new privileges, not root, and limits."""
    service = composed()[name]
    assert service["user"] == USER
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert {"mem_limit", "memswap_limit", "cpus", "pids_limit", "logging"} <= set(service)
    assert not {"privileged", "cap_add", "volumes", "devices", "network_mode", "pid", "ipc"} & set(service)
    for tmpfs in service["tmpfs"]:
        assert {"noexec", "nosuid", "nodev"} <= set(tmpfs.split(","))
        assert re.search(r"size=\d+m", tmpfs)
    assert re.search(r":(latest|\d+\.\d+\.\d+-[a-z]+)$", service["image"])
    assert service["image"].endswith(":latest") == (service.get("pull_policy") == "never")


def test_e24_only_the_server_can_be_reached_and_only_from_this_machine() -> None:
    """Valkey has a network of its own that leads nowhere."""
    services = composed()
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "websocket_server": ["127.0.0.1:8001:8001"]
    }
    assert compose()["networks"]["state"] == {"internal": True}
    assert services["valkey"]["networks"] == services["portfolio_calculator"]["networks"] == ["state"]
    assert set(services) == {*SERVICES, "valkey"}


@pytest.mark.parametrize("name", SERVICES)
def test_e24_a_service_is_told_its_own_secrets_only(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A `.env` with everything still gives each of them good settings."""
    for setting in config.Settings.model_fields:
        monkeypatch.delenv(setting.upper(), raising=False)
    for setting, value in everything().items():
        monkeypatch.setenv(setting, value)
    for setting, value in composed()[name]["environment"].items():
        monkeypatch.setenv(setting, value)
    settings = config.load(_env_file=None)
    brokers = {setting for setting in everything() if setting.startswith(("BROKER", "APCA", "MARKET"))}
    own = {
        "symbol_collector": brokers,
        "market_data_consumer": brokers,
        "websocket_server": everything().keys() - brokers,
        "portfolio_calculator": set[str](),
    }
    assert {setting for setting in everything() if os.environ[setting]} == own[name]
    assert settings.state_url == "redis://valkey:6379/0"
    assert composed()[name]["environment"]["SERVICE"] == name


def everything() -> dict[str, str]:
    """A value for each setting that holds a key or a secret, but those of Valkey."""
    fields = config.Settings.model_fields.items()
    held = [name for name, field in fields if field.annotation is SecretStr or name.endswith(KEY_NAMES)]
    return {
        name.upper(): f"{name} Zq3vT8xW1yB6nM4kP9sD2fG7hJ5lR0cV"
        for name in held
        if not name.startswith("redis")
    }

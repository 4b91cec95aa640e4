"""deploy/cloudflare.py against a stand-in judged by the official SDK's own types: `make cloudflare-check`."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudflare as sdk
import pytest
from standin import TOKEN, ZONE_ID, Standin, serving

SCRIPT = Path(__file__).parents[2] / "deploy" / "cloudflare.py"
NAME, TARGET = "realtime.example.com", "lb-1.us-east-1.elb.amazonaws.com"
RECORD = ["record", "--name", NAME, "--target", TARGET]
VALIDATION = ("_a1.realtime.example.com", "_b2.acm-validations.aws")

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def script() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("deploy_cloudflare", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def there() -> Iterator[Standin]:
    """A zone example.com as Cloudflare makes it."""
    standin = Standin()
    with serving(standin):
        yield standin


@pytest.fixture
def run(script: ModuleType, there: Standin, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the script: (exit code, all that it printed)."""

    def call(*arguments: str, token: str = TOKEN, retries: int = 0) -> tuple[int, str]:
        client = sdk.Cloudflare(
            api_token=token, base_url=there.url, max_retries=retries, _strict_response_validation=True
        )
        code = script.main(arguments, client)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


def record(**changed: Any) -> dict[str, Any]:
    """A CNAME that is there already."""
    return {
        "id": "9" * 32,
        "type": "CNAME",
        "name": NAME,
        "content": TARGET,
        "ttl": 1,
        "proxied": False,
        **changed,
    }


def test_a_dry_run_shows_every_difference_and_changes_nothing(run: Run, there: Standin) -> None:
    """What is shown is what the run without it does."""
    code, said = run(*RECORD, "--dry-run")

    assert code == 0
    assert said.count("would change") == 5 and "5 to change" in said
    assert there.changes == []
    assert {request.split()[0] for request in there.requests} == {"GET"}


def test_the_second_run_changes_nothing(run: Run, there: Standin) -> None:
    """A new name begins grey, with the settings of the whole zone; run again, all is as it is."""
    assert run(*RECORD, "--validation", *VALIDATION)[0] == 0
    first = list(there.changes)

    code, said = run(*RECORD, "--validation", *VALIDATION)

    assert code == 0 and "0 to change" in said and "changed" not in said
    assert (
        there.changes
        == first
        == [
            *("websockets=on", "ssl=strict", "min_tls_version=1.2", "always_use_https=on"),
            f"{VALIDATION[0]} -> {VALIDATION[1]} proxied=False",
            f"{NAME} -> {TARGET} proxied=False",
        ]
    )


def test_orange_comes_last_and_stays(run: Run, there: Standin) -> None:
    """The settings are right before anything goes through Cloudflare; a later run does not turn it grey."""
    there.records.append(record())
    assert run(*RECORD, "--orange")[0] == 0
    assert there.changes[-1] == f"{NAME} -> {TARGET} proxied=True" and len(there.changes) == 5

    assert run(*RECORD)[0] == 0
    assert len(there.changes) == 5
    assert run(*RECORD, "--grey")[0] == 0
    assert there.changes[5:] == [f"{NAME} -> {TARGET} proxied=False"]


def test_what_is_stricter_is_left_alone(run: Run, there: Standin) -> None:
    """TLS 1.3 is not lowered to 1.2. (`origin_pull`, stricter than `strict`, is in the SDK's type of the
    setting and missing from its type of the answer, 5.9.0, so a strict client refuses to read it.)"""
    there.settings = {"websockets": "on", "ssl": "strict", "min_tls_version": "1.3", "always_use_https": "on"}
    there.records.append(record())

    assert run(*RECORD)[0] == 0
    assert there.changes == []


def test_a_moved_balancer_is_followed(run: Run, there: Standin) -> None:
    """The record keeps its colour."""
    there.records.append(record(content="old.elb.amazonaws.com", proxied=True))

    assert run(*RECORD)[0] == 0
    assert there.changes[-1] == f"{NAME} -> {TARGET} proxied=True"


def test_it_says_that_the_guides_timeout_does_not_exist(run: Run, there: Standin) -> None:
    """And what keeps a silent connection open instead; the setting of Enterprise plans is not asked for."""
    _, said = run(*RECORD)

    assert "no setting for the timeout" in said and "pings each connection" in said
    assert not [request for request in there.requests if "proxy_read_timeout" in request]


REFUSED: list[tuple[str, dict[str, Any], list[str], str]] = [
    ("token without the right to settings", {"rights": {"dns", "zone"}}, [], "Zone Settings > Edit"),
    (
        "token without the right to records",
        {"rights": {"settings", "zone"}, "records": [record()]},
        [],
        "DNS > Edit",
    ),
    ("token without this zone", {"rights": {"dns", "settings"}}, [], "sees no zone for realtime.example.com"),
    ("another zone", {}, ["--zone", "example.org"], "is not in the zone example.org"),
    ("zone that is not active", {"status": "pending"}, [], "ann.ns.cloudflare.com"),
    ("zone that is paused", {"is_paused": True}, ["--orange"], "paused"),
    ("plan without the setting", {"locked": {"websockets"}}, [], "plan does not let it be changed"),
    ("address in the way", {"records": [record(type="A", content="192.0.2.1")]}, [], "A 192.0.2.1"),
    ("name without certificate", {}, ["--name", "a.realtime.example.com", "--orange"], "--deep-certificate"),
    ("address as target", {}, ["--target", "192.0.2.1"], "no host name"),
    ("URL as name", {}, ["--name", "https://realtime.example.com"], "no host name"),
    ("fault of Cloudflare", {"failing": {"/zones": 503}}, [], "status page"),
    ("too many requests", {"failing": {"/ssl": 429}}, [], "5 minutes"),
]


@pytest.mark.parametrize(
    ("there_is", "arguments", "said"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_what_cannot_be_done_is_refused_before_anything_changes(
    run: Run, there: Standin, there_is: dict[str, Any], arguments: list[str], said: str
) -> None:
    """One line with the remedy, exit code 1, nothing changed."""
    for name, value in there_is.items():
        setattr(there, name, value)
    if "locked" not in there_is:
        there.settings["websockets"] = "on"  # so that the right to change settings can be tried on it

    code, printed = run(*RECORD, *arguments)

    assert code == 1 and said in printed and "Traceback" not in printed
    assert there.changes == []


def test_a_token_that_is_refused(run: Run, there: Standin) -> None:
    """Told apart from one that lacks a right."""
    code, said = run(*RECORD, token="b" * 40)

    assert code == 1 and "The token is not accepted" in said


def test_a_fault_in_the_middle_says_what_was_changed(run: Run, there: Standin) -> None:
    """So that nobody has to guess; the next run does the rest."""
    there.locked = {"always_use_https"}
    there.settings["always_use_https"] = "on"
    there.failing = {"/dns_records": 500}
    before = there.answer

    def answer(method: str, *rest: Any) -> tuple[int, dict[str, Any]]:
        there.failing = {"/dns_records": 500} if method == "POST" else {}
        return before(method, *rest)

    there.answer = answer  # type: ignore[method-assign]  # only making fails

    code, said = run(*RECORD)

    assert (
        code == 1 and "changed before that: setting websockets, setting ssl, setting min_tls_version" in said
    )


def test_the_sdks_types_refuse_what_cloudflare_does_not_have(there: Standin) -> None:
    """The judge itself: a version, a mode, a setting and a field that do not exist."""
    for name, value in (("min_tls_version", "1.4"), ("ssl", "stricter"), ("websockets", "120")):
        assert there.answer("PATCH", f"/zones/{ZONE_ID}/settings/{name}", TOKEN, {"value": value})[0] == 400
    assert there.answer("GET", f"/zones/{ZONE_ID}/settings/websocket_timeout", TOKEN, {})[0] == 400
    wrong = {"type": "CNAME", "name": NAME, "content": TARGET, "ttl": 1, "proxied": False, "timeout": 120}
    with pytest.raises(ValueError, match="timeout"):
        there.answer("POST", f"/zones/{ZONE_ID}/dns_records", TOKEN, wrong)
    assert there.changes == []


@pytest.fixture
def ours(script: ModuleType, there: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of our list, which the stand-in confirms."""
    path = tmp_path / "networks.json"
    path.write_text(script.NETWORKS.read_text())
    listed = json.loads(path.read_text())
    there.ipv4, there.ipv6 = listed["ipv4"][::-1], listed["ipv6"]
    monkeypatch.setattr(script, "NETWORKS", path)
    return path


def test_networks_that_are_the_same(run: Run, ours: Path) -> None:
    """The whole value of TRUSTED_PROXIES is printed: the VPC and 22 networks."""
    code, said = run("networks", "--vpc", "10.9.0.0/16")

    assert code == 0 and "TRUSTED_PROXIES=10.9.0.0/16,103.21.244.0/22," in said
    assert said.split("TRUSTED_PROXIES=")[1].count(",") == 22


def test_networks_that_have_changed(run: Run, there: Standin, ours: Path) -> None:
    """Exit code 3, for an alarm; --write takes them over."""
    gone = there.ipv4.pop()
    there.ipv4.append("185.122.0.0/22")

    code, said = run("networks")
    assert code == 3 and f"- {gone}" in said and "+ 185.122.0.0/22" in said

    assert run("networks", "--write")[0] == 0
    assert sorted(there.ipv4) == json.loads(ours.read_text())["ipv4"]
    assert run("networks")[0] == 0


@pytest.mark.parametrize("wrong", ["0.0.0.0/0", "10.0.0.0/8", "nonsense", "2400:cb00::/32"])
def test_networks_that_nobody_should_trust(run: Run, there: Standin, ours: Path, wrong: str) -> None:
    """A list with such an entry is refused as a whole."""
    there.ipv4.append(wrong)

    code, said = run("networks", "--write")

    assert code == 1 and wrong in said
    assert wrong not in json.loads(ours.read_text())["ipv4"]


def test_as_a_program(there: Standin) -> None:
    """It finds the SDK, not itself; without a token it says how to make one; a dead host is named."""
    environment = {"PATH": os.environ["PATH"], "CLOUDFLARE_BASE_URL": there.url}
    command = [sys.executable, str(SCRIPT), *RECORD]

    without = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (
        without.returncode == 1
        and "CLOUDFLARE_API_TOKEN" in without.stderr
        and "DNS > Edit" in without.stderr
    )
    environment["CLOUDFLARE_API_TOKEN"] = TOKEN
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, len(there.changes)) == (0, 5), done.stderr
    environment["CLOUDFLARE_BASE_URL"] = "http://127.0.0.1:9"
    dead = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert dead.returncode == 1 and "cannot be reached" in dead.stderr and "Traceback" not in dead.stderr

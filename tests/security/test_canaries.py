"""One canary for each secret: whoever words a line, no secret is in it."""

import json
import secrets
from collections.abc import Generator

import httpx
import pytest
import structlog

from portfolio_realtime import config, logs, redaction
from portfolio_realtime.cli import common
from portfolio_realtime.config import Settings
from portfolio_realtime.config.settings import secrets_of
from portfolio_realtime.config.sources import secret_names
from portfolio_realtime.errors import StateUnavailable

KEYS = ("broker_api_key", "broker_client_id", "apca_api_key_id", "market_api_key")


def canary() -> str:
    """A secret that nobody can guess, with signs that JSON, URLs and Python spell otherwise."""
    return secrets.token_urlsafe(32) + 'Aé"\\/+ z'


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Generator[dict[str, str]]:
    """Setting -> its canary, loaded and known."""
    plain = {name: secrets.token_urlsafe(32) for name in KEYS}
    plain |= {
        name: secrets.token_urlsafe(32)
        for name in secret_names(Settings)
        if name not in ("redis_url", "jwt_secret")
    }
    plain["jwt_secret"] = secrets.token_urlsafe(48)
    password = canary()
    settings = config.load(_env_file=None, **plain, redis_host="h")
    redaction.know([*secrets_of(settings), password])
    yield {**plain, "redis_password_in_url": password}
    redaction.know([])


def test_every_secret_setting_is_known(planted: dict[str, str]) -> None:
    """A new secret in the settings is known by being one."""
    assert set(secret_names(Settings)) - {"redis_url"} <= planted.keys()
    for name, secret in planted.items():
        assert secret not in redaction.clean(f"before {secret} after"), name


def test_no_line_of_the_log_holds_one(
    planted: dict[str, str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a value, in an error of a client, in a traceback, in a library's own line; console and JSON."""
    monkeypatch.setattr(logs, "LINES_PER_EVENT_MAX", 10_000)
    for log_format in ("json", "console"):
        writer = logs.configure("test", "info", log_format)
        log = structlog.get_logger()
        for name, secret in planted.items():
            log.warning("refused", setting=name, reason=f"Illegal header value {secret.encode()!r}")
            log.info("asked", url=str(httpx.URL("https://host/path", params={"token": secret})))
            log.info("body", body=json.dumps({"error": secret}))
            try:
                raise ValueError(f"no such password: {secret}")
            except ValueError:
                log.exception("failed", setting=name)
        writer.flush()
    said = capfd.readouterr().err
    assert said.count("(hidden)") >= len(planted)
    for name, secret in planted.items():
        assert secret not in said, name
        assert secret[:40] not in said, name


def test_no_error_that_a_command_prints_holds_one(
    planted: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    """It may be in the words of a library, of a proxy or of Valkey."""
    for secret in planted.values():
        common.tell(StateUnavailable(f"Valkey answers ERR no such password: {secret}"))
    said = capfd.readouterr().err
    assert said.count("(hidden)") >= len(planted)
    for name, secret in planted.items():
        assert secret not in said, name

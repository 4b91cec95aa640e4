"""Settings are read as they are written, or refused: with one line that says what to do."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from pydantic import SecretStr

from portfolio_realtime import config, redaction
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import SettingsError
from portfolio_realtime.service import warn_of_unused_password

SECRET = "q7Zr2Lk9Vx4Bn8Tp1Ws6Ed3Ry5Uj0Mh2Gf7Kc"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting but those of the test, in an empty folder."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_text(SECRET + "\n")


def read(content: bytes, name: str) -> object:
    """The setting as it is read from such a `.env`."""
    Path(".env").write_bytes(content)
    value = getattr(config.load(), name)
    return value.get_secret_value() if isinstance(value, SecretStr) else value


@pytest.mark.parametrize(
    ("content", "name", "value"),
    [
        (b"\xef\xbb\xbfREDIS_HOST=h\r\n", "redis_host", "h"),
        (b"export REDIS_HOST = 'h'  # ours\n", "redis_host", "h"),
        (b"REDIS_PASSWORD='pa${ss}w0rd'\n", "redis_password", "pa${ss}w0rd"),
        (b'REDIS_HOST=h\nREDIS_USER=u\nREDIS_PASSWORD="${REDIS_USER}-1"\n', "redis_password", "u-1"),
        (b"JWT_SECRET_FILE=secret\n", "jwt_secret", SECRET),
        (b"APCA_API_KEY_ID=PK1\nAPCA_API_SECRET_KEY='line \n'\n", "apca_api_secret_key", "line"),
        (b"SOMEBODY_ELSES=1\nLOG_LEVEL=error\n", "log_level", "error"),
    ],
)
def test_what_is_written_is_read(content: bytes, name: str, value: str) -> None:
    """A byte order mark, quotes, variables, files with secrets, white space around a secret."""
    assert read(content, name) == value


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'REQUIRE_TLS="true\nREDIS_HOST=h\n', "line 1"),
        (b"# ours\n\nREQUIRE_TLS: true\n", "line 3"),
        (b"REQUIRE_TLS\n", "NAME=value"),
        ("REDIS_HOST=h\n".encode("utf-16"), "UTF-16"),
        ("\n# Schlüssel\n".encode("latin-1"), "line 2"),
        (b"REDIS_PASSWORD=pa${ss}w0rd\n", "single quotes"),
        (b"JWT_SECRT=x\n", "did you mean JWT_SECRET?"),
        (b"JWT_SECRET_FILES=x\n", "did you mean JWT_SECRET_FILE?"),
        (b"JWT_SECRET=y\nJWT_SECRET_FILE=secret\n", "keep one"),
        (b"JWT_SECRET_FILE=nowhere\n", "No such file"),
        (b"BROKER_API_KEY='a b\nc'\nBROKER_SECRET_KEY=x\n", "line break"),
    ],
)
def test_what_cannot_be_read_is_refused(content: bytes, told: str) -> None:
    """And not passed over: half of a file would be another configuration."""
    with pytest.raises(SettingsError, match=told.replace("?", r"\?")) as refused:
        read(content, "redis_host")
    assert "pa${ss}" not in str(refused.value)


def _dangle(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (Path.mkdir, "is a directory"),
        (os.mkfifo, "a pipe"),
        (_dangle, "No such file"),
    ],
)
def test_a_file_that_is_none_is_refused(make: Callable[[Path], None], told: str) -> None:
    """What is at the place of `.env` was meant: it is never left out without a word."""
    make(Path(".env"))
    with pytest.raises(SettingsError, match=told):
        config.load()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"redis_host": "valkey..internal"}, "not a host"),
        ({"redis_host": "“valkey”"}, "not a host"),
        ({"redis_host": "a b"}, "not a host"),
        ({"redis_url": "redis://valkey..internal/0"}, "must be a URL"),
        ({"redis_sentinels": "a..b:26379", "redis_sentinel_master": "m"}, "not host:port"),
        ({"alpaca_data_url": "https://data..alpaca.markets"}, "base URL"),
        ({"allowed_origins": "https://münchen.example"}, "xn--"),
        ({"redis_url": "redis://h:6379/0", "redis_ssl": True}, "rediss://"),
        ({"redis_url": "redis://h:6379/0", "redis_password": "s3cr3t-pw"}, "USER:PASSWORD@HOST"),
        ({"redis_url": "redis://h:6379", "redis_db": 2}, "/2"),
        ({"otel_exporter_otlp_endpoint": "http://u:s3cr3t-pw@h:4318"}, "without login"),
        ({"redis_port": 6380}, "REDIS_PORT without REDIS_HOST"),
        ({"redis_user": "u", "redis_db": 2}, "REDIS_DB and REDIS_USER without REDIS_HOST"),
        ({"redis_ssl": True}, "REDIS_SSL without REDIS_HOST"),
        ({"redis_host": "127.0.0.1:6380"}, "REDIS_PORT=6380"),
        ({"redis_host": "a:7001,b:7002"}, "REDIS_URL=redis://a:7001,b:7002/0"),
        ({"redis_host": "redis://h"}, "REDIS_URL"),
        ({"redis_url": "redis://h:6379/0?family=0"}, "not supported"),
        ({"redis_url": "redis://h:6379/0?decode_responses=1"}, "not supported"),
        ({"redis_url": "redis://h:6379/0?ssl_ca_certs=x"}, "rediss://"),
        ({"redis_url": "rediss://h:6379/0?ssl_cert_reqs=CERT_NONE"}, "required"),
        ({"redis_url": "rediss://h:6379/0?ssl_ca_certs="}, "empty option"),
        ({"redis_url": "redis://h:6379/none"}, "number of a database"),
        ({"redis_url": "redis://h:port/0"}, "must be a URL"),
        ({"redis_url": "redis://:pa#ss@h/0"}, "must be a URL"),
        ({"redis_ca_file": "nowhere"}, "does not exist"),
        ({"redis_ca_file": "secret"}, "need REDIS_HOST and REDIS_SSL"),
        ({"redis_host": "h", "redis_ssl": True, "redis_key_file": "secret"}, "go together"),
    ],
)
def test_where_valkey_is_must_be_said_well(settings: dict[str, object], told: str) -> None:
    """Each with its remedy, and never with the password."""
    with pytest.raises(SettingsError, match=told) as refused:
        config.load(**settings)
    assert "s3cr3t-pw" not in str(refused.value)


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_is_a_host(host: str) -> None:
    """With or without brackets."""
    assert config.load(redis_host=host, redis_port=6380).state_url == "redis://[::1]:6380/0"


def test_files_of_tls_are_options_of_the_url() -> None:
    """As the client library wants them."""
    found = config.load(redis_host="h", redis_ssl=True, redis_ca_file="secret", redis_password="a/b")
    assert found.state_url == "rediss://:a%2Fb@h:6379/0?ssl_ca_certs=secret"


def test_a_slip_in_the_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """One letter of a long name; what others have there is theirs."""
    monkeypatch.setenv("REDIS_SERVICE_HOST", "10.0.0.1")
    config.load()
    monkeypatch.setenv("ALOWED_ORIGINS", "https://app.example.com")
    with pytest.raises(SettingsError, match="did you mean ALLOWED_ORIGINS"):
        config.load()


def test_what_was_loaded_is_never_shown() -> None:
    """Keys, secrets, and the password inside a URL."""
    config.load(
        redis_url="redis://:made%20up@h/0", broker_api_key="CKMADEUP", broker_secret_key="made-up-secret"
    )
    assert redaction.clean("made up, CKMADEUP, made-up-secret") == "(hidden), (hidden), (hidden)"
    redaction.know([])


@pytest.mark.parametrize(("host", "is_told"), [("", True), ("h", False)])
def test_a_password_that_no_valkey_asks_for_is_a_warning(host: str, is_told: bool) -> None:
    """It may be meant for other programs of this machine."""
    with structlog.testing.capture_logs() as logged:
        warn_of_unused_password(config.load(redis_host=host, redis_password="s3cr3t-pw"))
    assert ["REDIS_PASSWORD is not used" in line["event"] for line in logged] == [True] * is_told

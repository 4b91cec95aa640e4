"""Settings: the guide's files load, a wrong one is named with its remedy, and no secret is ever shown."""

from collections.abc import Callable
from pathlib import Path

import pytest

from portfolio_realtime import config
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import SettingsError

LOCAL = """
# Alpaca API credentials (use your sandbox keys)
BROKER_API_KEY=CKZX0Q7N2V5T8W1Y4B6D
BROKER_SECRET_KEY=s3cr3t-broker-VbT2mXq9LpR7
APCA_API_KEY_ID=PKM4ZT81NS5VQ0XWYR2E
APCA_API_SECRET_KEY=s3cr3t-market-Jw8KfHd3Nz6
ALPACA_SANDBOX=true

# Redis configuration (local)
REDIS_HOST=localhost
REDIS_PORT=6379
REDIS_DB=0

# Service configuration
SYMBOL_COLLECTION_INTERVAL=60  # Shorter interval for testing
PRICE_TTL=3600
MIN_UPDATE_INTERVAL=1
RECALCULATION_INTERVAL=15
WEBSOCKET_PORT=8001
WEBSOCKET_HOST=0.0.0.0
"""

PRODUCTION = """
BROKER_API_KEY=AKZX0Q7N2V5T8W1Y4B6D
BROKER_SECRET_KEY=s3cr3t-broker-VbT2mXq9LpR7
MARKET_API_KEY=AKM4ZT81NS5VQ0XWYR2E
MARKET_SECRET_KEY=s3cr3t-market-Jw8KfHd3Nz6
ALPACA_SANDBOX=false
REDIS_HOST=state.example.com
REDIS_PORT=6380
REDIS_DB=2
REDIS_USER=portfolio
REDIS_PASSWORD=s3cr3t-p@ss/word
REDIS_SSL=true
SYMBOL_COLLECTION_INTERVAL=300
MIN_UPDATE_INTERVAL=2
API_KEY_SECRET=s3cr3t-api-key-8Qw2Er4Ty6Ui8Op0As2Df4Gh
JWT_SECRET=s3cr3t-jwt-8Qw2Er4Ty6Ui8Op0As2Df4Gh6Jk8Lz
"""

Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """`load(env_file_text, NAME=value, …)`: the settings of a process with this `.env` and environment."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)

    def settings(text: str = "", **environment: str) -> Settings:
        (tmp_path / ".env").write_text(text)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return config.load()

    return settings


def test_the_guides_local_file_loads(load: Load) -> None:
    """As the guide prints it, comments behind values included."""
    settings = load(LOCAL)
    assert settings.symbol_collection_interval == 60
    assert settings.state_url == "redis://localhost:6379/0"
    assert not settings.is_embedded
    assert settings.market_credentials == ("PKM4ZT81NS5VQ0XWYR2E", "s3cr3t-market-Jw8KfHd3Nz6")
    assert not settings.market_uses_basic
    assert settings.host("broker") == "https://broker-api.sandbox.alpaca.markets"
    assert (settings.websocket_host, settings.websocket_port) == ("0.0.0.0", 8001)


def test_the_guides_production_file_loads(load: Load) -> None:
    """Production hosts, TLS, and a password with signs that a URL would misread."""
    settings = load(PRODUCTION)
    assert settings.state_url == "rediss://portfolio:s3cr3t-p%40ss%2Fword@state.example.com:6380/2"
    assert settings.market_credentials[0] == "AKM4ZT81NS5VQ0XWYR2E"
    assert settings.host("broker") == "https://broker-api.alpaca.markets"
    assert settings.host("stream") == "wss://stream.data.alpaca.markets"


def test_without_any_setting_everything_has_a_default(load: Load) -> None:
    """An embedded Valkey, the sandbox, the intervals of the guide."""
    settings = load()
    assert settings.is_embedded
    assert settings.alpaca_sandbox
    intervals = (settings.symbol_collection_interval, settings.price_ttl, settings.recalculation_interval)
    assert intervals == (300, 3600, 15)
    assert settings.min_update_interval == 1


def test_the_environment_wins_over_the_file(load: Load) -> None:
    """A variable of the process replaces the line of `.env`."""
    assert load(LOCAL, PRICE_TTL="7").price_ttl == 7


def test_the_markets_own_names_win(load: Load) -> None:
    """MARKET_* over APCA_*; without either the broker's keys serve, with Basic authentication."""
    both = load(LOCAL + "MARKET_API_KEY=MK1\nMARKET_SECRET_KEY=s3cr3t-ms\n")
    assert both.market_credentials == ("MK1", "s3cr3t-ms")
    broker = load("BROKER_API_KEY=CK1\nBROKER_SECRET_KEY=s3cr3t-bs\n")
    assert broker.market_credentials == ("CK1", "s3cr3t-bs")
    assert broker.market_uses_basic


def test_the_keys_say_whose_accounts_are_followed(load: Load) -> None:
    """A broker's credentials win over a Trading API key; without either nobody's, with the remedy."""
    trading = "APCA_API_KEY_ID=PK1\nAPCA_API_SECRET_KEY=s3cr3t-ts\n"
    sources = {
        "": "none",
        trading: "trading",
        LOCAL: "broker",
        trading + "BROKER_CLIENT_ID=C1\nBROKER_CLIENT_SECRET=s3cr3t-cs\n": "broker",
    }
    assert {text: load(text).account_source for text in sources} == sources
    assert config.described_source(load(trading)) == "one paper account (by APCA_API_KEY_ID)"
    assert "one live account" in config.described_source(load(trading, ALPACA_SANDBOX="false"))
    assert "APCA_API_KEY_ID is for market data only" in config.described_source(load(LOCAL))
    assert "set BROKER_API_KEY" in config.described_source(load())


def test_a_paper_account_reads_production_market_data(load: Load) -> None:
    """Alpaca's sandbox of market data knows brokers' keys only."""
    settings = load("APCA_API_KEY_ID=PK1\nAPCA_API_SECRET_KEY=s3cr3t-ts\n")
    assert settings.host("trading") == "https://paper-api.alpaca.markets"
    assert settings.host("data") == "https://data.alpaca.markets"
    assert settings.host("stream") == "wss://stream.data.alpaca.markets"
    assert settings.market_credentials == ("PK1", "s3cr3t-ts")
    assert not settings.market_uses_basic
    assert load(LOCAL).host("data") == "https://data.sandbox.alpaca.markets"


def test_a_url_wins_over_its_parts(load: Load) -> None:
    """REDIS_URL is taken as it is."""
    assert load(LOCAL, REDIS_URL="rediss://:pw@elsewhere:7000/3").state_url == "rediss://:pw@elsewhere:7000/3"


@pytest.mark.parametrize("name", ["broker", "trading", "data", "stream"])
def test_hosts_follow_the_sandbox_unless_they_are_set(load: Load, name: str) -> None:
    """Each host can be replaced; a trailing slash does no harm."""
    is_stream = name == "stream"
    assert load(ALPACA_SANDBOX="true").host(name) != load(ALPACA_SANDBOX="false").host(name)  # type: ignore[arg-type]  # one of the four
    url = f"{'ws' if is_stream else 'http'}://127.0.0.1:8900"
    assert load(**{f"ALPACA_{name.upper()}_URL": f"{url}/"}).host(name) == url  # type: ignore[arg-type]  # one of the four


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("ALPACA_BROKER_URL", "127.0.0.1:8900", "base URL without a path, such as http"),
        ("ALPACA_BROKER_URL", "https://broker-api.alpaca.markets/v1", "without a path"),
        ("ALPACA_DATA_URL", "ws://127.0.0.1:1", "such as http"),
        ("ALPACA_DATA_URL", "http://127.0.0.1:port", "base URL"),
        ("ALPACA_STREAM_URL", "https://127.0.0.1:1", "such as ws"),
        ("ALPACA_DATA_FEED", "otc", "'iex'"),
        ("REDIS_PORT", "0", "greater than or equal to 1"),
        ("REDIS_PORT", "six", "integer"),
        ("REDIS_URL", "localhost:6379", "such as redis://"),
        ("PRICE_TTL", "0", "greater than 0"),
        ("PRICE_TTL", "inf", "finite"),
        ("PRICE_TTL", "nan", "finite"),
        ("ALPACA_DATA_URL", "https://user:s3cr3t@127.0.0.1", "base URL"),
        ("PRICE_TTL", "1e30", "less than or equal to 315360000"),
        ("SYMBOL_COLLECTION_INTERVAL", "-1", "greater than 0"),
        ("MIN_UPDATE_INTERVAL", "0.01", "greater than or equal to 0.05"),
        ("RECALCULATION_INTERVAL", "soon", "number"),
        ("SHARDS", "100", "less than or equal to 99"),
        ("LEASE_MS", "2000", "three times LEASE_RENEW_MS"),
        ("BROKER_API_KEY", "your_sandbox_broker_key", "set your own key"),
        ("APCA_API_KEY_ID", "PK...", "set your own key"),
        ("BROKER_API_KEY", "CK1", "BROKER_SECRET_KEY"),
        ("APCA_API_SECRET_KEY", "s3cr3t-only", "APCA_API_KEY_ID and APCA_API_SECRET_KEY go together"),
        ("MARKET_SECRET_KEY", "s3cr3t-only", "MARKET_API_KEY and MARKET_SECRET_KEY go together"),
        ("JWT_SECRET", "s3cr3t-short", "token_urlsafe"),
        ("API_KEY_SECRET", "s3cr3t-short", "at least 32 bytes"),
        ("LOG_LEVEL", "chatty", "'info'"),
        ("ALPACA_SANDBOX", "perhaps", "boolean"),
    ],
)
def test_a_wrong_setting_is_refused_with_name_and_remedy(
    load: Load, name: str, value: str, remedy: str
) -> None:
    """Which setting, its value unless it is secret, and what to do."""
    with pytest.raises(SettingsError) as refused:
        load(**{name: value})
    text = str(refused.value)
    assert name in text
    assert remedy in text
    assert "s3cr3t" not in text


def test_all_wrong_settings_are_named_at_once(load: Load) -> None:
    """Nobody has to start three times to learn of three mistakes."""
    with pytest.raises(SettingsError) as refused:
        load(PRICE_TTL="0", SHARDS="0", LOG_FORMAT="xml")
    assert all(name in str(refused.value) for name in ("PRICE_TTL='0'", "SHARDS='0'", "LOG_FORMAT='xml'"))


def test_no_secret_is_shown(load: Load) -> None:
    """Neither in the table for people, nor when the settings are printed or a message names one."""
    settings = load(PRODUCTION, REDIS_URL="rediss://:s3cr3t-url@127.0.0.1/0")
    shown = dict(config.described(settings))
    assert "s3cr3t" not in f"{shown} {settings!r} {settings}"
    assert shown["BROKER_API_KEY"] == shown["JWT_SECRET"] == shown["REDIS_URL"] == "(set)"
    assert dict(config.described(load("", REDIS_URL="")))["REDIS_URL"] == "(not set)"
    assert set(shown) == {name.upper() for name in Settings.model_fields}
    with pytest.raises(SettingsError) as refused:
        load(JWT_SECRET="s3cr3t-short", REDIS_URL="s3cr3t-url", BROKER_SECRET_KEY="your_s3cr3t")
    assert "s3cr3t" not in str(refused.value)
    assert "(hidden)" in str(refused.value)


def test_a_childs_environment_is_ours_with_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other variables are passed on."""
    monkeypatch.setenv("PORT_OF_CALL", "8001")
    child = config.child_environment(WEBSOCKET_PORT="9")
    assert (child["PORT_OF_CALL"], child["WEBSOCKET_PORT"]) == ("8001", "9")


def test_a_market_key_never_borrows_another_keys_secret(load: Load) -> None:
    """MARKET_API_KEY without its secret beside a whole APCA pair: an error, not a mixed pair."""
    with pytest.raises(SettingsError, match="MARKET_API_KEY and MARKET_SECRET_KEY go together"):
        load(LOCAL + "MARKET_API_KEY=MK1\n")


def test_an_overnight_feed_goes_beside_a_feed_of_the_day(load: Load) -> None:
    """Two feeds of the night would both claim the same symbols."""
    settings = load("ALPACA_DATA_FEED=sip\nALPACA_OVERNIGHT_FEED=boats\n")
    assert settings.alpaca_overnight_feed == "boats"
    with pytest.raises(SettingsError, match="ALPACA_OVERNIGHT_FEED needs"):
        load("ALPACA_DATA_FEED=boats\nALPACA_OVERNIGHT_FEED=boats\n")

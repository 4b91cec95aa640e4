"""All settings: read from the environment and `.env`, and validated together.

The names are those of the setup guide. A wrong setting raises SettingsError with its name, its value (secrets
hidden) and the remedy. Settings are read nowhere else in the package.
"""

import os
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from portfolio_realtime import redaction
from portfolio_realtime.config import valkey_url
from portfolio_realtime.config.sources import ENV_FILE, sources
from portfolio_realtime.config.urls import base_url, is_near, listed, parts_of
from portfolio_realtime.config.weak_secrets import is_guessable
from portfolio_realtime.errors import SettingsError

SECRET_BYTES_MIN: Final = 32
PRICE_TTL_S_MAX: Final = 315_360_000  # ten years
HISTORY_DELAY_S_MAX: Final = 2.0
SAMPLE_PREFIX: Final = "your_"  # the guide's
SAMPLE_SUFFIX: Final = "..."  # of README

AccountAccess = Literal["claim", "webhook", "entitlements"]
DataFeed = Literal["iex", "sip", "delayed_sip", "boats", "overnight", "test"]

AccountSource = Literal["broker", "trading", "none"]

_HOSTS: Final = {
    "broker": ("https://broker-api.alpaca.markets", "https://broker-api.sandbox.alpaca.markets"),
    "auth": ("https://authx.alpaca.markets", "https://authx.sandbox.alpaca.markets"),
    "trading": ("https://api.alpaca.markets", "https://paper-api.alpaca.markets"),
    "data": ("https://data.alpaca.markets", "https://data.sandbox.alpaca.markets"),
    "stream": ("wss://stream.data.alpaca.markets", "wss://stream.data.sandbox.alpaca.markets"),
}


class Settings(BaseSettings):
    """All settings with their defaults and limits. `meanings.py` describes each."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment override `.env`, for a value as well as for the file of a secret."""
        in_environment, *in_file = sources(settings_cls)
        return init_settings, in_environment, env_settings, *in_file, file_secret_settings

    model_config = SettingsConfigDict(
        extra="ignore",
        populate_by_name=True,
        frozen=True,
        allow_inf_nan=False,
    )

    # Alpaca: keys
    broker_api_key: str = ""
    broker_secret_key: SecretStr = SecretStr("")
    broker_client_id: str = ""
    broker_client_secret: SecretStr = SecretStr("")
    apca_api_key_id: str = ""
    apca_api_secret_key: SecretStr = SecretStr("")
    market_api_key: str = ""
    market_secret_key: SecretStr = SecretStr("")
    # Alpaca: hosts and feeds
    alpaca_sandbox: bool = True
    alpaca_broker_url: str = ""
    alpaca_auth_url: str = ""
    alpaca_trading_url: str = ""
    alpaca_data_url: str = ""
    alpaca_stream_url: str = ""
    alpaca_data_feed: DataFeed = "iex"
    alpaca_overnight_feed: Literal["", "boats", "overnight"] = ""
    alpaca_options_feed: Literal["indicative", "opra"] = "indicative"
    alpaca_crypto_location: Literal["us", "us-1", "us-2", "eu-1", "bs-1"] = "us"
    alpaca_stream_encoding: Literal["msgpack", "json"] = "msgpack"
    # Valkey or Redis; embedded when neither host nor URL is set
    redis_url: SecretStr = SecretStr("")
    redis_host: str = ""
    redis_port: int = Field(6379, ge=1, le=65535)
    redis_db: int = Field(0, ge=0)
    redis_user: str = ""
    redis_password: SecretStr = SecretStr("")
    redis_password_file: str = ""  # its content is in `redis_password`, too
    redis_ssl: bool = False
    redis_ca_file: str = ""
    redis_cert_file: str = ""
    redis_key_file: str = ""
    redis_cluster: Literal["auto", "true", "false"] = "auto"
    redis_sentinels: str = ""
    redis_sentinel_master: str = ""
    redis_is_embedded: bool = False
    key_prefix: str = Field("", pattern="^[A-Za-z0-9:_-]{0,64}$")
    # The four intervals, in seconds
    symbol_collection_interval: float = Field(300, gt=0)
    price_ttl: float = Field(3600, gt=0, le=PRICE_TTL_S_MAX)
    record_ttl: float = Field(3600, gt=0, le=PRICE_TTL_S_MAX)
    min_update_interval: float = Field(1, ge=0.05)
    recalculation_interval: float = Field(15, gt=0)
    history_interval: int = Field(60, ge=1, le=3600)
    mark_flush_interval: float = Field(0.1, ge=0.01, le=5)
    # Server
    websocket_host: str = "127.0.0.1"
    websocket_port: int = Field(8001, ge=0, le=65535)
    websocket_workers: int = Field(1, ge=1, le=64)
    drain_grace_seconds: float = Field(2, ge=0, le=60)
    drain_seconds: float = Field(30, ge=0, le=50)
    max_connection_age_seconds: float = Field(43_200, ge=1, le=604_800)
    run_services_port: int = Field(8000, ge=0, le=65535)
    jwt_secret: SecretStr = SecretStr("")
    jwt_secret_previous: SecretStr = SecretStr("")
    jwks_url: str = ""
    jwt_audience: str = ""
    jwt_issuer: str = ""
    jwt_types: str = "JWT,at+jwt"
    jwt_required_claims: str = ""
    jwt_subject_claim: str = Field("sub", min_length=1)
    jwt_accounts_claim: str = Field("accounts", min_length=1)
    jwt_lifetime_max: int = Field(86_400, ge=60, le=31_536_000)
    account_access: AccountAccess = "claim"
    authz_url: str = ""
    authz_secret: SecretStr = SecretStr("")
    authz_interval: float = Field(3, ge=0.1, le=60)
    api_key_secret: SecretStr = SecretStr("")
    allow_token_in_url: bool = False
    allowed_origins: str = ""
    trusted_proxies: str = ""
    require_tls: bool = False
    public_docs: bool = False
    metrics_token: SecretStr = SecretStr("")
    connections_per_user: int = Field(100, ge=1)
    connections_per_address: int = Field(1000, ge=1)
    connects_per_user: int = Field(300, ge=1)
    connects_per_minute: int = Field(600, ge=1)
    messages_per_user: int = Field(1000, ge=1)
    demo_page: bool = False
    # Internals
    shards: int = Field(16, ge=1, le=99)
    lease_ms: int = Field(4000, ge=500)
    lease_renew_ms: int = Field(1000, ge=100)
    emf_deployment: str = Field("", pattern="^[A-Za-z0-9._-]{0,128}$")
    otel_traces_ratio: float = Field(0, ge=0, le=1)
    otel_exporter_otlp_endpoint: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"

    @field_validator("*", mode="before")
    @classmethod
    def _trimmed(cls, value: Any) -> Any:
        """Strip blanks: `echo` ends a secret with a line break, which no client can send."""
        if isinstance(value, SecretStr):
            return SecretStr(value.get_secret_value().strip())
        return value.strip() if isinstance(value, str) else value

    @field_validator("otel_exporter_otlp_endpoint")
    @classmethod
    def _collector(cls, url: str) -> str:
        parts = parts_of(url, ("https", "http"))
        if url and (parts is None or parts.username is not None):
            raise ValueError("must be a URL such as http://127.0.0.1:4318, without login and /v1/traces")
        return url.removesuffix("/v1/traces")

    @field_validator("alpaca_broker_url", "alpaca_auth_url", "alpaca_trading_url", "alpaca_data_url")
    @classmethod
    def _http_base(cls, url: str) -> str:
        return base_url(url, ("http", "https"))

    @field_validator("alpaca_stream_url")
    @classmethod
    def _stream_base(cls, url: str) -> str:
        return base_url(url, ("ws", "wss"))

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, url: SecretStr) -> SecretStr:
        if url.get_secret_value():
            valkey_url.check_url(url.get_secret_value())
        return url

    @field_validator("redis_host")
    @classmethod
    def _redis_host(cls, host: str) -> str:
        valkey_url.check_host(host)
        return host

    @field_validator("redis_sentinels")
    @classmethod
    def _redis_sentinels(cls, sentinels: str) -> str:
        if sentinels:
            valkey_url.sentinels_of(sentinels)
        return sentinels

    @field_validator("redis_ca_file", "redis_cert_file", "redis_key_file")
    @classmethod
    def _is_there(cls, path: str) -> str:
        if path and not Path(path).is_file():
            raise ValueError("the file does not exist")
        return path

    @field_validator("jwks_url", "authz_url")
    @classmethod
    def _trustworthy(cls, url: str) -> str:
        parts = parts_of(url, ("https", "http")) if url else None
        if url and (parts is None or parts.username is not None):
            raise ValueError("must be a URL such as https://login.example.com/keys, without a password")
        if parts is not None and parts.scheme == "http" and not is_near(parts.hostname or ""):
            raise ValueError("must be https: over http, anybody on the network could change the answer")
        return url

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, text: str) -> str:
        for part in listed(text):
            try:
                ip_network(part, strict=False)
            except ValueError:
                raise ValueError(f"{part!r} is neither an address nor a network such as 10.0.0.0/8") from None
        return text

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, text: str) -> str:
        for origin in listed(text):
            parts = parts_of(origin, ("https", "http"))
            is_plain = parts is not None and parts.path in ("", "/") and not parts.query
            if not is_plain or "*" in origin or not origin.isascii():
                raise ValueError(
                    f"{origin!r} is not an origin: write exactly what browsers send, such as "
                    "https://app.example.com, or https://xn--mnchen-3ya.example for münchen.example"
                )
        return text

    @field_validator("jwt_required_claims")
    @classmethod
    def _pairs(cls, text: str) -> str:
        for part in listed(text):
            name, equals, value = part.partition("=")
            if not (name.strip() and equals and value.strip()):
                raise ValueError(f"{part!r} must be name=value, such as token_use=access")
        return text

    @field_validator("jwt_secret", "jwt_secret_previous", "api_key_secret", "metrics_token", "authz_secret")
    @classmethod
    def _strong(cls, secret: SecretStr) -> SecretStr:
        text = secret.get_secret_value()
        if text and (len(text.encode()) < SECRET_BYTES_MIN or is_guessable(text)):
            raise ValueError(
                f"must be empty or at least {SECRET_BYTES_MIN} bytes, all random; "
                'make them with: python -c "import secrets; print(secrets.token_urlsafe(48))"'
            )
        return secret

    @field_validator(
        "broker_api_key",
        "broker_secret_key",
        "broker_client_id",
        "broker_client_secret",
        "apca_api_key_id",
        "apca_api_secret_key",
        "market_api_key",
        "market_secret_key",
    )
    @classmethod
    def _not_a_sample(cls, value: Any) -> Any:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not (text.isascii() and text.isprintable()):
            raise ValueError(
                "contains a character that a key cannot have, such as a line break: copy it again"
            )
        if text.startswith(SAMPLE_PREFIX) or text.endswith(SAMPLE_SUFFIX):
            raise ValueError("is a sample value: set your own key from Alpaca's dashboard")
        return value

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.lease_ms < 3 * self.lease_renew_ms:
            raise ValueError("LEASE_MS must be at least three times LEASE_RENEW_MS")
        tls_files = (self.redis_ca_file, self.redis_cert_file, self.redis_key_file)
        if any(tls_files) and not (self.redis_ssl and (self.redis_host or self.redis_sentinels)):
            raise ValueError(
                "REDIS_CA_FILE, REDIS_CERT_FILE and REDIS_KEY_FILE need REDIS_HOST and REDIS_SSL"
            )
        if bool(self.redis_cert_file) != bool(self.redis_key_file):
            raise ValueError("REDIS_CERT_FILE and REDIS_KEY_FILE go together: set both or none")
        if bool(self.broker_api_key) != bool(self.broker_secret_key.get_secret_value()):
            raise ValueError("BROKER_API_KEY and BROKER_SECRET_KEY go together: set both or none")
        if bool(self.broker_client_id) != bool(self.broker_client_secret.get_secret_value()):
            raise ValueError("BROKER_CLIENT_ID and BROKER_CLIENT_SECRET go together: set both or none")
        if bool(self.apca_api_key_id) != bool(self.apca_api_secret_key.get_secret_value()):
            raise ValueError("APCA_API_KEY_ID and APCA_API_SECRET_KEY go together: set both or none")
        if bool(self.market_api_key) != bool(self.market_secret_key.get_secret_value()):
            raise ValueError("MARKET_API_KEY and MARKET_SECRET_KEY go together: set both or none")
        return self

    @model_validator(mode="after")
    def _one_cluster(self) -> Self:
        url = self.redis_url.get_secret_value()
        hosts = valkey_url.each_host(url) if url else self.redis_host.split(",")
        if self.redis_cluster == "false" and len(hosts) > 1:
            raise ValueError("REDIS_CLUSTER=false needs a single host: several are nodes of a cluster")
        if self.redis_cluster == "true" and self.is_embedded:
            raise ValueError("REDIS_CLUSTER=true needs REDIS_HOST or REDIS_URL: a node of the cluster")
        if self.redis_cluster == "true" and (valkey_url.database_of(url) if url else self.redis_db):
            raise ValueError("REDIS_CLUSTER=true needs database 0: set REDIS_DB=0, or end REDIS_URL with /0")
        return self

    @model_validator(mode="after")
    def _url_alone(self) -> Self:
        if self.is_embedded:
            defaults = {name: type(self).model_fields[name].default for name in valkey_url.OF_A_SERVER}
            valkey_url.check_no_server(name for name in defaults if getattr(self, name) != defaults[name])
        if (url := self.redis_url.get_secret_value()) and not self.redis_is_embedded:
            valkey_url.check_alone(
                url,
                is_tls=self.redis_ssl,
                user=self.redis_user,
                password=self.redis_password.get_secret_value(),
                database=self.redis_db,
            )
        return self

    @model_validator(mode="after")
    def _sentinels_alone(self) -> Self:
        if bool(self.redis_sentinels) != bool(self.redis_sentinel_master):
            raise ValueError("REDIS_SENTINELS and REDIS_SENTINEL_MASTER go together: set both or none")
        if self.redis_sentinels and (self.redis_host or self.redis_url.get_secret_value()):
            raise ValueError("REDIS_SENTINELS finds the primary: unset REDIS_HOST and REDIS_URL")
        if self.redis_sentinels and self.redis_cluster == "true":
            raise ValueError("REDIS_CLUSTER=true cannot be used with REDIS_SENTINELS: a cluster has none")
        return self

    @model_validator(mode="after")
    def _by_day_and_by_night(self) -> Self:
        if self.alpaca_overnight_feed and self.alpaca_data_feed in ("boats", "overnight", "test"):
            raise ValueError("ALPACA_OVERNIGHT_FEED needs ALPACA_DATA_FEED=sip, iex or delayed_sip")
        return self

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if self.jwks_url and self.jwt_secret.get_secret_value():
            raise ValueError("JWKS_URL and JWT_SECRET cannot be used together: set only one of them")
        if self.jwks_url and not (self.jwt_issuer and (self.jwt_audience or self.jwt_required_claims)):
            raise ValueError(
                "JWKS_URL needs JWT_ISSUER, and JWT_AUDIENCE or JWT_REQUIRED_CLAIMS: the same keys also "
                "sign tokens for other applications"
            )
        if self.jwks_url and self.demo_page:
            raise ValueError("DEMO_PAGE signs tokens with JWT_SECRET: it cannot be used with JWKS_URL")
        if self.jwt_secret_previous.get_secret_value() and not self.jwt_secret.get_secret_value():
            raise ValueError("JWT_SECRET_PREVIOUS needs JWT_SECRET: set both")
        if (self.account_access == "webhook") != bool(self.authz_url):
            raise ValueError("ACCOUNT_ACCESS=webhook and AUTHZ_URL go together: set both or none")
        return self

    def host(self, name: Literal["broker", "auth", "trading", "data", "stream"]) -> str:
        """The base URL of one of Alpaca's hosts, without a trailing slash.

        Only brokers have a sandbox of market data. The key of a paper account works in production there.
        """
        is_sandbox = self.alpaca_sandbox
        if name in ("data", "stream") and self.account_source == "trading":
            is_sandbox = False
        return getattr(self, f"alpaca_{name}_url") or _HOSTS[name][is_sandbox]

    @property
    def account_source(self) -> AccountSource:
        """Which accounts are followed: all of a broker, or the one of a Trading API key; a broker wins."""
        if self.broker_client_id or self.broker_api_key:
            return "broker"
        return "trading" if self.apca_api_key_id else "none"

    @property
    def history_delay_s(self) -> float:
        """Seconds after a minute until its marks are written, so that late trades are included."""
        return min(HISTORY_DELAY_S_MAX, self.history_interval / 2)

    @property
    def is_embedded(self) -> bool:
        """Whether no Valkey is configured, so that an embedded one is started."""
        return not (self.redis_host or self.redis_sentinels or self.redis_url.get_secret_value())

    @property
    def is_cluster(self) -> bool | None:
        """Whether Valkey is a cluster; None: the server reports it."""
        if self.redis_sentinels:
            return False
        return None if self.redis_cluster == "auto" else self.redis_cluster == "true"

    @property
    def state_url(self) -> str:
        """The URL of the configured server, with its password. Must not be called when embedded."""
        assert not self.is_embedded
        if url := self.redis_url.get_secret_value():
            return url
        tls_files = {
            "ssl_ca_certs": self.redis_ca_file,
            "ssl_certfile": self.redis_cert_file,
            "ssl_keyfile": self.redis_key_file,
        }
        url = valkey_url.url_of(
            self.redis_host or "localhost",
            self.redis_port,
            self.redis_db,
            user=self.redis_user,
            password=self.redis_password.get_secret_value(),
            tls_files=tls_files if self.redis_ssl else None,
        )
        if self.redis_password_file:
            url = valkey_url.with_password_file(url, self.redis_password_file)
        if not self.redis_sentinels:
            return url
        sentinels = valkey_url.sentinels_of(self.redis_sentinels)
        return valkey_url.by_sentinel(url, sentinels, self.redis_sentinel_master)

    @property
    def shows_picker(self) -> bool:
        """Whether the page may list the accounts: in the demo, or for one account without authentication."""
        is_open = not self.jwt_secret.get_secret_value() and not self.jwks_url
        return self.demo_page or (is_open and self.account_source == "trading")

    @property
    def market_credentials(self) -> tuple[str, str]:
        """Key and secret for market data: MARKET_API_KEY, else APCA_API_KEY_ID, else BROKER_API_KEY."""
        if self.market_api_key:
            return self.market_api_key, self.market_secret_key.get_secret_value()
        if self.apca_api_key_id:
            return self.apca_api_key_id, self.apca_api_secret_key.get_secret_value()
        return self.broker_api_key, self.broker_secret_key.get_secret_value()

    @property
    def market_uses_oauth(self) -> bool:
        """Whether market data is authenticated by the broker's OAuth2 client: no other key is set for it."""
        return bool(self.broker_client_id) and not self.market_api_key and not self.apca_api_key_id

    @property
    def market_uses_basic(self) -> bool:
        """Whether market-data REST uses Basic, as for Broker API keys, instead of APCA headers."""
        return self.market_credentials[0] == self.broker_api_key


def load(**overrides: Any) -> Settings:
    """Read the settings of this process; `overrides` replace single ones.

    The secrets become known to `redaction`. Raises SettingsError, which names every wrong setting.
    """
    token = ENV_FILE.set(overrides.pop("_env_file", Path(".env")))
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None
    finally:
        ENV_FILE.reset(token)
    redaction.know(secrets_of(settings))
    return settings


def secrets_of(settings: Settings) -> list[str]:
    """All values that must not be shown: secrets, their keys, and the password in REDIS_URL."""
    found = [valkey_url.password_of(settings.redis_url.get_secret_value())]
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            found.append(value.get_secret_value())
        elif name.endswith(("_key", "_key_id", "_client_id")):
            found.append(value)
    return [text for text in found if text]


def _explain(error: ValidationError) -> str:
    lines: list[str] = []
    for wrong in error.errors():
        reason = wrong["msg"].removeprefix("Value error, ")
        if not wrong["loc"]:
            lines.append(reason)
            continue
        name = str(wrong["loc"][0]).upper()
        lines.append(f"{name}={_shown(name, wrong['input'])}: {reason}")
    return "wrong settings (environment or .env):\n" + "\n".join(f"  {line}" for line in lines)


def _shown(name: str, value: object) -> str:
    is_secret = any(
        word in name for word in ("SECRET", "PASSWORD", "KEY", "REDIS_URL", "METRICS_TOKEN")
    ) or "@" in str(value)
    return "(hidden)" if is_secret else repr(value)


def child_environment(**overrides: str) -> dict[str, str]:
    """This process's environment with some variables replaced, for a child process."""
    return {**os.environ, **overrides}

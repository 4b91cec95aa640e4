"""Settings as text for people, without any secret."""

from pydantic import SecretStr

from portfolio_realtime.config.settings import Settings


def described_source(settings: Settings) -> str:
    """Which accounts are followed and with which key, in words; without a key, what to set."""
    if settings.account_source == "broker":
        environment = "sandbox" if settings.alpaca_sandbox else "production"
        key = "BROKER_CLIENT_ID" if settings.broker_client_id else "BROKER_API_KEY"
        data_only = "; APCA_API_KEY_ID is for market data only" if settings.apca_api_key_id else ""
        return f"all accounts of a broker, {environment} (by {key}{data_only})"
    if settings.account_source == "trading":
        return f"one {'paper' if settings.alpaca_sandbox else 'live'} account (by APCA_API_KEY_ID)"
    return (
        "no account: set BROKER_API_KEY and BROKER_SECRET_KEY for all accounts of a broker, "
        "or APCA_API_KEY_ID and APCA_API_SECRET_KEY for one account"
    )


def described(settings: Settings) -> list[tuple[str, str]]:
    """Name and value of each setting for display. Secrets and keys are "(set)" or "(not set)"."""
    return [
        (name.upper(), _display(name.upper(), getattr(settings, name)))
        for name in type(settings).model_fields
    ]


def _display(name: str, value: object) -> str:
    if isinstance(value, SecretStr):
        return "(set)" if value.get_secret_value() else "(not set)"
    if name.endswith(("_KEY", "_KEY_ID")):
        return "(set)" if value else "(not set)"
    return str(value)

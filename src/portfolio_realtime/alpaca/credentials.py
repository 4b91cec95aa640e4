"""Credentials for Alpaca's market data: a key with its secret, or a token of the broker's OAuth2 client.

REST requests with a Trading API key use APCA headers, those with a Broker API key use Basic. A stream expects
key and secret in a message; with a token, the key is `access_token` (Alpaca, "WebSocket Stream", 2026-08-27).
"""

from typing import Final

from portfolio_realtime.alpaca.http import Authentication, FixedAuthentication, basic
from portfolio_realtime.alpaca.oauth import BearerAuthentication, TokenSource
from portfolio_realtime.config import Settings
from portfolio_realtime.errors import FeedRefused, FeedUnavailable, RequestFailed, TokenRefused

TOKEN_KEY: Final = "access_token"  # noqa: S105  # in place of a key


def key_headers(key: str, secret: str) -> FixedAuthentication:
    """Authenticates with a Trading API key: headers APCA-API-KEY-ID and APCA-API-SECRET-KEY."""
    return FixedAuthentication({"APCA-API-KEY-ID": key, "APCA-API-SECRET-KEY": secret})


class MarketLogin:
    """The market-data credentials of one process, shared by all its feeds. `auth` is for REST requests."""

    def __init__(self, settings: Settings) -> None:
        self._pair = settings.market_credentials
        self._tokens: TokenSource | None = None
        self.authentication: Authentication = key_headers(*self._pair)
        if settings.market_uses_oauth:
            secret = settings.broker_client_secret.get_secret_value()
            self._tokens = TokenSource(settings.host("auth"), settings.broker_client_id, secret)
            self.authentication = BearerAuthentication(self._tokens)
        elif settings.market_uses_basic:
            self.authentication = basic(*self._pair)

    async def pair(self) -> tuple[str, str]:
        """The key and the secret of a stream's login message. Raises FeedRefused, FeedUnavailable."""
        if self._tokens is None:
            return self._pair
        try:
            return TOKEN_KEY, await self._tokens.token()
        except TokenRefused as error:
            raise FeedRefused(str(error)) from error
        except RequestFailed as error:
            raise FeedUnavailable(f"no token: {error}") from error

"""OAuth 2.0 client credentials: one bearer token for all requests of a process, renewed before it expires.

Alpaca's tokens are valid for 15 minutes and must not be fetched for each request (Alpaca, "About Market Data
API", 2026-07-16). Callers that need a token while one is being fetched wait for that one.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from portfolio_realtime import redaction
from portfolio_realtime.alpaca.http import HttpClient
from portfolio_realtime.errors import RequestFailed, TokenRefused

PATH: Final = "/v1/oauth2/token"
# A token is renewed this long before it expires, or this share of its lifetime, whichever is shorter.
RENEW_BEFORE_S: Final = 60.0
RENEW_BEFORE_SHARE: Final = 0.2
RENEW_S_MIN: Final = 30.0  # a younger token is not the reason for a 401
REFUSED: Final = (400, 401, 403)


class _Token(msgspec.Struct):
    access_token: str
    expires_in: float


class TokenSource:
    """The token of one OAuth client."""

    def __init__(
        self, url: str, client_id: str, secret: str, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = url
        self._form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
        self._monotonic_s = monotonic_s
        self._turn = asyncio.Lock()
        self._token = ""
        self._fetched_s = 0.0
        self._renew_s = 0.0

    async def token(self) -> str:
        """A valid token, fetched if need be. Raises TokenRefused, or RequestFailed: a retry may help."""
        async with self._turn:
            if not self._token or self._monotonic_s() >= self._renew_s:
                await self._fetch()
            return self._token

    def refused(self, token: str) -> bool:
        """Note that the broker refused a token (401); whether a retry with a new token may help.

        The present token is dropped unless it is younger than RENEW_S_MIN.
        """
        is_old = self._monotonic_s() - self._fetched_s >= RENEW_S_MIN
        if token == self._token and is_old:
            self._token = ""
        return token != self._token

    async def _fetch(self) -> None:
        asked_s = self._monotonic_s()
        async with HttpClient(self._url) as http:
            answer = await http.post(PATH, self._form)
        if answer.status in REFUSED:
            raise TokenRefused(
                f"Alpaca issued no token (HTTP {answer.status}): check BROKER_CLIENT_ID and "
                "BROKER_CLIENT_SECRET, and that ALPACA_SANDBOX matches them"
            )
        if not answer.is_success:
            raise RequestFailed(f"{PATH}: HTTP {answer.status}")
        try:
            found = msgspec.json.decode(answer.body, type=_Token)
        except msgspec.DecodeError as error:
            raise RequestFailed(f"{PATH}: not a token: {error}") from None
        redaction.learn(found.access_token)
        self._token, self._fetched_s = found.access_token, asked_s
        self._renew_s = (
            asked_s + found.expires_in - min(RENEW_BEFORE_S, RENEW_BEFORE_SHARE * found.expires_in)
        )


class BearerAuthentication:
    """Adds the token to every request. After a 401 with an old token, it provides a new one."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source

    async def headers(self) -> Mapping[str, str]:
        """The headers of the next request. Raises TokenRefused, RequestFailed."""
        return {"Authorization": f"Bearer {await self._source.token()}"}

    def refused(self, headers: Mapping[str, str]) -> bool:
        """Whether the token in these headers was old."""
        return self._source.refused(headers["Authorization"].removeprefix("Bearer "))

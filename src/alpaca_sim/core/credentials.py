"""The accepted key and secret, the bearer tokens issued for them, and the rate limit per key."""

import base64
import binascii
import secrets
from collections.abc import Callable, Mapping

from alpaca_sim.core.clock import SECOND_NS, Clock

TOKEN_LIFE_S = 15 * 60
TOKENS_MAX = 1_000
WINDOW_S = 60
RATE_KEYS_MAX = 1_000


class Credentials:
    """One accepted key and secret, and the bearer tokens issued for them."""

    def __init__(self, key: str, secret: str, clock: Clock) -> None:
        self._key = key
        self._secret = secret
        self._clock = clock
        self._tokens: dict[str, int] = {}  # token → expiry, ns
        # The account id of a Trading API key and secret. Such a pair is valid for the Trading API and for
        # market data, not for the Broker API.
        self.trading_account: Callable[[str, str], str | None] = lambda _key, _secret: None

    def is_pair(self, key: str, secret: str) -> bool:
        """Whether this is the accepted key and secret."""
        return secrets.compare_digest(f"{key}:{secret}".encode(), f"{self._key}:{self._secret}".encode())

    def is_data_pair(self, key: str, secret: str) -> bool:
        """Whether this pair may read market data: the accepted pair, or the pair of an account."""
        return self.is_pair(key, secret) or self.trading_account(key, secret) is not None

    def issue_token(self) -> str:
        """Return a new bearer token, valid for `TOKEN_LIFE_S`. The oldest is dropped above `TOKENS_MAX`."""
        token = secrets.token_urlsafe(32)
        self._tokens[token] = self._clock.now_ns() + TOKEN_LIFE_S * SECOND_NS
        if len(self._tokens) > TOKENS_MAX:
            del self._tokens[next(iter(self._tokens))]
        return token

    def expire_tokens(self) -> None:
        """Revoke all tokens issued so far."""
        self._tokens.clear()

    def is_token(self, token: str) -> bool:
        """Whether the token was issued here and has not expired."""
        return self._tokens.get(token, 0) > self._clock.now_ns()

    def holder(self, headers: Mapping[str, str], with_apca: bool) -> str | None:
        """The key that a request's headers prove; None when they are wrong or absent.

        Reads Basic and Bearer credentials, and with `with_apca` Alpaca's key headers.
        """
        scheme, _, value = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._key if self.is_token(value.strip()) else None
        if scheme.lower() == "basic":
            return self._key if self._is_basic(value.strip()) else None
        if with_apca and "apca-api-key-id" in headers:
            pair = headers["apca-api-key-id"], headers.get("apca-api-secret-key", "")
            return pair[0] if self.is_data_pair(*pair) else None
        return None

    def _is_basic(self, encoded: str) -> bool:
        try:
            key, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        return self.is_pair(key, secret)


class RateLimit:
    """Counts requests per key in fixed windows of one minute."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        """`per_minute` requests of each key are allowed in each minute of the clock."""
        self.per_minute = per_minute
        self.rejected_count = 0
        self._clock = clock
        self._window = 0
        self._counts: dict[str, int] = {}

    def count_request(self, key: str) -> dict[str, str]:
        """Count one request and return the rate-limit headers. Raises RateLimitedError above the limit."""
        window = self._clock.now_ns() // (WINDOW_S * SECOND_NS)
        if window != self._window or len(self._counts) > RATE_KEYS_MAX:
            self._window = window
            self._counts.clear()
        count = self._counts.get(key, 0) + 1
        headers = {
            "X-RateLimit-Limit": str(self.per_minute),
            "X-RateLimit-Remaining": str(max(0, self.per_minute - count)),
            "X-RateLimit-Reset": str((window + 1) * WINDOW_S),
        }
        if count > self.per_minute:
            self.rejected_count += 1
            raise RateLimitedError(headers)
        self._counts[key] = count
        return headers


class RateLimitedError(Exception):
    """Too many requests in this minute. `headers` contain the time of the reset."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__("too many requests")
        self.headers = headers

"""Who a client is: a signed token, a trusted back end's key, or nobody. Whatever is doubtful is refused."""

import hmac
import time
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

import jwt
import msgspec

from portfolio_realtime.config import Settings
from portfolio_realtime.websocket.protocol import is_account_id

ALGORITHM: Final = "HS256"
SUBPROTOCOL: Final = "bearer"
EVERY_ACCOUNT: Final = "*"
ACCOUNTS_MAX: Final = 1000  # in one token
FORWARDING: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")


class Unauthorized(Exception):
    """The credentials are refused; the reason is for our log and metrics, not for the client."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Identity(msgspec.Struct, frozen=True):
    """Who it is, which accounts it may see (`*`: all), and until when (seconds since 1970)."""

    subject: str
    accounts: frozenset[str]
    expires_at_s: float | None = None

    @property
    def is_for_every_account(self) -> bool:
        """Is this a back end that may see all accounts?"""
        return EVERY_ACCOUNT in self.accounts

    def may_see(self, account_id: str) -> bool:
        """Is this account one of its own?"""
        return self.is_for_every_account or account_id in self.accounts


LOOPBACK_IDENTITY: Final = Identity("loopback", frozenset({EVERY_ACCOUNT}))
BACK_END_IDENTITY: Final = Identity("back end", frozenset({EVERY_ACCOUNT}))


class Authenticator:
    """Turns credentials into an identity, or raises Unauthorized."""

    def __init__(self, settings: Settings) -> None:
        self._secret = settings.jwt_secret.get_secret_value()
        self._api_key = settings.api_key_secret.get_secret_value()
        self._audience = settings.jwt_audience or None
        self._issuer = settings.jwt_issuer or None
        self._allow_token_in_url = settings.allow_token_in_url

    @property
    def is_off(self) -> bool:
        """Is there no secret to check tokens with, so that only loopback clients are served?"""
        return not self._secret

    def by_token(self, token: str) -> Identity:
        """The identity in a JSON Web Token. Raises Unauthorized."""
        if not self._secret:
            raise Unauthorized("no_secret")
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                audience=self._audience,
                issuer=self._issuer,
                options={"require": ["sub", "exp"], "verify_aud": self._audience is not None},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthorized("expired") from None
        except (jwt.PyJWTError, ValueError):  # ValueError: an `exp` that is no number
            raise Unauthorized("invalid") from None
        return Identity(_subject(claims), _accounts(claims), float(claims["exp"]))

    def by_api_key(self, key: str) -> Identity:
        """The identity of a trusted back end. Raises Unauthorized."""
        if not self._api_key or not hmac.compare_digest(key.encode(), self._api_key.encode()):
            raise Unauthorized("api_key")
        return BACK_END_IDENTITY

    def by_place(self, peer: str, headers: Mapping[str, str]) -> Identity:
        """The identity of a client on this very machine, where authentication is off. Raises Unauthorized."""
        if not self.is_off or not is_local(peer, headers):
            raise Unauthorized("missing")
        return LOOPBACK_IDENTITY

    def by_headers(self, peer: str, headers: Mapping[str, str]) -> Identity:
        """The identity behind an HTTP request; header names in lower case. Raises Unauthorized."""
        if "x-api-key" in headers:
            return self.by_api_key(headers["x-api-key"])
        if self.is_off:
            return self.by_place(peer, headers)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("missing")
        return self.by_token(token.strip())

    def by_handshake(self, peer: str, headers: Mapping[str, str], url_token: str | None) -> Identity | None:
        """Who opens a WebSocket; None: the first message will say. Raises Unauthorized."""
        if self.is_off or "x-api-key" in headers or "authorization" in headers:
            return self.by_headers(peer, headers)
        offered = [name.strip() for name in headers.get("sec-websocket-protocol", "").split(",")]
        if len(offered) == 2 and offered[0] == SUBPROTOCOL:
            return self.by_token(offered[1])
        if url_token is None:
            return None
        if not self._allow_token_in_url:
            raise Unauthorized("token_in_url")
        return self.by_token(url_token)

    def issue(self, subject: str, accounts: list[str], lifetime_s: int) -> str:
        """A token of our own, for the demo page. Only where there is a secret."""
        assert self._secret
        claims: dict[str, Any] = {"sub": subject, "accounts": accounts, "exp": int(time.time()) + lifetime_s}
        if self._audience:
            claims["aud"] = self._audience
        if self._issuer:
            claims["iss"] = self._issuer
        return jwt.encode(claims, self._secret, ALGORITHM)


def _subject(claims: dict[str, Any]) -> str:
    subject = claims["sub"]
    if not isinstance(subject, str) or not subject:
        raise Unauthorized("invalid")
    return subject


def _accounts(claims: dict[str, Any]) -> frozenset[str]:
    accounts: Any = claims.get("accounts")
    if not isinstance(accounts, list) or not 0 < len(accounts) <= ACCOUNTS_MAX:
        raise Unauthorized("no_accounts")
    for account in accounts:
        if not isinstance(account, str) or not (account == EVERY_ACCOUNT or is_account_id(account)):
            raise Unauthorized("no_accounts")
    return frozenset(accounts)


def is_loopback(host: str) -> bool:
    """Is this an address or name of this very machine?"""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_local(peer: str, headers: Mapping[str, str]) -> bool:
    """Does a request come from this very machine and from nowhere else?

    Whoever came through a proxy, or asks for a host name that is not of this machine (a page of another
    site whose name was made to point here), is a stranger.
    """
    is_forwarded = any(name in headers for name in FORWARDING)
    return is_loopback(peer) and not is_forwarded and has_loopback_host(headers)


def has_loopback_host(headers: Mapping[str, str]) -> bool:
    """Does the Host header name this very machine?"""
    return is_loopback(_host_of(f"//{headers.get('host', '')}"))


def is_origin_allowed(peer: str, headers: Mapping[str, str], allowed: frozenset[str]) -> bool:
    """May a page from this Origin open a WebSocket?

    No Origin: not a browser, yes. Else it must be in the list; with an empty list it must be the host it
    asks, or, on this very machine, any page of this very machine.
    """
    origin = headers.get("origin")
    if origin is None:
        return True
    if allowed:
        return origin in allowed
    parts = urlsplit(origin)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return False
    if parts.netloc.lower() == headers.get("host", "").lower():
        return True
    return is_loopback(peer) and is_loopback(_host_of(origin)) and has_loopback_host(headers)


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""

"""JSON Web Tokens (RFC 7519, RFC 8725): what is not certain is refused.

One family of signatures is accepted: HS256 with our own secrets (present and previous), or RS256 and ES256
with the keys of one address, where the key decides the algorithm and not the token.
"""

import base64
import re
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import jwt
from jwt.algorithms import HMACAlgorithm

from portfolio_realtime.config import Settings, listed
from portfolio_realtime.errors import SettingsError
from portfolio_realtime.websocket_server.access.identity import EVERY_ACCOUNT, Identity, Unauthorized
from portfolio_realtime.wire.messages import is_account_id

if TYPE_CHECKING:
    from portfolio_realtime.websocket_server.access.jwks import KeySet

HS256: Final = "HS256"
ACCOUNTS_MAX: Final = 1000  # in one token
TOKEN_CHARACTERS_MAX: Final = 8192
TEXT_CHARACTERS_MAX: Final = 256  # of a subject, an issuer, a token id
CLOCK_SKEW_S: Final = 5.0  # of `nbf` and `iat`; `exp` is taken at its word
KEY_ID: Final = re.compile(r"(?!.*\.\.)(?!/)[A-Za-z0-9+/=_.-]{1,128}")
ID_TOKEN_CLAIMS: Final = ("nonce", "at_hash", "c_hash")  # OpenID Connect Core §2


class Tokens:
    """Verifies tokens, and signs our own if there is a secret."""

    def __init__(self, settings: Settings) -> None:
        self._secrets = [
            secret.get_secret_value()
            for secret in (settings.jwt_secret, settings.jwt_secret_previous)
            if secret.get_secret_value()
        ]
        self._secret_keys = [_secret_key(secret) for secret in self._secrets]
        self._keys = _key_set(settings.jwks_url) if settings.jwks_url else None
        self._audiences = listed(settings.jwt_audience) or None
        self._issuer = settings.jwt_issuer or None
        self._types = {_media_type(name) for name in listed(settings.jwt_types)}
        self._required = [
            (name.strip(), value.strip())
            for name, _, value in (part.partition("=") for part in listed(settings.jwt_required_claims))
        ]
        self._subject_claim = settings.jwt_subject_claim
        self._accounts_claim = settings.jwt_accounts_claim if settings.account_access == "claim" else None
        self._is_asked = settings.account_access == "webhook"
        self._lifetime_s_max = settings.jwt_lifetime_max

    @property
    def is_off(self) -> bool:
        """Whether there is nothing to check a token with."""
        return not self._secrets and self._keys is None

    async def identity(self, token: str) -> Identity:
        """The identity in a token. Raises Unauthorized, Unverifiable."""
        if self.is_off:
            raise Unauthorized("no_secret")
        if len(token) > TOKEN_CHARACTERS_MAX:
            raise Unauthorized("too_long")
        claims = self._claims_by_secret(token) if self._keys is None else await self._claims_by_key_set(token)
        self._check_kind(claims)
        return self._identity(claims)

    def issue(self, subject: str, accounts: Sequence[str], lifetime_s: int) -> str:
        """A token of our own, under the names that claims have here. Only where there is a secret."""
        now_s = int(time.time())
        claims: dict[str, Any] = {"iat": now_s, "exp": now_s + lifetime_s, "jti": secrets.token_urlsafe(16)}
        if self._audiences:
            claims["aud"] = self._audiences[0]
        if self._issuer:
            claims["iss"] = self._issuer
        for name, value in self._required:
            _set_claim(claims, name, value)
        _set_claim(claims, self._subject_claim, subject)
        if self._accounts_claim is not None:
            _set_claim(claims, self._accounts_claim, list(accounts))
        return jwt.encode(claims, self._secrets[0], HS256)

    async def close(self) -> None:
        """Close the connections to the issuer."""
        if self._keys is not None:
            await self._keys.close()

    def _check_header(self, header: dict[str, Any]) -> None:
        kind = header.get("typ")
        if kind is not None and (not isinstance(kind, str) or _media_type(kind) not in self._types):
            raise Unauthorized("token_type")
        key_id = header.get("kid")
        if key_id is not None and (not isinstance(key_id, str) or not KEY_ID.fullmatch(key_id)):
            raise Unauthorized("key_id")
        if "crit" in header:  # it asks for something that we do not understand (RFC 7515 §4.1.11)
            raise Unauthorized("invalid")

    async def _claims_by_key_set(self, token: str) -> dict[str, Any]:
        assert self._keys is not None
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError):
            raise Unauthorized("invalid") from None
        self._check_header(header)
        if "kid" not in header:
            raise Unauthorized("key_id")
        return self._decoded(token, await self._keys.key(header["kid"]))["payload"]

    def _claims_by_secret(self, token: str) -> dict[str, Any]:
        """The header decides nothing here, so it is looked at when the signature has been found good."""
        for key in self._secret_keys:
            try:
                decoded = self._decoded(token, key)
            except _WrongSignature:
                continue
            self._check_header(decoded["header"])
            return decoded["payload"]
        raise _WrongSignature("signature")

    def _decoded(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        """`header` and `payload` of a token with this key's signature."""
        try:
            return jwt.decode_complete(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self._audiences,
                issuer=self._issuer,
                leeway=CLOCK_SKEW_S,
                options={
                    "require": [
                        "exp",
                        *(["aud"] if self._audiences else []),
                        *(["iss"] if self._issuer else []),
                    ],
                    "verify_aud": self._audiences is not None,
                    "verify_sub": False,  # checked below, under the name that it has here
                    "verify_jti": False,
                },
            )
        except jwt.ExpiredSignatureError:
            raise Unauthorized("expired") from None
        except jwt.InvalidSignatureError:
            raise _WrongSignature("signature") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError):  # such as an `exp` that is no number
            raise Unauthorized("invalid") from None

    def _check_kind(self, claims: dict[str, Any]) -> None:
        """Refuse an ID token: it tells a client who its user is and gives no access."""
        if any(name in claims for name in ID_TOKEN_CLAIMS) or claims.get("token_use") == "id":
            raise Unauthorized("token_type")
        for name, value in self._required:
            found = _claim(claims, name)
            if value not in (found if isinstance(found, list) else [found]):
                raise Unauthorized("required_claim")

    def _identity(self, claims: dict[str, Any]) -> Identity:
        expires_at_s = _seconds(claims["exp"])
        if expires_at_s <= time.time():
            raise Unauthorized("expired")
        if expires_at_s - time.time() > self._lifetime_s_max + CLOCK_SKEW_S:
            raise Unauthorized("lives_too_long")
        accounts = (
            frozenset[str]() if self._accounts_claim is None else _accounts(claims, self._accounts_claim)
        )
        return Identity(
            subject=_text(_claim(claims, self._subject_claim), is_required=True),
            accounts=accounts,
            expires_at_s=expires_at_s,
            issuer=_text(claims.get("iss")),
            token_id=_text(claims.get("jti")),
            issued_at_s=_seconds(claims["iat"]) if "iat" in claims else None,
            is_asked=self._is_asked,
        )


class _LookedAt(HMACAlgorithm):
    """HMAC with a key that was looked at before: PyJWT would do so for each token, and it takes a while."""

    def prepare_key(self, key: str | bytes) -> bytes:
        """The key as it is."""
        assert isinstance(key, bytes)
        return key


def _key_set(url: str) -> "KeySet":
    # It imports an HTTP client, which is 2 MB and needed for nothing else here.
    from portfolio_realtime.websocket_server.access.jwks import KeySet

    return KeySet(url)


def _secret_key(secret: str) -> jwt.PyJWK:
    """Raises SettingsError for what is not a secret at all."""
    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except jwt.InvalidKeyError:
        raise SettingsError(
            "JWT_SECRET is a public key or a certificate, which is not secret: set random text, or JWKS_URL"
        ) from None
    encoded = base64.urlsafe_b64encode(secret.encode()).decode()
    key = jwt.PyJWK({"kty": "oct", "k": encoded}, HS256)
    key.Algorithm = _LookedAt(HMACAlgorithm.SHA256)
    return key


class _WrongSignature(Unauthorized):
    """The signature is wrong for this secret; another one may fit."""


def _claim(claims: dict[str, Any], path: str) -> Any:
    """The claim of this name, else the one where the dots in it lead; None: there is none."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _seconds(claim: Any) -> float:
    if isinstance(claim, bool) or not isinstance(claim, int | float):
        raise Unauthorized("invalid")
    return float(claim)


def _set_claim(claims: dict[str, Any], path: str, value: Any) -> None:
    *objects, name = path.split(".")
    for part in objects:
        claims = claims.setdefault(part, {})
    claims[name] = value


def _text(claim: Any, *, is_required: bool = False) -> str:
    if claim is None and not is_required:
        return ""
    if not isinstance(claim, str) or len(claim) > TEXT_CHARACTERS_MAX or (is_required and not claim):
        raise Unauthorized("invalid")
    return claim


def _accounts(claims: dict[str, Any], path: str) -> frozenset[str]:
    accounts = _claim(claims, path)
    if not isinstance(accounts, list) or not 0 < len(accounts) <= ACCOUNTS_MAX:
        raise Unauthorized("no_accounts")
    for account in accounts:
        if not isinstance(account, str) or not (account == EVERY_ACCOUNT or is_account_id(account)):
            raise Unauthorized("no_accounts")
    return frozenset(accounts)


def _media_type(name: str) -> str:
    """A type in its one spelling: `application/` may be left out (RFC 7515 §4.1.9)."""
    return name.casefold().removeprefix("application/")

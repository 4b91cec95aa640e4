"""Public keys of an identity provider (JWKS, RFC 7517): fetched when needed, cached and renewed.

A token names its key by `kid`, and only keys from the configured address count. Keys or addresses inside a
token (`jwk`, `jku`, `x5u`) are ignored.
"""

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

import httpx
import jwt
import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from portfolio_realtime.websocket_server.access.identity import Unauthorized, Unverifiable
from portfolio_realtime.websocket_server.access.transport import transport_to

FETCH_S_MAX: Final = 3.0
FRESH_S: Final = 300.0  # a key that its issuer has withdrawn is good for no longer
STALE_S_MAX: Final = 3600.0  # while the issuer cannot be asked
FETCH_S_MIN: Final = 10.0  # between two fetches, whatever key ids strangers make up
DOCUMENT_BYTES_MAX: Final = 262_144
KEYS_MAX: Final = 64
RSA_BITS_MIN: Final = 2048

# What comes out of decoding a key that is none; PyJWT does not turn all of it into its own errors.
_UNREADABLE: Final = (jwt.PyJWTError, ValueError, TypeError, AttributeError, KeyError, RecursionError)

log = structlog.get_logger()


class _Document(msgspec.Struct):
    keys: list[msgspec.Raw]


class KeySet:
    """The keys at one address."""

    def __init__(
        self,
        url: str,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url
        self._monotonic_s = monotonic_s
        self._http = httpx.AsyncClient(
            timeout=FETCH_S_MAX, follow_redirects=False, transport=transport or transport_to(url)
        )
        self._turn = asyncio.Lock()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_s: float | None = None  # when the keys are from
        self._tried_s: float | None = None

    async def key(self, key_id: str) -> jwt.PyJWK:
        """The key with this id. Raises Unauthorized (no such key), Unverifiable (not known now)."""
        began_s = self._monotonic_s()
        if not self._has_fresh(key_id):
            await self._renew(key_id)
        if self._age_s(self._fetched_s) > STALE_S_MAX:
            raise Unverifiable("keys_unavailable")
        if key_id in self._keys:
            return self._keys[key_id]
        if self._fetched_s is None or self._fetched_s < began_s:  # it may be newer than what we have
            raise Unverifiable("keys_unavailable")
        raise Unauthorized("unknown_key")

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _age_s(self, since_s: float | None) -> float:
        return float("inf") if since_s is None else self._monotonic_s() - since_s

    def _has_fresh(self, key_id: str) -> bool:
        return key_id in self._keys and self._age_s(self._fetched_s) <= FRESH_S

    async def _renew(self, key_id: str) -> None:
        """Fetch once for all waiting callers, and not again within FETCH_S_MIN."""
        async with self._turn:
            if self._has_fresh(key_id) or self._age_s(self._tried_s) < FETCH_S_MIN:
                return
            self._tried_s = self._monotonic_s()
            try:
                async with asyncio.timeout(FETCH_S_MAX):
                    self._keys = _parse(await self._fetch())
            except (httpx.HTTPError, ValueError, RecursionError, TimeoutError) as error:
                log.warning("the keys of JWKS_URL could not be fetched", error=repr(error))
            else:
                self._fetched_s = self._tried_s

    async def _fetch(self) -> bytes:
        document = bytearray()
        async with self._http.stream("GET", self._url) as answer:
            if answer.status_code != HTTPStatus.OK:
                raise ValueError(f"HTTP {answer.status_code}")
            async for part in answer.aiter_bytes():
                document += part
                if len(document) > DOCUMENT_BYTES_MAX:
                    raise ValueError(f"more than {DOCUMENT_BYTES_MAX} bytes")
        return bytes(document)


def _parse(document: bytes) -> dict[str, jwt.PyJWK]:
    """The signing keys in a JWKS by id, without other kinds of keys, weak ones, and what cannot be read."""
    keys = msgspec.json.decode(document, type=_Document).keys
    if len(keys) > KEYS_MAX:
        raise ValueError(f"more than {KEYS_MAX} keys")
    good: dict[str, jwt.PyJWK] = {}
    for place, text in enumerate(keys):
        try:
            key = msgspec.json.decode(text, type=dict[str, Any])
            key_id, parsed = key.get("kid"), _signing_key(key)
        except _UNREADABLE as error:
            log.warning(
                "a key of JWKS_URL could not be read; the others count", place=place, error=repr(error)
            )
            continue
        if isinstance(key_id, str) and parsed is not None:
            good[key_id] = parsed
    if not good:
        raise ValueError("no RS256 or ES256 signing key")
    return good


def _signing_key(key: dict[str, Any]) -> jwt.PyJWK | None:
    """The key, or None if it is for something else or weak. Raises what _UNREADABLE lists."""
    if key.get("use", "sig") != "sig":
        return None
    algorithm = {"RSA": "RS256", "EC": "ES256"}.get(str(key.get("kty")))
    if algorithm is None or key.get("alg", algorithm) != algorithm:
        return None
    parsed = jwt.PyJWK(key, algorithm)
    return parsed if _is_strong(parsed.key) else None


def _is_strong(key: Any) -> bool:
    if isinstance(key, RSAPublicKey):
        return key.key_size >= RSA_BITS_MIN
    return isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)

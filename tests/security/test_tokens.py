"""E03 to E06: forged, borrowed and spent tokens, on the wire."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.security.provider import AUDIENCE, ISSUER, Key, Provider, providing
from tests.support.websocket_servers import SECRET, Served, closed, receive, token

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def code(server: Served, credentials: str, path: str = "/ws/portfolio/a") -> int | None:
    """With which code a client with this token is closed; None: it gets in and is sent a value."""
    async with server.open(path, {"Authorization": f"Bearer {credentials}"}) as client:
        try:
            return None if (await receive(client))["type"] == "portfolio" else 0
        except Exception:
            return await closed(client)


async def status(server: Served, credentials: str) -> int:
    """What HTTP answers to the same token."""
    answer = await server.http.get("/v1/portfolio/a", headers={"Authorization": f"Bearer {credentials}"})
    return answer.status_code


def encoded(part: dict[str, Any] | bytes) -> str:
    """Base64url, as tokens have it."""
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(header: dict[str, Any], key: bytes | None = None) -> str:
    """A token that claims everything, with an HMAC of `key`, or without a signature."""
    claims = {
        "sub": "alice",
        "accounts": ["*"],
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": int(time.time()) + 600,
    }
    text = f"{encoded(header)}.{encoded(claims)}"
    signature = b"" if key is None else hmac.new(key, text.encode(), hashlib.sha256).digest()
    return f"{text}.{encoded(signature)}"


async def test_e03_unsigned_and_mixed_algorithms_are_refused(
    own: Served, federated: Served, keys: list[Key], provider: Provider
) -> None:
    """`none` in every spelling, a public key used as a shared secret, and one family where the other is."""
    provider.allowed = {("alice", "a")}
    for name in ("none", "None", "NONE", "nOnE", ""):
        for server in (own, federated):
            assert await code(server, forged({"alg": name, "kid": "key-1"})) == 4500
            assert await status(server, forged({"alg": name, "kid": "key-1"})) == 401
    public = keys[0].private.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for key in (pem, pem.strip(), der, b"", SECRET.encode()):
        assert await code(federated, forged({"alg": "HS256", "kid": "key-1"}, key)) == 4500
    for key in keys:
        assert await code(own, key.sign()) == 4500
        assert await code(federated, key.sign()) is None
    claims = jwt.decode(token(), options={"verify_signature": False})
    assert await code(own, jwt.encode(claims, SECRET * 2, "HS512")) == 4500
    crossed = jwt.encode(claims, keys[0].private, "RS512", {"kid": "key-1"})
    assert await code(federated, crossed) == 4500
    other_keys_name = keys[0].sign({"kid": "key-2"})
    assert await code(federated, other_keys_name) == 4500


@pytest.mark.parametrize(
    "key_id",
    [
        "../../../../dev/null",
        "/etc/passwd",
        "x' UNION SELECT 'secret' --",
        "key-1\n",
        "key-1\x1b[31m",
        "k" * 129,
        "",
        7,
        ["key-1"],
        ...,
    ],
    ids=repr,
)
async def test_e04_a_suspicious_key_id_is_refused(federated: Served, keys: list[Key], key_id: Any) -> None:
    """Whatever it would have meant: it names a key in memory, and nothing is ever looked up by it."""
    assert await code(federated, handmade(keys[0], key_id)) == 4500


def handmade(key: Key, key_id: Any) -> str:
    """A well-signed token with a key id that no library would write."""
    header = {"alg": "RS256", "typ": "JWT", **({} if key_id is ... else {"kid": key_id})}
    _, claims, _ = key.sign().split(".")
    text = f"{encoded(header)}.{claims}"
    algorithm = jwt.get_algorithm_by_name("RS256")
    return f"{text}.{encoded(algorithm.sign(text.encode(), key.private))}"


async def test_e04_keys_that_a_token_brings_along_are_not_looked_at(
    federated: Served, keys: list[Key], provider: Provider
) -> None:
    """`jwk`, `jku` and `x5u` of a forger: neither used nor fetched, also beside a good signature."""
    provider.allowed = {("alice", "a")}
    attacker = Key("key-1")
    async with providing() as elsewhere:
        elsewhere.keys = [attacker]
        brought: list[dict[str, Any]] = [
            {"jwk": attacker.public},
            {"jku": elsewhere.jwks_url},
            {"x5u": elsewhere.jwks_url},
            {"jku": elsewhere.jwks_url, "jwk": attacker.public},
        ]
        for header in brought:
            assert await code(federated, attacker.sign(header)) == 4500
            assert await code(federated, keys[0].sign(header)) is None
        assert await code(federated, keys[0].sign({"crit": ["exp"]})) == 4500
        assert elsewhere.keys_asked == 0


NOW = int(time.time())


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        ({}, {"iss": ...}),
        ({}, {"iss": "https://login.example.com"}),
        ({}, {"iss": "https://evil.example/"}),
        ({}, {"aud": ...}),
        ({}, {"aud": "https://api.example.com.evil"}),
        ({}, {"aud": []}),
        ({}, {"exp": ...}),
        ({}, {"exp": NOW - 1}),
        ({}, {"exp": str(NOW + 600)}),
        ({}, {"exp": True}),
        ({}, {"exp": 1e308}),
        ({}, {"exp": NOW + 8 * 24 * 3600}),
        ({}, {"nbf": NOW + 3600}),
        ({}, {"nbf": "soon"}),
        ({}, {"iat": NOW + 3600}),
        ({}, {"iat": str(NOW)}),
        ({}, {"sub": ...}),
        ({}, {"sub": ""}),
        ({}, {"sub": 7}),
        ({}, {"sub": "s" * 257}),
        ({}, {"jti": 7}),
        ({"typ": "id+jwt"}, {}),
        ({"typ": "logout+jwt"}, {}),
        ({"typ": 7}, {}),
        ({}, {"nonce": "n-0S6_WzA2Mj"}),
        ({}, {"at_hash": "77QmUPtjPfzWtF2AnpK9RQ"}),
        ({}, {"token_use": "id"}),
    ],
)
async def test_e05_a_token_for_others_or_for_something_else_is_refused(
    federated: Served, keys: list[Key], header: dict[str, Any], claims: dict[str, Any]
) -> None:
    """Issuer, audience, times, and an ID token where an access token belongs; well signed, all of them."""
    assert await status(federated, keys[0].sign(header, **claims)) == 401


async def test_e05_the_same_token_with_everything_right_is_accepted(
    federated: Served, keys: list[Key], provider: Provider
) -> None:
    """So that the refusals above mean something."""
    provider.allowed = {("alice", "a")}
    for header in ({}, {"typ": "at+jwt"}, {"typ": "JWT"}, {"typ": ...}):
        assert await code(federated, keys[0].sign(header, aud=[AUDIENCE, "other"], nbf=NOW - 5)) is None


async def test_e06_a_token_that_runs_out_ends_the_connection(own: Served) -> None:
    """It is said before, and the code says to come back with a fresh one."""
    headers = {"Authorization": f"Bearer {token(lifetime_s=2)}"}
    async with own.open("/ws/portfolio/a", headers) as client:
        kinds = {(await receive(client))["type"], (await receive(client))["type"]}
        assert kinds == {"portfolio", "token_expiring"}
        assert await closed(client) == 4004


async def test_e06_a_fresh_token_of_somebody_else_is_refused(own: Served) -> None:
    """A connection has one user."""
    async with own.open("/ws/portfolio/a") as client:
        await receive(client)
        await client.send(json.dumps({"type": "auth", "token": token(subject="mallory")}))
        assert await closed(client) == 4500

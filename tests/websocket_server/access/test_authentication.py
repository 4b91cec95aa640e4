"""Who is let in: every credential that is not certainly right is refused, and so is every address."""

import base64
import json
import secrets
import time
from typing import Any

import jwt
import pytest

from portfolio_realtime import config
from portfolio_realtime.websocket_server.access.authentication import Authenticator
from portfolio_realtime.websocket_server.access.client_address import is_origin_allowed
from portfolio_realtime.websocket_server.access.identity import Identity, Unauthorized

SECRET = secrets.token_urlsafe(48)
API_KEY = secrets.token_urlsafe(48)
NOW = int(time.time())
LOCAL = {"host": "127.0.0.1:8001"}


def authenticator(**settings: Any) -> Authenticator:
    defaults: dict[str, Any] = {"jwt_secret": SECRET, "api_key_secret": API_KEY, "_env_file": None}
    return Authenticator(config.load(**{**defaults, **settings}))


def signed(secret: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    whole = {"sub": "alice", "exp": NOW + 86_400, "accounts": ["a", "ab"], **claims}
    present = {name: claim for name, claim in whole.items() if claim is not ...}
    return jwt.encode(present, secret, algorithm)


def unsigned(algorithm: str) -> str:
    def part(content: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    claims = {"sub": "alice", "exp": NOW + 86_400, "accounts": ["*"]}
    return f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(claims)}."


async def test_a_good_token_says_who_and_which_accounts_and_until_when() -> None:
    """The claims become an identity."""
    identity = await authenticator().by_token(signed())
    assert identity == Identity("alice", frozenset({"a", "ab"}), float(NOW + 86_400))
    assert identity.may_see("a")
    assert not identity.may_see("abc")
    assert (await authenticator().by_token(signed(accounts=["*"]))).may_see("anything")


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="empty"),
        pytest.param("not.a.token", id="nonsense"),
        pytest.param("é", id="not ASCII"),
        pytest.param(signed(secret="another secret of thirty-two bytes!!"), id="other secret"),
        pytest.param(signed() + "x", id="broken signature"),
        pytest.param(signed(exp=NOW - 1), id="expired"),
        pytest.param(signed(exp=...), id="no exp"),
        pytest.param(signed(exp="tomorrow"), id="exp is no number"),
        pytest.param(signed(exp=str(NOW + 100)), id="exp is a number in quotes, which some libraries take"),
        pytest.param(signed(sub=...), id="no sub"),
        pytest.param(signed(sub=""), id="empty sub"),
        pytest.param(signed(nbf=NOW + 24 * 3600), id="not yet valid"),
        pytest.param(signed(iat=NOW + 24 * 3600), id="issued in the future"),
        pytest.param(unsigned("none"), id="alg none"),
        pytest.param(unsigned("None"), id="alg None"),
        pytest.param(unsigned("HS256"), id="no signature"),
        pytest.param(signed(secret=SECRET * 2, algorithm="HS512"), id="other algorithm"),
        pytest.param(signed(accounts=...), id="no accounts"),
        pytest.param(signed(accounts=[]), id="empty accounts"),
        pytest.param(signed(accounts="*"), id="accounts is no list"),
        pytest.param(signed(accounts=["a", 7]), id="an account is no text"),
        pytest.param(signed(accounts=["a*"]), id="an account is a pattern"),
        pytest.param(signed(accounts=["{s01}:accounts"]), id="an account is a key"),
        pytest.param(signed(accounts=[f"a{i}" for i in range(1001)]), id="too many accounts"),
    ],
)
async def test_a_wrong_token_is_refused(token: str) -> None:
    """P10: everything fails closed."""
    with pytest.raises(Unauthorized):
        await authenticator().by_token(token)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW + 3600.9},  # fractions of seconds, which libraries cut, or refuse
        {"iat": NOW + 0.9, "nbf": NOW + 0.9},  # an issuer's clock a moment ahead
        {"aud": ["somebody else's"]},  # without JWT_AUDIENCE it is nobody's business
    ],
)
async def test_what_libraries_read_differently_is_accepted_here(claims: dict[str, Any]) -> None:
    """Two of them differ in each of these; ours is the answer that locks nobody out."""
    assert (await authenticator().by_token(signed(**claims))).subject == "alice"


async def test_issuer_and_audience_are_required_when_they_are_set() -> None:
    """A token for another audience, or of another issuer, is not for us."""
    strict = authenticator(jwt_audience="portfolio", jwt_issuer="bank")
    assert (await strict.by_token(signed(aud="portfolio", iss="bank"))).subject == "alice"
    for claims in (
        {},
        {"aud": "portfolio"},
        {"iss": "bank"},
        {"aud": "x", "iss": "bank"},
        {"aud": "portfolio", "iss": "x"},
    ):
        with pytest.raises(Unauthorized):
            await strict.by_token(signed(**claims))


async def test_a_token_of_our_own_is_accepted_by_ourselves() -> None:
    """The demo page's."""
    own = authenticator(jwt_audience="portfolio", jwt_issuer="bank")
    assert (await own.by_token(own.issue("demo", ["*"], 60))).is_for_every_account


async def test_the_api_key_is_for_every_account_and_a_wrong_or_unset_one_is_refused() -> None:
    """Constant time, and an empty key is no key."""
    assert (await authenticator().by_headers("10.0.0.1", {"x-api-key": API_KEY})).is_for_every_account
    for key in ("", API_KEY[:-1], API_KEY + "x", "é"):
        with pytest.raises(Unauthorized):
            await authenticator().by_headers("127.0.0.1", {**LOCAL, "x-api-key": key})
        with pytest.raises(Unauthorized):
            await authenticator(api_key_secret="", jwt_secret="").by_headers(
                "127.0.0.1", {**LOCAL, "x-api-key": key}
            )


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("10.0.0.1", LOCAL),
        ("", LOCAL),
        ("127.0.0.1", {}),
        ("127.0.0.1", {"host": "evil.example:8001"}),
        ("127.0.0.1", {"host": "127.0.0.1.evil.example"}),
        *[
            ("127.0.0.1", {**LOCAL, name: "127.0.0.1"})
            for name in ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
        ],
    ],
)
async def test_without_a_secret_only_this_very_machine_is_served(peer: str, headers: dict[str, str]) -> None:
    """Not through a proxy, and not under a name that somebody made to point here."""
    off = authenticator(jwt_secret="")
    for place in ("127.0.0.1", "::1", "127.1.2.3"):
        assert (await off.by_headers(place, LOCAL)).is_for_every_account
        assert (await off.by_headers(place, {"host": "[::1]:8001"})).is_for_every_account
    with pytest.raises(Unauthorized):
        await off.by_headers(peer, headers)


async def test_with_a_secret_this_very_machine_needs_a_token_too() -> None:
    """Loopback is no credential once there is a secret."""
    with pytest.raises(Unauthorized):
        await authenticator().by_headers("127.0.0.1", LOCAL)
    assert await authenticator().by_handshake("127.0.0.1", LOCAL, None) is None


async def test_a_token_may_come_by_header_subprotocol_or_where_allowed_by_url() -> None:
    """In that order; a bad one in an earlier place is not saved by a good one in a later."""
    token = signed()
    headers = {**LOCAL, "authorization": f"bearer {token}"}
    for given in (headers, {**LOCAL, "sec-websocket-protocol": f"bearer, {token}"}):
        identity = await authenticator().by_handshake("10.0.0.1", given, None)
        assert identity is not None
        assert identity.subject == "alice"
    with pytest.raises(Unauthorized):
        await authenticator().by_handshake("10.0.0.1", LOCAL, token)
    allowing = authenticator(allow_token_in_url=True)
    assert await allowing.by_handshake("10.0.0.1", LOCAL, token) is not None
    with pytest.raises(Unauthorized):
        await allowing.by_handshake("10.0.0.1", {**LOCAL, "authorization": "Bearer nonsense"}, token)


ALLOWED = frozenset({"https://app.example.com"})


@pytest.mark.parametrize(
    ("origin", "host", "peer", "allowed", "expected"),
    [
        (None, "api.example.com", "10.0.0.1", ALLOWED, True),
        ("https://app.example.com", "api.example.com", "10.0.0.1", ALLOWED, True),
        ("https://evil-app.example.com", "api.example.com", "10.0.0.1", ALLOWED, False),
        ("https://app.example.com.evil", "api.example.com", "10.0.0.1", ALLOWED, False),
        ("https://app.example.com:8443", "api.example.com", "10.0.0.1", ALLOWED, False),
        ("http://app.example.com", "api.example.com", "10.0.0.1", ALLOWED, False),
        ("HTTPS://APP.EXAMPLE.COM", "api.example.com", "10.0.0.1", ALLOWED, False),
        ("null", "api.example.com", "10.0.0.1", ALLOWED, False),
        ("https://api.example.com", "api.example.com", "10.0.0.1", ALLOWED, True),
        ("https://api.example.com", "api.example.com", "10.0.0.1", frozenset[str](), True),
        ("https://api.example.com:1", "api.example.com", "10.0.0.1", frozenset[str](), False),
        ("https://evil.example", "api.example.com", "10.0.0.1", frozenset[str](), False),
        ("null", "api.example.com", "127.0.0.1", frozenset[str](), False),
        ("", "", "127.0.0.1", frozenset[str](), False),
        ("file://", "127.0.0.1:8001", "127.0.0.1", frozenset[str](), False),
        ("http://localhost:3000", "localhost:8001", "127.0.0.1", frozenset[str](), True),
        ("http://127.0.0.1:3000", "localhost:8001", "127.0.0.1", frozenset[str](), True),
        ("http://localhost:3000", "localhost:8001", "10.0.0.1", frozenset[str](), False),
        ("http://localhost.evil.example", "localhost:8001", "127.0.0.1", frozenset[str](), False),
        ("https://evil.example", "localhost:8001", "127.0.0.1", frozenset[str](), False),
    ],
)
def test_only_pages_of_allowed_origins_may_open_a_websocket(
    origin: str | None, host: str, peer: str, allowed: frozenset[str], expected: bool
) -> None:
    """Exact match, or the same host, or this very machine."""
    headers = {"host": host} if origin is None else {"host": host, "origin": origin}
    assert is_origin_allowed(peer, headers, allowed) is expected

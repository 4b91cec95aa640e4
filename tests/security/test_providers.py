"""The settings that the document prints for identity providers, each with a token of its shape."""

import re
import time
from pathlib import Path
from typing import Any

import pytest

from portfolio_realtime import config
from portfolio_realtime.websocket_server.access.authentication import Authenticator
from portfolio_realtime.websocket_server.access.identity import Unauthorized
from tests.security.provider import Key, Provider

pytestmark = pytest.mark.asyncio(loop_scope="package")

DOCUMENT = Path(__file__).parents[2] / "docs/security.md"
USER = "b2f7a0c1-3d5e-4f60-8a91-0c1d2e3f4a5b"
NOW = int(time.time())

SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # header beside kid and alg; claims; what makes it a token for something else
    "supabase": (
        {"typ": "JWT"},
        {
            "iss": "https://PROJECT.supabase.co/auth/v1",
            "sub": USER,
            "aud": "authenticated",
            "exp": NOW + 3600,
            "iat": NOW,
            "email": "alice@example.com",
            "phone": "",
            "app_metadata": {"provider": "email", "providers": ["email"], "accounts": ["a", "ab"]},
            "user_metadata": {"accounts": ["b"]},
            "role": "authenticated",
            "aal": "aal1",
            "amr": [{"method": "password", "timestamp": NOW}],
            "session_id": "0f0e0d0c-0b0a-4908-8706-050403020100",
            "is_anonymous": False,
        },
        {"aud": "anon"},
    ),
    "auth0": (
        {"typ": "at+jwt"},
        {
            "iss": "https://TENANT.us.auth0.com/",
            "sub": f"auth0|{USER}",
            "aud": ["https://api.example.com", "https://TENANT.us.auth0.com/userinfo"],
            "iat": NOW,
            "exp": NOW + 86_400,
            "scope": "openid profile email",
            "azp": "my_client_id",
            "https://example.com/accounts": ["a", "ab"],
        },
        {"aud": "my_client_id", "nonce": "n-0S6_WzA2Mj"},
    ),
    "cognito": (
        {"typ": ...},
        {
            "sub": USER,
            "iss": "https://cognito-idp.REGION.amazonaws.com/POOL",
            "client_id": "CLIENT",
            "origin_jti": "8f9e0d1c-2b3a-4958-8776-655443322110",
            "event_id": "64f513be-32db-42b0-b78e-b02127b4f463",
            "token_use": "access",
            "scope": "aws.cognito.signin.user.admin",
            "auth_time": NOW,
            "exp": NOW + 3600,
            "iat": NOW,
            "jti": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
            "username": "alice",
            "accounts": ["a", "ab"],
        },
        {"token_use": "id", "aud": "CLIENT"},
    ),
    "clerk": (
        {"typ": "JWT", "cat": "cl_B7d4PD111AAA"},
        {
            "azp": "https://app.example.com",
            "exp": NOW + 60,
            "fva": [0, -1],
            "iat": NOW,
            "iss": "https://clerk.example.com",
            "metadata": {"accounts": ["a", "ab"]},
            "nbf": NOW - 10,
            "sid": "sess_2abc",
            "sub": "user_2abc",
            "v": 2,
        },
        {"azp": "https://evil.example"},
    ),
}


def documented(name: str) -> dict[str, str]:
    """The settings of one provider as the document prints them."""
    blocks = re.findall(r"```bash\n# (\w+)\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return dict(line.split("=", 1) for line in dict(blocks)[name].splitlines())


def _now(claims: dict[str, Any]) -> dict[str, Any]:
    """The claims that are times, as if signed now: some providers' tokens live for a minute."""
    passed_s = int(time.time()) - NOW
    return {name: claims[name] + passed_s for name in ("iat", "exp", "nbf", "auth_time") if name in claims}


@pytest.mark.parametrize("name", SHAPES)
async def test_the_documented_settings_fit_the_providers_tokens(
    name: str, provider: Provider, keys: list[Key]
) -> None:
    """Accepted with its accounts; refused as another kind of token, from another tenant, and changed."""
    header, claims, otherwise = SHAPES[name]
    settings = {**documented(name), "JWKS_URL": provider.jwks_url}
    named = {setting.lower(): value for setting, value in settings.items()}
    authenticator = Authenticator(config.load(_env_file=None, jwt_secret="", **named))
    whole = {**dict.fromkeys(("aud", "accounts", "iss"), ...), **claims, **_now(claims)}
    try:
        identity = await authenticator.by_token(keys[0].sign(header, **whole))
        assert identity.subject == claims["sub"]
        assert identity.accounts == {"a", "ab"}
        assert identity.issuer == claims["iss"]
        for wrong in (otherwise, {"iss": claims["iss"].replace("//", "//x")}, {"exp": NOW - 1}):
            with pytest.raises(Unauthorized):
                await authenticator.by_token(keys[0].sign(header, **{**whole, **wrong}))
    finally:
        await authenticator.close()


async def test_every_provider_of_the_document_has_a_shape() -> None:
    """So that no settings are printed that nobody has tried."""
    blocks = re.findall(r"```bash\n# (\w+)\n", DOCUMENT.read_text())
    assert sorted(blocks) == sorted(SHAPES)

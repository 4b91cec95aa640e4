"""An identity provider and an access webhook on a real socket, which a test may change or take away."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

ISSUER = "https://login.example.com/"
AUDIENCE = "https://api.example.com"


class Key:
    """One signing key of the provider."""

    def __init__(self, key_id: str, kind: str = "RSA", bits: int = 2048) -> None:
        self.key_id = key_id
        self.algorithm = {"RSA": "RS256", "EC": "ES256"}[kind]
        self.private: Any = (
            rsa.generate_private_key(public_exponent=65537, key_size=bits)
            if kind == "RSA"
            else ec.generate_private_key(ec.SECP256R1())
        )

    @property
    def public(self) -> dict[str, Any]:
        """As a JWK."""
        algorithm = RSAAlgorithm if self.algorithm == "RS256" else ECAlgorithm
        found = algorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {**found, "kid": self.key_id, "use": "sig", "alg": self.algorithm}

    def sign(self, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token of alice's that is good for ten minutes; `...` leaves a claim or a header out."""
        now_s = int(time.time())
        whole = {
            "sub": "alice",
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": now_s,
            "exp": now_s + 600,
            "accounts": ["a", "ab"],
            **claims,
        }
        headers = {"kid": self.key_id, **(header or {})}
        return jwt.encode(
            {name: value for name, value in whole.items() if value is not ...},
            self.private,
            self.algorithm,
            {name: value for name, value in headers.items() if value is not ...},
        )


class Provider:
    """Where it is, what it says, and how often it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: list[Key] = []
        self.extra_keys: list[dict[str, Any]] = []
        self.is_away = False
        self.is_hanging = False
        self.keys_asked = 0
        self.allowed: set[tuple[str, str]] = set()
        self.questions: list[dict[str, Any]] = []
        self.secrets_shown: set[str] = set()

    @property
    def jwks_url(self) -> str:
        """JWKS_URL."""
        return f"{self.url}/keys"

    @property
    def authz_url(self) -> str:
        """AUTHZ_URL."""
        return f"{self.url}/authz"

    async def serve_keys(self, _: web.Request) -> web.Response:
        """The key set."""
        self.keys_asked += 1
        if self.is_away:
            return web.Response(status=503)
        return web.json_response({"keys": [*(key.public for key in self.keys), *self.extra_keys]})

    async def authorize(self, request: web.Request) -> web.Response:
        """The webhook."""
        question = await request.json()
        self.questions.append(question)
        while self.is_hanging:
            await asyncio.sleep(0.05)
        self.secrets_shown.add(request.headers.get("Authorization", ""))
        if self.is_away:
            return web.Response(status=503)
        return web.json_response({"allowed": (question["subject"], question["account_id"]) in self.allowed})


@contextlib.asynccontextmanager
async def providing() -> AsyncGenerator[Provider]:
    """A provider on a free loopback port."""
    provider = Provider()
    app = web.Application()
    app.router.add_get("/keys", provider.serve_keys)
    app.router.add_post("/authz", provider.authorize)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    provider.url = f"http://{host}:{port}"
    try:
        yield provider
    finally:
        await runner.cleanup()

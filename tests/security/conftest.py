"""Servers as they stand in production, each on a real socket and one Valkey, shared by all items."""

import contextlib
import secrets
from collections.abc import AsyncGenerator
from typing import Final

import pytest
import pytest_asyncio

from portfolio_realtime.state import State, open_state, rights
from tests.conftest import LEASE_MS, SHARDS, own_valkey
from tests.security.provider import AUDIENCE, ISSUER, Key, Provider, providing
from tests.support.websocket_servers import Calculator, Served, serving, write_accounts

APP: Final = "https://app.example.com"
WEBHOOK_SECRET: Final = secrets.token_urlsafe(48)
METRICS_TOKEN: Final = secrets.token_urlsafe(48)
RECHECK_S: Final = 0.3


@pytest.fixture(scope="package")
def keys() -> list[Key]:
    """The provider's keys: RSA and elliptic curve."""
    return [Key("key-1"), Key("key-2", "EC")]


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def provider(keys: list[Key]) -> AsyncGenerator[Provider]:
    """An identity provider with a webhook."""
    async with providing() as found:
        found.keys = keys
        yield found


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def shared() -> AsyncGenerator[State]:
    """The state that the servers share, with three accounts and their values, on a Valkey of their own."""
    async with own_valkey() as valkey:
        state = open_state(valkey.url, holder="security", shards=SHARDS, lease_ms=60_000)
        await state.revocations.confirm()  # a system that has been running for long
        await write_accounts(state, "a", "ab", "b")
        calculator = Calculator(state)
        for account_id in ("a", "ab", "b"):
            await calculator.publish(account_id, 1)
        yield state
        await state.close()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def own(shared: State) -> AsyncGenerator[Served]:
    """Tokens of our own secret; no proxy is trusted."""
    async with serving(shared.connection.url, metrics_token=METRICS_TOKEN) as served:
        yield served


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def behind_proxy(shared: State) -> AsyncGenerator[Served]:
    """Behind a proxy on this machine that does TLS, for the pages of one site, with narrow limits."""
    async with serving(
        shared.connection.url,
        trusted_proxies="127.0.0.1",
        require_tls=True,
        allowed_origins=APP,
        connections_per_user=3,
        connections_per_address=4,
        connects_per_minute=12,
        messages_per_user=40,
    ) as served:
        yield served


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def federated(shared: State, provider: Provider) -> AsyncGenerator[Served]:
    """Tokens of an identity provider, and a webhook that says who may see what."""
    async with serving(
        shared.connection.url,
        jwt_secret="",
        jwks_url=provider.jwks_url,
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
        account_access="webhook",
        authz_url=provider.authz_url,
        authz_secret=WEBHOOK_SECRET,
        authz_interval=RECHECK_S,
    ) as served:
        yield served


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def entitled(shared: State) -> AsyncGenerator[Served]:
    """Tokens of our own secret, and the entitlements in Valkey."""
    async with serving(
        shared.connection.url, account_access="entitlements", authz_interval=RECHECK_S
    ) as served:
        yield served


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncGenerator[State]:
    """The state on another Valkey."""
    state = open_state(url, holder="test", shards=SHARDS, lease_ms=LEASE_MS)
    try:
        yield state
    finally:
        await state.close()


def rights_of_all(password: str) -> list[str]:
    """What `ACL SETUSER NAME` is given for one user that does for all services and people."""
    commands = sorted({command for each in rights.COMMANDS.values() for command in each.split()})
    return [
        *("on", f">{password}", "resetkeys", "resetchannels", "-@all"),
        *(f"+{command}" for command in commands),
        *(f"~{key}" for key in rights.KEYS),
        *(f"&{channel}" for channel in rights.CHANNELS),
    ]

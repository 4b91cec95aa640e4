"""Every secret is changed while clients are connected: docs/runbook/rotate-secrets.md, row by row."""

import contextlib
import os
import secrets
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from portfolio_harness.clients import Clients
from portfolio_harness.demo import converge
from portfolio_harness.oracle import Oracle
from portfolio_harness.system import (
    SIMULATOR_KEY,
    SIMULATOR_SECRET,
    settings_for,
    start_simulator,
    wait_ready,
)
from portfolio_harness.system import token as signed
from portfolio_harness.valkey_node import ValkeyNode
from portfolio_realtime.processes import end_all
from portfolio_realtime.state import open_state
from portfolio_realtime.state.embedded import free_port
from portfolio_realtime.supervisor import Supervisor
from tests.conftest import LEASE_MS, SHARDS, Until
from tests.security.conftest import opened, rights_of_all
from tests.support.websocket_servers import (
    SECRET,
    Calculator,
    closed,
    receive,
    receive_until,
    serving,
    write_accounts,
)

NEW_SECRET = secrets.token_urlsafe(48)
PLEASE_RECONNECT = 4001
UNAUTHORIZED = 4500
INTERVAL_S = 0.2
MARKET = ("--accounts", "8", "--symbols", "20", "--seed", "5")


def by(secret: str) -> dict[str, str]:
    """A header with a token that this secret has signed."""
    return {"Authorization": f"Bearer {signed(secret, 'alice', ['a'], 600)}"}


async def test_the_secret_of_tokens(valkey_url: str) -> None:
    """Old and new tokens are good while both secrets are set, old ones only until the old one is removed."""
    async with opened(valkey_url) as state:
        await write_accounts(state, "a")
        await Calculator(state).publish("a", 1)
        async with serving(valkey_url, jwt_secret=NEW_SECRET, jwt_secret_previous=SECRET) as between:
            async with serving(valkey_url) as before, before.open("/ws/portfolio/a", by(SECRET)) as client:
                assert (await receive(client))["type"] == "portfolio"
                await before.stop()
                assert await closed(client) == PLEASE_RECONNECT
            for headers in (by(SECRET), by(NEW_SECRET)):
                async with between.open("/ws/portfolio/a", headers) as client:
                    assert (await receive(client))["type"] == "portfolio"
        async with serving(valkey_url, jwt_secret=NEW_SECRET) as after:
            async with after.open("/ws/portfolio/a", by(NEW_SECRET)) as client:
                assert (await receive(client))["type"] == "portfolio"
            async with after.open("/ws/portfolio/a", by(SECRET)) as client:
                assert await closed(client) == UNAUTHORIZED


@contextlib.asynccontextmanager
async def administered(valkey: ValkeyNode) -> AsyncGenerator[Redis]:
    """Valkey, with the user of docs/security.md, whose password is `old`."""
    admin = Redis.from_url(valkey.url)
    try:
        await admin.execute_command("ACL", "SETUSER", "portfolio", *rights_of_all("old"))
        await admin.execute_command("ACL", "LOG", "RESET")
        yield admin
    finally:
        await admin.aclose()


def logged_in(valkey: ValkeyNode, password: str) -> str:
    """The URL with that user and this password."""
    return f"redis://portfolio:{password}@127.0.0.1:{valkey.port}/0"


async def test_the_password_of_valkey(mortal_server: ValkeyNode) -> None:
    """A user may have two: nobody is without Valkey for a moment, and the rights suffice for all of it."""
    old, new = (logged_in(mortal_server, password) for password in ("old", "new"))
    async with administered(mortal_server) as admin:
        state = open_state(old, holder="test", shards=SHARDS, lease_ms=LEASE_MS)
        await write_accounts(state, "a")
        calculator = Calculator(state)
        await calculator.publish("a", 1)
        async with serving(old) as before, before.open("/ws/portfolio/a") as client:
            assert (await receive(client))["sequence"] == 1
            await admin.execute_command("ACL", "SETUSER", "portfolio", ">new")
            async with serving(new) as after:
                await admin.execute_command("ACL", "SETUSER", "portfolio", "<old")
                await calculator.publish("a", 2)
                await receive_until(client, 2)
                async with after.open("/ws/portfolio/a") as moved:
                    assert (await receive(moved))["sequence"] == 2
                with pytest.raises(AuthenticationError):
                    await Redis.from_url(old).ping()
        await state.close()
        refused: Any = await admin.execute_command("ACL", "LOG")
        assert {entry[b"reason"] for entry in refused} == {b"auth"}, "nothing but the old password"


async def test_the_keys_of_alpaca(valkey_url: str, until: Until) -> None:
    """Collector and consumer go over to another key of the same broker; no client loses a value."""
    simulator, simulator_url = await start_simulator((*MARKET, "--activities-per-second", "2"))
    port, oracle = free_port(), Oracle(simulator_url)
    shared = {**os.environ, **settings_for(simulator_url, port, SECRET), "REDIS_URL": valkey_url}
    shared |= {"MIN_UPDATE_INTERVAL": str(INTERVAL_S), "LOG_LEVEL": "warning"}
    key = {"BROKER_CLIENT_ID": SIMULATOR_KEY, "BROKER_CLIENT_SECRET": SIMULATOR_SECRET}
    other_key = {
        **shared,
        **key,
        "BROKER_API_KEY": "",
        "BROKER_SECRET_KEY": "",
        "ALPACA_AUTH_URL": simulator_url,
    }
    rest = Supervisor(shared, ["portfolio_calculator", "websocket_server"])
    old, new = (
        Supervisor(each, ["symbol_collector", "market_data_consumer"]) for each in (shared, other_key)
    )
    try:
        for supervisor in (rest, old):
            await supervisor.start(is_embedded=False)
        url = f"http://127.0.0.1:{port}"
        await wait_ready(url)
        account_ids = await oracle.account_ids()
        clients = Clients(url, account_ids, token_for, interval_s=INTERVAL_S, detail=True)
        await clients.start()
        await until(lambda: clients.counts["messages"] > 50, "values move")
        await new.start(is_embedded=False)
        await old.stop()
        messages = clients.counts["messages"]
        await until(lambda: clients.counts["messages"] > messages + 50, "values move by the other key")
        await oracle.pause()
        differing, converged_s = await converge(oracle, clients)
        await clients.stop()
    finally:
        for supervisor in (new, old, rest):
            await supervisor.stop()
        await oracle.close()
        await end_all([simulator])
    assert not differing and converged_s is not None
    assert (clients.counts["regressions"], clients.counts["leaks"], clients.counts["reconnects"]) == (0, 0, 0)


def token_for(account_id: str) -> str:
    """A token for one account."""
    return signed(SECRET, f"client of {account_id}", [account_id], 600)

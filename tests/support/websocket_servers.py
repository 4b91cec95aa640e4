"""A real server in this process, on a real socket and a real Valkey, and a calculator played by the test."""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncGenerator
from decimal import Decimal
from typing import Any

import httpx
import msgspec
from joserfc import jwt
from joserfc.jwk import OctKey
from prometheus_client import CollectorRegistry
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from portfolio_realtime import config
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.clock import SystemClock
from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.model import Account
from portfolio_realtime.service import Context
from portfolio_realtime.state import State, keys, open_state
from portfolio_realtime.state.embedded import free_port
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.websocket_server.server import run
from tests.conftest import LEASE_MS, SHARDS
from tests.support.publications import batch_of, publication

SECRET = secrets.token_urlsafe(48)
API_KEY = secrets.token_urlsafe(48)
RECEIVE_S_MAX = 5.0
SIGN_S = 0.5
READY_S_MAX = 60.0  # of a server that starts on a busy machine


def token(subject: str = "alice", accounts: list[str] | None = None, lifetime_s: float = 600) -> str:
    """A good token."""
    claims = {"sub": subject, "exp": int(time.time() + lifetime_s), "accounts": accounts or ["a", "ab"]}
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET))


def bearer(**claims: Any) -> dict[str, str]:
    """A good Authorization header."""
    return {"Authorization": f"Bearer {token(**claims)}"}


class Served:
    """One server: where it is, and clients of it."""

    def __init__(self, port: int, work: "asyncio.Task[None]") -> None:
        self.port = port
        self.work = work
        # Both ends would otherwise give up an idle connection after the same 5 s.
        limits = httpx.Limits(keepalive_expiry=1.0)
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, limits=limits)

    def open(self, path: str, headers: dict[str, str] | None = None, **options: Any) -> connect:
        """A WebSocket client; without `headers` it is alice with a good token."""
        given = bearer() if headers is None else headers
        return connect(
            f"ws://127.0.0.1:{self.port}{path}",
            additional_headers=given,
            compression=None,
            ping_interval=None,
            **options,
        )

    async def ready(self) -> bool:
        """Does it say that it is ready?"""
        with contextlib.suppress(httpx.HTTPError):
            return (await self.http.get("/ready")).status_code == 200
        return False

    async def stop(self) -> None:
        """Ask it to end, and wait."""
        await cancel_until_ended([self.work])


async def receive(client: ClientConnection) -> dict[str, Any]:
    """The next message but one about freshness, which a slow machine may bring at any time."""
    while (message := await receive_any(client))["type"] == "freshness":
        pass
    return message


async def receive_any(client: ClientConnection) -> dict[str, Any]:
    """The next message."""
    async with asyncio.timeout(RECEIVE_S_MAX):
        return json.loads(await client.recv())


async def receive_until(client: ClientConnection, sequence: int) -> list[dict[str, Any]]:
    """Messages up to the one with this sequence."""
    messages = [await receive(client)]
    while messages[-1].get("sequence") != sequence:
        messages.append(await receive(client))
    return messages


async def closed(client: ClientConnection) -> int | None:
    """The code with which the server closes; messages before it are read and dropped."""
    async with asyncio.timeout(RECEIVE_S_MAX):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await client.recv()
    return client.close_code


async def refused_handshake(opening: connect) -> int:
    """The HTTP status with which a handshake is refused; 101: it is not."""
    try:
        async with opening:
            return 101
    except InvalidStatus as refused:
        assert json.loads(refused.response.body or b"")["code"]
        return refused.response.status_code


class Calculator:
    """Publishes what the test says, under leases as a real one."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._leases: dict[int, Lease] = {}

    async def publish(
        self,
        account_id: str,
        sequence: int,
        quantities: dict[str, str] | None = None,
        equity: str | None = "100.00",
        **fields: Any,
    ) -> int:
        """Publish one account; the epoch. `fields` replace or add fields of the message."""
        shard = keys.shard_of(account_id, SHARDS)
        if shard not in self._leases:
            lease = await self._state.leases.acquire(keys.shard_lease(shard))
            assert lease is not None
            self._leases[shard] = lease
        lease = self._leases[shard]
        epoch = lease.fencing_token
        await self._state.valuations.publish(
            lease, shard, [publication(account_id, epoch, sequence, quantities, equity, **fields)]
        )
        return epoch

    async def die(self) -> None:
        """Keep nothing up to date any more; what is published later is under the old leases."""
        for lease in self._leases.values():
            await self._state.leases.release(lease)


async def write_accounts(state: State, *account_ids: str) -> None:
    """Records, as the symbol collector writes them."""
    lease = await state.leases.acquire("symbol_collector")
    assert lease is not None
    zero = Decimal(0)
    records = [
        Account(name, 1, "ACTIVE", "USD", zero, zero, "2026-11-20", zero, (), 0) for name in account_ids
    ]
    await state.accounts.write(lease, records)
    await state.leases.release(lease)


async def remove_account(state: State, account_id: str) -> None:
    """As the symbol collector does when an account is closed."""
    lease = await state.leases.acquire("symbol_collector")
    assert lease is not None
    await state.accounts.remove(lease, [account_id])
    await state.leases.release(lease)


async def watched(state: State, account_id: str) -> bool:
    """Has interest in this account been announced?"""
    return account_id in (await state.interest.read(keys.shard_of(account_id, SHARDS))).account_ids


async def give_signs(state: State, stale_hops: tuple[str, ...] = ()) -> None:
    """One sign of life of every shard, as calculators give them."""
    sign = msgspec.msgpack.encode(batch_of(0, [], stale_hops))
    for shard in range(SHARDS):
        await state.connection.publish(keys.valuations(shard), sign)


async def keep_giving_signs(state: State) -> None:
    """As long as calculators live."""
    while True:
        with contextlib.suppress(StateUnavailable):
            await give_signs(state)
        await asyncio.sleep(SIGN_S)


@contextlib.asynccontextmanager
async def serving(
    url: str, *, has_signs: bool = True, is_awaited: bool = True, **settings: Any
) -> AsyncGenerator[Served]:
    """A server on the Valkey at `url`, ready where that `is_awaited`.

    `has_signs`: calculators live, whatever the test does.
    """
    port = settings.get("websocket_port") or free_port()
    chosen = config.load(
        **{
            "_env_file": None,
            "jwt_secret": SECRET,
            "api_key_secret": API_KEY,
            "websocket_host": "127.0.0.1",
            "websocket_port": port,
            "shards": SHARDS,
            **settings,
        }
    )
    state = open_state(url, holder="server", shards=SHARDS, lease_ms=LEASE_MS)
    context = Context(chosen, state, SystemClock(), CollectorRegistry(), "test-instance")
    served = Served(port, asyncio.create_task(run(context)))
    signs = asyncio.create_task(keep_giving_signs(state) if has_signs else asyncio.sleep(0))
    try:
        give_up = time.monotonic() + READY_S_MAX
        while is_awaited and not await served.ready():
            if not has_signs:  # a server that has never heard any is not ready
                await give_signs(state)
            assert not served.work.done(), served.work.result()
            assert time.monotonic() < give_up, "the server did not get ready"
            await asyncio.sleep(0.02)
        yield served
    finally:
        await cancel_until_ended([signs])
        await served.http.aclose()
        await served.stop()
        await state.close()

"""A back end with 5,000 accounts on one connection, by the example of docs/many-accounts.md."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import Any

import pytest
from docs.examples import many_accounts

from portfolio_realtime.model import Pending
from portfolio_realtime.state import State, keys
from portfolio_realtime.websocket_server.clients import connection as connection_module
from portfolio_realtime.websocket_server.clients.connection import SUBSCRIPTIONS_MAX
from tests.conftest import DEADLINE_S, SHARDS, Until
from tests.support.publications import publication
from tests.support.websocket_servers import API_KEY, Served, bearer, receive, serving, write_accounts

ROOT = Path(__file__).resolve().parents[3]
COUNT = 5_000
IDS = [f"{number:08x}-6a5c-4a5e-9b1c-0a8f6d3c2b1a" for number in range(COUNT)]
BACK_END = {"X-API-Key": API_KEY}


class Publisher:
    """Publishes many accounts at once, as a calculator does."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def begin(self) -> None:
        """Take all shards."""
        names = {shard: keys.shard_lease(shard) for shard in range(SHARDS)}
        leases = {shard: await self._state.leases.acquire(name) for shard, name in names.items()}
        self._leases = {shard: lease for shard, lease in leases.items() if lease is not None}
        assert len(self._leases) == SHARDS

    async def publish(self, account_ids: Iterable[str], sequence: int, equity: str) -> None:
        """One publication of each."""
        by_shard: dict[int, list[Any]] = {}
        for one in account_ids:
            shard = keys.shard_of(one, SHARDS)
            made = publication(one, self._leases[shard].fencing_token, sequence, None, equity)
            by_shard.setdefault(shard, []).append(made)
        for shard, made in by_shard.items():
            await self._state.valuations.publish(self._leases[shard], shard, made)


class Newest(dict[str, Any]):
    """Counts what is put into it."""

    puts = 0

    def __setitem__(self, key: str, value: Any) -> None:
        self.puts += 1
        super().__setitem__(key, value)


@pytest.fixture
async def server(valkey_url: str) -> AsyncGenerator[Served]:
    """One server."""
    async with serving(valkey_url) as served:
        yield served


async def test_the_example_follows_five_thousand_accounts_and_resumes(
    state: State, server: Served, until: Until, capsys: pytest.CaptureFixture[str]
) -> None:
    """First values with their progress; after a cut only what is newer comes again."""
    await write_accounts(state, *IDS)
    lease = await state.leases.acquire("symbol_collector")
    assert lease is not None
    publisher = Publisher(state)
    await publisher.begin()
    http, ws = (f"{scheme}://127.0.0.1:{server.port}" for scheme in ("http", "ws"))
    began_s = time.process_time()
    listing = asyncio.create_task(many_accounts.visible(http, BACK_END))
    await asyncio.sleep(0.1)  # it asks once before the list is whole, and again
    await state.accounts.write_listed(lease, range(SHARDS))
    assert await listing == IDS

    newest, told = Newest(), list[str]()

    def is_told() -> bool:
        told.append(capsys.readouterr().out)
        return '"waiting":0' in "".join(told)

    following = asyncio.create_task(many_accounts.follow(ws, BACK_END, IDS, newest))
    try:
        await publisher.publish(IDS[:3000], 1, "100.00")
        await until(lambda: len(newest) == 3000, "the first values of most", DEADLINE_S)
        await publisher.publish(IDS[3000:], 1, "100.00")
        await until(lambda: len(newest) == COUNT, "the first values of all", DEADLINE_S)
        await until(is_told, "that there is nothing to wait for", DEADLINE_S)
        await publisher.publish(IDS, 2, "101.00")
        await until(lambda: all(one["sequence"] == 2 for one in newest.values()), "the next", DEADLINE_S)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    await publisher.publish(IDS[:10], 3, "102.00")

    newest.puts = 0
    following = asyncio.create_task(many_accounts.follow(ws, BACK_END, IDS, newest))
    try:
        await until(lambda: sum(one["sequence"] == 3 for one in newest.values()) == 10, "resumed", DEADLINE_S)
        await publisher.publish(IDS[-1:], 4, "103.00")
        await until(lambda: newest[IDS[-1]]["sequence"] == 4, "it goes on", DEADLINE_S)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert newest.puts == 11
    with capsys.disabled():
        print(f"{COUNT} accounts, server and client: {time.process_time() - began_s:.1f} s of processor time")


async def test_each_account_that_is_refused_is_named_with_its_reason(state: State, server: Served) -> None:
    """And none of the others waits for it."""
    await write_accounts(state, "known")
    lease = await state.leases.acquire("symbol_collector")
    assert lease is not None
    await state.accounts.write_pending(lease, [Pending("euros", "in EUR", True)], [])
    publisher = Publisher(state)
    await publisher.begin()
    await publisher.publish(["known"], 1, "100.00")
    async with server.open("/ws", BACK_END) as client:
        wanted = ["known", "euros", "not an id"]
        await client.send(json.dumps({"type": "subscribe_many", "account_ids": wanted}))
        refused: dict[str, str] = {}
        values, waiting = 0, 1
        while waiting or not values or len(refused) < 2:
            message = await receive(client)
            values += message["type"] == "portfolio"
            if message["type"] == "progress":
                waiting = message["waiting"]
                refused |= {one["account_id"]: one["code"] for one in message["refused"]}
        assert refused == {"euros": "account_not_in_dollars", "": "forbidden"}
        await client.send(
            json.dumps({"type": "subscribe_many", "account_ids": ["known"], "have": [[1, 1], None]})
        )
        assert (await receive(client))["code"] == "bad_message"
    await state.accounts.write_pending(lease, [], ["euros"])
    await state.leases.release(lease)


async def test_who_is_no_back_end_has_the_usual_limit(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of subscriptions, and only of the accounts that the token names."""
    own = [f"a{number}" for number in range(SUBSCRIPTIONS_MAX + 2)]
    async with server.open("/ws", bearer(accounts=own)) as client:
        await client.send(json.dumps({"type": "subscribe_many", "account_ids": [*own, "anothers"]}))
        told = await receive(client)
        while told["type"] != "progress":
            told = await receive(client)
        assert told["subscribed"] == SUBSCRIPTIONS_MAX
        codes = [one["code"] for one in told["refused"]]
        assert codes == ["too_many_subscriptions", "too_many_subscriptions", "forbidden"]
    monkeypatch.setattr(connection_module, "SUBSCRIPTIONS_MAX_BACK_END", 2)
    async with server.open("/ws", BACK_END) as client:
        await client.send(json.dumps({"type": "subscribe_many", "account_ids": own[:3]}))
        told = await receive(client)
        while told["type"] != "progress":
            told = await receive(client)
        assert (told["subscribed"], [one["account_id"] for one in told["refused"]]) == (2, [own[2]])


def test_the_page_shows_the_example_that_is_run() -> None:
    """Word for word."""
    page = (ROOT / "docs/many-accounts.md").read_text()
    assert f"```python\n{(ROOT / 'docs/examples/many_accounts.py').read_text()}```" in page

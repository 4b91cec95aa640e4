"""A part of a cluster is away, and nobody replaces it: everything that needs only the other parts goes on."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.crc import key_slot
from structlog.testing import capture_logs

from portfolio_harness.valkey_cluster import ValkeyCluster
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.clock import NS_PER_S, SystemClock
from portfolio_realtime.errors import StateUnavailable
from portfolio_realtime.model import US_EQUITY, MinuteMark
from portfolio_realtime.state import State, keys, open_state
from portfolio_realtime.state.interest import PartlyBegun, server_name
from portfolio_realtime.state.minutes import Minutes
from portfolio_realtime.state.nodes import Node
from portfolio_realtime.telemetry import ServerMetrics
from portfolio_realtime.websocket_server.fanout import publication_follower
from portfolio_realtime.websocket_server.fanout.publication_follower import PublicationFollower
from portfolio_realtime.websocket_server.fanout.watched_account import StreamPosition, WatchedAccount
from portfolio_realtime.wire.messages import Disconnect
from tests.conftest import KIND, LEASE_MS, StartSimulator, Until
from tests.support import collectors
from tests.support.consumers import context_of, running, write_universe
from tests.support.websocket_servers import write_accounts

SHARDS = 16
HEAL_S = 60.0
LONG_S = 3600  # until the broker is asked again, and records are written again
AWAY = (2, 3)  # the minutes, in their order, that cannot be written
ACCOUNT_IDS = [f"account-{number}" for number in range(100)]


def without_replicas() -> ValkeyCluster:
    """Three primaries whom nobody replaces."""
    return ValkeyCluster(replicas=0, program=KIND.program)


@contextlib.asynccontextmanager
async def watching(cluster: ValkeyCluster, until: Until) -> AsyncGenerator[State]:
    """A state on a cluster that serves and knows the script with which accounts are watched."""
    state = open_state(cluster.url, holder="test", shards=SHARDS, lease_ms=4000)

    async def begins() -> bool:
        with contextlib.suppress(StateUnavailable):
            await state.interest.begin(ACCOUNT_IDS)
            return True
        return False

    try:
        await until(begins, "the cluster serves", HEAL_S)
        yield state
    finally:
        await state.close()


async def missed_alone(state: State, slots: frozenset[int]) -> None:
    """Only the accounts whose shards are in these slots cannot be watched."""
    with pytest.raises(PartlyBegun) as partly:
        await state.interest.begin(ACCOUNT_IDS)
    gone = {shard for shard in range(SHARDS) if key_slot(keys.valuations(shard).encode()) in slots}
    assert 0 < len(gone) < SHARDS
    assert sorted(partly.value.missed) == sorted(
        one for one in ACCOUNT_IDS if keys.shard_of(one, SHARDS) in gone
    )


async def test_who_is_kept_in_a_part_that_is_away_holds_up_nobody(until: Until) -> None:
    """Those of the other parts are watched from now on; the answer names the rest."""
    async with without_replicas() as cluster, watching(cluster, until) as state:
        lost = await cluster.primary_of(keys.valuations(0))
        slots = await cluster.slots_of(lost)
        await lost.kill()
        await missed_alone(state, slots)


async def test_a_node_that_is_lost_before_it_gets_a_script_again_holds_up_nobody(
    until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has just answered that it does not know the script. The other nodes run theirs."""
    async with without_replicas() as cluster, watching(cluster, until) as state:
        lost = await cluster.primary_of(keys.valuations(0))
        for node in await cluster.primaries():
            await node.do("SCRIPT FLUSH")
        answer, asked = Node.answer, list[str]()

        async def answers_once(node: Node, ask: Callable[[Redis], Awaitable[Any]]) -> Any:
            if node.url.endswith(f":{lost.port}/0"):
                asked.append(node.url)
                if len(asked) > 1:
                    raise TimeoutError("it is gone")
            return await answer(node, ask)

        monkeypatch.setattr(Node, "answer", answers_once)
        await missed_alone(state, await cluster.slots_of(lost))
        assert len(asked) > 1


async def test_owners_and_weights_of_the_other_parts_are_known_while_one_is_away(until: Until) -> None:
    """Calculators share what can be shared; of the lost part nothing is known."""
    async with without_replicas() as cluster, watching(cluster, until) as state:
        held = await state.leases.acquire(keys.shard_lease(3))
        assert held is not None
        lost = await cluster.primary_of(keys.valuations(0))
        slots = await cluster.slots_of(lost)
        names = {keys.shard_lease(shard): keys.interest(shard) for shard in range(SHARDS)}
        before = await state.leases.read_held(names)
        assert sum(one.work for one in before if one is not None) == len(ACCOUNT_IDS)
        assert [one.holder for one in before if one is not None] == [
            "test" if shard == 3 else None for shard in range(SHARDS)
        ]
        await lost.kill()
        after = await state.leases.read_held(names)
        gone = [shard for shard in range(SHARDS) if key_slot(keys.interest(shard).encode()) in slots]
        assert [shard for shard, one in enumerate(after) if one is None] == gone
        assert [one for one in after if one is not None] == [
            one for shard, one in enumerate(before) if shard not in gone
        ]


class Watcher:
    """Subscribes to accounts; what comes of it does not matter here."""

    is_patient = True

    def notify(self, account: WatchedAccount) -> None:
        """Ignore it."""

    def refuse(self, account_id: str, why: Disconnect) -> None:
        """Ignore it."""

    def position_sent(self, account_id: str) -> StreamPosition | None:
        """Nothing was sent."""


async def test_interest_of_the_other_parts_is_renewed_while_one_is_away(
    until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many accounts are watched: in steps, of which each has accounts of the lost part."""
    monkeypatch.setattr(publication_follower, "BEGIN_ACCOUNTS_MAX", 20)
    monkeypatch.setattr(publication_follower, "RENEW_S", 0.1)
    async with without_replicas() as cluster, watching(cluster, until) as state:
        metrics = ServerMetrics(CollectorRegistry())
        follower = PublicationFollower(state, SHARDS, SystemClock(), metrics)
        for account_id in ACCOUNT_IDS:
            follower.watch(Watcher(), account_id, with_positions=False)
        lost = await cluster.primary_of(keys.valuations(0))
        slots = await cluster.slots_of(lost)
        await lost.kill()

        async def expiries() -> list[float]:
            living = [one for one in ACCOUNT_IDS if key_slot(_interest_of(one).encode()) not in slots]
            assert 0 < len(living) < len(ACCOUNT_IDS)
            zscore, server = state.connection.commands.zscore, server_name("test")
            found = [await zscore(_interest_of(one), f"{one} {server}") for one in living]
            return [expiry_ms or 0.0 for expiry_ms in found]

        before = await expiries()
        renewing = asyncio.create_task(follower.renew())

        async def are_renewed() -> bool:
            return all(now > then for now, then in zip(await expiries(), before, strict=True))

        await until(are_renewed, "interest in all accounts of the other parts is renewed")
        await cancel_until_ended([renewing])


def _interest_of(account_id: str) -> str:
    return keys.interest(keys.shard_of(account_id, SHARDS))


async def test_who_does_not_exist_is_known_while_another_part_is_away(until: Until) -> None:
    """An account of a shard that has records is judged; of the lost part nothing is said."""
    async with without_replicas() as cluster, watching(cluster, until) as state:
        lost = await cluster.primary_of(keys.valuations(0))
        slots = await cluster.slots_of(lost)
        gone = [one for one in ACCOUNT_IDS if key_slot(_interest_of(one).encode()) in slots]
        known = next(one for one in ACCOUNT_IDS if one not in gone)
        await write_accounts(state, known)
        stranger = next(
            one for one in ACCOUNT_IDS if one != known and _interest_of(one) == _interest_of(known)
        )
        await lost.kill()
        assert await state.accounts.unknown([known, stranger]) == {stranger: None}
        with pytest.raises(StateUnavailable):
            await state.accounts.unknown([gone[0]])


async def test_nobody_is_denied_because_a_part_has_come_back_empty(until: Until) -> None:
    """Its records are gone until the collector writes them again; those of the other parts prove nothing."""
    async with without_replicas() as cluster, watching(cluster, until) as state:
        await write_accounts(state, *ACCOUNT_IDS)
        part = await cluster.primary_of(keys.valuations(0))
        slots = await cluster.slots_of(part)
        await part.flush()
        emptied = [one for one in ACCOUNT_IDS if key_slot(_interest_of(one).encode()) in slots]
        assert emptied
        assert await state.accounts.unknown([*ACCOUNT_IDS]) == {}


async def collecting(state: State, gone: frozenset[int]) -> list[str]:
    """The accounts with a record whose slot is not among these."""
    shards = [one for one in range(SHARDS) if key_slot(keys.accounts(one).encode()) not in gone]
    return await state.accounts.ids(shards)


async def test_accounts_of_the_other_parts_go_on_being_reconciled(
    simulator: StartSimulator, until: Until
) -> None:
    """A part is killed and comes back empty. Meanwhile the others change; then it is written whole."""
    market = await simulator(accounts=24, symbols=10, activities_per_second=2)
    async with without_replicas() as cluster, watching(cluster, until) as state:
        with capture_logs() as logged:
            async with collectors.running(collectors.context_of(market, state, shards=SHARDS)):
                await collectors.wait_exact(market, state, until, HEAL_S)
                keeper = await cluster.primary_of(keys.lease("symbol_collector"))
                lost = next(node for node in await cluster.primaries() if node.port != keeper.port)
                slots = await cluster.slots_of(lost)
                everybody = await collecting(state, frozenset())
                others = await collecting(state, slots)
                assert 0 < len(others) < len(everybody)
                await lost.kill()
                killed_ns = SystemClock().now_ns()

                async def are_reconciled() -> bool:
                    records = [await state.accounts.read_one(one) for one in others]
                    return all(one is not None and one.as_of_ns > killed_ns for one in records)

                await until(are_reconciled, "the broker was asked about each account of the others", HEAL_S)
                await cluster.start()

                async def is_whole() -> bool:
                    with contextlib.suppress(StateUnavailable):
                        return await state.accounts.ids() == everybody
                    return False

                await until(is_whole, "the part is written again", HEAL_S)
                await collectors.wait_exact(market, state, until, HEAL_S)
        assert [line["event"] for line in logged].count("lease acquired") == 1


async def test_what_a_replica_lacked_when_it_took_over_is_written_again(
    simulator: StartSimulator, until: Until
) -> None:
    """Another primary has an older record. No request has failed, nothing is missing, nothing changes."""
    market = await simulator(accounts=24, symbols=10, activities_per_second=0)
    async with without_replicas() as cluster, watching(cluster, until) as state:
        context = collectors.context_of(market, state, shards=SHARDS, symbol_collection_interval=LONG_S)
        async with collectors.running(context):
            await collectors.wait_exact(market, state, until, HEAL_S)
            account_id = (await state.accounts.ids())[0]
            name = keys.accounts(keys.shard_of(account_id, SHARDS))
            true = await state.accounts.read_one(account_id)
            assert true is not None
            old = msgspec.structs.replace(true, cash=true.cash - 1)
            await state.connection.commands.hset(name, account_id, msgspec.json.encode(old))
            source = await cluster.primary_of(name)
            target = next(node for node in await cluster.primaries() if node is not source)
            await cluster.move_slots([key_slot(name.encode())], target)
            await collectors.wait_exact(market, state, until, HEAL_S)


async def test_who_does_not_exist_is_known_where_nobody_has_a_record(
    simulator: StartSimulator, until: Until
) -> None:
    """Few accounts in many shards: once the broker's list is known, and again after a part has come back."""
    market = await simulator(accounts=2, symbols=3, activities_per_second=0)
    async with without_replicas() as cluster, watching(cluster, until) as state:
        assert await state.accounts.unknown(ACCOUNT_IDS) == {}
        async with collectors.running(collectors.context_of(market, state, shards=SHARDS)):

            async def are_unknown() -> bool:
                return await state.accounts.unknown(ACCOUNT_IDS) == dict.fromkeys(ACCOUNT_IDS)

            await until(are_unknown, "nobody has these accounts", HEAL_S)
            keeper = await cluster.primary_of(keys.lease("symbol_collector"))
            part = next(node for node in await cluster.primaries() if node.port != keeper.port)
            await part.flush()
            assert not await are_unknown(), "it has come back empty: what is not there proves nothing"
            await until(are_unknown, "it is told again", HEAL_S)


async def test_a_day_is_read_with_all_its_minutes_or_not_at_all(until: Until) -> None:
    """While the part of one minute is away, a line without it would look like a market without prices."""
    async with without_replicas() as cluster, watching(cluster, until) as state:
        lease = await state.leases.acquire("market_data:stocks")
        assert lease is not None
        times_ns = [number * 60 * NS_PER_S for number in range(30)]
        for at_ns in times_ns:
            mark = MinuteMark(100.0, at_ns)
            await state.minutes.write(lease, at_ns, US_EQUITY, {"AAPL": mark}, is_whole=True)
        assert len([one for one in await state.minutes.read(times_ns, ["AAPL"]) if one.marks]) == 30
        lost = await cluster.primary_of(keys.minute(times_ns[7]))
        slots = await cluster.slots_of(lost)
        others_ns = [one for one in times_ns if key_slot(keys.minute(one).encode()) not in slots]
        await lost.kill()
        with pytest.raises(StateUnavailable):
            await state.minutes.read(times_ns, ["AAPL"])
        found = await state.minutes.read(others_ns, ["AAPL"])
        assert 0 < len(found) < len(times_ns)
        assert all(one.marks for one in found)


async def test_prices_go_on_while_the_part_of_a_minute_is_away(
    simulator: StartSimulator, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each minute has a slot of its own. Nobody writes that minute later, and the next one is whole."""
    market = await simulator(accounts=1, symbols=3, trades_per_second=20, activities_per_second=0)
    write, calls, wholes = Minutes.write, 0, dict[int, bool]()

    async def write_or_fail(
        self: Minutes, lease: Any, at_ns: int, name: str, *rest: Any, is_whole: bool
    ) -> None:
        nonlocal calls
        calls += name == US_EQUITY
        if calls in AWAY:
            raise StateUnavailable("the part of this minute is away")
        await write(self, lease, at_ns, name, *rest, is_whole=is_whole)
        if name == US_EQUITY:
            wholes[calls] = is_whole

    monkeypatch.setattr(Minutes, "write", write_or_fail)
    async with without_replicas() as cluster:
        state = open_state(cluster.url, holder="test", shards=SHARDS, lease_ms=LEASE_MS)
        await state.connection.wait_ready(HEAL_S)
        await write_universe(state, {"AAPL": US_EQUITY})
        with capture_logs() as logged:
            async with running(context_of(market, state, history_interval=1)):
                await until(lambda: calls > AWAY[-1] + 1, "minutes are written again")
        await state.close()
    acquired = [line["lease"] for line in logged if line["event"] == "lease acquired"]
    assert sorted(acquired) == sorted(set(acquired)), "a feed was let go of and its prices stood still"
    assert wholes[AWAY[-1] + 1]
    assert not wholes.keys() & set(AWAY)

"""One symbol collector goes, another comes: what happens between them is shown at once."""

import asyncio
import contextlib
from decimal import Decimal

import pytest

from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.errors import BrokerUnavailable
from portfolio_realtime.state import State, feeds, keys, open_state
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.symbol_collector import collector, record_writer
from portfolio_realtime.symbol_collector.day_history import DayHistory
from portfolio_realtime.symbol_collector.model import Activity, Statement
from portfolio_realtime.symbol_collector.record_writer import RecordWriter
from portfolio_realtime.symbol_collector.sources.broker_client import BrokerClient
from portfolio_realtime.symbol_collector.sources.broker_follower import EventFollower
from portfolio_realtime.symbol_collector.sources.parse import ListedAccount, PayloadRefused
from tests.conftest import LEASE_MS, SHARDS, StartSimulator, Until
from tests.support.collectors import all_known, context_of, running, wait_exact


async def test_what_was_booked_between_two_owners_is_asked_for_first(
    simulator: StartSimulator,
    valkey_url: str,
    state: State,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A deploy, or a death: however many accounts there are and however few requests, it is shown at once."""
    broker = await simulator(accounts=20, activities_per_second=0)
    other = open_state(valkey_url, holder="other", shards=SHARDS, lease_ms=LEASE_MS)
    first, *_, last = sorted((await broker.get("/_sim/accounts"))["accounts"])
    async with running(context_of(broker, other)):
        await until(all_known(broker, state), "all accounts are known")
        await wait_exact(broker, state, until)
        await broker.post("/_sim/cash", {"account_id": first, "activity_type": "CSD", "amount": "1"})
        await until(state.accounts.read_cursor, "the place in the stream is written down")
    await broker.post("/_sim/cash", {"account_id": last, "activity_type": "CSD", "amount": "500.25"})
    asked: list[str] = []
    ask = BrokerClient.statement

    async def noted(self: BrokerClient, account_id: str, *, is_urgent: bool) -> Statement | None:
        asked.append(account_id)
        return await ask(self, account_id, is_urgent=is_urgent)

    monkeypatch.setattr(BrokerClient, "statement", noted)
    monkeypatch.setattr(collector, "FETCHES_MAX", 1)
    monkeypatch.setattr(collector, "URGENT_FETCHES", 0)

    async def is_shown() -> bool:
        record = await state.accounts.read_one(last)
        return record is not None and record.external_cash_flow == Decimal("500.25")

    async with running(context_of(broker, state)):
        await until(is_shown, "the deposit is shown")
        assert asked.index(last) <= 1, "after the one that tells when the day began"
        await wait_exact(broker, state, until)
    await other.close()


async def test_a_record_of_a_former_owner_that_cannot_be_confirmed_is_marked(
    simulator: StartSimulator,
    valkey_url: str,
    state: State,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broker's answer about one account cannot be read by whoever takes over; then it can again."""
    broker = await simulator(accounts=3, activities_per_second=0)
    other = open_state(valkey_url, holder="other", shards=SHARDS, lease_ms=LEASE_MS)
    odd = max((await broker.get("/_sim/accounts"))["accounts"])
    async with running(context_of(broker, other)):
        await until(all_known(broker, state), "all accounts are known")
        await wait_exact(broker, state, until)
    before = await state.accounts.read_one(odd)
    assert before is not None
    assert not before.is_unreadable
    await broker.post("/_sim/cash", {"account_id": odd, "activity_type": "CSD", "amount": "500.25"})
    ask, is_readable = BrokerClient.statement, False

    async def refused(self: BrokerClient, account_id: str, *, is_urgent: bool) -> Statement | None:
        if account_id == odd and not is_readable:
            raise PayloadRefused("cash is no number")
        return await ask(self, account_id, is_urgent=is_urgent)

    monkeypatch.setattr(BrokerClient, "statement", refused)
    monkeypatch.setattr(collector, "REFUSED_AGAIN_NS", NS_PER_S)

    async def is_marked() -> bool:
        record = await state.accounts.read_one(odd)
        return record is not None and record.is_unreadable

    async with running(context_of(broker, state)):
        await until(is_marked, "the record is marked")
        marked = await state.accounts.read_one(odd)
        assert marked is not None
        assert (marked.cash, marked.positions) == (before.cash, before.positions)
        assert marked.unconfirmed is not None
        assert marked.unconfirmed.reason == "statement refused"
        assert marked.version > before.version
        assert await state.accounts.read_pending([odd]) == {}
        is_readable = True
        await wait_exact(broker, state, until)
        after = await state.accounts.read_one(odd)
        assert after is not None
        assert not after.is_unreadable
        assert after.external_cash_flow == Decimal("500.25")
    await other.close()


class Watched:
    """What collectors of this process ask the broker for, and whether the active one is able to write."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.statements: list[str] = []
        self.streams = 0
        self.heard: list[str] = []  # accounts of live events, of all collectors
        self.newest_event = ""
        self.is_ready = asyncio.Event()  # whoever stands by
        self.has_list = True  # the broker answers with it
        self.hung_holder = ""  # whose writes hang …
        self.let_go = asyncio.Event()  # … until this
        ask, read, follow = BrokerClient.statement, BrokerClient.accounts, EventFollower.follow
        keep, take = DayHistory.keep, collector.Collector.take_activity
        write = RecordWriter._write_batch

        async def statement(client: BrokerClient, account_id: str, *, is_urgent: bool) -> Statement | None:
            self.statements.append(account_id)
            return await ask(client, account_id, is_urgent=is_urgent)

        async def accounts(client: BrokerClient) -> list[ListedAccount]:
            if not self.has_list:
                raise BrokerUnavailable("no list now")
            return await read(client)

        async def open_stream(follower: EventFollower) -> None:
            self.streams += 1
            await follow(follower)

        async def be_ready(history: DayHistory) -> None:
            await keep(history)
            self.is_ready.set()

        def take_activity(of: collector.Collector, activity: Activity, *, is_live: bool) -> None:
            take(of, activity, is_live=is_live)
            self.heard.append(activity.account_id)
            self.newest_event = activity.event_id

        async def write_batch(writer: RecordWriter, lease: Lease) -> None:
            if lease.holder == self.hung_holder:
                await self.let_go.wait()
            await write(writer, lease)

        monkeypatch.setattr(BrokerClient, "statement", statement)
        monkeypatch.setattr(BrokerClient, "accounts", accounts)
        monkeypatch.setattr(EventFollower, "follow", open_stream)
        monkeypatch.setattr(DayHistory, "keep", be_ready)
        monkeypatch.setattr(collector.Collector, "take_activity", take_activity)
        monkeypatch.setattr(RecordWriter, "_write_batch", write_batch)


async def test_a_standby_begins_with_what_it_has_followed(
    simulator: StartSimulator,
    valkey_url: str,
    state: State,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the list, the stream and the day anew; and first with what the former owner did not write."""
    broker = await simulator(accounts=20, activities_per_second=0)
    other = open_state(valkey_url, holder="other", shards=SHARDS, lease_ms=LEASE_MS)
    first, *_, last = sorted((await broker.get("/_sim/accounts"))["accounts"])
    watched = Watched(monkeypatch)
    monkeypatch.setattr(collector, "FETCHES_MAX", 1)
    monkeypatch.setattr(collector, "URGENT_FETCHES", 0)

    async def is_shown() -> bool:
        record = await state.accounts.read_one(last)
        return record is not None and record.external_cash_flow == Decimal("500.25")

    async def is_heard() -> bool:
        return bool(await state.feeds.live([feeds.ACCOUNTS]))

    active = contextlib.AsyncExitStack()
    await active.enter_async_context(running(context_of(broker, other, symbol_collection_interval=300)))
    await until(all_known(broker, state), "all accounts are known")
    await broker.post("/_sim/cash", {"account_id": first, "activity_type": "CSD", "amount": "1"})
    await until(state.accounts.read_cursor, "the place in the stream is written down")
    async with running(context_of(broker, state, symbol_collection_interval=300)):
        await until(watched.is_ready.is_set, "the other one is ready")
        watched.hung_holder = "other"
        await broker.post("/_sim/cash", {"account_id": last, "activity_type": "CSD", "amount": "500.25"})
        await until(lambda: watched.heard.count(last) == 2, "both have heard of the deposit")
        watched.has_list = False
        watched.statements.clear()
        await active.aclose()
        await state.feeds.drop(feeds.ACCOUNTS)
        await until(is_heard, "the broker is heard again, without the list")
        assert watched.statements[0] == last
        assert watched.streams == 2, "none was opened again"
        await until(is_shown, "the deposit is shown")
        watched.has_list = True
        await wait_exact(broker, state, until)
    await other.close()


async def test_a_planned_end_leaves_nothing_to_ask_for(
    simulator: StartSimulator, state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was heard and not written yet is written before the lease is given back, and the place, too."""
    broker = await simulator(accounts=3, activities_per_second=0)
    watched = Watched(monkeypatch)
    one = max((await broker.get("/_sim/accounts"))["accounts"])
    async with running(context_of(broker, state, symbol_collection_interval=300)):
        await until(all_known(broker, state), "all accounts are known")
        await wait_exact(broker, state, until)
        monkeypatch.setattr(record_writer, "WRITE_S", 3600)
        await broker.post("/_sim/cash", {"account_id": one, "activity_type": "CSD", "amount": "500.25"})
        await until(lambda: one in watched.heard, "the deposit is heard")
        before = await state.accounts.read_one(one)
        assert before is not None
        assert before.unconfirmed is None
    after = await state.accounts.read_one(one)
    assert after is not None
    assert after.unconfirmed is not None, "a booking so soon after the first statement is undecided"
    assert await state.accounts.read_cursor() == watched.newest_event


async def test_who_has_lost_the_lease_gets_ready_again(
    simulator: StartSimulator,
    valkey_url: str,
    state: State,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A collector that was paused comes back: its records are old, so it forgets them, and follows anew."""
    broker = await simulator(accounts=3, activities_per_second=0)
    other = open_state(valkey_url, holder="other", shards=SHARDS, lease_ms=LEASE_MS)
    watched = Watched(monkeypatch)
    async with running(context_of(broker, state)):
        await until(all_known(broker, state), "all accounts are known")
        assert not watched.is_ready.is_set()
        await other.connection.commands.delete(keys.lease(collector.NAME))
        lease = await other.leases.acquire(collector.NAME)
        assert lease is not None

        async def is_ready() -> bool:
            assert await other.leases.renew(lease)
            return watched.is_ready.is_set()

        await until(is_ready, "it is ready to take over")
        assert watched.streams == 2, "a new one, for its new records"
        await other.leases.release(lease)
        await wait_exact(broker, state, until)
    await other.close()


async def test_records_that_hang_on_their_way_end_the_word_that_the_broker_is_heard(
    simulator: StartSimulator, state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The small key would pass where the batch does not; once it is written, the key comes back."""
    monkeypatch.setattr(record_writer, "SLOW_S", 0.3)
    broker = await simulator(accounts=3, activities_per_second=0)
    watched = Watched(monkeypatch)

    async def is_heard() -> bool:
        return bool(await state.feeds.live([feeds.ACCOUNTS]))

    async def is_not_heard() -> bool:
        return not await is_heard()

    async with running(context_of(broker, state, symbol_collection_interval=300)):
        await until(all_known(broker, state), "all accounts are known")
        await until(is_heard, "the broker is heard")
        watched.hung_holder = state.leases.holder
        first, *_ = (await broker.get("/_sim/accounts"))["accounts"]
        await broker.post("/_sim/cash", {"account_id": first, "activity_type": "CSD", "amount": "1"})
        await until(is_not_heard, "its word is over")
        watched.let_go.set()
        await until(is_heard, "the broker is heard again")
        await wait_exact(broker, state, until)

"""One symbol collector goes, another comes: what happens between them is shown at once."""

from decimal import Decimal

import pytest

from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.state import State, open_state
from portfolio_realtime.symbol_collector import collector
from portfolio_realtime.symbol_collector.model import Statement
from portfolio_realtime.symbol_collector.sources.broker_client import BrokerClient
from portfolio_realtime.symbol_collector.sources.parse import PayloadRefused
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

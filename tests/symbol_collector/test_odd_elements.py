"""One odd element, anywhere in a list that the product reads, costs only itself."""

import json
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from portfolio_realtime import config
from portfolio_realtime.clock import SystemClock
from portfolio_realtime.model import Account
from portfolio_realtime.service import Context
from portfolio_realtime.state import keys
from portfolio_realtime.state.connection import Connection
from portfolio_realtime.symbol_collector import collector
from portfolio_realtime.symbol_collector.records.account_records import AccountRecords
from portfolio_realtime.symbol_collector.sources import parse
from portfolio_realtime.symbol_collector.sources.parse import CurrencyRefused, PayloadRefused
from tests.support.broker_payloads import ACCOUNT, POSITION
from tests.symbol_collector.bookings import at_s, booking, statement

ODD: list[Any] = [None, 7, "text", [], {}, {"id": None}, {"id": ""}, {"id": 5}, {"id": {}, "status": None}]
junk = st.one_of(
    st.sampled_from(ODD), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists)
)


def listed(count: int) -> list[Any]:
    """A list of accounts as the broker sends it."""
    return [{"id": f"account-{number}", "status": "ACTIVE", "created_at": None} for number in range(count)]


@given(st.integers(1, 6), st.data())
def test_every_other_account_of_a_list_is_read(count: int, data: st.DataObject) -> None:
    """Wherever the odd one stands, and without the time of creation, which only paging needs."""
    payload = listed(count)
    payload.insert(data.draw(st.integers(0, count)), data.draw(junk))

    found, refused = parse.listed_accounts(parse.decode(json.dumps(payload)))

    assert [one.account_id for one in found] == [f"account-{number}" for number in range(count)]
    assert len(refused) == 1
    assert "of the list" in refused[0]


@pytest.mark.parametrize(
    "changes",
    [{"cash": None}, {"last_equity": None}, {"balance_asof": None}, {"currency": "EUR"}, {"cash": "NaN"}],
)
def test_an_account_that_cannot_be_valued_is_refused_by_itself(changes: dict[str, Any]) -> None:
    """An account that is still being opened lacks its cash: not yet. One in euros is never valued here."""
    with pytest.raises(PayloadRefused) as refused:
        parse.statement("alice", {**ACCOUNT, **changes}, [POSITION])
    assert isinstance(refused.value, CurrencyRefused) == ("currency" in changes)


@given(junk)
def test_an_event_that_cannot_be_read_still_tells_whose_it_is(odd: Any) -> None:
    """It may hold money of the client's: that account is to be asked for at once."""
    event = parse.decode(json.dumps({"account_id": "alice", "event_id": "1", "net_amount": odd}))
    with pytest.raises(PayloadRefused):
        parse.activity(event)
    assert parse.account_id_of(event) == "alice"
    assert parse.account_id_of(odd) is None


def known() -> AccountRecords:
    """Two accounts with a record."""
    records = AccountRecords()
    records.list_accounts(["alice", "bob"])
    for account_id in ("alice", "bob"):
        seen = statement(1000)
        state = msgspec.structs.replace(seen.state, account_id=account_id)
        records.observe(msgspec.structs.replace(seen, state=state), at_s(-100), at_s(-99))
    return records


def test_a_refused_event_leaves_its_account_unconfirmed_until_a_statement() -> None:
    """And nobody else."""
    records = known()
    records.refuse_activity("alice", at_s(0))

    alice, bob = records.account("alice"), records.account("bob")
    assert alice is not None
    assert bob is not None
    assert alice.unconfirmed is not None
    assert (alice.unconfirmed.since_ns, alice.unconfirmed.reason) == (at_s(0), "event refused")
    assert bob.unconfirmed is None
    assert records.look_again_ns("alice") is not None

    records.observe(statement(1000), at_s(10), at_s(10.1))
    confirmed = records.account("alice")
    assert confirmed is not None
    assert confirmed.unconfirmed is None


def test_a_refused_statement_leaves_an_old_record_and_says_so() -> None:
    """Until one can be read again; the time of the record is the last readable answer's."""
    records = known()
    records.refuse_statement("alice", at_s(50))

    refused = records.account("alice")
    assert refused is not None
    assert (refused.is_unreadable, refused.as_of_ns) == (True, at_s(-99))

    records.observe(statement(1000), at_s(60), at_s(60.1))
    again = records.account("alice")
    assert again is not None
    assert (again.is_unreadable, again.as_of_ns, again.unconfirmed) == (False, at_s(60.1), None)


def test_without_the_days_history_no_day_pnl_is_known() -> None:
    """Money may have come that nobody has told of; equity is served all the same."""
    records = known()
    records.know_history(False)
    unknown = records.account("alice")
    assert unknown is not None
    assert unknown.unvalued == ("cash",)
    records.know_history(True)
    assert all(not one.unvalued for one in _accounts(records))


def _accounts(records: AccountRecords) -> list[Account]:
    return [one for name in ("alice", "bob") if (one := records.account(name)) is not None]


async def test_a_stored_record_that_cannot_be_read_is_left_out(state: Any) -> None:
    """All others are, by every way of reading."""
    lease = await state.leases.acquire("symbol_collector")
    records = known()
    _, accounts, _ = records.take_changes(10)
    await state.accounts.write(lease, accounts)
    connection: Connection = state.connection
    for shard in range(16):
        key = keys.accounts(shard)
        if await connection.commands.hexists(key, "alice"):
            await connection.commands.hset(key, "alice", b'{"account_id": 5}')

    found = [one for shard in range(16) for one in await state.accounts.read_all(shard)]
    assert [one.account_id for one in found] == ["bob"]
    assert await state.accounts.read_one("alice") is None
    assert await state.accounts.read_with_bookings("alice") is None


@pytest.mark.parametrize("happens", ["nothing", "leaves", "is read"])
async def test_an_account_may_change_while_its_former_record_is_read(happens: str) -> None:
    """Its statement was refused. Who has left the list is not inherited, nor what has been read since."""
    stored = known().account("alice")
    assert stored is not None

    class Stored:
        """Records of a former owner; reading one takes a while."""

        def shard_of(self, _: str) -> int:
            return 0

        async def read_one(self, _: str) -> Account | None:
            if happens == "leaves":
                records.list_accounts(["bob"])
                records.list_accounts(["bob"])
            elif happens == "is read":
                records.observe(statement(70), at_s(1), at_s(2))
            return stored

    state: Any = Mock(accounts=Stored())
    context = Context(config.load(), state, SystemClock(), CollectorRegistry(), "test")
    client: Any = SimpleNamespace(interval_s_max=300.0, follower=Mock())
    found = collector.Collector(context, client, collector.CollectorMetrics(context.registry))
    records = found._records
    records.list_accounts(["alice", "bob"])

    await found._refuse("alice", "odd")

    account = records.account("alice")
    if happens == "leaves":
        assert account is None
        assert not found._pending.has_changes
    else:
        assert account is not None
        assert account.is_unreadable
        assert account.cash == (70 if happens == "is read" else stored.cash)


def test_a_booking_of_an_unlisted_account_is_no_matter_of_the_others() -> None:
    """Firm and sweep accounts are on the stream too."""
    records = known()
    assert records.apply_activity(booking("CSD", 1, account_id="firm"), at_s(0))
    assert all(one.unconfirmed is None for one in _accounts(records))

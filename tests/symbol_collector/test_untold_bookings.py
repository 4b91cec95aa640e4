"""Money of the client's that REST lists and no event has told: it is no gain, and it counts once."""

from decimal import Decimal
from typing import Any

from portfolio_realtime.model import Account
from portfolio_realtime.symbol_collector.model import Activity
from portfolio_realtime.symbol_collector.records.account_records import AccountRecords
from tests.symbol_collector.bookings import at_s, booking, statement

HOUR_S = -3600.0


def row_of(event: Activity, **changes: Any) -> Activity:
    """The row of the same booking, under an id of its own."""
    return booking(event.activity_type, event.net_amount, at=HOUR_S, symbol=event.symbol, **changes)


def records_of(events: list[Activity], rows: list[Activity]) -> AccountRecords:
    """Events, then the comparison, then the first statement: 5,000 more than at the last close, and 10 KO."""
    records = AccountRecords()
    records.list_accounts(["alice"])
    for event in events:
        records.apply_activity(event, at_s(-20))
    for row in records.untold("alice", rows, at_s(-10)):
        assert records.apply_activity(row, at_s(-10))
    seen = statement(15_000, {"KO": 10}, last_equity=10_300)
    records.observe(seen, at_s(0), at_s(0.1))
    return records


def shown(records: AccountRecords) -> Account:
    """The record."""
    account = records.account("alice")
    assert account is not None
    return account


def test_a_deposit_that_only_the_list_tells_is_no_gain() -> None:
    """The cash of the last close is not stated: nothing else would tell it."""
    deposit = booking("CSD", 5000, at=HOUR_S)
    assert shown(records_of([], [])).external_cash_flow == 0
    account = shown(records_of([], [deposit]))
    assert (account.external_cash_flow, account.cash) == (Decimal(5000), Decimal(15_000))
    assert account.is_day_pnl_known


def test_what_both_tell_counts_once() -> None:
    """Whether the ids are the same or not; two alike deposits are two."""
    deposit = booking("CSD", 5000, at=HOUR_S)
    assert shown(records_of([deposit], [deposit])).external_cash_flow == Decimal(5000)
    assert shown(records_of([deposit], [row_of(deposit)])).external_cash_flow == Decimal(5000)
    both = records_of([deposit], [row_of(deposit), row_of(deposit)])
    assert shown(both).external_cash_flow == Decimal(10_000)


def test_an_event_that_comes_after_all_is_the_same_booking() -> None:
    """By its own id or by what it moves; a new deposit of the same amount is another one."""
    row = booking("CSD", 5000, at=HOUR_S)
    for late in (row, row_of(row)):
        records = records_of([], [row])
        assert not records.apply_activity(late, at_s(30))
        assert not records.apply_activity(late, at_s(31))
        assert shown(records).external_cash_flow == Decimal(5000)
        assert shown(records).cash == Decimal(15_000)
    records = records_of([], [row])
    assert records.apply_activity(booking("CSD", 5000, at=60.0), at_s(60))
    assert (shown(records).external_cash_flow, shown(records).cash) == (Decimal(10_000), Decimal(20_000))


def test_shares_and_canceled_rows() -> None:
    """What came in kind counts at its price; a canceled row tells nothing."""
    shares = booking("JNLS", 0, at=HOUR_S, symbol="KO", quantity=Decimal(10), price=Decimal(40))
    assert shown(records_of([], [shares])).external_cash_flow == Decimal(400)
    canceled = booking("CSD", 5000, at=HOUR_S, is_void=True)
    assert shown(records_of([], [canceled])).external_cash_flow == 0


def test_a_row_that_the_cash_contradicts_makes_the_day_unknown() -> None:
    """Where the cash of the last close is stated, it decides: one of the broker's ways is wrong."""
    records = AccountRecords()
    records.list_accounts(["alice"])
    for row in records.untold("alice", [booking("CSD", 5000, at=HOUR_S)], at_s(-10)):
        records.apply_activity(row, at_s(-10))
    records.observe(statement(1000, last_equity=1000, last_cash=1000), at_s(0), at_s(0.1))
    account = shown(records)
    assert (account.unexplained, account.is_day_pnl_known) == ({"cash": Decimal(-5000)}, False)

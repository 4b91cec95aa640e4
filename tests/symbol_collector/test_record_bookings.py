"""The bookings that are told with a record lead back from it, and say since when they do."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from portfolio_realtime.symbol_collector.model import Activity, Statement
from portfolio_realtime.symbol_collector.records import record_state as limits
from portfolio_realtime.symbol_collector.records.account_record import AccountRecord, Outcome
from portfolio_realtime.symbol_collector.records.account_records import AccountRecords
from portfolio_realtime.symbol_collector.records.cash_flows import cut_off_ns
from tests.support.account_records import known, leg, look
from tests.symbol_collector.bookings import DAY, at_s, booking, statement, trade

ZERO = Decimal(0)


def told(record: AccountRecord) -> list[tuple[int, Decimal, Decimal, str, Decimal]]:
    """When, cash, external cash flow, symbol, quantity."""
    return [
        (one.at_ns, one.cash, one.external_cash_flow, one.symbol, one.quantity)
        for one in record.bookings(1).bookings
    ]


def test_every_booking_of_the_day_is_told_in_order_of_its_execution() -> None:
    """Trades and flows, whatever the order in which they came; not what is in last_equity."""
    record = known()
    record.apply_activity(booking("CSD", 500, at=2), at_s(2))
    record.apply_activity(trade("AAPL", 2, 10, at=3, executed_ns=at_s(1)), at_s(3))
    record.apply_activity(booking("CSD", 9, at=4, executed_ns=cut_off_ns(DAY)), at_s(4))

    assert told(record) == [
        (at_s(1), Decimal(-20), ZERO, "AAPL", Decimal(2)),
        (at_s(2), Decimal(500), Decimal(500), "", ZERO),
    ]
    bookings = record.bookings(7)
    assert (bookings.version, bookings.day_began_ns, bookings.known_since_ns) == (
        7,
        cut_off_ns(DAY),
        cut_off_ns(DAY),
    )


def test_a_correction_takes_the_corrected_booking_back() -> None:
    """Both are told, so that their sum is what is in the record."""
    record = known()
    first = trade("AAPL", 2, 10, at=0)
    record.apply_activity(first, at_s(0))
    record.apply_activity(trade("AAPL", 3, 10, at=1, previous_id=first.ref_id), at_s(1))

    assert sum(one[1] for one in told(record)) == Decimal(-30)
    assert sum(one[4] for one in told(record)) == Decimal(3)


def test_an_undecided_booking_is_not_told_before_the_record_has_it() -> None:
    """It is around the statement: nobody knows whether the balances contain it."""
    record = known()
    record.apply_activity(booking("CSD", 500, at=-99), at_s(-90))
    assert told(record) == []

    assert record.bookings(1).known_since_ns == at_s(-99), "before it, nobody knows what was held"

    assert look(record, statement(1000), -80) is Outcome.CONFIRMED
    assert [one[1] for one in told(record)] == [Decimal(500)]
    assert record.bookings(1).known_since_ns == cut_off_ns(DAY)


def test_a_leg_that_waits_for_the_other_leaves_what_was_before_certain() -> None:
    """The balances do not contain it, and that is known."""
    record = known(quantities={"AAPL": "4"})
    record.apply_activity(leg(-4, at=1), at_s(1))

    assert told(record) == []
    assert record.bookings(1).known_since_ns == cut_off_ns(DAY)
    record.apply_activity(leg(12, at=2), at_s(2))
    assert [one[4] for one in told(record)] == [Decimal(-4), Decimal(12)]


def test_bookings_that_are_no_longer_uncertain_are_written() -> None:
    """The record is the same as before; what leads back from it is not."""
    records = AccountRecords()
    records.list_accounts(["alice"])
    records.observe(statement(1000), at_s(-100), at_s(-99))
    (account,) = records.take_changes(10)[1]
    records.apply_activity(booking("CSD", 500, at=-99), at_s(-90))
    (same,) = records.take_changes(10)[1]
    assert (same.cash, same.version > account.version) == (account.cash, True)
    (bookings,) = records.bookings([same])
    assert (bookings.bookings, bookings.known_since_ns) == ((), at_s(-99))

    records.observe(statement(1000), at_s(-80), at_s(-79.9))
    (decided,) = records.take_changes(10)[1]
    (bookings,) = records.bookings([decided])
    assert [one.cash for one in bookings.bookings] == [Decimal(500)]


def test_before_a_drift_the_bookings_explain_nothing() -> None:
    """We had missed something, and nobody knows when it was."""
    record = known()
    assert look(record, statement(1001), 0) is Outcome.DIFFERENT
    assert look(record, statement(1001), 10) is Outcome.DRIFT

    assert record.bookings(1).known_since_ns == at_s(10.1)


def test_only_the_newest_bookings_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an account that trades all day; before them nothing is known."""
    monkeypatch.setattr(limits, "BOOKINGS_TOLD_MAX", 2)
    record = known()
    for second in range(3):
        record.apply_activity(booking("CSD", 1, at=second), at_s(second))

    assert [one[0] for one in told(record)] == [at_s(1), at_s(2)]
    assert record.bookings(1).known_since_ns == at_s(0)


CONTRACT, ADJUSTED = "AAPL261218C00100000", "AAPL1261218C00100000"


def adjusted(at: float) -> list[Activity]:
    """The legs of an adjusted contract, whose amounts leave 7 dollars."""
    return [
        booking("OPCA", amount, at=at, symbol=symbol, quantity=Decimal(quantity), group_id="group")
        for symbol, quantity, amount in ((CONTRACT, -2, 107), (ADJUSTED, 2, -100))
    ]


def after(cash: int, **changes: Any) -> Statement:
    """What REST says after the legs; its figures show how many shares the adjusted contract has."""
    seen = statement(cash, {ADJUSTED: 2}, **changes)
    sized = msgspec.structs.replace(seen.holdings[ADJUSTED], stated_multiplier=Decimal(100))
    return msgspec.structs.replace(seen, holdings={ADJUSTED: sized})


@pytest.mark.parametrize("cash", [1000, 1007])
def test_a_statement_decides_whether_the_amounts_of_an_adjusted_contract_are_cash(cash: int) -> None:
    """Marked until one that must contain the legs; then nothing is unexplained, whatever it says."""
    record = known("1000", {CONTRACT: "2"})
    for one in adjusted(20):
        record.apply_activity(one, at_s(20))
    assert record.account(1, 0).unconfirmed is not None

    for second in (21, 25):
        look(record, after(cash), second)

    account = record.account(1, 0)
    held = {one.symbol: one.quantity for one in account.positions if one.quantity}
    assert (account.cash, held) == (cash, {ADJUSTED: 2})
    assert (account.unconfirmed, account.unexplained, record.look_again_ns) == (None, {}, None)
    assert sum(one.cash for one in record.bookings(1).bookings) == cash - 1000


@pytest.mark.parametrize("cash", [1000, 1007])
def test_the_first_statement_decides_it_for_what_was_told_before(cash: int) -> None:
    """The cash of the last close is stated, and no other booking came."""
    record = AccountRecord("alice")
    for one in adjusted(-20):
        record.apply_activity(one, at_s(-20))

    look(record, after(cash, last_cash=1000), 0)

    account = record.account(1, 0)
    assert (account.cash, account.unexplained, account.unconfirmed) == (cash, {}, None)


def renamed(at: float) -> list[Activity]:
    """Two legs that name old and new: in a short position each moves the other symbol than its sign says."""
    return [
        booking("NC", at=at, symbol=one, opposite=other, quantity=Decimal(quantity), group_id="renamed")
        for one, other, quantity in (("OLD", "NEW", -10), ("NEW", "OLD", 10))
    ]


@pytest.mark.parametrize("held", [-10, 10])
@pytest.mark.parametrize("is_told_first", [True, False])
def test_a_new_name_of_a_position_that_a_statement_has_already_moves_what_was_held(
    held: int, is_told_first: bool
) -> None:
    """Told before the first statement, or after one that was ahead of the events."""
    record = AccountRecord("alice")
    if not is_told_first:
        look(record, statement(1000, {"OLD": held}), 0)
        for second in (10, 14):
            look(record, statement(1000, {"NEW": held}), second)
    for one in renamed(at=-20 if is_told_first else 9):
        record.apply_activity(one, at_s(15))
    for second in (20, 24):
        look(record, statement(1000, {"NEW": held}), second)

    account = record.account(1, 0)
    assert {one.symbol: one.day_quantity for one in account.positions} == {"NEW": held, "OLD": -held}
    assert (account.unconfirmed, account.unexplained) == (None, {})
    assert {one.symbol: one.quantity for one in record.bookings(1).bookings} == {"NEW": held, "OLD": -held}


@pytest.mark.parametrize("held", [-10, 10])
def test_a_new_name_told_while_the_first_statement_was_asked_for_moves_what_it_says(held: int) -> None:
    """The statement has the old name yet."""
    record = AccountRecord("alice")
    for one in renamed(at=6):
        record.apply_activity(one, at_s(6))
    record.observe(statement(1000, {"OLD": held}), at_s(0), at_s(4))

    assert {one.symbol: one.quantity for one in record.account(1, 0).positions if one.quantity} == {
        "NEW": held
    }

"""Bookings that are taken back, under their own id or by others that name them."""

from decimal import Decimal

import pytest

from tests.support.account_records import known
from tests.symbol_collector.bookings import at_s, booking, statement


@pytest.mark.parametrize("status", ["deleted", "rejected", "refused", "returned", "pending"])
def test_a_booking_that_is_no_longer_executed_is_taken_back_by_a_statement(status: str) -> None:
    """Nobody documents that it is undone at once. Until a statement shows it, the account is marked."""
    record = known()
    deposit = booking("CSD", 500)
    record.apply_activity(deposit, at_s(0))
    record.observe(statement(1500), at_s(10), at_s(10.1))
    assert record.account(1, 0).unconfirmed is None

    again = booking("CSD", 500, at=20, ref_id=deposit.ref_id, status=status)
    assert record.apply_activity(again, at_s(20))
    assert not record.apply_activity(again, at_s(20))
    told = record.account(2, 0)
    assert (told.cash, told.external_cash_flow, record.look_again_ns is not None) == (1500, 500, True)
    assert told.unconfirmed is not None
    assert (told.unconfirmed.reason, told.unconfirmed.by) == ("booking undecided", {"cash": Decimal(-500)})

    record.observe(statement(1000), at_s(30), at_s(30.1))
    back = record.account(3, 0)
    assert (back.cash, back.external_cash_flow, back.unexplained) == (1000, 0, {})
    assert back.unconfirmed is None


def test_a_booking_that_a_statement_still_has_is_not_taken_back() -> None:
    """What a status meant is what the statement shows; the flow stays, also when the day is summed again."""
    record = known()
    deposit = booking("CSD", 500)
    record.apply_activity(deposit, at_s(0))
    record.apply_activity(booking("CSD", 500, at=20, ref_id=deposit.ref_id, status="deleted"), at_s(20))
    correction = booking("CSD", 400, at=21, previous_id=deposit.ref_id, status="pending")
    record.apply_activity(correction, at_s(21))

    record.observe(statement(1500), at_s(30), at_s(30.1))
    record._sum_up_day()
    kept = record.account(1, 0)
    assert (kept.cash, kept.external_cash_flow, kept.unconfirmed) == (1500, 500, None)

    record.apply_activity(booking("CSD", 500, at=40, ref_id=deposit.ref_id, status="canceled"), at_s(40))
    gone = record.account(2, 0)
    assert (gone.cash, gone.external_cash_flow) == (1000, 0)


def test_a_booking_that_is_executed_again_with_another_status_needs_a_statement() -> None:
    """Of what `correct` means under its own id nothing is documented."""
    record = known()
    deposit = booking("CSD", 500)
    record.apply_activity(deposit, at_s(0))

    assert record.apply_activity(booking("CSD", 400, ref_id=deposit.ref_id, status="correct"), at_s(20))
    told = record.account(2, 0)
    assert (told.cash, record.look_again_ns is not None) == (1500, True)
    assert told.unconfirmed is not None
    assert told.unconfirmed.reason == "event refused"


def test_several_corrections_of_one_booking_follow_each_other() -> None:
    """Each takes back the one before it, so that none is taken back twice; a statement confirms it."""
    record = known()
    first = booking("CSD", 100)
    second = booking("CSD", 50, at=10, previous_id=first.ref_id, status="correct")
    third = booking("CSD", 50, at=20, previous_id=first.ref_id, status="canceled", is_void=True)
    fourth = booking("CSD", 30, at=30, previous_id=first.ref_id, status="correct")
    seen: list[tuple[Decimal, Decimal]] = []
    for number, one in enumerate([first, second, third, fourth]):
        record.apply_activity(one, at_s(10 * number))
        told = record.account(number, 0)
        seen.append((told.cash, told.external_cash_flow))
        assert (told.unconfirmed is not None) == (number >= 2)
    assert seen == [(1100, 100), (1050, 50), (1000, 0), (1030, 30)]

    record._sum_up_day()
    assert record.account(9, 0).external_cash_flow == 30
    record.observe(statement(1030), at_s(40), at_s(40.1))
    assert record.account(10, 0).unconfirmed is None


def test_a_pending_booking_that_is_rejected_is_not_counted_twice_in_the_mark() -> None:
    """Only its newest state is undecided."""
    record = known()
    withdrawal = booking("CSW", -700, at=10, status="pending")
    record.apply_activity(withdrawal, at_s(10))
    rejected = booking("CSW", -700, at=11, ref_id=withdrawal.ref_id, status="rejected")
    record.apply_activity(rejected, at_s(11))

    told = record.account(1, 0).unconfirmed
    assert told is not None
    assert told.by == {"cash": Decimal(-700)}
    record.observe(statement(1000), at_s(20), at_s(20.1))
    after = record.account(2, 0)
    assert (after.cash, after.external_cash_flow, after.unconfirmed) == (1000, 0, None)


@pytest.mark.parametrize("amount", ["500", "499.98", "0"])
def test_a_trade_corrected_by_the_opposite_quantity_is_reversed(amount: str) -> None:
    """It is not a sale in place of the purchase; until a statement shows it, the purchase counts, marked."""
    record = known()
    bought = booking("TRD", -500, at=0, symbol="AAPL", quantity=Decimal(5), price=Decimal(100))
    back = booking(
        "TRD",
        amount,
        at=10,
        symbol="AAPL",
        quantity=Decimal(-5),
        price=Decimal(100),
        previous_id=bought.ref_id,
    )
    record.apply_activity(bought, at_s(0))
    record.apply_activity(back, at_s(10))
    told = record.account(1, 0)
    assert (told.cash, [one.quantity for one in told.positions]) == (500, [5])
    assert told.unconfirmed is not None

    record.observe(statement(1000), at_s(20), at_s(20.1))
    after = record.account(2, 0)
    assert (after.cash, after.positions, after.unexplained, after.unconfirmed) == (1000, (), {}, None)


def test_a_correction_to_another_quantity_is_no_reversal() -> None:
    """It takes the place of what it corrects at once."""
    record = known()
    bought = booking("TRD", -500, at=0, symbol="AAPL", quantity=Decimal(5), price=Decimal(100))
    less = booking(
        "TRD", -400, at=10, symbol="AAPL", quantity=Decimal(4), price=Decimal(100), previous_id=bought.ref_id
    )
    record.apply_activity(bought, at_s(0))
    record.apply_activity(less, at_s(10))
    told = record.account(1, 0)
    assert (told.cash, [one.quantity for one in told.positions], told.unconfirmed) == (600, [4], None)

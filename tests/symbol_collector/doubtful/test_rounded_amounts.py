"""Amounts of fills are stated in whole cents; the broker's cash may have every digit."""

from decimal import Decimal

import pytest

from portfolio_realtime.symbol_collector.records.account_record import AccountRecord
from tests.support.account_records import known
from tests.symbol_collector.bookings import at_s, booking, statement

FILLS = 20


def fill(number: int, price: str) -> tuple[Decimal, AccountRecord]:
    """What so many fills of 0.04 shares cost exactly, and a record that has heard of them."""
    record = known()
    exact = Decimal(0)
    for second in range(number):
        value = Decimal("0.04") * Decimal(price)
        exact += value
        record.apply_activity(
            booking(
                "TRD",
                -round(value, 2),
                at=second,
                symbol="MSFT",
                quantity=Decimal("0.04"),
                price=Decimal(price),
            ),
            at_s(second),
        )
    return exact, record


@pytest.mark.parametrize("price", ["480.13", "480.338", "480.25"])
@pytest.mark.parametrize("fee", ["0", "0.02"])
def test_what_the_amounts_are_rounded_by_is_no_unexplained_change(price: str, fee: str) -> None:
    """In whichever direction, and beside a fee that is not booked yet; day P&L stays known."""
    exact, record = fill(FILLS, price)
    cash, held = 1000 - exact - Decimal(fee), {"MSFT": "0.80"}

    for second in (40, 50):
        record.observe(statement(cash, held), at_s(second), at_s(second + 0.1))

    account = record.account(1, 0)
    assert (account.cash, account.unexplained, account.unconfirmed) == (cash, {}, None)


def test_a_broker_that_rounds_its_cash_is_confirmed_at_once() -> None:
    """Nothing is missing, and nothing is made up."""
    _, record = fill(FILLS, "480.13")
    record.observe(statement(1000 - FILLS * Decimal("19.21"), {"MSFT": "0.80"}), at_s(40), at_s(40.1))
    account = record.account(1, 0)
    assert (account.unexplained, account.unconfirmed) == ({}, None)


def test_a_cent_that_no_rounding_accounts_for_is_unexplained() -> None:
    """More than the amounts were rounded by."""
    exact, record = fill(FILLS, "480.13")
    for second in (40, 50):
        record.observe(
            statement(1000 - exact + Decimal("0.05"), {"MSFT": "0.80"}), at_s(second), at_s(second + 0.1)
        )
    assert record.account(1, 0).unexplained == {"cash": Decimal("0.0500")}


def test_the_first_statement_of_a_day_with_many_fills_is_no_gain_either() -> None:
    """A restart in the middle of a day compares the cash with that of the last close and all bookings."""
    exact, told = fill(FILLS, "480.13")
    record = AccountRecord("alice")
    for one in told._booked:
        record.apply_activity(one, at_s(30))
    record.observe(statement(1000 - exact, {"MSFT": "0.80"}, last_cash=1000), at_s(60), at_s(60.1))
    account = record.account(1, 0)
    assert (account.unexplained, account.unconfirmed) == ({}, None)

"""A last equity of a close that is still to come."""

from decimal import Decimal

from portfolio_realtime.symbol_collector.records.account_record import AccountRecord
from tests.support.account_records import look
from tests.symbol_collector.bookings import at_s, booking, statement

CLOSE_S = 6 * 3600  # the tests begin at 10:00 New York


def test_day_pnl_is_unknown_until_the_close_that_last_equity_is_of() -> None:
    """A new account may say `balance_asof` today: what is deposited before 16:00 would look like a gain."""
    record = AccountRecord("alice")
    look(record, statement(1000, balance_asof="2026-11-20"), 0)
    assert record.account(1, 0).unvalued == ("cash",)
    record.apply_activity(booking("CSD", 500, at=10), at_s(10))
    look(record, statement(1500, balance_asof="2026-11-20"), 20)
    assert record.account(2, 0).unvalued == ("cash",)

    look(record, statement(1500, balance_asof="2026-11-20", last_equity=1500), CLOSE_S + 60)
    after = record.account(3, 0)
    assert (after.cash, after.last_equity, after.unvalued) == (1500, Decimal(1500), ())

"""Account records that tests put together and look at."""

from decimal import Decimal

from portfolio_realtime.model import Account
from portfolio_realtime.symbol_collector.model import Activity, Statement
from portfolio_realtime.symbol_collector.records.account_record import AccountRecord, Outcome
from tests.symbol_collector.bookings import at_s, booking, statement


def known(cash: str = "1000", quantities: dict[str, str] | None = None) -> AccountRecord:
    """A record whose first statement was taken 100 s before the tests' beginning."""
    record = AccountRecord("alice")
    record.observe(statement(cash, quantities), at_s(-100), at_s(-99))
    return record


def shown(record: AccountRecord) -> Account:
    """The record as others read it."""
    return record.account(1, at_s(0))


def look(record: AccountRecord, seen: Statement, at: float) -> Outcome:
    """A fetch that takes a tenth of a second."""
    return record.observe(seen, at_s(at), at_s(at + 0.1))


def quantities(record: AccountRecord) -> dict[str, Decimal]:
    """What is held."""
    return {position.symbol: position.quantity for position in shown(record).positions if position.quantity}


def leg(quantity: int, *, at: float) -> Activity:
    """One leg of a split of AAPL."""
    return booking("SPLIT", at=at, symbol="AAPL", quantity=Decimal(quantity), group_id="split-1")

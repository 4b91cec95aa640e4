"""Rows behind a full page of known ones: booked for an older date, or canceled. They are read when needed."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from portfolio_realtime import config
from portfolio_realtime.clock import NS_PER_S, rfc3339
from portfolio_realtime.model import Account
from portfolio_realtime.symbol_collector.day_history import DayHistory
from portfolio_realtime.symbol_collector.model import Activity, Statement
from portfolio_realtime.symbol_collector.records import cash_flows
from portfolio_realtime.symbol_collector.records.account_record import Outcome
from portfolio_realtime.symbol_collector.records.account_records import AccountRecords
from portfolio_realtime.symbol_collector.sources import trading_rows
from portfolio_realtime.symbol_collector.sources.trading_follower import WHOLE_AGAIN_S, TradingFollower
from tests.support.activity_rows import DEPOSIT, NOW_NS, Activities
from tests.symbol_collector.bookings import statement

AMOUNT = Decimal(DEPOSIT["net_amount"])
COUNT = 150
CASH = 1000 + COUNT * AMOUNT


class Moving:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def now_ns(self) -> int:
        """The time of the day."""
        return NOW_NS + int(self.now_s * NS_PER_S)

    def monotonic_s(self) -> float:
        """The same since the test's beginning."""
        return self.now_s


class Desk:
    """The records of one key's account with 150 deposits of the day, and its statements."""

    def __init__(self) -> None:
        self.clock = Moving()
        self.records = AccountRecords()
        self.records.list_accounts(["alice"])
        rows = [{**DEPOSIT, "id": f"20261120000000000::{number:04}"} for number in range(COUNT, 0, -1)]
        self.rows: list[dict[str, Any]] = rows
        self.client = Activities({trading_rows.TRADES: [], trading_rows.CASH_AND_OTHERS: rows})
        self.taken = 0
        follower = TradingFollower(self.client, config.load(), self.clock, self)
        self.history = DayHistory(self.client, follower, self.records, self.clock, lambda: None)

    def take_activity(self, activity: Activity, *, is_live: bool) -> None:
        """A booking."""
        self.taken += self.records.apply_activity(activity, self.clock.now_ns())

    def take_rows(self, rows: list[Activity]) -> None:
        """Never called for one key."""
        raise AssertionError(rows)

    def refuse_activity(self, account_id: str | None, reason: str) -> None:
        """No row is unreadable."""
        raise AssertionError(reason)

    async def look(self, at_s: float, cash: Decimal) -> Outcome:
        """A statement, as the collector fetches and applies it."""
        self.clock.now_s = at_s
        stated: Statement = statement(cash, last_equity=1000)
        stated = msgspec.structs.replace(
            stated, state=msgspec.structs.replace(stated.state, last_cash=Decimal(1000))
        )
        await self.history.know_since(cash_flows.cut_off_ns(stated.state.balance_asof), "alice")
        return self.records.observe(stated, self.clock.now_ns(), self.clock.now_ns())

    @property
    def account(self) -> Account:
        """The record."""
        account = self.records.account("alice")
        assert account is not None
        return account

    def book_late(self, **changes: Any) -> None:
        """A deposit for Wednesday is booked now: its row is behind 150 of Friday."""
        row = {**DEPOSIT, "id": "20261119000000000::late", "date": "2026-11-19"}
        self.rows.append({**row, "created_at": rfc3339(self.clock.now_ns()), **changes})


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """After the first statement, which agrees."""
    desk = Desk()
    assert await desk.look(0, CASH) is Outcome.FIRST
    assert (desk.taken, desk.account.external_cash_flow) == (COUNT, COUNT * AMOUNT)
    yield desk
    await desk.client.__aexit__(None, None, None)


@pytest.mark.parametrize("changes", [{}, {"created_at": None}])
async def test_a_late_row_behind_the_first_page_explains_the_cash(
    desk: Desk, changes: dict[str, Any]
) -> None:
    """At the second statement that has it: it is a deposit, and no gain."""
    desk.clock.now_s = 25
    desk.book_late(**changes)
    assert await desk.look(30, CASH + AMOUNT) is Outcome.DIFFERENT
    await desk.look(33, CASH + AMOUNT)
    await desk.look(41, CASH + AMOUNT)
    account = desk.account
    assert (account.cash, account.external_cash_flow) == (CASH + AMOUNT, (COUNT + 1) * AMOUNT)
    assert not account.unexplained
    assert account.unconfirmed is None
    assert account.is_day_pnl_known


async def test_a_row_that_is_canceled_behind_the_first_page_explains_the_cash(desk: Desk) -> None:
    """The booking is taken back."""
    desk.rows[120] = {**desk.rows[120], "status": "canceled"}
    assert await desk.look(30, CASH - AMOUNT) is Outcome.DIFFERENT
    await desk.look(33, CASH - AMOUNT)
    await desk.look(41, CASH - AMOUNT)
    account = desk.account
    assert (account.cash, account.external_cash_flow) == (CASH - AMOUNT, (COUNT - 1) * AMOUNT)
    assert (account.unexplained, account.unconfirmed) == ({}, None)


async def test_a_row_that_comes_after_the_statement_is_found_within_the_pause(desk: Desk) -> None:
    """Until then the change is named; the day is read once in a while, and no more once it is explained."""
    assert await desk.look(30, CASH + AMOUNT) is Outcome.DIFFERENT
    assert await desk.look(33, CASH + AMOUNT) is Outcome.DRIFT
    assert desk.account.unexplained == {"cash": AMOUNT}
    desk.book_late()
    asked = []
    for at_s in (36, 60, 36 + WHOLE_AGAIN_S, 70 + WHOLE_AGAIN_S, 200 + WHOLE_AGAIN_S):
        desk.client.asked = 0
        await desk.look(at_s, CASH + AMOUNT)
        asked.append(desk.client.asked)
    assert asked == [2, 2, 3, 2, 2]
    account = desk.account
    assert (account.cash, account.external_cash_flow) == (CASH + AMOUNT, (COUNT + 1) * AMOUNT)
    assert (account.unexplained, account.unconfirmed) == ({}, None)


async def test_many_pages_are_read_more_rarely(desk: Desk) -> None:
    """A tenth of the requests that Alpaca allows."""
    desk.rows[:0] = [{**DEPOSIT, "id": f"20261120000000001::{number:06}"} for number in range(3_000, 0, -1)]
    await desk.look(30, CASH)
    assert await desk.look(33, CASH + AMOUNT) is not Outcome.CONFIRMED
    desk.client.asked = 0
    await desk.look(36, CASH + AMOUNT)
    assert desk.client.asked == 33
    for at_s, is_due in ((36 + WHOLE_AGAIN_S, False), (130, False), (136, True)):
        desk.client.asked = 0
        await desk.look(at_s, CASH + AMOUNT)
        assert (desk.client.asked > 2) == is_due


async def test_an_old_row_that_was_never_read_is_no_new_booking(desk: Desk) -> None:
    """It tells no time, and is of a day before the one that was read: it may be as old as it says."""
    desk.book_late(created_at=None, date="2026-11-17")
    await desk.look(30, CASH + AMOUNT)
    await desk.look(33, CASH + AMOUNT)
    await desk.look(41, CASH + AMOUNT)
    assert desk.account.unexplained == {"cash": AMOUNT}
    assert desk.taken == COUNT

"""Which activities are external cash flows, and since when."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from portfolio_realtime.clock import NS_PER_S, parse_rfc3339
from portfolio_realtime.symbol_collector.model import Activity
from portfolio_realtime.symbol_collector.records import cash_flows
from portfolio_realtime.symbol_collector.records.account_record import AccountRecord
from portfolio_realtime.symbol_collector.records.asset_classes import AssetClasses
from portfolio_realtime.symbol_collector.records.day_sums import Day
from portfolio_realtime.symbol_collector.sources import parse
from tests.support.account_records import known, look, quantities, shown
from tests.symbol_collector.bookings import at_s, booking, statement, trade


@pytest.mark.parametrize("activity_type", ["CSD", "CSW", "JNLC", "ACATC", "OCT", "MEM"])
def test_money_of_the_client_is_external(activity_type: str) -> None:
    """What comes in or goes out is not a gain or a loss."""
    assert Decimal("-500.25") == cash_flows.external_cash_flow(booking(activity_type, "-500.25"))


@pytest.mark.parametrize("activity_type", ["JNLS", "ACATS", "FOPT"])
def test_securities_of_the_client_are_external_at_their_price(activity_type: str) -> None:
    """The sample of a securities journal: 0.00911 AAPL at 638.2799."""
    journal = booking(activity_type, 0, symbol="AAPL", quantity=Decimal("0.00911"), price=Decimal("638.2799"))

    assert Decimal("5.814729889") == cash_flows.external_cash_flow(journal)


@pytest.mark.parametrize(
    "activity_type",
    ["TRD", "FEE", "DIV", "DIVNRA", "DIVROC", "CGD", "INT", "CIL", "WH", "CFEE", "UNHEARD_OF"],
)
def test_what_the_account_earns_and_pays_is_internal(activity_type: str) -> None:
    """Fees, dividends, interest and trades are part of the P&L."""
    assert Decimal(0) == cash_flows.external_cash_flow(booking(activity_type, "12.34"))


@pytest.mark.parametrize(
    ("balance_asof", "moment"),
    [
        ("2026-11-19", "2026-11-19T21:00:00Z"),  # winter: UTC−5
        ("2026-07-01", "2026-07-01T20:00:00Z"),  # summer: UTC−4
        ("2026-03-06", "2026-03-06T21:00:00Z"),  # the Friday before the clocks go forward
        ("2026-03-08", "2026-03-08T20:00:00Z"),  # the day they do
        ("2026-10-31", "2026-10-31T20:00:00Z"),
        ("2026-11-01", "2026-11-01T21:00:00Z"),  # the day they go back
    ],
)
def test_the_day_begins_at_16_new_york(balance_asof: str, moment: str) -> None:
    """Whatever the clocks do, a flow counts when it is executed after that moment."""
    cut_off_ns = parse_rfc3339(moment)
    day = Day(balance_asof)

    for executed_ns in (cut_off_ns - NS_PER_S, cut_off_ns, cut_off_ns + 1):
        day.count(booking("CSD", 100, executed_ns=executed_ns, published_ns=executed_ns), None)

    assert cut_off_ns == cash_flows.cut_off_ns(balance_asof)
    assert Decimal(100) == day.external_cash_flow


def _day_and_late_booking(**changes: Any) -> tuple[Day, Activity]:
    """A deposit of 100 executed at 15:00 New York of the day itself, and published as `changes` say."""
    executed_ns = parse_rfc3339("2026-11-19T20:00:00Z")
    return Day("2026-11-19"), booking("CSD", 100, executed_ns=executed_ns, **changes)


@pytest.mark.parametrize(
    ("published", "flow"),
    [("2026-11-20T08:59:00Z", 0), ("2026-11-20T09:00:00Z", 0), ("2026-11-20T09:00:01Z", 100)],
)
def test_a_booking_after_the_books_are_closed_counts(published: str, flow: int) -> None:
    """Executed before the cut-off, but published after 04:00 New York: `last_equity` cannot contain it."""
    day, deposit = _day_and_late_booking(published_ns=parse_rfc3339(published))

    day.count(deposit, None)

    assert flow == day.external_cash_flow


def test_a_late_correction_counts_by_what_it_changes() -> None:
    """The earlier booking is in `last_equity`; its correction moves cash by the difference."""
    day, deposit = _day_and_late_booking(published_ns=parse_rfc3339("2026-11-19T20:00:00Z"))
    _, corrected = _day_and_late_booking(published_ns=parse_rfc3339("2026-11-20T15:00:00Z"))

    day.count(deposit, None)
    day.count(msgspec.structs.replace(corrected, net_amount=Decimal(130)), deposit)

    assert Decimal(30) == day.external_cash_flow


BITCOIN, SHARE = "BTC/USD", "BTC"


@pytest.mark.parametrize(
    ("before", "quantity", "after"),
    [
        ({}, 2, {BITCOIN: 2}),
        ({}, 2, {SHARE: 2}),
        ({BITCOIN: 1}, 2, {BITCOIN: 3}),
        ({BITCOIN: 1}, 2, {BITCOIN: 1, SHARE: 2}),
        ({BITCOIN: 3}, -2, {BITCOIN: 1}),
        ({SHARE: 3, BITCOIN: 3}, -2, {SHARE: 3, BITCOIN: 1}),
    ],
)
def test_a_journal_of_btc_is_of_the_coin_or_of_the_share_as_a_statement_shows(
    before: dict[str, int], quantity: int, after: dict[str, int]
) -> None:
    """Some account holds the coin: unconfirmed until a statement decides; one that trails does not."""
    classes = AssetClasses()
    classes.learn(statement(0, {BITCOIN: 1}))
    record = AccountRecord("alice", classes)
    look(record, statement(1000, before), -100)
    journal = booking("JNLS", at=20, symbol=SHARE, quantity=Decimal(quantity), price=Decimal(100))
    record.apply_activity(journal, at_s(20))
    look(record, statement(1000, before), 21)
    assert shown(record).unconfirmed is not None

    look(record, statement(1000, after), 25.1)

    account = shown(record)
    assert {one.symbol: one.quantity for one in account.positions if one.quantity} == after
    (moved,) = [symbol for symbol in after if after[symbol] != before.get(symbol, 0)]
    traded = {one.symbol: one.day_quantity for one in account.positions if one.day_quantity}
    assert (traded, account.external_cash_flow) == ({moved: quantity}, 100 * quantity)
    assert (account.unconfirmed, account.unexplained) == (None, {})


def of_btc(quantity: int, at: float) -> Activity:
    """A journal of something that is named like a coin and like a share."""
    return booking("JNLS", at=at, symbol=SHARE, quantity=Decimal(quantity), price=Decimal(100))


@pytest.mark.parametrize("shown_first", [{}, {SHARE: 1}])
def test_a_journal_of_a_coin_that_no_account_has_held_is_of_the_coin_with_the_next_statement(
    shown_first: dict[str, int],
) -> None:
    """Until then it is taken for the share; unconfirmed, unless a position has shown a share of this name."""
    classes = AssetClasses()
    classes.learn(statement(0, shown_first))
    record = AccountRecord("alice", classes)
    look(record, statement(1000), -100)
    record.apply_activity(of_btc(2, 20), at_s(20))
    assert (shown(record).unconfirmed is None) == bool(shown_first)
    look(record, statement(1000, {BITCOIN: 2}), 30)

    assert quantities(record) == {BITCOIN: Decimal(2)}
    assert (shown(record).unconfirmed, shown(record).unexplained) == (None, {})


@pytest.mark.parametrize("bought", [0, 1])
def test_several_journals_of_a_coin_and_a_trade_of_it_are_decided_together(bought: int) -> None:
    """No journal alone is what the statement shows; and the trade has cost a fee."""
    record = known("1000")
    for quantity, second in ((2, 20), (3, 21)):
        record.apply_activity(of_btc(quantity, second), at_s(second))
    if bought:
        record.apply_activity(trade(BITCOIN, bought, 100, at=22), at_s(22))
    held = 5 + bought * Decimal("0.9975")
    for second in (30, 33):
        look(record, statement(1000 - 100 * bought, {BITCOIN: held}), second)

    assert quantities(record) == {BITCOIN: held}
    assert (shown(record).unconfirmed, shown(record).unexplained) == (None, {})
    assert shown(record).external_cash_flow == 500


@pytest.mark.parametrize("after", [{BITCOIN: 1, SHARE: 2}, {BITCOIN: 3}])
def test_a_journal_beside_the_first_statement_is_not_of_a_coin_that_was_held_before(
    after: dict[str, int],
) -> None:
    """The statement of 3 s trails, and has nothing of the journal: it decides nothing."""
    record = AccountRecord("alice")
    look(record, statement(1000, {BITCOIN: 1}), 0)
    record.apply_activity(of_btc(2, 0.2), at_s(1))
    look(record, statement(1000, {BITCOIN: 1}), 3)
    assert shown(record).unconfirmed is not None
    look(record, statement(1000, after), 8)

    account = shown(record)
    (moved,) = [symbol for symbol in after if after[symbol] != {BITCOIN: 1}.get(symbol, 0)]
    assert {one.symbol: one.day_quantity for one in account.positions if one.day_quantity} == {moved: 2}
    assert quantities(record) == {symbol: Decimal(quantity) for symbol, quantity in after.items()}
    assert (account.unconfirmed, account.unexplained) == (None, {})


def test_a_journal_of_a_coin_before_the_first_statement_is_of_the_coin() -> None:
    """As the positions show."""
    record = AccountRecord("alice")
    record.apply_activity(booking("JNLS", at=-20, symbol=SHARE, quantity=Decimal(2), price=Decimal(9)), 0)
    look(record, statement(1000, {BITCOIN: 2}), 0)

    (position,) = shown(record).positions
    assert (position.symbol, position.quantity, position.day_quantity) == (BITCOIN, 2, 2)
    assert shown(record).external_cash_flow == 18


@pytest.mark.parametrize("is_taken", [True, False])
def test_a_fee_in_a_coin_that_is_named_alone_waits_for_a_statement(is_taken: bool) -> None:
    """It takes a quantity and no dollars. Only the positions show that it is of the coin."""
    record = known("1000", {BITCOIN: "2"})
    event = {"account_id": "alice", "event_id": "e", "activity_type": "FEE", "status": "executed"}
    fee = {"qty": "-0.005", "net_amount": "0", "currency": "USD", "details": {"symbol": SHARE}}
    at = {"at": "2026-11-20T15:00:20Z", "executed_at": "2026-11-20T15:00:20Z"}
    record.apply_activity(parse.activity({**event, **fee, **at}), at_s(20))
    assert shown(record).unconfirmed is not None

    held = {BITCOIN: "1.995" if is_taken else "2"}
    for second in (21, 25.1):
        look(record, statement(1000, held), second)

    assert quantities(record) == {BITCOIN: Decimal(held[BITCOIN])}
    assert (shown(record).unconfirmed, shown(record).unexplained) == (None, {})

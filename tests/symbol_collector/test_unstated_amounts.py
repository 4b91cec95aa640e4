"""Fills whose cash the broker does not state: worked out to the cent, and put right by the next statement."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from portfolio_realtime.symbol_collector.model import Statement
from portfolio_realtime.symbol_collector.records.account_record import AccountRecord, Outcome
from portfolio_realtime.symbol_collector.sources import parse
from tests.symbol_collector.bookings import at_s, statement

FILL: dict[str, Any] = {
    "account_id": "alice",
    "event_id": "20261120150010000::one",
    "activity_type": "TRD",
    "symbol": "AAPL",
    "side": "buy",
    "qty": "3",
    "price": "33.333",
    "status": "executed",
    "at": "2026-11-20T15:00:10Z",
}


@pytest.mark.parametrize(
    ("fields", "cash"),
    [
        ({}, "-100.00"),
        ({"side": "sell"}, "100.00"),
        ({"side": "sell_short", "qty": "1", "price": "0.005"}, "0.01"),
        ({"symbol": "AAPL270115C00250000", "qty": "2", "price": "1.05"}, "-210.00"),
        ({"symbol": "BTCUSD", "qty": "0.000000001", "price": "60000"}, "0.00"),
    ],
)
def test_the_cash_of_a_fill_is_worked_out_to_the_cent(fields: dict[str, str], cash: str) -> None:
    """Quantity × price × multiplier, and uncertain by one cent."""
    fill = parse.activity({**FILL, **fields})
    assert (fill.net_amount, fill.rounding) == (Decimal(cash), Decimal("0.01"))


def test_a_stated_amount_is_taken_as_it_is() -> None:
    """Also of other types without one: they move no cash."""
    stated = parse.activity({**FILL, "net_amount": "-99.98"})
    assert (stated.net_amount, stated.rounding) == (Decimal("-99.98"), 0)
    split = parse.activity({**FILL, "activity_type": "SPLIT"})
    assert (split.net_amount, split.rounding) == (0, 0)


def test_an_absurd_fill_is_refused() -> None:
    """A value that no cent of can be told."""
    with pytest.raises(parse.PayloadRefused, match="out of range"):
        parse.activity({**FILL, "qty": "1e40"})


@pytest.mark.parametrize("cash", ["900.00", "900.001", "899.99", "900.01"])
def test_a_statement_within_the_uncertainty_confirms_and_its_cash_holds(cash: str) -> None:
    """Whatever way the broker rounds, it is no drift; the record asks REST by itself and takes its figure."""
    record = AccountRecord("alice")
    record.observe(statement(1000), at_s(0), at_s(0.1))
    record.apply_activity(parse.activity(FILL), at_s(10.2))
    assert record.account(1, 0).cash == 900
    assert record.look_again_ns is not None
    assert record.observe(statement(cash, {"AAPL": 3}), at_s(12.3), at_s(12.4)) is Outcome.CONFIRMED
    assert record.account(2, 0).cash == Decimal(cash)
    assert record.look_again_ns is None
    assert record.observe(statement("899.50", {"AAPL": 3}), at_s(20), at_s(20.1)) is Outcome.DIFFERENT


def test_a_statement_beyond_the_uncertainty_does_not_confirm() -> None:
    """Two cents for one fill is something else than rounding."""
    record = AccountRecord("alice")
    record.observe(statement(1000), at_s(0), at_s(0.1))
    record.apply_activity(parse.activity(FILL), at_s(10.2))
    assert record.observe(statement("899.98", {"AAPL": 3}), at_s(12.3), at_s(12.4)) is Outcome.DIFFERENT


def test_a_statement_from_before_the_fill_is_late() -> None:
    """Taken back, a fill leaves no uncertainty behind: the cash before it was exact."""
    record = AccountRecord("alice")
    record.observe(statement(1000), at_s(0), at_s(0.1))
    record.apply_activity(parse.activity(FILL), at_s(10.2))
    assert record.observe(statement("1000"), at_s(10.3), at_s(10.4)) is Outcome.LATE
    record.apply_activity(
        parse.activity({**FILL, "event_id": "two", "at": "2026-11-20T15:00:11Z"}), at_s(11.2)
    )
    assert record.observe(statement("1000.01"), at_s(11.3), at_s(11.4)) is Outcome.DIFFERENT


BOND = "912828XX1"
SOLD: dict[str, Any] = {**FILL, "symbol": BOND, "side": "sell", "qty": "500", "price": "99"}


def _of_bonds(cash: str, face: str) -> Statement:
    """A statement with bonds, whose prices are per 100 of the face value."""
    positions = [
        {
            "symbol": BOND,
            "asset_class": "treasury",
            "qty": face,
            "side": "long",
            "current_price": "99",
            "market_value": str(Decimal(face) * 99 / 100),
        }
    ]
    state = {"currency": "USD", "cash": cash, "last_equity": "10990", "balance_asof": "2026-11-19"}
    return parse.statement("alice", state, positions)


@pytest.mark.parametrize("symbol", [BOND, "MDU1261218C00050000"])
def test_an_amount_in_an_unknown_unit_waits_for_a_statement(symbol: str) -> None:
    """Neither the symbol of a bond nor that of an adjusted contract shows what one unit of the price is."""
    record = AccountRecord("alice")
    record.observe(statement(10_000), at_s(0), at_s(0.1))
    record.apply_activity(parse.activity({**FILL, "symbol": symbol}), at_s(10.2))
    told = record.account(1, 0)
    assert (told.cash, told.positions) == (10_000, ())
    assert told.unconfirmed is not None
    assert told.unconfirmed.reason == "booking undecided"


def test_a_sale_of_bonds_brings_a_hundredth_of_its_price() -> None:
    """As the position's own figures show; before, it brought 49,500 dollars."""
    record = AccountRecord("alice")
    record.observe(_of_bonds("10000", "1000"), at_s(0), at_s(0.1))
    record.apply_activity(parse.activity(SOLD), at_s(10.2))
    assert record.account(1, 0).cash == Decimal("10495.00")
    assert record.observe(_of_bonds("10495", "500"), at_s(20), at_s(20.1)) is Outcome.CONFIRMED
    assert record.account(2, 0).unconfirmed is None


def test_bonds_that_the_client_brings_in_are_a_flow_of_their_worth() -> None:
    """Unknown until a statement shows the unit; then 1,000 at 99 are 990 dollars, and not 99,000."""
    record = AccountRecord("alice")
    record.observe(statement(10_000), at_s(0), at_s(0.1))
    journal = {**FILL, "activity_type": "JNLS", "symbol": BOND, "qty": "1000", "price": "99"}
    record.apply_activity(parse.activity(journal), at_s(10.2))
    assert (record.account(1, 0).external_cash_flow, record.account(1, 0).unvalued) == (0, (BOND,))
    assert record.observe(_of_bonds("10000", "1000"), at_s(20), at_s(20.1)) is Outcome.CONFIRMED
    assert (record.account(2, 0).external_cash_flow, record.account(2, 0).unvalued) == (990, ())


def test_the_days_rows_count_in_the_units_of_the_first_statement() -> None:
    """At a restart the rows come before the statement that shows their unit."""
    record = AccountRecord("alice")
    record.apply_activity(parse.activity({**SOLD, "at": "2026-11-20T14:00:10Z"}), at_s(0))
    first = _of_bonds("10495", "500")
    record.observe(
        msgspec.structs.replace(first, state=msgspec.structs.replace(first.state, last_cash=Decimal(10_000))),
        at_s(1),
        at_s(1.1),
    )
    assert record.account(1, 0).unexplained == {}

"""How many shares a contract has: 100, unless its symbol, its amount or a position says otherwise."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

import pytest

from portfolio_realtime.symbol_collector.model import Statement
from portfolio_realtime.symbol_collector.records.account_record import AccountRecord
from portfolio_realtime.symbol_collector.sources import parse
from tests.support.account_records import known
from tests.symbol_collector.bookings import DAY, at_s, booking

STANDARD, ADJUSTED = "AAPL261218C00200000", "MDU1261218C00050000"


@pytest.mark.parametrize(
    ("kind", "symbol", "amount", "is_marked"),
    [
        ("TRD", STANDARD, "-1000", False),
        ("TRD", STANDARD, "-1000.36", False),  # regulatory fees
        ("TRD", STANDARD, "-1001.30", False),  # commissions
        ("TRD", STANDARD, "1000", False),
        ("TRD", STANDARD, "-100.04", True),  # 10 shares
        ("TRD", STANDARD, "-1500", True),
        ("TRD", ADJUSTED, "-1000", True),
        ("JNLS", STANDARD, "0", False),
        ("JNLS", ADJUSTED, "0", True),
        ("ACATS", ADJUSTED, "0", True),
        ("TRD", "AAPL", "-10", False),
    ],
)
def test_a_contract_of_another_size_is_marked(kind: str, symbol: str, amount: str, is_marked: bool) -> None:
    """Two contracts at 5 dollars: their value is not certain before a position has shown its figures."""
    record = known()
    record.apply_activity(
        booking(kind, amount, at=10, symbol=symbol, quantity=Decimal(2), price=Decimal(5)), at_s(10)
    )

    told = record.account(1, 0)
    assert [one.quantity for one in told.positions] == [2]
    assert (told.unconfirmed is not None) == is_marked
    assert (record.look_again_ns is not None) == is_marked


@pytest.mark.parametrize(
    ("symbol", "figures", "is_marked"),
    [
        (STANDARD, {}, False),
        (STANDARD, {"market_value": "1000", "current_price": "5"}, False),
        (STANDARD, {"market_value": "1500", "current_price": "5", "cost_basis": "1000"}, True),
        (STANDARD, {"market_value": "1003.33", "current_price": "5"}, True),  # of no whole number
        (ADJUSTED, {}, True),
        (ADJUSTED, {"market_value": None, "current_price": "5", "cost_basis": None}, True),
        (ADJUSTED, {"market_value": "1500", "current_price": "5"}, False),
        (ADJUSTED, {"market_value": "1000", "current_price": "5", "cost_basis": "1500"}, True),
    ],
)
def test_a_contract_is_marked_until_a_statement_shows_its_size(
    symbol: str, figures: dict[str, str | None], is_marked: bool
) -> None:
    """Also where statements agree in all else. What one has shown stays known."""
    stated = {"symbol": symbol, "asset_class": "us_option", "qty": "2", "side": "long"}
    position = {**stated, "avg_entry_price": "5", **figures}
    record = AccountRecord("alice")
    for at in (0, 30, 60):
        record.observe(_stated([position]), at_s(at), at_s(at))
        unconfirmed = record.account(1, 0).unconfirmed
        assert (unconfirmed is not None) == is_marked
        assert unconfirmed is None or unconfirmed.reason == "contract size unknown"
        assert record.look_again_ns is None  # the next statement is early enough
    shown = {**stated, "market_value": "1500", "current_price": "5"}
    for at, one in ((90, shown), (120, stated)):
        record.observe(_stated([one]), at_s(at), at_s(at))
        assert record.account(1, 0).unconfirmed is None


def _stated(positions: Sequence[Mapping[str, str | None]]) -> Statement:
    account = {
        "status": "ACTIVE",
        "currency": "USD",
        "cash": "1000",
        "last_equity": "2000",
        "balance_asof": DAY,
    }
    return parse.statement("alice", account, positions)

"""How many shares a contract has: 100, unless its symbol, its amount or a position says otherwise."""

from decimal import Decimal

import pytest

from tests.support.account_records import known
from tests.symbol_collector.bookings import at_s, booking

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

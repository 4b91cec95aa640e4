"""What is recognised by its form before it is booked: fees and splits, at their bounds and beyond."""

from decimal import Decimal

import pytest

from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.model import CRYPTO
from portfolio_realtime.symbol_collector.model import CASH
from portfolio_realtime.symbol_collector.records.account_record import AccountRecord
from portfolio_realtime.symbol_collector.records.differences import fee_bound, is_split
from tests.symbol_collector.bookings import at_s, booking, statement, trade

LOOKS_MAX = 10
SECONDS_MAX = 15
COST = (Decimal(1000), Decimal(1000))


def test_a_crypto_fee_is_at_most_the_highest_tier_of_what_is_received() -> None:
    """A quarter of a percent and the last decimal of the coins bought; of dollars, rounded up to the cent."""
    bought, sold = trade("BTC/USD", "0.1", 60_000), trade("USDT/USD", "-56.7732", "0.99912")

    assert fee_bound("BTC/USD", [bought]) == Decimal("0.000250001")
    assert fee_bound(CASH, [bought]) == 0
    assert fee_bound("USDT/USD", [sold]) == 0
    assert Decimal("0.15") <= fee_bound(CASH, [sold]) < Decimal("0.16")  # 0.1418 computed, 0.15 billed
    assert sold.asset_class == CRYPTO


def test_a_fee_that_is_booked_is_not_to_come_again() -> None:
    """The bound is what is still open."""
    bought = trade("BTC/USD", "0.1", 60_000)
    booked = booking("CFEE", 0, symbol="BTC/USD", quantity=Decimal("-0.00025"), price=Decimal(60_000))

    assert fee_bound("BTC/USD", [bought, booked]) == Decimal("1e-9")


@pytest.mark.parametrize(
    ("after", "price", "expected"),
    [
        (20, 50.0, True),  # 2:1
        (20, 41.0, True),  # and the market fell by 18 %
        (20, 39.0, False),  # by more than trading would have gone on for
        (20, 100.0, False),  # ten more at the same price are a gift
        (1, 1000.0, True),  # 1:10
        (1, 100.0, False),
        (11, 90.9, True),  # a stock dividend of a tenth
        (11, 100.0, False),  # one more at the same price
        (11, 97.0, False),  # nearer to the old price than to the new one
        (15, 66.0, True),  # 3:2
        (15, 81.0, False),
    ],
)
def test_a_split_changes_price_and_pieces_by_one_ratio(after: int, price: float, expected: bool) -> None:
    """Of ten pieces at 100; a mere change of the price, or of the pieces, is none."""
    assert is_split(Decimal(10), Decimal(after), COST, (100.0, price)) is expected


def test_without_prices_or_with_another_cost_nothing_is_concluded() -> None:
    """Nor where the position changed sides."""
    assert not is_split(Decimal(10), Decimal(20), COST, (None, 50.0))
    assert not is_split(Decimal(10), Decimal(20), (Decimal(1000), Decimal(1500)), (100.0, 50.0))
    assert not is_split(Decimal(10), Decimal(-20), COST, (100.0, 50.0))


def test_a_trade_of_coins_is_unconfirmed_until_a_statement_has_its_fee() -> None:
    """The fee left with the fill: the broker is asked soon, and shows it. Stocks need none of this."""
    record = AccountRecord("alice")
    record.observe(statement(10_000, {"KO": 1}), at_s(0), at_s(1))
    record.apply_activity(trade("KO", 1, 10, at=50), at_s(50))
    assert (record.account(1, 0).unconfirmed, record.look_again_ns) == (None, None)

    record.apply_activity(trade("BTC/USD", "0.1", 60_000, at=100), at_s(100))
    unconfirmed = record.account(1, 0).unconfirmed
    assert unconfirmed is not None
    assert (unconfirmed.reason, unconfirmed.since_ns) == ("booking unconfirmed", at_s(100))
    net = statement("3990", {"KO": 2, "BTC/USD": "0.09975"})
    now_ns, looks = at_s(100), 0
    while (again_ns := record.look_again_ns) is not None and looks < LOOKS_MAX:
        now_ns, looks = max(again_ns, now_ns), looks + 1
        record.observe(net, now_ns, now_ns + NS_PER_S // 20)

    account = record.account(1, 0)
    assert account.unconfirmed is None
    assert account.unexplained == {}
    assert {one.symbol: one.quantity for one in account.positions}["BTC/USD"] == Decimal("0.09975")
    assert 1 <= looks < LOOKS_MAX
    assert now_ns <= at_s(100 + SECONDS_MAX)

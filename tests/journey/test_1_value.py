"""First: what an account is worth, and what moves it."""

import pytest

from tests.journey.conftest import Journey

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_equity_is_cash_plus_positions(journey: Journey) -> None:
    """Ten shares at 150 dollars and 1,000 dollars in cash are worth 2,500 dollars."""
    await journey.symbol("ALPHA", "150")
    alice = await journey.account(cash="1000", positions={"ALPHA": "10"})
    browser = await journey.watch(alice)

    valuation = await browser.priced()

    assert valuation["equity"] == "2500.00"
    assert valuation["cash"] == "1000.00"
    assert browser.positions["ALPHA"]["market_value"] == "1500.00"


async def test_a_trade_in_the_market_moves_every_holder(journey: Journey) -> None:
    """The mark is the last eligible trade; the gain since the previous close is the day P&L."""
    await journey.symbol("BRAVO", "20")
    holders = [await journey.account(cash="0", positions={"BRAVO": "100"}) for _ in range(2)]
    browsers = [await journey.watch(holder) for holder in holders]

    await journey.print("BRAVO", "20.07")

    for browser in browsers:
        valuation = await browser.until(lambda valuation: valuation["equity"] == "2007.00")
        assert valuation["day_pnl"] == "7.00"
        assert valuation["day_pnl_ratio"] == 0.0035
        assert valuation["today_return"] == "+$7.00 (+0.35%)"


async def test_an_odd_lot_moves_nothing(journey: Journey) -> None:
    """Not every trade may set a price: condition codes decide."""
    await journey.symbol("CHARLIE", "10")
    carol = await journey.account(cash="0", positions={"CHARLIE": "1"})
    browser = await journey.watch(carol)

    await journey.print("CHARLIE", "99", conditions=("@", "I"))
    await journey.print("CHARLIE", "10.01")

    seen: list[str] = []
    await browser.until(lambda valuation: seen.append(valuation["equity"]) or valuation["equity"] == "10.01")
    assert "99.00" not in seen


async def test_a_deposit_moves_equity_but_not_day_pnl(journey: Journey) -> None:
    """Money that the client brings in is an external cash flow, not a gain."""
    await journey.symbol("DELTA", "150")
    dora = await journey.account(cash="1000", positions={"DELTA": "10"}, last_equity="2500")
    browser = await journey.watch(dora)

    await journey.cash(dora, "CSD", "500")

    valuation = await browser.until(lambda valuation: valuation["equity"] == "3000.00")
    assert valuation["external_cash_flow"] == "500.00"
    assert valuation["day_pnl"] == "0.00"


async def test_a_dividend_is_a_gain(journey: Journey) -> None:
    """What the holdings earn belongs to the day P&L."""
    await journey.symbol("ECHO", "50")
    erin = await journey.account(cash="0", positions={"ECHO": "10"}, last_equity="500")
    browser = await journey.watch(erin)

    await journey.cash(erin, "DIV", "4.20")

    valuation = await browser.until(lambda valuation: valuation["equity"] == "504.20")
    assert valuation["external_cash_flow"] == "0.00"
    assert valuation["day_pnl"] == "4.20"


async def test_buying_moves_cash_into_a_position(journey: Journey) -> None:
    """A purchase at the market changes what is held, not what it is worth."""
    await journey.symbol("FOXTROT", "33.33")
    frank = await journey.account(cash="1000", positions={}, last_equity="1000")
    browser = await journey.watch(frank)

    await journey.trade(frank, "FOXTROT", "3")

    valuation = await browser.until(lambda valuation: valuation["cash"] == "900.01")
    while valuation["equity"] is None:  # the new symbol has no mark for a moment: unknown, not zero
        assert valuation["unpriced"] + valuation.get("awaited", []) == ["FOXTROT"]
        valuation = await browser.next()
    assert valuation["equity"] == "1000.00"
    assert browser.positions["FOXTROT"]["quantity"] == "3"

"""The work that is shown leads to the number that is published."""

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_realtime.model import CRYPTO, US_OPTION, Account, Mark
from portfolio_realtime.valuation.valuer import Valuer
from portfolio_realtime.websocket_server.http_api.responses import EXPLANATION_EXAMPLE, Explanation
from tests.support.explanations import by_hand, explained, follow
from tests.valuation.records import NOW_NS, account, mark, message_of, oracle_figures, position


def published(held: Account, *marks: Mark) -> dict[str, Any]:
    """What the calculator publishes of the same account at the same marks, with its positions."""
    valuer = Valuer(price_ttl_s=60, min_update_interval_s=1)
    valuer.apply_marks(marks)
    valuer.watch(held, 1, with_positions=True)
    (publication,) = valuer.flush(NOW_NS, 0.0).publications
    rows = [msgspec.json.decode(row) for _, row in publication.rows or ()]
    return {**message_of(publication), "rows": {row["symbol"]: row for row in rows}}


OPTION = "AAPL261218C00150000"
CASES = {
    "long": (position("A", 10), mark("A", 150.25, previous_close=148.0)),
    "short": (position("A", -7, cost_basis=-900), mark("A", 33.333, previous_close=34.1)),
    "option": (
        position(OPTION, 3, multiplier=100, asset_class=US_OPTION),
        mark(OPTION, 1.45, previous_close=1.52, source="opra"),
    ),
    "crypto": (
        position(
            "BTC/USD", "0.123456789", asset_class=CRYPTO, day_quantity="0.023456789", day_cost="2111.11"
        ),
        mark("BTC/USD", 90210.12345, previous_close=91000.5, source="crypto"),
    ),
    "fractional": (
        position("A", "0.333333333", day_quantity="-0.1", day_cost="-15.1"),
        mark("A", 150.005, previous_close=149.99),
    ),
    "closed in the day": (
        position("A", 0, day_quantity=-10, day_cost="-1510.10"),
        mark("A", 150.25, previous_close=148.0),
    ),
    "opened in the day": (position("A", 5, day_quantity=5, day_cost="751.25"), mark("A", 150.5)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_steps_lead_to_what_is_published(case: str) -> None:
    """Typed into a calculator, they end at the published equity and day P&L, to the cent."""
    its_position, its_mark = CASES[case]
    held = account(
        positions=[its_position], cash="1000.125", last_equity="2000.50", external_cash_flow="-3.3"
    )

    shown, sent = explained(held, its_mark), published(held, its_mark)
    results = follow(shown["steps"])

    assert (shown["equity"], shown["day_pnl"]) == (sent["equity"], sent["day_pnl"])
    assert results["rounded equity"] == Decimal(sent["equity"])
    assert results["rounded day P&L"] == Decimal(sent["day_pnl"])
    assert by_hand(shown) == (Decimal(sent["equity"]), Decimal(sent["day_pnl"]))
    row = sent["rows"][its_position.symbol]
    cent = Decimal("0.01")
    gained = results[f"day P&L of {its_position.symbol}"]
    assert gained.quantize(cent, ROUND_HALF_EVEN) == Decimal(row["day_pnl"])
    worth = results[f"market value of {its_position.symbol}"]
    assert worth.quantize(cent, ROUND_HALF_EVEN) == Decimal(row["market_value"])


def test_an_unpriced_position_leaves_the_sum_unknown_and_is_named() -> None:
    """Null where a price is missing; what is known is summed apart."""
    held = account(positions=[position("A", 2), position("B", 1)])

    shown = explained(held, mark("A", 1.5, previous_close=1.0))

    sent = published(held, mark("A", 1.5, previous_close=1.0))
    assert sent["equity"] is shown["equity"] is shown["day_pnl"] is shown["unrounded_equity"] is None
    assert shown["unpriced"] == sent["unpriced"] == ["B"]
    assert shown["known_equity"] == sent["known_equity"] == "1003.00"
    assert follow(shown["steps"])["rounded known equity"] == Decimal(1003)
    leg = shown["positions"][1]
    assert [leg[name] for name in ("mark", "mark_source", "mark_as_of", "market_value", "day_pnl")] == [
        None
    ] * 5
    assert "equity: unknown, because these have no mark: B" in shown["steps"]
    assert "market value of B: 1 × 1 × unknown = unknown" in shown["steps"]


def test_a_missing_previous_close_leaves_the_positions_gain_unknown_but_not_the_equity() -> None:
    """Equity needs no previous close."""
    held = account(positions=[position("A", 2)], last_equity="990")

    shown = explained(held, mark("A", 1.5))

    assert shown["without_day_pnl"] == ["A"]
    assert shown["positions"][0]["day_pnl"] is None
    assert (shown["equity"], shown["day_pnl"]) == ("1003.00", "13.00")
    assert "A at the previous close: 2 × 1 × unknown = unknown" in shown["steps"]


def test_a_transfer_that_nobody_values_leaves_the_day_pnl_unknown() -> None:
    """Null like the publication's, and named; the equity needs no cost."""
    moved = msgspec.structs.replace(position("A", 2, day_quantity=2), is_day_cost_known=False)
    held = account(positions=[moved], unvalued=("A",))

    shown, sent = explained(held, mark("A", 1.5)), published(held, mark("A", 1.5))

    assert (shown["equity"], shown["day_pnl"]) == (sent["equity"], sent["day_pnl"]) == ("1003.00", None)
    assert (shown["unvalued"], shown["without_day_pnl"]) == (["A"], ["A"])
    assert (shown["positions"][0]["day_cost"], shown["positions"][0]["day_pnl"]) == (None, None)
    assert "day P&L: unknown, because no booking states the value of: A" in shown["steps"]
    assert "day P&L of A: unknown" in shown["steps"]


def test_a_previous_close_newer_than_the_record_values_no_gain() -> None:
    """Between the market's roll and the broker's, the day's trades count from another day than the close."""
    rolled = msgspec.structs.replace(position("A", 2, day_quantity=1, day_cost=1), day_asof="2025-11-18")
    held = account(positions=[rolled])

    shown = explained(held, mark("A", 1.5, previous_close=1.0, previous_close_date="2025-11-19"))

    leg = shown["positions"][0]
    assert (leg["day_asof"], leg["previous_close_date"]) == ("2025-11-18", "2025-11-19")
    assert (leg["day_pnl"], shown["without_day_pnl"]) == (None, ["A"])
    assert "day P&L of A: unknown" in shown["steps"]


def test_a_mark_from_before_a_split_is_no_price() -> None:
    """New pieces at the price of an old one are worth nothing that anybody knows."""
    split = msgspec.structs.replace(position("A", 20), marks_from_ns=NOW_NS + 1)
    held = account(positions=[split])

    shown, sent = explained(held, mark("A", 1.5)), published(held, mark("A", 1.5))

    assert shown["equity"] is sent["equity"] is None
    assert shown["unpriced"] == sent["unpriced"] == ["A"]


def test_the_legs_say_where_a_price_comes_from() -> None:
    """Source, time and the date of the previous close."""
    held = account(positions=[position("A", 2)])

    leg = explained(held, mark("A", 1e-7, previous_close=2.0, previous_close_date="2025-11-19"))["positions"][
        0
    ]

    assert (leg["mark"], leg["mark_source"]) == ("0.0000001", "iex")
    assert leg["mark_as_of"] == "2025-11-20T15:00:00.000000Z"
    assert (leg["previous_close"], leg["previous_close_date"]) == ("2.0", "2025-11-19")


def test_the_documented_example_is_true() -> None:
    """Its steps lead to its figures, and it has the type that is documented."""
    example = msgspec.convert(EXPLANATION_EXAMPLE, Explanation)

    results = follow(example.steps)

    assert results["rounded equity"] == Decimal(example.equity or "nan")
    assert results["rounded day P&L"] == Decimal(example.day_pnl or "nan")
    assert by_hand(EXPLANATION_EXAMPLE) == (Decimal("2055.26"), Decimal("19.26"))


quantities = st.decimals("-1e9", "1e9", places=9)
prices = st.floats(1e-6, 1e6)


@given(
    legs=st.lists(st.tuples(quantities, prices, quantities, st.sampled_from([1, 100])), max_size=5),
    cash=st.decimals("-1e9", "1e9", places=4),
    flow=st.decimals("-1e6", "1e6", places=2),
)
def test_whatever_is_held_the_steps_are_right(
    legs: list[tuple[Decimal, float, Decimal, int]], cash: Decimal, flow: Decimal
) -> None:
    """Every step's result is its operands', and the end is the exact sum, rounded once."""
    marks = [mark(f"S{i}", price, previous_close=price / 3) for i, (_, price, _, _) in enumerate(legs)]
    held = account(
        positions=[
            position(f"S{i}", quantity, day_quantity=traded, day_cost="1.1", multiplier=multiplier)
            for i, (quantity, _, traded, multiplier) in enumerate(legs)
        ],
        cash=cash,
        external_cash_flow=flow,
    )

    shown = explained(held, *marks)
    follow(shown["steps"])

    expected = oracle_figures(held, {one.symbol: one.price for one in marks})
    assert (shown["equity"], shown["day_pnl"]) == (expected.equity, expected.day_pnl)

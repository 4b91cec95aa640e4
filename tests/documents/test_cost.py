"""docs/cost.md is what the script writes, and the script computes what its text says."""

import json

import pytest
from deploy import cost
from deploy.cost import CASES, Prices


@pytest.fixture
def prices() -> Prices:
    """The dated ones."""
    return Prices(cost.PRICES.read_text())


def test_the_page_is_what_the_script_writes(prices: Prices) -> None:
    """A size, an alarm, a metric or a price that changes, changes the page."""
    assert cost.PAGE.read_text() == cost.page(prices), "python -m deploy.cost"


def test_the_arithmetic_by_hand(prices: Prices) -> None:
    """1,000 viewers: three small Valkeys, one NAT, a balancer; 118 GB, of which 100 are free."""
    costs = cost.month(CASES[1], prices)

    assert costs["Valkey"] == pytest.approx(3 * 0.0256 * 730)
    assert costs["NAT, addresses"] == pytest.approx((0.045 + 3 * 0.005) * 730 + 10 * 0.045)
    assert cost.traffic_gb(1_000) == pytest.approx(117.936)
    assert costs["traffic"] == pytest.approx(17.936 * 0.09)
    assert costs["balancer"] == pytest.approx(0.0225 * 730 + 0.864 * 136.5 * 0.008)


def test_traffic_beyond_ten_terabytes_is_cheaper(prices: Prices) -> None:
    """Two steps after the free part."""
    costs = cost.month(CASES[3], prices)

    assert costs["traffic"] == pytest.approx((10_240 - 100) * 0.09 + (11_793.6 - 10_240) * 0.085)


def test_nights_save_nothing_where_two_servers_suffice(prices: Prices) -> None:
    """What the guide proposes is worth nothing for 50 viewers, and something for 100,000."""
    saved = [
        cost.month(case, prices, by_night=False)["services"] - cost.month(case, prices)["services"]
        for case in CASES
    ]

    assert saved[0] == 0 and saved[3] > 100


def test_every_price_is_dated_and_has_a_source() -> None:
    """So that whoever reads it knows how old it is."""
    for name, row in json.loads(cost.PRICES.read_text())["prices"].items():
        assert row.keys() == {"usd", "as_of", "source"} and row["as_of"] >= "2026-01" and row["usd"] > 0, name

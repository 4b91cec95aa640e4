"""What a client shows of an account is compared field by field: each that is wrong is named."""

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from portfolio_harness import fault_trials
from portfolio_harness.clients import Clients
from portfolio_harness.comparison import ALWAYS, differences
from portfolio_harness.oracle import Truth
from portfolio_harness.system import SystemFailed

EARLY, TRADED, LATE = (f"2026-11-20T15:04:0{second}.123456Z" for second in (4, 5, 6))
TRUTH = Truth(
    figures={
        "equity": "1250.00",
        "cash": "1000.00",
        "last_equity": "1200.00",
        "external_cash_flow": "0.00",
        "day_pnl": "50.00",
    },
    rows={
        "AAPL": {
            "quantity": "2",
            "mark": "125",
            "previous_close": "100.5",
            "mark_as_of": TRADED,
            "market_value": "250.00",
            "day_pnl": "49.00",
            "unrealized_pnl": "10.00",
        }
    },
    booked_at=EARLY,
    day_base=Decimal(1200),
)


def shown() -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """A right message, and the rows of its client: one held position, and one that was closed."""
    row = {**TRUTH.rows["AAPL"], "symbol": "AAPL", "quantity": "2.0", "mark": "125.00"}
    message = {
        **TRUTH.figures,
        "day_pnl_ratio": 0.0416667,
        "as_of": TRADED,
        "stale": [],
        "unpriced": [],
        "total_value": "$1,250.00",
        "today_return": "+$50.00 (+4.17%)",
        "record_as_of": EARLY,
    }
    return message, {"AAPL": row, "MSFT": {"symbol": "MSFT", "quantity": "0"}}


def test_what_is_right_differs_in_nothing() -> None:
    """Numbers may be written with more zeros, and a mark may be stale as long as its age is told."""
    message, rows = shown()
    assert differences(message, rows, TRUTH) == []
    marks = {"stale": ["AAPL", "account_record"], "stale_ages_s": {"AAPL": 70}}
    assert differences(message | marks, rows, TRUTH) == []
    assert differences(message, None, TRUTH) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, "1.00") for name in TRUTH.figures),
        *((name, None) for name in TRUTH.figures),
        ("day_pnl_ratio", 0.0416),
        ("day_pnl_ratio", None),
        ("total_value", "$1,250.01"),
        ("total_value", "—"),
        ("today_return", "+$50.00 (+4.19%)"),
        ("today_return", "+$50.00"),
        ("today_return", "-$50.00 (+4.17%)"),
        ("today_return", "—"),
        ("as_of", LATE),
        ("as_of", EARLY),
        ("record_as_of", "2026-11-20T15:04:03.123456Z"),
        ("stale", ["MSFT"]),
        ("unpriced", ["AAPL"]),
        ("awaited", ["AAPL"]),
        ("without_feed", {"AAPL": "bond"}),
        ("stale_ages_s", {"AAPL": 70}),
    ],
)
def test_a_changed_field_of_the_message_is_named(name: str, value: object) -> None:
    """Whatever it should be, and whether it is wrong or absent."""
    message, rows = shown()
    assert name in differences(message | {name: value}, rows, TRUTH)


@pytest.mark.parametrize("name", ALWAYS)
def test_a_field_that_is_left_out_is_named(name: str) -> None:
    """A message without it is no message."""
    message, rows = shown()
    del message[name]
    assert differences(message, rows, TRUTH) == [name]


@pytest.mark.parametrize(
    ("name", "value"),
    [*((name, "1") for name in TRUTH.rows["AAPL"]), *((name, None) for name in TRUTH.rows["AAPL"])],
)
def test_a_changed_field_of_a_position_is_named(name: str, value: str | None) -> None:
    """And no other."""
    message, rows = shown()
    rows["AAPL"][name] = value
    assert differences(message, rows, TRUTH) == [f"positions.{name}"]


def drop(rows: dict[str, dict[str, Any]]) -> None:
    """No position has ever come."""
    rows.clear()


def close(rows: dict[str, dict[str, Any]]) -> None:
    """A held position counts as closed."""
    rows["AAPL"]["quantity"] = "0"


def add(rows: dict[str, dict[str, Any]]) -> None:
    """A position that the account does not hold."""
    rows["MSFT"]["quantity"] = "1"


@pytest.mark.parametrize("change", [drop, close, add])
def test_positions_that_lack_or_are_too_many_are_named(
    change: Callable[[dict[str, dict[str, Any]]], None],
) -> None:
    """A client without any row asked for positions all the same."""
    message, rows = shown()
    change(rows)
    assert differences(message, rows, TRUTH) == ["positions"]


def test_an_account_with_an_unpriced_position_has_no_equity_and_says_so() -> None:
    """The sum of the rest is told under its own name."""
    truth = replace(TRUTH, unpriced=("NEVER",))
    message, rows = shown()
    rows["NEVER"] = {"symbol": "NEVER", "quantity": "3", "mark": None}
    unknown = {
        "equity": None,
        "day_pnl": None,
        "day_pnl_ratio": None,
        "total_value": "—",
        "today_return": "—",
    }
    told = message | unknown | {"unpriced": ["NEVER"], "known_equity": "1250.00"}
    assert differences(told, rows, truth) == []
    assert "equity" in differences(told | {"equity": "1250.00"}, rows, truth)
    assert "known_equity" in differences(told | {"known_equity": None}, rows, truth)


def test_an_account_without_a_base_has_no_ratio() -> None:
    """All of its money came in on this day, and more than that went out."""
    message, rows = shown()
    told = message | {"day_pnl_ratio": None, "today_return": "+$50.00"}
    assert differences(told, rows, replace(TRUTH, day_base=Decimal("-0.01"))) == []
    assert differences(told, rows, TRUTH) == ["day_pnl_ratio", "today_return"]


def test_a_day_pnl_that_the_ledger_does_not_say_is_not_compared() -> None:
    """After bookings whose cost is a matter of rules."""
    truth = replace(TRUTH, rows={"AAPL": TRUTH.rows["AAPL"] | {"day_pnl": None}})
    message, rows = shown()
    assert differences(message, rows, truth) == []


async def test_an_outage_begins_with_fresh_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product whose prices are always stale has not told anybody of the outage."""
    monkeypatch.setattr(fault_trials, "PRICED_S_MAX", 0.05)
    clients = Clients("http://none", ["a"], str, interval_s=1, detail=True)
    message, _ = shown()
    clients.all[0].receive_value(json.dumps(message | {"stale": ["AAPL"]}).encode())
    with pytest.raises(SystemFailed, match="1 accounts have stale"):
        await fault_trials.until_fresh(clients)
    clients.all[0].receive_value(json.dumps(message).encode())
    await fault_trials.until_fresh(clients)


def test_clients_that_ask_for_positions_are_compared_with_them() -> None:
    """Also when none of them has ever got a row; clients of values alone are not."""
    message, _ = shown()
    for has_detail, expected in ((True, ["positions"]), (False, [])):
        clients = Clients("http://none", ["a"], str, interval_s=1, detail=has_detail)
        (client,) = clients.all
        client.receive_value(json.dumps(message).encode())
        assert client.mismatches(TRUTH) == expected

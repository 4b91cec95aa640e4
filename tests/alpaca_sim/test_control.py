"""The control endpoints: pause and resume, prints, trades, cash, new accounts and symbols; odd fields."""

import asyncio
import time
from decimal import Decimal
from typing import Any

import pytest

from alpaca_sim.core.former_records import FORMER_MAX, FormerRecords
from alpaca_sim.core.ledger import Truth
from tests.alpaca_sim.conftest import Running, Start
from tests.conftest import Until

FIRST, HELD = "the first account", "a symbol that it holds"
BODIES: dict[str, dict[str, Any]] = {
    "trade": {"account_id": FIRST, "symbol": "AAPL", "quantity": "1", "price": "10"},
    "cash": {"account_id": FIRST, "activity_type": "CSD", "amount": "1", "status": "executed"},
    "print": {
        "symbol": "AAPL",
        "price": "1",
        "conditions": ["@"],
        "size": 100,
        "tape": None,
        "exchange": "V",
    },
    "accounts": {"cash": "1", "positions": {"AAPL": "1"}, "last_equity": "1"},
    "symbols": {"symbol": "NEW", "price": "1", "previous_close": "1", "asset_class": "us_equity"},
    "cut": {"stream": "market"},
    "clock": {"advance_s": 1.0, "moves": False},
    "correct": {"symbol": "AAPL", "price": "1"},
    "halt": {"symbol": "AAPL", "halted": True},
    "amend": {"account_id": FIRST, "event_id": "none", "price": "1"},
    "backfill": {"account_id": FIRST, "activity_type": "CSD", "amount": "1", "at_s_ago": 1},
    "status": {"account_id": FIRST, "status": "ACTIVE"},
    "split": {
        "symbol": "AAPL",
        "new_rate": "2",
        "old_rate": "1",
        "gap_s": 600,
        "ex_date": None,
        "told": True,
    },
    "dividend": {"symbol": "AAPL", "rate": "0.1", "pay_in_s": 600, "withheld": "0"},
    "securities": {
        "account_id": FIRST,
        "activity_type": "ACATS",
        "symbol": "AAPL",
        "quantity": "1",
        "price": "1",
    },
    "instant_deposit": {"account_id": FIRST, "amount": "1", "settle_in_s": 600},
    "late": {"account_id": FIRST, "amount": "1", "told_in_s": 600},
    "reset": {"account_id": FIRST, "cash": "1"},
    "exchange": {
        "account_id": FIRST,
        "symbol": HELD,
        "into": "MSFT",
        "ratio": "1",
        "cash": "0",
        "gap_s": 0,
    },
    "exercise": {"account_id": FIRST, "symbol": HELD},
    "adjust": {"symbol": "AAPL"},
}
ODD: tuple[Any, ...] = (
    *(None, "", "none", "\x00", True, [], ["AAPL"], {}, {"a": 1}),
    *(-1, "-1", 0, "NaN", "Infinity", "1e400", "1e-400", "1e999999999", 1e300, 10**40, "9" * 400),
    *("\u0661", " 1 ", "1_000"),
)
POSITIVE = ("price", "size", "rate", "ratio", "new_rate", "old_rate", "previous_close")
NAMES = ("account_id", "symbol", "into", "activity_type", "status", "asset_class", "stream", "event_id")


async def truth_of(running: Running, account_id: str) -> dict[str, str]:
    """One account's figures."""
    return await running.get(f"/_sim/accounts/{account_id}")


async def test_a_pause_stops_everything_and_a_resume_goes_on(start: Start, until: Until) -> None:
    """Between two looks nothing has moved; afterwards it moves again."""
    running = await start(trades_per_second=400.0, activities_per_second=40.0)

    async def counts() -> tuple[int, int]:
        state = await running.get("/_sim/state")
        return state["trades"], state["activities"]

    before = await counts()

    async def has_moved() -> bool:
        now = await counts()
        return now[0] > before[0] and now[1] > before[1]

    await until(has_moved, "market and accounts move")
    assert await running.post("/_sim/pause") == {"paused": True, "flushed": True}
    before = await counts()
    await asyncio.gather(*[counts() for _ in range(20)])
    assert await counts() == before
    await running.post("/_sim/resume")
    await until(has_moved, "they move again")


async def test_a_print_says_whether_it_moved_the_mark(start: Start) -> None:
    """Regular trades do, odd lots do not."""
    running = await start()
    moved = await running.post("/_sim/print", symbol="AAPL", price="172.61", conditions=["@"], size=100)
    odd = await running.post("/_sim/print", symbol="AAPL", price="9.99", conditions=["@", "I"], size=1)
    assert (moved["moved"], moved["mark"]) == (True, "172.61")
    assert (odd["moved"], odd["mark"]) == (False, "172.61")


async def test_a_print_may_be_of_a_venue_that_no_table_knows(start: Start) -> None:
    """A newly licensed one."""
    running = await start()
    await running.post("/_sim/print", symbol="AAPL", price="172.61", exchange="G")
    latest = await running.get("/v2/stocks/AAPL/trades/latest")
    assert (latest["trade"]["x"], latest["trade"]["p"]) == ("G", 172.61)
    body = {"symbol": "AAPL", "price": "1", "exchange": "GG"}
    assert (await running.http.post("/_sim/print", json=body)).status_code == 422


async def test_the_last_marks_are_told_with_their_moments(start: Start) -> None:
    """The newest last; trades that move no mark are not among them."""
    running = await start()
    for price in ("172.61", "172.62"):
        await running.post("/_sim/print", symbol="AAPL", price=price)
    await running.post("/_sim/print", symbol="AAPL", price="9.99", conditions=["@", "I"], size=1)
    marks = (await running.get("/_sim/marks", last=2))["marks"]["AAPL"]
    assert [price for _, price in marks] == ["172.61", "172.62"]
    assert marks[0][0] < marks[1][0]
    assert len((await running.get("/_sim/marks"))["marks"]["AAPL"]) == 1
    assert await running.status("/_sim/marks", last=0) == 422


async def test_a_record_that_ends_is_told_with_the_moment(start: Start) -> None:
    """Each state between two looks, oldest first; nothing twice for who asks after the newest."""
    running = await start()
    made = await running.post("/_sim/accounts", cash="1000", positions={"AAPL": "10"}, last_equity="2500")
    account_id, began_s = made["account_id"], time.monotonic()
    await running.post("/_sim/cash", account_id=account_id, activity_type="CSD", amount="5")
    between_s = time.monotonic()
    await running.post("/_sim/trade", account_id=account_id, symbol="AAPL", quantity="-10", price="1")

    told = await running.get("/_sim/former", after_s=began_s)
    first, second = told["records"]

    assert told["whole"]
    assert began_s < first["ended_s"] < between_s < second["ended_s"] < time.monotonic()
    assert first == {
        "account_id": account_id, "ended_s": first["ended_s"], "cash": "1000", "last_equity": "2500",
        "external_cash_flow": "0", "quantities": {"AAPL": "10"}, "in_transit": False,
    }  # fmt: skip
    assert (second["cash"], second["external_cash_flow"], second["quantities"]) == (
        "1005",
        "5",
        {"AAPL": "10"},
    )
    assert (await running.get("/_sim/former", after_s=second["ended_s"]))["records"] == []
    assert await running.status("/_sim/former", after_s="yesterday") == 422


def test_who_asks_for_former_records_that_are_forgotten_is_told_so() -> None:
    """The newest are kept, of all accounts together."""
    now_s = iter(range(FORMER_MAX + 2))
    former = FormerRecords(lambda: float(next(now_s)))
    for _ in range(FORMER_MAX + 2):
        former.end("a", Decimal(1), Decimal(1), Decimal(0), {}, is_in_transit=False)

    assert [one.ended_s for one in former.since(FORMER_MAX)[0]] == [FORMER_MAX + 1]
    assert len(former.since(1.0)[0]) == FORMER_MAX
    assert former.since(1.0)[1]
    assert not former.since(0.5)[1]


async def test_a_trade_moves_cash_and_quantity_but_not_the_flow(start: Start) -> None:
    """Bought at the mark, equity stays but for the rounding of the cents."""
    running = await start()
    made = await running.post("/_sim/accounts", cash="1000", positions={"AAPL": "10"}, last_equity="2500")
    account_id = made["account_id"]
    await running.post("/_sim/print", symbol="AAPL", price="150")
    await running.post("/_sim/trade", account_id=account_id, symbol="AAPL", quantity="-2.5")
    truth = await truth_of(running, account_id)
    assert (truth["cash"], truth["equity"], truth["external_cash_flow"]) == ("1375", "2500", "0")
    await running.post("/_sim/trade", account_id=account_id, symbol="MSFT", quantity="1", price="99.999")
    assert (await truth_of(running, account_id))["cash"] == "1275"


async def test_the_truth_has_the_day_of_each_position(start: Start) -> None:
    """Since the previous close, less what was paid; not known after a transfer, whose value is a rule's."""
    running = await start()
    made = await running.post("/_sim/accounts", cash="1000", positions={"AAPL": "10"})
    account_id = made["account_id"]
    assert (await running.get(f"/_sim/accounts/{account_id}"))["booked_at"] is None
    await running.post("/_sim/print", symbol="AAPL", price="150")
    sold = {"symbol": "AAPL", "quantity": "-2.5", "price": "149"}
    await running.post("/_sim/trade", account_id=account_id, **sold)
    close = running.sim.market.listing("AAPL").previous_close
    truth = await running.get(f"/_sim/accounts/{account_id}")
    (held,) = truth["positions"]
    assert Decimal(held["day_pnl"]) == Decimal("7.5") * 150 + Decimal("2.5") * 149 - 10 * close
    assert Decimal(held["cost_basis"]) == Decimal("7.5") * close
    assert held["mark_at"] < truth["booked_at"]

    transfer = {"activity_type": "ACATS", "symbol": "AAPL", "quantity": "1", "price": "150"}
    await running.post("/_sim/securities", account_id=account_id, **transfer)
    (held,) = (await running.get(f"/_sim/accounts/{account_id}"))["positions"]
    assert held["day_pnl"] is None


@pytest.mark.parametrize(
    ("activity_type", "amount", "cash", "flow"),
    [
        ("CSD", "500.00", "1500", "500"),
        ("CSW", "500.00", "500", "-500"),
        ("JNLC", "-4.81", "995.19", "-4.81"),
        ("FEE", "0.02", "999.98", "0"),
        ("DIV", "28.25", "1028.25", "0"),
    ],
)
async def test_deposits_are_flows_while_fees_and_dividends_are_gains(
    start: Start, activity_type: str, amount: str, cash: str, flow: str
) -> None:
    """Day P&L is free of what the client brought in or took out."""
    running = await start()
    account_id = (await running.post("/_sim/accounts", cash="1000", positions={}))["account_id"]
    await running.post("/_sim/cash", account_id=account_id, activity_type=activity_type, amount=amount)
    truth = await truth_of(running, account_id)
    assert (truth["cash"], truth["external_cash_flow"]) == (cash, flow)
    assert Decimal(truth["day_pnl"]) == Decimal(cash) - 1000 - Decimal(flow)


async def test_a_created_account_appears_at_the_broker(start: Start) -> None:
    """Newest first in the list, with its last equity and positions."""
    running = await start()
    made = await running.post("/_sim/accounts", cash="1000", positions={"AAPL": "10"}, last_equity="2500")
    newest = (await running.get("/v1/accounts"))[0]
    assert (newest["id"], newest["last_equity"]) == (made["account_id"], "2500")
    (position,) = await running.get(f"/v1/trading/accounts/{made['account_id']}/positions")
    assert (position["symbol"], position["qty"]) == ("AAPL", "10")
    assert made["account_id"] in (await running.get("/_sim/accounts"))["accounts"]


async def test_a_symbol_can_be_added_with_its_previous_close(start: Start) -> None:
    """New symbols trade at once; known ones get a print."""
    running = await start()
    await running.post("/_sim/symbols", symbol="NEW", price="12.34", previous_close="12.00")
    assert (await running.get("/v1/assets/NEW"))["symbol"] == "NEW"
    account_id = (await running.post("/_sim/accounts", positions={"NEW": "3"}))["account_id"]
    truth = await truth_of(running, account_id)
    assert (truth["equity"], truth["last_equity"], truth["day_pnl"]) == ("37.02", "36", "1.02")
    assert (await running.post("/_sim/symbols", symbol="NEW", price="13"))["mark"] == "13"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("trade", {"account_id": "nobody", "symbol": "AAPL", "quantity": "1"}, 404),
        ("trade", {"account_id": "first", "symbol": "NOPE", "quantity": "1"}, 404),
        ("trade", {"account_id": "first", "symbol": "AAPL", "quantity": "0"}, 422),
        ("trade", {"account_id": "first", "symbol": "AAPL", "quantity": "NaN"}, 422),
        ("cash", {"account_id": "first", "activity_type": "GIFT", "amount": "1"}, 422),
        ("cash", {"account_id": "first", "activity_type": "CSD"}, 422),
        ("cut", {"stream": "all"}, 422),
        ("symbols", {"symbol": "AAPL", "price": "1", "previous_close": "2"}, 422),
        ("symbols", {"symbol": "ODD", "price": "1", "asset_class": "bond"}, 422),
        ("accounts", {"cash": "1", "positions": {"NOPE": "1"}}, 404),
        ("print", {"symbol": "AAPL", "price": "1", "conditions": "@"}, 422),
        ("print", {"symbol": "AAPL", "price": "0"}, 422),
    ],
)
async def test_wrong_orders_are_refused(start: Start, path: str, body: dict[str, str], status: int) -> None:
    """With 404 for what is unknown, 422 for what is impossible; and nothing has changed."""
    running = await start()
    if body.get("account_id") == "first":
        body = body | {"account_id": running.account_ids[0]}
    response = await running.http.post(f"/_sim/{path}", json=body)
    assert response.status_code == status
    assert (await running.get("/_sim/state"))["activities"] == 0


async def test_an_unreachable_past_is_refused_instead_of_invented(start: Start) -> None:
    """422 where the price history does not reach."""
    running = await start()
    account_id = (await running.post("/_sim/accounts", positions={"AAPL": "1"}))["account_id"]
    assert await running.status(f"/_sim/accounts/{account_id}", at="2020-01-01T00:00:00Z") == 422


def truths(running: Running) -> list[Truth]:
    """Every account's figures."""
    ledger = running.sim.ledger
    return [ledger.truth(account_id, 0) for account_id in ledger.accounts]


def with_known(running: Running, body: dict[str, Any]) -> dict[str, Any]:
    """The body with an account, and a symbol that it holds now."""
    first = running.account_ids[0]
    held = next(iter(running.sim.ledger.accounts[first].current.positions), "AAPL")
    known = {FIRST: first, HELD: held}
    return {
        name: known.get(value, value) if isinstance(value, str) else value for name, value in body.items()
    }


@pytest.mark.parametrize("path", BODIES)
async def test_an_odd_field_is_refused_with_its_reason_and_nothing_is_changed(
    start: Start, path: str
) -> None:
    """Wrong types, unknown names, negative prices, numbers of any length: no 5xx, and the ledger can be read.

    A body that is no object is refused, too.
    """
    running = await start()
    for name in BODIES[path]:
        for odd in ODD:
            if name.endswith("_s") and odd == 0:
                continue  # is right: a booking then comes by itself, between two looks
            before = truths(running)
            body = {**with_known(running, BODIES[path]), name: odd}
            response = await running.http.post(f"/_sim/{path}", json=body)
            told = f"{path} {name}={odd!r}: {response.status_code} {response.text}"
            assert response.status_code == 200 or 400 <= response.status_code < 500, told
            if response.status_code != 200:
                assert response.json()["message"], told
                assert truths(running) == before, told
            is_negative = name in POSITIVE and odd in (-1, "-1", 0)
            if is_negative or (name in NAMES and (path, name) != ("symbols", "symbol")):
                assert response.status_code != 200, told
            truths(running)  # is exact, or raises
    for body in ([], "x", 1, None):
        assert (await running.http.post(f"/_sim/{path}", json=body)).status_code == 422


async def test_a_price_of_null_is_only_for_a_new_symbol(start: Start) -> None:
    """A listed symbol would trade at a made-up price."""
    running = await start()
    await running.post("/_sim/print", symbol="AAPL", price="172.61")
    response = await running.http.post("/_sim/symbols", json={"symbol": "AAPL", "price": None})
    assert response.status_code == 422
    assert "give the price" in response.json()["message"]
    assert running.sim.market.mark("AAPL") == Decimal("172.61")

    await running.post("/_sim/symbols", symbol="NEVER", price=None)
    response = await running.http.post("/_sim/symbols", json={"symbol": "NEVER", "price": None})
    assert response.status_code == 422
    assert running.sim.market.symbols["NEVER"].is_unpriced


@pytest.mark.parametrize("path", ["correct", "amend"])
async def test_a_misspelt_price_does_not_cancel(start: Start, path: str) -> None:
    """Without a price, these requests take a trade back."""
    running = await start()
    await running.post("/_sim/print", symbol="AAPL", price="172.61")
    body = with_known(running, BODIES[path])
    body["prise"] = body.pop("price")
    response = await running.http.post(f"/_sim/{path}", json=body)
    assert response.status_code == 422
    assert "prise" in response.json()["message"]
    assert running.sim.market.mark("AAPL") == Decimal("172.61")


async def test_a_dividend_of_the_whole_price_is_refused(start: Start) -> None:
    """The price falls by the dividend, and no price is zero."""
    running = await start()
    await running.post("/_sim/print", symbol="AAPL", price="172.61")
    body = {"symbol": "AAPL", "rate": "172.61"}
    assert (await running.http.post("/_sim/dividend", json=body)).status_code == 422
    assert running.sim.market.mark("AAPL") == Decimal("172.61")

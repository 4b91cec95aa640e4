"""What real payloads contain and clients stumble over: each switch, lever and fault sends its own."""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from alpaca_sim.api.odd_accounts import CONTRADICTION, HELD_BACK, TREASURY
from alpaca_sim.core.leg_details import FORMS
from alpaca_sim.core.switches import CHOICES, ODDITIES, Switches
from tests.alpaca_sim.conftest import Running, Start
from tests.conftest import Until

AAPL, BTC, OPTION = "AAPL", "BTC/USD", "AAPL261120P00060000"
HELD = {AAPL: "10", BTC: "1"}


async def told(running: Running, account_id: str) -> tuple[dict[str, Any], dict[str, Any], list[Any]]:
    """What REST says of an account: its row in the list, its balances, its positions."""
    rows = {row["id"]: row for row in await running.get("/v1/accounts")}
    base = f"/v1/trading/accounts/{account_id}"
    return rows[account_id], await running.get(f"{base}/account"), await running.get(f"{base}/positions")


async def opened(running: Running, **positions: str) -> str:
    """A new account with 10,000 dollars."""
    made = await running.post("/_sim/accounts", cash="10000", positions=positions or HELD)
    return made["account_id"]


async def events(running: Running) -> list[dict[str, Any]]:
    """Every activity event so far."""
    until = {"since": "2020-01-01T00:00:00Z", "until": (await running.get("/_sim/clock"))["now"]}
    text = (await running.http.get("/v2beta1/events/activities", params=until)).text
    return [msgspec.json.decode(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


async def rows(running: Running, account_id: str) -> list[dict[str, Any]]:
    """The activities of an account that REST lists."""
    return await running.get("/v1/accounts/activities", account_id=account_id)


Check = Callable[[Running, str, Any], Awaitable[None]]


async def _no_cash(running: Running, account_id: str, _before: Any) -> None:
    row, state, _ = await told(running, account_id)
    assert (row["status"], state["status"]) == ("ONBOARDING", "ONBOARDING")
    assert "cash" not in state and "last_equity" not in row


async def _euro(running: Running, account_id: str, _before: Any) -> None:
    row, state, _ = await told(running, account_id)
    assert (row["currency"], state["currency"]) == ("EUR", "EUR")


async def _error(running: Running, account_id: str, _before: Any) -> None:
    for part in ("account", "positions"):
        assert await running.status(f"/v1/trading/accounts/{account_id}/{part}") == 500


async def _null_field(running: Running, account_id: str, _before: Any) -> None:
    row, state, _ = await told(running, account_id)
    assert (row["currency"], row["created_at"], state["cash"]) == (None, None, None)


async def _twice(running: Running, account_id: str, before: Any) -> None:
    positions = (await told(running, account_id))[2]
    assert [row["symbol"] for row in positions] == [*(row["symbol"] for row in before[2]), AAPL]
    assert len({row["asset_id"] for row in positions}) == len(positions)


async def _hold(running: Running, account_id: str, before: Any) -> None:
    state = (await told(running, account_id))[1]
    assert Decimal(state["cash"]) == Decimal(before[1]["cash"]) - HELD_BACK
    assert state["equity"] == before[1]["equity"]


async def _contradiction(running: Running, account_id: str, before: Any) -> None:
    state = (await told(running, account_id))[1]
    assert Decimal(state["equity"]) == Decimal(before[1]["equity"]) + CONTRADICTION
    assert state["cash"] == before[1]["cash"]


async def _ipo(running: Running, account_id: str, _before: Any) -> None:
    positions = (await told(running, account_id))[2]
    assert [(row["symbol"], row["asset_class"], row["exchange"]) for row in positions] == [
        (AAPL, "ipo", ""),
        ("BTCUSD", "crypto", "CRYPTO"),
    ]


CHECKS: dict[str, Check] = {
    "no_cash": _no_cash,
    "euro": _euro,
    "error": _error,
    "null_field": _null_field,
    "twice": _twice,
    "hold": _hold,
    "contradiction": _contradiction,
    "ipo": _ipo,
}


def test_every_oddity_is_checked_below() -> None:
    """And is a choice of the switch."""
    assert set(CHECKS) == set(ODDITIES)
    assert CHOICES["odd_account"] == ("none", *ODDITIES)


@pytest.mark.parametrize("name", ODDITIES)
async def test_a_switch_makes_the_first_account_odd_and_no_other(start: Start, name: str) -> None:
    """For good, by the order of the ids."""
    running = await start(account_count=0, switches=Switches(odd_account=name))
    ids = sorted([await opened(running) for _ in range(3)])
    others = [await told(running, account_id) for account_id in ids[1:]]
    await CHECKS[name](running, ids[0], others[0])
    for row, state, positions in others:
        assert (row["status"], row["currency"], state["cash"]) == ("ACTIVE", "USD", "10000")
        assert [position["symbol"] for position in positions] == [AAPL, "BTCUSD"]


@pytest.mark.parametrize("name", ODDITIES)
async def test_a_fault_makes_some_accounts_odd_while_it_lasts(start: Start, name: str) -> None:
    """As many as its level says; then all is as before."""
    running = await start(account_count=0)
    ids = sorted([await opened(running) for _ in range(3)])
    before = [await told(running, account_id) for account_id in ids]
    await running.fault(f"odd.{name}", for_s=600.0, level=2)
    for account_id, was in zip(ids[:2], before, strict=False):
        await CHECKS[name](running, account_id, was)
    assert (await told(running, ids[2]))[1]["cash"] == before[2][1]["cash"]
    await running.http.delete("/_sim/faults")
    after = [await told(running, account_id) for account_id in ids]
    assert [(state["cash"], len(held)) for _, state, held in after] == [("10000", 2)] * 3


async def test_a_deposit_that_only_rows_tell(start: Start) -> None:
    """`deposits=rows_only`: no event of it, and everything else as ever."""
    running = await start(account_count=0, switches=Switches(deposits="rows_only"))
    account_id = await opened(running)
    for code, amount in (("CSD", "5000"), ("CSW", "-20")):
        await running.post("/_sim/cash", account_id=account_id, activity_type=code, amount=amount)
    assert [event["activity_type"] for event in await events(running)] == ["CSW"]
    assert {row["activity_type"] for row in await rows(running, account_id)} == {"CSD", "CSW"}


async def test_coins_that_pay_for_coins_move_no_dollar(start: Start) -> None:
    """`coin_pairs=yes`: ETH comes, BTC goes; the event's amount is in the coin that pays."""
    running = await start(account_count=60, symbol_count=24, switches=Switches(coin_pairs="yes"))
    held = {symbol for one in running.sim.ledger.accounts.values() for symbol in one.current.positions}
    assert {"BTC/USD", "ETH/USD"} <= held and "ETH/BTC" not in held
    account_id = await opened(running)
    await running.post("/_sim/trade", account_id=account_id, symbol="ETH/BTC", quantity="2", price="0.04")
    _, state, positions = await told(running, account_id)
    assert state["cash"] == "10000"
    assert {row["symbol"]: row["qty"] for row in positions} == {AAPL: "10", "BTCUSD": "0.92", "ETHUSD": "2"}
    (event,) = await events(running)
    assert (event["details"]["symbol"], event["qty"], event["net_amount"]) == ("ETH/BTC", "2", "-0.08")


async def test_options_of_corporate_actions(start: Start) -> None:
    """`option_roots=adjusted`: a digit in the root, and the exchange OPCA."""
    running = await start(switches=Switches(option_roots="adjusted"))
    options = await running.get("/v1/assets", asset_class="us_option")
    assert options
    assert all(row["symbol"][:-15].endswith("1") and row["exchange"] == "OPCA" for row in options)


async def test_a_bond_is_priced_per_hundred_of_par(start: Start) -> None:
    """`bond=held`: its value is a hundredth of quantity times price, and equity contains it."""
    running = await start(account_count=0, switches=Switches(bond="held"))
    first, second = sorted([await opened(running) for _ in range(2)])
    bond = (await told(running, first))[2][-1]
    assert (bond["symbol"], bond["asset_class"]) == (TREASURY, "us_treasury")
    assert Decimal(bond["qty"]) * Decimal(bond["current_price"]) / 100 == Decimal(bond["market_value"])
    equities = [Decimal((await told(running, one))[1]["equity"]) for one in (first, second)]
    assert equities[0] - equities[1] == Decimal(bond["market_value"])


async def test_a_crypto_fee_leaves_the_position_at_the_fill_and_is_told_later(
    start: Start, until: Until
) -> None:
    """`crypto_fee=at_fill`: REST has the net quantity at once; row and event come a minute later."""
    running = await start(account_count=0, switches=Switches(crypto_fee="at_fill"))
    account_id = await opened(running, **{BTC: "1"})
    await running.post("/_sim/trade", account_id=account_id, symbol=BTC, quantity="0.1")
    assert (await told(running, account_id))[2][0]["qty"] == "1.09975"
    assert [event["activity_type"] for event in await events(running)] == ["TRD"]
    assert [row["activity_type"] for row in await rows(running, account_id)] == ["FILL"]
    running.sim.agenda.run(running.sim.clock.now_ns() + 61 * 10**9)
    fee = (await events(running))[-1]
    assert (fee["activity_type"], fee["qty"], fee["details"]["symbol"]) == ("CFEE", "-0.00025", "BTCUSD")
    assert fee["executed_at"] < fee["at"]
    assert {row["activity_type"] for row in await rows(running, account_id)} == {"FILL", "CFEE"}
    assert (await told(running, account_id))[2][0]["qty"] == "1.09975"


async def test_a_deposit_that_is_told_late(start: Start) -> None:
    """REST has the cash, and nobody says why until later; it is booked once."""
    running = await start(account_count=0)
    account_id = await opened(running)
    await running.post("/_sim/late", account_id=account_id, amount="500", told_in_s=30)
    assert (await told(running, account_id))[1]["cash"] == "10500"
    assert (await events(running), await rows(running, account_id)) == ([], [])
    running.sim.agenda.run(running.sim.clock.now_ns() + 31 * 10**9)
    assert [event["net_amount"] for event in await events(running)] == ["500"]
    assert (await told(running, account_id))[1]["cash"] == "10500"


async def test_a_paper_account_is_set_back_and_a_split_comes_without_a_booking(start: Start) -> None:
    """Neither events nor rows tell of it."""
    running = await start(account_count=0)
    back, split = await opened(running), await opened(running)
    await running.post("/_sim/reset", account_id=back, cash="100000")
    await running.post("/_sim/split", symbol=AAPL, new_rate="2", gap_s=0, told=False)
    running.sim.agenda.run(running.sim.clock.now_ns())
    assert (await told(running, back))[1]["cash"] == "100000"
    assert (await told(running, back))[2] == []
    quantities = {row["symbol"]: row["qty"] for row in (await told(running, split))[2]}
    assert quantities == {AAPL: "20", "BTCUSD": "1"}
    assert await events(running) == []
    assert [await rows(running, account_id) for account_id in (back, split)] == [[], []]


async def test_a_merger_comes_as_a_group_of_three_legs(start: Start) -> None:
    """Shares go, others and cash come; with a gap the later two come after it."""
    running = await start(account_count=0)
    account_id = await opened(running, AAPL="10")
    body = {"account_id": account_id, "symbol": AAPL, "into": "MSFT", "ratio": "0.5", "cash": "12.34"}
    group = await running.post("/_sim/exchange", **body, gap_s=30)
    assert [(event["qty"], event["details"]["symbol"]) for event in await events(running)] == [("-10", AAPL)]
    running.sim.agenda.run(running.sim.clock.now_ns() + 31 * 10**9)
    legs = await events(running)
    assert [(leg["qty"], leg["details"]["symbol"], leg["net_amount"]) for leg in legs] == [
        ("-10", AAPL, "0"),
        ("5", "MSFT", "0"),
        ("0", AAPL, "12.34"),
    ]
    assert {leg["details"]["group_id"] for leg in legs} == {group["group_id"]}
    _, state, positions = await told(running, account_id)
    assert (state["cash"], [(row["symbol"], row["qty"]) for row in positions]) == (
        "10012.34",
        [("MSFT", "5")],
    )


@pytest.mark.parametrize(
    ("quantity", "code", "shares", "cash"), [("-1", "OPASN", "100", "4000"), ("2", "OPEXC", "-200", "22000")]
)
async def test_an_option_is_assigned_or_exercised_as_a_group(
    start: Start, quantity: str, code: str, shares: str, cash: str
) -> None:
    """The put goes; shares change hands at its strike of 60."""
    running = await start(account_count=0)
    await running.post("/_sim/symbols", symbol=OPTION, price="3", asset_class="us_option")
    account_id = await opened(running, **{OPTION: quantity})
    await running.post("/_sim/exercise", account_id=account_id, symbol=OPTION)
    legs = await events(running)
    assert [(leg["activity_type"], leg["qty"], leg["details"]["symbol"]) for leg in legs] == [
        (code, quantity[1:] if quantity[0] == "-" else f"-{quantity}", OPTION),
        ("OPTRD", shares, AAPL),
    ]
    assert len({leg["details"]["group_id"] for leg in legs}) == 1
    _, state, positions = await told(running, account_id)
    assert state["cash"] == cash
    assert [(row["symbol"], row["qty"]) for row in positions] == [(AAPL, shares)]


async def test_a_contract_gets_a_root_with_a_digit(start: Start) -> None:
    """The old contract goes and the new one comes, in one group, in every account."""
    running = await start(account_count=0)
    await running.post("/_sim/symbols", symbol=OPTION, price="3", asset_class="us_option")
    account_id = await opened(running, **{OPTION: "2"})
    adjusted = await running.post("/_sim/adjust", symbol=OPTION)
    assert adjusted == {"symbol": "AAPL1261120P00060000", "accounts": 1}
    (position,) = (await told(running, account_id))[2]
    assert (position["symbol"], position["exchange"]) == (adjusted["symbol"], "OPCA")
    legs = await events(running)
    stated = [(leg["activity_type"], leg["qty"], leg["net_amount"]) for leg in legs]
    assert stated == [("OPCA", "-2", "600"), ("OPCA", "2", "-600")]  # the amounts cancel
    assert len({leg["details"]["group_id"] for leg in legs}) == 1


@pytest.mark.parametrize("form", FORMS)
async def test_the_legs_of_a_group_name_what_they_move_in_each_form(start: Start, form: str) -> None:
    """`legs`: their own symbol and the group, both parties and the action, or their own symbol alone."""
    running = await start(account_count=0, switches=Switches(legs=form))
    await running.post("/_sim/symbols", symbol=OPTION, price="3", asset_class="us_option")
    account_id = await opened(running, AAPL="10", **{OPTION: "2"})
    body = {"account_id": account_id, "symbol": AAPL, "into": "MSFT", "ratio": "0.5"}
    await running.post("/_sim/exchange", **body)
    adjusted = (await running.post("/_sim/adjust", symbol=OPTION))["symbol"]
    await running.post("/_sim/exercise", account_id=account_id, symbol=adjusted)

    left, came, old, new, exercised, shares = (leg["details"] for leg in await events(running))

    option = {"symbol": AAPL, "contract_symbol": adjusted}
    contracts = {"symbol": AAPL, "old_contract_symbol": OPTION, "new_contract_symbol": adjusted}
    merger = {"acquiree_symbol": AAPL, "acquirer_symbol": "MSFT"}
    named: list[dict[str, str]] = [merger, merger, contracts, contracts, option, option]
    if form != "parties":
        own = (AAPL, "MSFT", OPTION, adjusted, adjusted, AAPL)
        named = [{"symbol": symbol} for symbol in own]
    legs = (left, came, old, new, exercised, shares)
    for details, names in zip(legs, named, strict=True):
        stated = {name: value for name, value in details.items() if name.endswith("symbol")}
        assert stated == names
    shared = {"symbol": "group_id", "parties": "ca_id", "loose": None}[form]
    for one, other in ((left, came), (old, new)):
        ids = [{details.get(name) for details in (one, other)} for name in ("group_id", "ca_id")]
        assert [len(found - {None}) for found in ids] == [shared == "group_id", shared == "ca_id"]
    assert len({details.get("group_id") for details in (exercised, shares)}) == 1
    assert exercised["group_id"]  # options always have one
    assert {row["symbol"] for row in await rows(running, account_id)} == {AAPL, "MSFT", OPTION, adjusted}
    held = {row["symbol"]: row["qty"] for row in (await told(running, account_id))[2]}
    assert held == {AAPL: "-200", "MSFT": "5"}


async def test_coins_come_in_on_chain(start: Start) -> None:
    """Quantity and price, no cash; it is the client's own."""
    running = await start(account_count=0)
    account_id = await opened(running)
    body = {"activity_type": "OCT", "symbol": BTC, "quantity": "0.5", "price": "60000"}
    await running.post("/_sim/securities", account_id=account_id, **body)
    (event,) = await events(running)
    assert (event["qty"], event["price"], event["net_amount"]) == ("0.5", "60000", "0")
    assert (event["details"]["symbol"], "transfer_id" in event["details"]) == ("BTCUSD", True)
    truth = await running.get(f"/_sim/accounts/{account_id}")
    assert truth["external_cash_flow"] == "30000"


@pytest.mark.parametrize(
    ("kind", "level", "codes"),
    [
        ("ledger.group", 2, {"MA", "NC"}),
        ("ledger.exercise", 2, {"OPEXC", "OPTRD"}),
        ("ledger.coins", 2, {"OCT"}),
        ("ledger.memo", 2, {"MEM", "CSD"}),
        ("ledger.late", 3, {"CSD"}),
    ],
)
async def test_bookings_of_fault_plans(start: Start, kind: str, level: int, codes: set[str]) -> None:
    """All are told in the end, and the ledger's cash is what REST says."""
    running = await start(account_count=0)
    await running.post("/_sim/symbols", symbol=OPTION, price="3", asset_class="us_option")
    ids = [await opened(running, **{**HELD, OPTION: "1"}) for _ in range(3)]
    await running.fault(kind, level=level)
    running.sim.agenda.run(running.sim.clock.now_ns() + 31 * 10**9)
    seen = await events(running)
    assert {event["activity_type"] for event in seen} <= codes
    assert len({event["account_id"] for event in seen}) == (1 if kind == "ledger.late" else 2)
    cash = {one: Decimal((await told(running, one))[1]["cash"]) for one in ids}
    booked = dict.fromkeys(ids, Decimal(10_000))
    for event in seen:
        booked[event["account_id"]] += Decimal(event["net_amount"])
    assert cash == booked

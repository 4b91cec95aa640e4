"""Days that go by: sessions, close, overnight roll, bars that flip, splits and dividends, virtual time."""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from alpaca_sim.api.events import system_json
from alpaca_sim.control.routes import truth_json
from alpaca_sim.core import faults
from alpaca_sim.core.clock import MovableClock, new_york, parse_time_ns, rfc3339
from alpaca_sim.core.sessions import Calendar, trade_date
from alpaca_sim.core.switches import Switches
from alpaca_sim.simulator import Simulator
from alpaca_sim.streams.activities_json import event_json
from alpaca_sim.streams.feeds import Subscriber
from alpaca_sim.streams.messages import Encoding
from tests.alpaca_sim.conftest import Running, Start, quiet
from tests.support.simulated_days import MONDAY_PRE, ROLL, begin, go


async def account_of(running: Running, index: int = 0) -> dict[str, Any]:
    """A trading account as REST tells it."""
    return await running.get(f"/v1/trading/accounts/{running.account_ids[index]}/account")


async def close_value(running: Running, index: int) -> tuple[Decimal, Decimal]:
    """Cash, and equity at closing prices, from what REST says now: positions and the day's bars."""
    account_id = running.account_ids[index]
    balance = await running.get(f"/v1/trading/accounts/{account_id}/account")
    cash = equity = Decimal(balance["cash"])
    for row in await running.get(f"/v1/trading/accounts/{account_id}/positions"):
        contract = 100 if row["asset_class"] == "us_option" else 1
        close = Decimal(row["current_price"])  # of a coin
        if row["asset_class"] != "crypto":
            path = "/v2/stocks/snapshots" if contract == 1 else "/v1beta1/options/snapshots"
            body = await running.get(path, symbols=row["symbol"])
            close = Decimal(str(body.get("snapshots", body)[row["symbol"]]["dailyBar"]["c"]))
        equity += Decimal(row["qty"]) * contract * close
    return cash, equity


# Calendar


@pytest.mark.parametrize(
    ("moment", "session"),
    [
        ("2026-11-23T03:59:59-05:00", "overnight"),
        ("2026-11-23T04:00:00-05:00", "pre"),
        ("2026-11-23T09:30:00-05:00", "core"),
        ("2026-11-23T16:00:00-05:00", "post"),
        ("2026-11-23T20:00:00-05:00", "overnight"),
        ("2026-11-25T20:00:00-05:00", "closed"),  # the evening before a holiday
        ("2026-11-26T12:00:00-05:00", "closed"),
        ("2026-11-26T20:00:00-05:00", "overnight"),
        ("2026-11-27T12:59:59-05:00", "core"),  # a half day
        ("2026-11-27T13:00:00-05:00", "post"),
        ("2026-11-27T17:00:00-05:00", "closed"),
        ("2026-11-27T20:00:00-05:00", "closed"),  # Friday evening
        ("2026-11-29T19:59:59-05:00", "closed"),
        ("2026-11-29T20:00:00-05:00", "overnight"),  # Sunday evening
        ("2026-03-06T14:30:00Z", "core"),  # 09:30 in winter
        ("2026-03-09T13:30:00Z", "core"),  # 09:30 after the clocks went ahead
        ("2026-03-09T13:29:59Z", "pre"),
        ("2026-11-02T14:29:59Z", "pre"),  # and back
    ],
)
def test_sessions_follow_new_york(moment: str, session: str) -> None:
    """Holidays, half days, both changes of the clocks, and the overnight market from Sunday evening."""
    assert Calendar("nyse").session(parse_time_ns(moment)) == session


def test_trades_from_20_00_on_belong_to_the_next_date() -> None:
    """Also when that date is a Monday and the evening a Sunday's."""
    assert trade_date(new_york(parse_time_ns("2026-11-29T20:00:00-05:00"))) == date(2026, 11, 30)
    assert trade_date(new_york(parse_time_ns("2026-11-29T19:59:59-05:00"))) == date(2026, 11, 29)


async def test_clock_and_calendar_endpoints_know_holidays_and_half_days(start: Start) -> None:
    """As Alpaca spells them: HH:MM and HHMM."""
    running = await begin(start, "2026-11-25T17:00:00-05:00")
    days = await running.get("/v1/calendar", start="2026-11-25", end="2026-11-30")
    assert [day["date"] for day in days] == ["2026-11-25", "2026-11-27", "2026-11-30"]
    assert (days[1]["close"], days[1]["session_close"], days[1]["settlement_date"]) == (
        "13:00",
        "1700",
        "2026-11-30",
    )
    clock = await running.get("/v1/clock")
    assert clock["is_open"] is False
    assert clock["next_open"] == "2026-11-27T09:30:00-05:00"
    assert clock["next_close"] == "2026-11-27T13:00:00-05:00"


# The roll


async def test_last_figures_are_of_16_00_and_appear_only_after_the_roll(start: Start) -> None:
    """What happens after the close belongs to the next day, also a deposit and a trade of the evening."""
    running = await begin(start, account_count=6, has_history=True)
    before = [await account_of(running, index) for index in range(6)]
    assert {row["balance_asof"] for row in before} == {"2026-11-20"}
    await go(running, "2026-11-23T10:00:00-05:00")
    await running.post("/_sim/print", symbol="AAPL", price="240.00")
    await running.post("/_sim/trade", account_id=running.account_ids[0], symbol="AAPL", quantity="3")
    await go(running, "2026-11-23T16:00:00-05:00")
    closing = [await close_value(running, index) for index in range(6)]
    await running.post("/_sim/print", symbol="AAPL", price="260.00", conditions=["@", "T"])
    await running.post("/_sim/cash", account_id=running.account_ids[0], activity_type="CSD", amount="777.77")
    await running.post("/_sim/trade", account_id=running.account_ids[0], symbol="AAPL", quantity="-1")
    await go(running, "2026-11-24T02:14:59-05:00")
    names = ("last_equity", "last_cash", "balance_asof")
    for index in range(6):
        row = await account_of(running, index)
        assert [row[name] for name in names] == [before[index][name] for name in names]
    async with running.http.stream("GET", "/v2/events/system") as events:
        lines = events.aiter_lines()
        await go(running, "2026-11-24T02:15:00-05:00")
        told = [msgspec.json.decode(line[6:]) async for line in _two_events(lines)]
    assert [(event["type"], event["system_date"]) for event in told] == [
        ("eod_balances_ready", "2026-11-23"),
        ("eod_positions_ready", "2026-11-23"),
    ]
    for index in range(6):
        row = await account_of(running, index)
        assert (Decimal(row["last_cash"]), Decimal(row["last_equity"])) == closing[index]
        assert row["balance_asof"] == "2026-11-23"
        truth = await running.get(f"/_sim/accounts/{running.account_ids[index]}")
        flow = Decimal("777.77") if index == 0 else Decimal(0)
        assert Decimal(truth["external_cash_flow"]) == flow
        assert Decimal(truth["day_pnl"]) == Decimal(row["equity"]) - Decimal(row["last_equity"]) - flow


async def _two_events(lines: AsyncIterator[str]) -> AsyncGenerator[str]:
    found = 0
    async for line in lines:
        if line.startswith("data: "):
            yield line
            found += 1
            if found == 2:
                return


async def test_a_roll_and_the_legs_of_a_split_end_a_record(start: Start) -> None:
    """The one between the legs says so."""
    running = await begin(start, "2026-11-24T02:14:00-05:00")
    made = await running.post("/_sim/accounts", cash="50", positions={"AAPL": "30"}, last_equity="7")
    began_s = time.monotonic()
    await go(running, "2026-11-24T03:00:00-05:00")
    await running.post("/_sim/split", symbol="AAPL", new_rate="4", gap_s=30, ex_date="2026-11-24")
    await running.post("/_sim/clock", advance_s=31)

    told = (await running.get("/_sim/former", after_s=began_s))["records"]
    yesterday, before, between = [one for one in told if one["account_id"] == made["account_id"]]

    assert yesterday["last_equity"] == "7" != before["last_equity"]
    assert (before["quantities"], before["in_transit"]) == ({"AAPL": "30"}, False)
    assert (between["quantities"], between["in_transit"]) == ({}, True)


async def test_a_week_with_a_holiday_rolls_once_per_trading_day(start: Start) -> None:
    """Over the weekend `last_equity` stays Friday's; coins move on, and the market opens on Monday."""
    running = await begin(start)
    days: list[str] = []
    for day in range(24, 31):
        await go(running, f"2026-11-{day}T03:00:00-05:00")
        days.append((await account_of(running))["balance_asof"][-2:])
    assert days == ["23", "24", "25", "25", "27", "27", "27"]
    assert len(running.sim.books.events) == 2 * 4


async def test_the_clocks_go_back_and_the_roll_stays_at_its_new_york_time(start: Start) -> None:
    """Friday 30 October rolls at 06:15 UTC, Monday 2 November at 07:15 UTC."""
    running = await begin(start, "2026-10-30T12:00:00-04:00")
    await go(running, "2026-11-03T12:00:00-05:00")
    rolls = [rfc3339(event.at_ns)[:16] for event in running.sim.books.events[::2]]
    assert rolls == ["2026-10-31T06:15", "2026-11-03T07:15"]


async def test_a_start_between_close_and_roll_makes_up_for_the_close(start: Start) -> None:
    """What was booked after 16:00, before the simulator began, is in the next day."""
    running = await begin(start, "2026-11-23T22:00:00-05:00", account_count=200, has_history=True)
    sim = running.sim
    cut_ns = parse_time_ns("2026-11-23T16:00:00-05:00")
    late = [activity for activity in sim.ledger.activities if activity.at_ns > cut_ns]
    flows = {key: Decimal(0) for key in sim.ledger.accounts}
    for activity in late:
        flows[activity.account_id] += activity.external_cash_flow
    assert any(flows.values())
    assert (await account_of(running))["balance_asof"] == "2026-11-20"
    await go(running, "2026-11-24T03:00:00-05:00")
    truths = (await running.get("/_sim/truth"))["accounts"]
    assert {key: Decimal(truth["external_cash_flow"]) for key, truth in truths.items()} == flows
    assert (await account_of(running))["balance_asof"] == "2026-11-23"


async def test_the_average_entry_price_changes_overnight_without_a_trade(start: Start) -> None:
    """In the day it is weighted, at night the oldest shares count as sold: cost moves, equity does not."""
    running = await begin(start)
    made = await running.post("/_sim/accounts", cash="100000", positions={})
    account_id = made["account_id"]
    path = f"/v1/trading/accounts/{account_id}/positions/AAPL"
    for quantity, price in (("10", "100"), ("10", "200"), ("-10", "150")):
        await running.post(
            "/_sim/trade", account_id=account_id, symbol="AAPL", quantity=quantity, price=price
        )
    assert (await running.get(path))["avg_entry_price"] == "150"
    equity = (await running.get(f"/_sim/accounts/{account_id}"))["equity"]
    await go(running, "2026-11-24T03:00:00-05:00")
    row = await running.get(path)
    assert (row["avg_entry_price"], row["cost_basis"]) == ("200", "2000")
    assert (await running.get(f"/_sim/accounts/{account_id}"))["equity"] == equity


# Bars


async def test_before_the_first_trade_of_a_session_the_daily_bar_is_the_last_days(start: Start) -> None:
    """The trap: `prevDailyBar` is then one day older. The first core trade flips it, an extended one not."""
    running = await begin(start)

    async def bars() -> tuple[str, str, float]:
        snapshot = (await running.get("/v2/stocks/snapshots", symbols="AAPL"))["AAPL"]
        daily, previous = snapshot["dailyBar"], snapshot["prevDailyBar"]
        return daily["t"], previous["t"], daily["c"]

    close = float(running.sim.market.listing("AAPL").previous_close)
    assert await bars() == ("2026-11-20T05:00:00Z", "2026-11-19T05:00:00Z", close)
    await running.post("/_sim/print", symbol="AAPL", price="230.00", conditions=["@", "T"])
    assert await bars() == ("2026-11-20T05:00:00Z", "2026-11-19T05:00:00Z", close)
    assert running.sim.market.mark("AAPL") == 230
    await go(running, "2026-11-23T09:30:00-05:00")
    await running.post("/_sim/print", symbol="AAPL", price="231.00")
    assert await bars() == ("2026-11-23T05:00:00Z", "2026-11-20T05:00:00Z", 231.0)


# Corporate actions


@pytest.mark.parametrize(("new_rate", "old_rate", "subtype"), [("4", "1", "FSPLIT"), ("1", "10", "RSPLIT")])
async def test_a_split_is_two_bookings_with_a_gap_and_moves_no_equity(
    start: Start, new_rate: str, old_rate: str, subtype: str
) -> None:
    """Old quantity out, new one in, same cost; then the price; bars before it stay raw."""
    running = await begin(start, "2026-11-24T03:00:00-05:00")
    made = await running.post("/_sim/accounts", cash="50", positions={"AAPL": "30"})
    account_id, mark = made["account_id"], running.sim.market.mark("AAPL")
    listing_close = running.sim.market.listing("AAPL").previous_close
    before = await running.get(f"/_sim/accounts/{account_id}")
    basis = running.sim.ledger.accounts[account_id].current.positions["AAPL"].cost_basis
    ratio = Decimal(new_rate) / Decimal(old_rate)
    await running.post(
        "/_sim/split", symbol="AAPL", new_rate=new_rate, old_rate=old_rate, gap_s=30, ex_date="2026-11-24"
    )
    between = await running.get(f"/_sim/accounts/{account_id}")
    assert (between["in_transit"], between["positions"]) == (["AAPL"], [])
    await running.post("/_sim/clock", advance_s=31)
    after = await running.get(f"/_sim/accounts/{account_id}")
    assert (after["in_transit"], after["positions"][0]["quantity"]) == ([], str(int(30 * ratio)))
    assert running.sim.market.mark("AAPL") == round(mark / ratio, 2)
    assert abs(Decimal(after["equity"]) - Decimal(before["equity"])) <= Decimal("0.005") * 30 * ratio
    assert running.sim.ledger.accounts[account_id].current.positions["AAPL"].cost_basis == basis
    legs = [
        event_json(activity, Switches()) for activity in running.sim.ledger.accounts[account_id].activities
    ]
    assert [(leg["activity_type"], leg["activity_subtype"], Decimal(leg["qty"])) for leg in legs] == [
        ("SPLIT", subtype, Decimal(-30)),
        ("SPLIT", subtype, 30 * ratio),
    ]
    assert legs[0]["details"]["group_id"] == legs[1]["details"]["group_id"]
    snapshot = (await running.get("/v2/stocks/snapshots", symbols="AAPL"))["AAPL"]
    assert snapshot["prevDailyBar"]["c"] in (float(listing_close), snapshot["dailyBar"]["c"])
    assert snapshot["latestTrade"]["p"] == float(running.sim.market.mark("AAPL"))
    row = await running.get(f"/v1/trading/accounts/{account_id}/positions/AAPL")
    assert Decimal(row["lastday_price"]) == round(listing_close / ratio, 4)
    eod = await running.get("/v1/reporting/eod/positions", account_id=account_id)
    assert eod["positions"][account_id][0]["qty"] == "30"


async def test_a_dividend_lowers_the_price_now_and_pays_who_held_it_then(start: Start) -> None:
    """Cash comes on the pay date, less tax; a short pays; who sold in between is paid all the same."""
    running = await begin(start, "2026-11-24T10:00:00-05:00")
    ids = [
        (await running.post("/_sim/accounts", cash="0", positions={"AAPL": quantity}))["account_id"]
        for quantity in ("100", "-40", "7.5")
    ]
    mark = running.sim.market.mark("AAPL")
    await running.post("/_sim/dividend", symbol="AAPL", rate="0.26", pay_in_s=3 * 86_400, withheld="0.3")
    assert running.sim.market.mark("AAPL") == mark - Decimal("0.26")
    await running.post("/_sim/trade", account_id=ids[0], symbol="AAPL", quantity="-100", price="100")
    await running.post("/_sim/clock", advance_s=3 * 86_400 + 1)
    booked = {
        key: [
            (activity.activity_type, activity.net_amount)
            for activity in running.sim.ledger.accounts[key].activities
            if activity.activity_type != "TRD"
        ]
        for key in ids
    }
    assert booked[ids[0]] == [("DIV", Decimal("26.00")), ("DIVNRA", Decimal("-7.80"))]
    assert booked[ids[1]] == [("DIV", Decimal("-10.40"))]
    assert booked[ids[2]] == [("DIV", Decimal("1.95")), ("DIVNRA", Decimal("-0.59"))]


# Virtual time


def run_virtually(seed: int, hours: float) -> dict[str, bytes]:
    """Everything that a simulator of this seed publishes and keeps in some hours of virtual time."""
    clock = MovableClock(parse_time_ns("2026-11-23T15:59:00-05:00"), 0)
    options = quiet(
        seed=seed,
        account_count=12,
        trades_per_second=0.5,
        activities_per_second=0.02,
        has_history=True,
        **ROLL,
    )
    sim = Simulator(options, clock)
    feed = sim.feeds.by_path["/v2/sip"]
    listener = Subscriber(("test", 0), Encoding.MSGPACK, {name: set() for name in feed.kind.channels}, "sip")
    feed.subscribers.add(listener)
    for channel in ("trades", "quotes", "bars", "statuses"):
        feed.subscribe(listener, channel, ["*"])
    sim.install(
        faults.plan(
            seed, hours * 3600, [name for name, kind in faults.KINDS.items() if kind.is_of_the_market]
        )
    )
    for _ in sim.jump(clock.now_ns() + int(hours * 3600 * 10**9), moves=True):
        pass
    as_of_ns = clock.now_ns()
    return {
        "stream": b"".join(listener.outbound),
        "events": msgspec.json.encode([event_json(one, Switches()) for one in sim.ledger.activities]),
        "system": msgspec.json.encode([system_json(event) for event in sim.books.events]),
        "truth": msgspec.json.encode(
            [truth_json(sim.ledger.truth(key, as_of_ns)) for key in sim.ledger.accounts]
        ),
    }


@pytest.mark.no_cover  # tracing would take most of the time
def test_the_same_seed_gives_the_same_bytes_in_virtual_time() -> None:
    """Streams, events and ledger over a close and a roll, with halts, corrections, cancels and busts."""
    first, again, other = (run_virtually(seed, hours=10.5) for seed in (4, 4, 5))
    assert {name: len(content) > 100 for name, content in first.items()} == dict.fromkeys(first, True)
    assert first == again
    assert first["stream"] != other["stream"] and first["events"] != other["events"]


async def test_a_clock_with_a_speed_runs_by_itself(start: Start) -> None:
    """A thousand seconds in one; the rate limit and tokens stay in the client's own time."""
    clock = MovableClock(parse_time_ns(MONDAY_PRE), speed=1000)
    running = await start(clock=clock, **ROLL)
    before = parse_time_ns((await running.get("/v1/clock"))["timestamp"])
    response = await running.http.get("/v1/clock")
    assert parse_time_ns(response.json()["timestamp"]) > before
    assert (
        int(response.headers["x-ratelimit-reset"]) * 10**9 - running.sim.service_clock.now_ns() < 61 * 10**9
    )


async def test_a_clock_is_moved_ahead_only_and_only_where_it_may_be(start: Start) -> None:
    """Each refusal in words."""
    running = await begin(start)
    for body in ({"set": "2026-11-20T00:00:00Z"}, {"set": "soon"}, {"advance_s": -1}, {"advance_s": "x"}):
        response = await running.http.post("/_sim/clock", json=body)
        assert response.status_code == 422, body
    on_the_wall = await start()
    refused = await on_the_wall.http.post("/_sim/clock", json={"advance_s": 1})
    assert refused.status_code == 422 and "--speed" in refused.json()["message"]

"""The twelve fidelity points of a simulated Alpaca, one test each, and more where a point has several sides.

What a point needs that other tests show in depth is only touched here; `docs/alpaca-facts.md` says where.
"""

import asyncio
import re
from contextlib import AsyncExitStack
from datetime import time
from decimal import Decimal

import httpx
import msgpack
import pytest

from alpaca_sim.api import events
from alpaca_sim.api.stream_session import ERRORS
from alpaca_sim.core import switches
from alpaca_sim.core.clock import SECOND_NS, MovableClock, parse_time_ns
from alpaca_sim.core.conditions import STOCK_CONDITIONS, Effect
from alpaca_sim.core.switches import SwitchError, Switches, read_switches
from tests.alpaca_sim.conftest import BASIC, Start
from tests.alpaca_sim.openapi import check, check_no_extra
from tests.support.event_clients import FIRST_ID, PATH, act, ids, open_stream
from tests.support.simulated_days import ROLL, begin, go
from tests.support.simulated_prices import print_price
from tests.support.simulators.tokens import token_of
from tests.support.stream_clients import AUTHENTICATED, CONNECTED, open_client

UNKNOWN_ACCOUNT = "/v1/trading/accounts/00000000-0000-4000-8000-000000000000/account"
DECIMAL = re.compile(r"-?\d+(\.\d+)?")
APCA = {"APCA-API-KEY-ID": "sim-key", "APCA-API-SECRET-KEY": "sim-secret"}


async def test_checklist_01_basic_bearer_and_apca(start: Start) -> None:
    """Basic and Bearer on broker and data paths, APCA headers on those of the Trading API and of data."""
    running = await start()
    bearer = {"Authorization": f"Bearer {await token_of(running)}"}
    async with httpx.AsyncClient(base_url=running.url) as http:
        for path in ("/v1/accounts", "/v2/stocks/trades/latest?symbols=AAPL"):
            assert (await http.get(path, auth=BASIC)).status_code == 200
            assert (await http.get(path, headers=bearer)).status_code == 200
        assert (await http.get("/v2/account", headers=APCA)).status_code == 200
        assert (await http.get("/v1/accounts", headers=APCA)).status_code == 401


async def test_checklist_02_money_is_text_but_in_history_and_nta_it_is_a_number(
    start: Start,
) -> None:
    """Never an exponent, never a float; the two documented exceptions are JSON numbers."""
    running = await begin(start, account_count=30)
    longest = 0
    for account_id in running.account_ids:
        row = await running.get(f"/v1/trading/accounts/{account_id}/account")
        for name in ("equity", "cash", "last_equity", "long_market_value", "buying_power"):
            assert DECIMAL.fullmatch(row[name])
            longest = max(longest, len(row[name].partition(".")[2]))
    assert longest >= 11
    account_id = running.account_ids[0]
    await running.post("/_sim/cash", account_id=account_id, activity_type="CSD", amount="9.93")
    async with open_stream(running, "/v1/events/nta", since_ulid=FIRST_ID) as stream:
        event = await stream.next() or {}
    check("broker", "NonTradeActivityEvent", event)
    assert event["net_amount"] == 9.93 and event["qty"] == 0
    await go(running, "2026-11-25T03:00:00-05:00")
    history = await running.get(
        f"/v1/trading/accounts/{account_id}/account/portfolio/history", timeframe="1D"
    )
    check("broker", "PortfolioHistory", history)
    assert history["timestamp"] == [
        parse_time_ns(f"2026-11-{day}T01:00:00Z") // SECOND_NS for day in (24, 25)
    ]
    assert history["cashflow"] == {"CSD": [9.93, 0.0]}
    assert history["equity"][-1] == float(
        (await running.get(f"/v1/trading/accounts/{account_id}/account"))["last_equity"]
    )


async def test_checklist_03_rate_limit_headers_and_the_unknown_account(start: Start) -> None:
    """Headers on every answer; whether an unknown account is 404 or 401 is a switch."""
    running = await start()
    headers = (await running.http.get("/v1/accounts")).headers
    assert {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"} <= set(headers)
    assert await running.status(UNKNOWN_ACCOUNT) == 404
    strict = await start(switches=Switches(unknown_account="401"))
    assert await strict.status(UNKNOWN_ACCOUNT) == 401


async def test_checklist_04_the_bulk_listing_is_of_the_last_close(start: Start) -> None:
    """`as_of` and closing prices whatever the market does; the last page is an empty map."""
    running = await start()
    before = await running.get("/v1/accounts/positions")
    await print_price(running, "999.99")
    assert await running.get("/v1/accounts/positions") == before
    assert before["as_of"][11:19] == "16:00:00"
    assert (await running.get("/v1/accounts/positions", page=2))["positions"] == {}


async def test_checklist_05_the_roll_is_at_a_configurable_time(start: Start) -> None:
    """`balance_asof` changes then and not before; both system events have Alpaca's shape."""
    running = await begin(start, roll_at=time(1, 42))
    for moment, expected in (("01:41:59", "2026-11-20"), ("01:42:00", "2026-11-23")):
        await go(running, f"2026-11-24T{moment}-05:00")
        row = await running.get(f"/v1/trading/accounts/{running.account_ids[0]}/account")
        assert row["balance_asof"] == expected
    async with open_stream(running, "/v2/events/system", since_id=FIRST_ID) as stream:
        for kind in ("eod_balances_ready", "eod_positions_ready"):
            event = await stream.next() or {}
            check("broker", "SystemEventV2", event)
            assert (event["type"], event["system_date"]) == (kind, "2026-11-23")


@pytest.mark.parametrize("since_id", ["exclusive", "inclusive"])
async def test_checklist_06_event_streams_resume_by_id(start: Start, since_id: str) -> None:
    """The cursor's own event comes again or not, by a switch; optional lines are there or not, by another."""
    running = await start(switches=Switches(since_id=since_id, sse_lines="all", sse_welcome="no"))
    happened = ids(act(running, 5))
    async with running.http.stream("GET", PATH, params={"since_id": happened[1]}) as response:
        lines = response.aiter_lines()
        first = [await anext(lines) for _ in range(3)]
    expected = happened[1] if since_id == "inclusive" else happened[2]
    assert first[:2] == ["event: activities", f"id: {expected}"] and expected in first[2]
    mixed = await running.status(PATH, since="2026-11-20", until_id=FIRST_ID)
    assert mixed == 422


async def test_checklist_06_at_most_25_event_streams(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all streams together; a place that becomes free can be taken."""
    monkeypatch.setattr(events, "CONNECTIONS_MAX", 3)
    running = await start()
    async with AsyncExitStack() as opened:
        paths = (PATH, "/v2/events/trades", "/v2/events/system")
        streams = [await opened.enter_async_context(open_stream(running, path)) for path in paths]
        for stream in streams:
            await stream.comment("welcome")
        assert await running.status(PATH) == 429


async def test_checklist_06_a_backfill_comes_late_with_an_old_time(start: Start) -> None:
    """Its id is new, its `at` is old: a resume by id has it, a range of time has it at its own place."""
    running = await start()
    last = act(running, 3)[-1]
    old_ns = last.at_ns - 3600 * SECOND_NS
    await running.post(
        "/_sim/backfill", account_id=running.account_ids[0], activity_type="CSD", amount="1.25", at_s_ago=3600
    )
    async with open_stream(running, since_id=last.event_id) as stream:
        event = await stream.next() or {}
    assert event["net_amount"] == "1.25" and event["event_id"] > last.event_id
    assert abs(parse_time_ns(event["executed_at"]) - old_ns) < 60 * SECOND_NS


async def test_checklist_07_events_run_ahead_of_rest_and_rest_ahead_of_events(start: Start) -> None:
    """REST trails by a setting; with the streams mute it is ahead."""
    running = await start(rest_lag_s=60.0)
    account_id = running.account_ids[0]
    path = f"/v1/trading/accounts/{account_id}/account"
    before = (await running.get(path))["cash"]
    async with open_stream(running) as stream:
        await stream.comment("welcome")
        await running.post("/_sim/cash", account_id=account_id, activity_type="CSD", amount="1.00")
        assert await stream.next()
        assert (await running.get(path))["cash"] == before
    ahead = await start()
    path = f"/v1/trading/accounts/{ahead.account_ids[0]}/account"
    before = (await ahead.get(path))["cash"]
    async with open_stream(ahead) as stream:
        await stream.comment("welcome")
        await ahead.fault("events.mute", for_s=300)
        await ahead.post("/_sim/cash", account_id=ahead.account_ids[0], activity_type="CSD", amount="1.00")
        assert Decimal((await ahead.get(path))["cash"]) == Decimal(before) + 1
        await ahead.http.delete("/_sim/faults")
        assert (await stream.next() or {})["net_amount"] == "1"


async def test_checklist_08_market_stream_details(start: Start) -> None:
    """Deflate, `T` first, MessagePack time, several attempts on one socket, and headers by a switch."""
    running = await start(switches=Switches(header_auth="authenticated_only"))
    async with open_client(running, is_msgpack=True) as client:
        names = [extension.name for extension in client.socket.protocol.extensions]
        assert names == ["permessage-deflate"]
        assert await client.alone() == CONNECTED
        for _ in range(3):
            assert (await client.ask(action="auth", key="sim-key", secret="wrong"))["code"] == 402
        assert await client.ask(action="auth", key="sim-key", secret="sim-secret") == AUTHENTICATED
        await client.ask(action="subscribe", trades=["AAPL"])
        await print_price(running, "1.23")
        trade = await client.next()
        assert next(iter(trade)) == "T" and isinstance(trade["t"], msgpack.Timestamp)
    async with open_client(running, headers=APCA) as client:
        assert await client.alone() == AUTHENTICATED
    codes = {400, 401, 402, 403, 404, 405, 406, 407, 409, 410, 412, 413}
    assert codes <= set(ERRORS)


async def test_checklist_08_every_condition_can_be_printed_and_moves_the_mark_or_not(start: Start) -> None:
    """All codes of the table on their tapes, by hand."""
    running = await start()
    by_tape = {state.listing.tape: symbol for symbol, state in running.sim.market.symbols.items()}
    assert {"A", "B", "C"} <= set(by_tape)
    for (code, tape), effect in STOCK_CONDITIONS.items():
        if tape in by_tape:
            moved = running.sim.market.print_trade(by_tape[tape], Decimal("12.34"), Decimal(100), (code,))
            assert moved == (effect is Effect.MOVES), (code, tape)


async def test_checklist_09_snapshots_lack_what_is_unknown_and_are_raw_after_a_split(
    start: Start,
) -> None:
    """What is unknown or has no price is missing; bars before a split stay as they were."""
    running = await begin(start, "2026-11-24T09:00:00-05:00")
    await running.post("/_sim/symbols", symbol="NEVER", price=None)
    got = await running.get("/v2/stocks/snapshots", symbols="AAPL,NOSUCH,NEVER")
    assert set(got) == {"AAPL"}
    raw = got["AAPL"]["dailyBar"]["c"]
    await running.post("/_sim/split", symbol="AAPL", new_rate="2", gap_s=0)
    await running.post("/_sim/clock", advance_s=1)
    await go(running, "2026-11-24T10:00:00-05:00")
    await print_price(running, str(running.sim.market.mark("AAPL")))
    after = (await running.get("/v2/stocks/snapshots", symbols="AAPL"))["AAPL"]
    assert raw in (after["prevDailyBar"]["c"], after["dailyBar"]["c"])
    assert after["dailyBar"]["c"] < raw * 0.6


async def test_checklist_10_opened_today_shorts_options_and_what_has_no_price(start: Start) -> None:
    """Intraday P&L from entry, signed shorts, 100 units a contract, null or zero without a price."""
    running = await start()
    made = await running.post("/_sim/accounts", cash="0", positions={"SPY": "-3"})
    path = f"/v1/trading/accounts/{made['account_id']}/positions"
    await running.post("/_sim/trade", account_id=made["account_id"], symbol="AAPL", quantity="2", price="10")
    await print_price(running, "12.00")
    new = await running.get(f"{path}/AAPL")
    assert (new["unrealized_intraday_pl"], new["unrealized_pl"]) == ("4", "4")
    short = await running.get(f"{path}/SPY")
    assert short["side"] == "short"
    assert all(short[name].startswith("-") for name in ("qty", "market_value", "cost_basis"))
    await running.post("/_sim/symbols", symbol="NEVER", price=None)
    await running.post("/_sim/trade", account_id=made["account_id"], symbol="NEVER", quantity="5", price="3")
    unpriced = await running.get(f"{path}/NEVER")
    assert unpriced["current_price"] is None and unpriced["market_value"] is None
    truth = await running.get(f"/_sim/accounts/{made['account_id']}")
    assert truth["unpriced"] == ["NEVER"]
    await running.post("/_sim/symbols", symbol="NEVER", price="3.5")
    assert (await running.get(f"{path}/NEVER"))["market_value"] == "17.5"


async def test_checklist_10_the_crypto_fee_is_taken_from_the_coin_at_the_end_of_the_day(start: Start) -> None:
    """1.0 bought becomes 0.9975, as a booking of its own; by a switch."""
    running = await begin(start, switches=Switches(crypto_fee="asset"))
    made = await running.post("/_sim/accounts", cash="200000", positions={})
    account_id = made["account_id"]
    await running.post("/_sim/trade", account_id=account_id, symbol="BTC/USD", quantity="1")
    await go(running, "2026-11-23T16:00:01-05:00")
    (row,) = await running.get(f"/v1/trading/accounts/{account_id}/positions")
    assert row["qty"] == "0.9975"
    kinds = [activity.activity_type for activity in running.sim.ledger.accounts[account_id].activities]
    assert kinds == ["TRD", "CFEE"]


async def test_checklist_11_instant_deposits_corrections_and_securities(start: Start) -> None:
    """MEM first, CSD and its reversal later, once in cash; `status: correct` counts; securities come."""
    running = await start()
    account_id = running.account_ids[0]
    cash = running.sim.ledger.accounts[account_id].current.cash
    async with open_stream(running) as stream:
        await stream.comment("welcome")
        await running.post("/_sim/instant_deposit", account_id=account_id, amount="100", settle_in_s=0.1)
        got = [await stream.next() or {} for _ in range(3)]
        assert [(event["activity_type"], event["net_amount"]) for event in got] == [
            ("MEM", "100"),
            ("CSD", "100"),
            ("MEM", "-100"),
        ]
        assert len({event["details"]["transfer_id"] for event in got}) == 1
        await running.post(
            "/_sim/cash", account_id=account_id, activity_type="CSW", amount="40", status="correct"
        )
        assert (await stream.next() or {})["status"] == "correct"
        await running.post(
            "/_sim/securities",
            account_id=account_id,
            activity_type="ACATS",
            symbol="MSFT",
            quantity="9",
            price="11",
        )
        transfer = await stream.next() or {}
        check("broker", "ActivityEventV2", transfer)
    assert running.sim.ledger.accounts[account_id].current.cash == cash + 60
    truth = await running.get(f"/_sim/accounts/{account_id}")
    assert Decimal(truth["external_cash_flow"]) == 60 + 9 * 11


async def test_checklist_12_overnight_trades_are_on_their_own_feeds(start: Start) -> None:
    """From Sunday 20:00 New York `boats` has trades of tape N; other feeds have none, and no mark moves."""
    clock = MovableClock(parse_time_ns("2026-11-29T20:00:00-05:00"))
    running = await start(clock=clock, trades_per_second=300.0, symbol_count=3, **ROLL)
    marks = {symbol: running.sim.market.mark(symbol) for symbol in ("AAPL", "MSFT", "SPY")}
    assert (await running.get("/_sim/clock"))["session"] == "overnight"
    async with open_client(running) as day, open_client(running, "/v1beta1/boats") as night:
        for client in (day, night):
            await client.log_in()
            await client.ask(action="subscribe", trades=["*"])
        trades = [await night.next() for _ in range(100)]
        await running.post("/_sim/pause")
        assert {(trade["T"], trade["z"]) for trade in trades} == {("t", "N")}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(day.next(), 0.2)
    assert marks == {symbol: running.sim.market.mark(symbol) for symbol in marks}
    last = running.sim.market.symbols["AAPL"].night_trade
    assert last is not None
    snapshots = await running.get("/v2/stocks/snapshots", symbols="AAPL", feed="boats")
    assert snapshots["AAPL"]["latestTrade"]["i"] == last.trade_id, "an eligible one of its own"
    assert "I" not in last.conditions


async def test_checklist_08_a_delayed_feed_is_late_over_rest_too(start: Start) -> None:
    """Trades, and corrections of trades, come on `delayed_sip` after the delay, and in its snapshots."""
    clock = MovableClock(parse_time_ns("2026-11-24T12:00:00-05:00"), speed=0)
    running = await start(clock=clock, delay_s=900.0)

    async def latest(feed: str) -> float:
        return (await running.get("/v2/stocks/trades/latest", symbols="AAPL", feed=feed))["trades"]["AAPL"][
            "p"
        ]

    async with open_client(running, "/v2/delayed_sip") as client:
        await client.log_in()
        await client.ask(action="subscribe", trades=["AAPL"])
        before = await latest("delayed_sip")
        await running.post("/_sim/print", symbol="AAPL", price="201.01")
        await running.post("/_sim/correct", symbol="AAPL", price="201.33")
        assert (await latest("sip"), await latest("delayed_sip")) == (201.33, before)
        await running.post("/_sim/clock", advance_s=899)
        assert await latest("delayed_sip") == before
        await running.post("/_sim/clock", advance_s=1)
        trade, correction = await client.next(), await client.next()
        assert (trade["T"], trade["p"], correction["T"], correction["cp"]) == ("t", 201.01, "c", 201.33)
        assert await latest("delayed_sip") == 201.33


async def test_accounts_come_and_go_and_a_stream_says_so(start: Start) -> None:
    """Closed and opened again, in Alpaca's shape."""
    running = await start()
    account_id = running.account_ids[0]
    async with open_stream(running, "/v1/events/accounts/status") as stream:
        await stream.comment("welcome")
        for before, after in (("ACTIVE", "ACCOUNT_CLOSED"), ("ACCOUNT_CLOSED", "ACTIVE")):
            await running.post("/_sim/status", account_id=account_id, status=after)
            event = await stream.next() or {}
            check("broker", "AccountStatusEvent", event)
            check_no_extra("broker", "AccountStatusEvent", event)
            assert (event["status_from"], event["status_to"]) == (before, after)
            assert (await running.get(f"/v1/accounts/{account_id}"))["status"] == after
            closed = await running.get("/v1/accounts", status="ACCOUNT_CLOSED")
            assert [row["id"] for row in closed] == ([account_id] if after == "ACCOUNT_CLOSED" else [])


def test_open_points_are_switches_with_two_answers() -> None:
    """Each has a default and another answer; a wrong one is refused in words."""
    assert read_switches([]) == Switches()
    for name, values in switches.CHOICES.items():
        assert getattr(Switches(), name) == values[0] and len(values) >= 2
        for value in values:
            assert getattr(read_switches([f"{name}={value}"]), name) == value
    for pair, words in (("no=1", "unknown switch 'no'"), ("since_id=x", "since_id=exclusive|inclusive")):
        with pytest.raises(SwitchError) as refused:
            read_switches([pair])
        assert words in str(refused.value)


@pytest.mark.parametrize("sign", ["positive", "negative"])
async def test_the_sign_of_a_sales_quantity_is_a_switch(start: Start, sign: str) -> None:
    """`details.side` says it either way."""
    running = await start(switches=Switches(sell_qty=sign))
    async with open_stream(running) as stream:
        await stream.comment("welcome")
        await running.post("/_sim/trade", account_id=running.account_ids[0], symbol="AAPL", quantity="-2")
        event = await stream.next() or {}
    assert (event["qty"], event["details"]["side"]) == ("2" if sign == "positive" else "-2", "sell")


async def test_positions_of_coins_are_spelt_by_a_switch(start: Start) -> None:
    """BTCUSD or BTC/USD; either name finds it."""
    running = await start(switches=Switches(position_crypto="BTC/USD", unpriced="zero"))
    made = await running.post("/_sim/accounts", cash="0", positions={"BTC/USD": "1"})
    path = f"/v1/trading/accounts/{made['account_id']}/positions"
    assert [row["symbol"] for row in await running.get(path)] == ["BTC/USD"]
    assert (await running.get(f"{path}/BTCUSD"))["symbol"] == "BTC/USD"
    await running.post("/_sim/symbols", symbol="NEVER", price=None)
    await running.post("/_sim/trade", account_id=made["account_id"], symbol="NEVER", quantity="5", price="3")
    assert (await running.get(f"{path}/NEVER"))["current_price"] == "0"

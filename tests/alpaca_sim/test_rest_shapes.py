"""Every REST answer and event has the shape that Alpaca's OpenAPI files publish."""

from decimal import Decimal
from typing import Any

import httpx
import pytest

from alpaca_sim.core.switches import Switches
from alpaca_sim.streams.activities_json import event_json, fill_json
from tests.alpaca_sim.conftest import Running, Start
from tests.alpaca_sim.openapi import check, check_no_extra


@pytest.fixture
async def busy(start: Start) -> Running:
    """A simulator whose accounts have done things of every kind."""
    running = await start(account_count=12, symbol_count=60)
    for account_id in running.account_ids:
        for _ in range(15):
            running.sim.trader.act(account_id)
    return running


async def test_accounts_have_alpacas_shape(busy: Running) -> None:
    """The list and the single account, with all entities."""
    accounts = await busy.get("/v1/accounts")
    check("broker", "AccountExtended", accounts, of_array=True)
    check_no_extra("broker", "AccountExtended", accounts[0])
    one = await busy.get(f"/v1/accounts/{accounts[3]['id']}")
    assert one == accounts[3]
    bare = await busy.get("/v1/accounts", entities="contact")
    assert "contact" in bare[0] and "identity" not in bare[0]


async def test_trading_accounts_have_alpacas_shape(busy: Running) -> None:
    """Every balance is a decimal string and the identities of the figures hold."""
    for account_id in busy.account_ids:
        row = await busy.get(f"/v1/trading/accounts/{account_id}/account")
        check("broker", "TradeAccount", row)
        check_no_extra("broker", "TradeAccount", row)
        parts = sum(Decimal(row[name]) for name in ("cash", "long_market_value", "short_market_value"))
        assert Decimal(row["equity"]) == parts
        last = sum(
            Decimal(row[f"last_{name}"]) for name in ("cash", "long_market_value", "short_market_value")
        )
        assert Decimal(row["last_equity"]) == last


async def test_positions_have_alpacas_shape(busy: Running) -> None:
    """Shorts are negative; value, profit and side agree; one position equals its row of the list."""
    sides: set[str] = set()
    for account_id in busy.account_ids:
        path = f"/v1/trading/accounts/{account_id}/positions"
        rows = await busy.get(path)
        check("broker", "Position", rows, of_array=True)
        for row in rows:
            check_no_extra("broker", "Position", row)
            assert await busy.get(f"{path}/{row['asset_id']}") == row
            multiplier = 100 if row["asset_class"] == "us_option" else 1
            market_value = Decimal(row["qty"]) * multiplier * Decimal(row["current_price"])
            assert Decimal(row["market_value"]) == market_value
            assert Decimal(row["unrealized_pl"]) == market_value - Decimal(row["cost_basis"])
            assert (row["side"] == "short") == (Decimal(row["qty"]) < 0)
            sides.add(row["side"])
    assert sides == {"long", "short"}


async def test_a_crypto_position_answers_to_both_spellings(start: Start) -> None:
    """Positions say BTCUSD, market data says BTC/USD; either finds it."""
    running = await start()
    made = await running.post("/_sim/accounts", cash="0", positions={"BTC/USD": "0.5"})
    path = f"/v1/trading/accounts/{made['account_id']}/positions"
    (row,) = await running.get(path)
    assert row["symbol"] == "BTCUSD"
    assert await running.get(f"{path}/BTCUSD") == row
    assert await running.get(f"{path}/BTC%2FUSD") == row
    assert await running.status(f"{path}/AAPL") == 404


async def test_closing_positions_have_alpacas_shape(busy: Running) -> None:
    """The bulk listings are of the last close: priced there, and untouched by what happened since."""
    bulk = await busy.get("/v1/accounts/positions")
    daily = await busy.get("/v1/reporting/eod/positions")
    assert bulk["positions"] == daily["positions"]
    for rows in bulk["positions"].values():
        check("broker", "Position", rows, of_array=True)
        assert all(
            row["current_price"] == row["lastday_price"] and row["change_today"] == "0" for row in rows
        )
    assert (await busy.get("/v1/accounts/positions", page=2))["positions"] == {}


async def test_activities_have_alpacas_shape(busy: Running) -> None:
    """REST rows and events of every type."""
    types: set[str] = set()
    fills = await busy.get("/v1/accounts/activities/FILL")
    for row in fills + await busy.get("/v1/accounts/activities", category="non_trade_activity"):
        types.add(row["activity_type"])
        schema = "TradeActivity" if row["activity_type"] == "FILL" else "NonTradeActivity"
        check("broker", "Activity", row)
        check("broker", schema, row)
    assert types >= {"FILL", "CSD", "CSW", "DIV", "FEE"}
    details = {"TRD": "ActivityV2DetailTRD", "CSD": "CSWActivityV2", "CSW": "CSWActivityV2"}
    details |= {"JNLC": "JNLCActivityV2", "FEE": "FEEActivityV2"}
    for activity in busy.sim.ledger.activities:
        event = event_json(activity, Switches())
        check("broker", "ActivityEventV2", event)
        check_no_extra("broker", "ActivityEventV2", event)
        if activity.activity_type in details:
            check("broker", details[activity.activity_type], event["details"])
        if activity.activity_type == "TRD":
            check("broker", "TradeUpdateEventV2", fill_json(activity, busy.sim.market))


async def test_clock_calendar_and_assets_have_alpacas_shape(busy: Running) -> None:
    """The market is always open; each day is a trading day."""
    clock = await busy.get("/v1/clock")
    check("broker", "legacy_clock", clock)
    assert clock["is_open"] is True
    days = await busy.get("/v1/calendar", start="2026-11-20", end="2026-11-23")
    check("broker", "legacy_public_calendar_resp", days)
    assert [day["date"] for day in days] == ["2026-11-20", "2026-11-21", "2026-11-22", "2026-11-23"]
    for asset_class in ("us_equity", "crypto", "us_option"):
        assets = await busy.get("/v1/assets", asset_class=asset_class)
        assert assets
        for asset in assets:
            check_asset(asset)
            assert await busy.get(f"/v1/assets/{asset['id']}") == asset
    assert await busy.status("/v1/assets/NOPE") == 404


def check_asset(asset: dict[str, Any]) -> None:
    """Alpaca's enumeration of exchanges has none for crypto and options, though Alpaca sends others there."""
    check_no_extra("broker", "Asset", asset)
    check("broker", "Asset", asset if asset["class"] == "us_equity" else asset | {"exchange": "OTC"})


@pytest.mark.parametrize(
    ("path", "symbols", "schema"),
    [
        ("/v2/stocks/snapshots", "AAPL,SPY,NOPE", "stock_snapshots_resp"),
        ("/v2/stocks/trades/latest", "AAPL,SPY,NOPE", "stock_latest_trades_resp"),
        ("/v2/stocks/quotes/latest", "AAPL,SPY,NOPE", "stock_latest_quotes_resp"),
        ("/v2/stocks/bars/latest", "AAPL,SPY,NOPE", "stock_latest_bars_resp"),
        ("/v2/stocks/AAPL/snapshot", "", "stock_snapshots_resp_single"),
        ("/v2/stocks/AAPL/trades/latest", "", "stock_latest_trades_resp_single"),
        ("/v2/stocks/AAPL/quotes/latest", "", "stock_latest_quotes_resp_single"),
        ("/v2/stocks/AAPL/bars/latest", "", "stock_latest_bars_resp_single"),
        ("/v1beta3/crypto/us/snapshots", "BTC/USD,ETH/USD", "crypto_snapshots_resp"),
        ("/v1beta3/crypto/us/latest/trades", "BTC/USD", "crypto_latest_trades_resp"),
        ("/v1beta3/crypto/us/latest/quotes", "BTC/USD", "crypto_latest_quotes_resp"),
        ("/v1beta3/crypto/us/latest/bars", "BTC/USD", "crypto_latest_bars_resp"),
    ],
)
async def test_market_data_has_alpacas_shape(start: Start, path: str, symbols: str, schema: str) -> None:
    """Prices are JSON numbers; an unknown symbol is missing, not an error."""
    running = await start()
    body = await running.get(path, **({"symbols": symbols} if symbols else {}))
    check("data", schema, body)
    assert "NOPE" not in str(body)
    assert len(str(body)) > 50


async def test_option_market_data_has_alpacas_shape(start: Start) -> None:
    """Option trades carry a single condition letter as a string."""
    running = await start()
    symbols = [
        s for s, state in running.sim.market.symbols.items() if state.listing.asset_class == "us_option"
    ]
    snapshots = await running.get("/v1beta1/options/snapshots", symbols=",".join(symbols))
    check("data", "option_snapshots_resp", snapshots)
    assert set(snapshots["snapshots"]) == set(symbols)
    trades = await running.get("/v1beta1/options/trades/latest", symbols=",".join(symbols))
    check("data", "option_latest_trades_resp", trades)


async def test_a_price_is_the_shortest_number(start: Start) -> None:
    """172.61 is written as 172.61, not as its binary neighbour."""
    running = await start()
    await running.post("/_sim/print", symbol="AAPL", price="172.61")
    response = await running.http.get("/v2/stocks/AAPL/trades/latest")
    assert '"p":172.61,' in response.text


async def test_bars_are_dated_by_new_york_midnight(start: Start) -> None:
    """The daily bar is of this New York day; the one before it closes at the previous close."""
    running = await start()
    snapshot = (await running.get("/v2/stocks/snapshots", symbols="AAPL"))["AAPL"]
    day, before = snapshot["dailyBar"]["t"], snapshot["prevDailyBar"]["t"]
    assert day[10:] in ("T04:00:00Z", "T05:00:00Z") and before[:10] < day[:10]
    assert Decimal(str(snapshot["prevDailyBar"]["c"])) == running.sim.market.listing("AAPL").previous_close


async def test_an_unknown_account_gets_alpacas_error_body(start: Start) -> None:
    """A code of eight digits and a message."""
    running = await start()
    response = await running.http.get("/v1/trading/accounts/00000000-0000-0000-0000-000000000000/account")
    assert response.status_code == 404
    assert response.json()["code"] == 40410000
    assert "account not found" in response.json()["message"]


async def test_rest_trails_the_events_by_the_lag(start: Start) -> None:
    """With a lag, balances and positions are those of a while ago while the truth moves at once."""
    running = await start(rest_lag_s=60.0)
    account_id = running.account_ids[0]
    before = await running.get(f"/v1/trading/accounts/{account_id}/account")
    await running.post("/_sim/cash", account_id=account_id, activity_type="CSD", amount="500.00")
    after = await running.get(f"/v1/trading/accounts/{account_id}/account")
    truth = await running.get(f"/_sim/accounts/{account_id}")
    assert after["cash"] == before["cash"]
    assert Decimal(truth["cash"]) == Decimal(before["cash"]) + 500


async def test_the_trading_api_answers_for_the_first_account(start: Start) -> None:
    """APCA headers open the single-account paths and no broker path."""
    running = await start()
    headers = {"APCA-API-KEY-ID": "sim-key", "APCA-API-SECRET-KEY": "sim-secret"}
    async with httpx.AsyncClient(base_url=running.url, headers=headers) as http:
        account = (await http.get("/v2/account")).json()
        assert account["id"] == running.account_ids[0]
        assert (await http.get("/v2/positions")).status_code == 200
        assert (await http.get("/v1/accounts")).status_code == 401

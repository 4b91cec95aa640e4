"""The contract: after an eventful week all answers and events are as Alpaca publishes; its SDK reads them."""

import asyncio
from datetime import date
from typing import Any, cast

import pytest
from alpaca.broker import BrokerClient
from alpaca.broker.requests import GetAccountActivitiesRequest, ListAccountsRequest
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.requests import StockSnapshotRequest
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import ActivityType
from alpaca.trading.requests import GetCalendarRequest
from starlette.routing import Route

from alpaca_sim.api import activities_rest, broker_rest, data_rest, history_rest
from alpaca_sim.core.ledger import Activity
from alpaca_sim.core.switches import Switches
from alpaca_sim.streams.activities_json import event_json, fill_json
from tests.alpaca_sim.conftest import Running, Start
from tests.alpaca_sim.openapi import check, check_answer, check_no_extra, published_path
from tests.support.simulated_days import begin, go

CREDENTIALS = ("sim-key", "sim-secret")
FILES = ("broker", "data", "trading")
# Where Alpaca's own samples go beyond its files: a type that the REST enum lacks, and booleans as text.
BEYOND_THE_FILES = {"MEM"}
TEXT_BOOLEANS = ("foreign", "special")
QUERIES = {"/v1beta3": {"symbols": "BTC/USD,ETH/USD"}, "/v2/stocks": {"symbols": "AAPL,SPY"}}
DETAILS = {
    "TRD": "ActivityV2DetailTRD",
    "CSD": "CSWActivityV2",
    "CSW": "CSWActivityV2",
    "ACATC": "AcatcActivityV2",
    "OCT": "OCTActivityV2",
    "INT": "CommonNTAActivityV2",
    "JNLC": "JNLCActivityV2",
    "JNLS": "JNLSActivityV2",
    "ACATS": "AcatsActivityV2",
    "FOPT": "FOPTActivityV2",
    "MEM": "MEMActivityV2",
    "FEE": "FEEActivityV2",
    "CDIV": "CDIVActivityV2",
    "DIVNRA": "DIVNRAActivityV2",
    "FSPLIT": "ForwardSplitActivityV2",
    "RSPLIT": "ReverseSplitActivityV2",
}


async def eventful_week(start: Start) -> Running:
    """Thanksgiving week with everything in it that moves an account."""
    running = await begin(start, account_count=8, symbol_count=40, has_history=True)
    ids = running.account_ids
    for account_id in ids:
        for _ in range(10):
            running.sim.trader.act(account_id)
    for name, body in (
        ("split", {"symbol": "AAPL", "new_rate": "4", "gap_s": 30}),
        ("split", {"symbol": "MSFT", "new_rate": "1", "old_rate": "10", "gap_s": 30}),
        ("dividend", {"symbol": "SPY", "rate": "1.5", "pay_in_s": 86_400, "withheld": "0.3"}),
        ("instant_deposit", {"account_id": ids[0], "amount": "250", "settle_in_s": 600}),
        ("status", {"account_id": ids[1], "status": "ACCOUNT_CLOSED"}),
    ):
        await running.post(f"/_sim/{name}", **body)
    for activity_type in ("JNLS", "ACATS", "FOPT"):
        body = {"activity_type": activity_type, "symbol": "SPY", "quantity": "3", "price": "500"}
        await running.post("/_sim/securities", account_id=ids[2], **body)
    for activity_type in ("ACATC", "OCT", "INT"):
        await running.post("/_sim/cash", account_id=ids[2], activity_type=activity_type, amount="12.5")
    bought = await running.post("/_sim/trade", account_id=ids[3], symbol="NVDA", quantity="7")
    amended = {"account_id": ids[3], "event_id": bought["event_id"]}
    await running.post("/_sim/amend", **amended, price="100")
    await running.fault("ledger.bust", level=5)
    await go(running, "2026-11-28T12:00:00-05:00")
    return running


def published(route: Route) -> tuple[str, str] | None:
    """The file and path that document a route."""
    template = route.path.replace(":path", "")
    return next(((file, path) for file in FILES if (path := published_path(file, template))), None)


def filled(path: str, running: Running) -> str:
    """A path with real values in it."""
    account_id = running.account_ids[2]
    symbol = next(iter(running.sim.ledger.accounts[account_id].current.positions)).replace("/", "%2F")
    if path.startswith(("/v2/stocks", "/v1/assets")):
        symbol = "SPY"
    values = {
        "account_id": account_id,
        "symbol": symbol,
        "symbol:path": symbol,
        "loc": "us",
        "activity_type": "FILL",
    }
    for name, value in values.items():
        path = path.replace(f"{{{name}}}", value)
    return path


def within_the_files(answer: Any) -> Any:
    """An answer without rows of the types that only the samples have."""
    if not isinstance(answer, list):
        return answer
    rows = cast("list[Any]", answer)
    return [row for row in rows if row.get("activity_type") not in BEYOND_THE_FILES]


def as_booleans(details: dict[str, Any]) -> dict[str, Any]:
    """Details with text booleans as the files have them."""
    return details | {name: details[name] == "true" for name in TEXT_BOOLEANS if name in details}


async def test_every_answer_is_what_alpaca_publishes(start: Start) -> None:
    """Each GET route of Broker REST and market data, found in the OpenAPI files by its own path."""
    running = await eventful_week(start)
    option = next(s for s, state in running.sim.market.symbols.items() if len(s) > 12 and state)
    routes = [*activities_rest.ROUTES, *broker_rest.ROUTES, *history_rest.ROUTES, *data_rest.ROUTES]
    checked: set[str] = set()
    for route in routes:
        if "GET" not in (route.methods or ()):
            continue
        found = published(route)
        assert found is not None, f"{route.path} is in none of Alpaca's files"
        file, template = found
        query = next((value for prefix, value in QUERIES.items() if route.path.startswith(prefix)), {})
        query = {"symbols": option} if "/options/" in route.path else query
        answer = await running.http.get(filled(route.path, running), params=query)
        assert answer.status_code == 200, (route.path, answer.text)
        check_answer(file, template, within_the_files(answer.json()))
        checked.add(route.path)
    assert len(checked) == 30


async def test_every_event_is_what_alpaca_publishes(start: Start) -> None:
    """Each activity of the week with the details of its own type, and each fill, correction and bust."""
    running = await eventful_week(start)
    seen: set[str] = set()
    for activity in running.sim.ledger.activities:
        event = event_json(activity, Switches())
        check("broker", "ActivityEventV2", event)
        check("trading", "ActivityEventV2", event)
        check_no_extra("broker", "ActivityEventV2", event)
        kind = activity.subtype if activity.subtype in DETAILS else activity.activity_type
        check("broker", DETAILS[kind], as_booleans(event["details"]))
        seen.add(kind)
        _check_fill(activity, running)
    assert seen == set(DETAILS)
    executions = {
        a.details["execution_type"] for a in running.sim.ledger.activities if a.activity_type == "TRD"
    }
    assert executions == {"fill", "trade_correct", "trade_bust"}


def _check_fill(activity: Activity, running: Running) -> None:
    if activity.activity_type == "TRD":
        fill = fill_json(activity, running.sim.market)
        check("broker", "TradeUpdateEventV2", fill)
        assert ("previous_execution_id" in fill) == (activity.previous is not None)


# Activity types that alpaca-py's own models reject.
SDK_CANNOT_READ = {"FOPT"}


async def test_the_sdk_reads_the_week(start: Start) -> None:
    """Accounts (a closed one too), balances, positions, activities, history, calendar and snapshots."""
    running = await eventful_week(start)
    broker = BrokerClient(*CREDENTIALS, url_override=running.url)
    accounts: Any = await asyncio.to_thread(broker.list_accounts, ListAccountsRequest())
    assert {account.status.value for account in accounts} == {"ACTIVE", "ACCOUNT_CLOSED"}
    for account in accounts:
        balance: Any = await asyncio.to_thread(broker.get_trade_account_by_id, account.id)
        positions: Any = await asyncio.to_thread(broker.get_all_positions_for_account, account.id)
        truth = await running.get(f"/_sim/accounts/{account.id}")
        assert (balance.equity, balance.last_equity) == (truth["equity"], truth["last_equity"])
        assert {position.qty for position in positions} == {row["quantity"] for row in truth["positions"]}
    calendar: Any = await asyncio.to_thread(
        broker.get_calendar, GetCalendarRequest(start=date(2026, 11, 25), end=date(2026, 11, 27))
    )
    assert [(day.date.day, day.close.hour) for day in calendar] == [(25, 16), (27, 13)]
    clock: Any = await asyncio.to_thread(TradingClient(*CREDENTIALS, url_override=running.url).get_clock)
    assert clock.is_open is False and clock.next_open.day == 30
    stocks = StockHistoricalDataClient(*CREDENTIALS, url_override=running.url)
    request = StockSnapshotRequest(symbol_or_symbols=["AAPL", "SPY"])
    snapshots: Any = await asyncio.to_thread(stocks.get_stock_snapshot, request)
    assert set(snapshots) == {"AAPL", "SPY"}


async def test_the_sdk_reads_all_activities_but_those_it_does_not_know(start: Start) -> None:
    """The types that its own models reject are named above; each of the others is read."""
    running = await eventful_week(start)
    broker = BrokerClient(*CREDENTIALS, url_override=running.url)
    types = {row["activity_type"] for row in await running.get("/v1/accounts/activities", date="2026-11-23")}
    assert types >= {"FILL", "CSD", "SPLIT", "MEM", "JNLS", "ACATS", "FOPT"}
    refused: set[str] = set()
    for name in sorted(types):
        try:
            wanted = GetAccountActivitiesRequest(activity_types=[ActivityType(name)])
            rows: Any = await asyncio.to_thread(broker.get_account_activities, wanted)
            assert rows
        except ValueError:
            refused.add(name)
    assert refused == SDK_CANNOT_READ


@pytest.mark.parametrize("file", FILES)
def test_the_published_files_are_read(file: str) -> None:
    """A path that each of them has."""
    known = {"broker": "/v1/accounts", "data": "/v2/stocks/snapshots", "trading": "/v2/account"}
    assert published_path(file, known[file]) == known[file]

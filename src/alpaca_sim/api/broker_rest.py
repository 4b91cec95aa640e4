"""Broker REST: accounts, balances, positions, clock, calendar and assets."""

import base64
import binascii
from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from alpaca_sim.api.auth import TOKEN_PATH, token_endpoint
from alpaca_sim.api.broker_json import (
    ENTITIES,
    SESSION_CLOSE_HOUR,
    account_json,
    asset_json,
    closing_positions_json,
    email_address,
    held_json,
    positions_json,
    trade_account_json,
)
from alpaca_sim.api.odd_accounts import as_held, as_listed, as_stated
from alpaca_sim.api.web import (
    ApiError,
    csv_param,
    date_param,
    find_account,
    int_param,
    json_response,
    sim_of,
    time_param,
)
from alpaca_sim.core.clock import SECOND_NS, new_york, new_york_ns
from alpaca_sim.core.ledger import Account, Holdings
from alpaca_sim.core.market import Listing
from alpaca_sim.core.sessions import FIRST_DAY, LAST_DAY, OPEN, PRE_OPEN, Calendar, TradingDay
from alpaca_sim.simulator import Simulator

ACCOUNTS_MAX = 1_000
BULK_PAGE_ACCOUNTS = 1_000
EOD_PAGE_ACCOUNTS_MAX = 10_000
CALENDAR_FIRST = date(1970, 1, 1)


def reported_holdings(sim: Simulator, account: Account) -> Holdings:
    """The account's holdings in REST, which are behind the events by `Simulator.rest_lag_s`."""
    lag_s = sim.rest_lag_s
    if not lag_s:
        return account.current
    return account.holdings(sim.clock.now_ns() - int(lag_s * SECOND_NS))


async def list_accounts(request: Request) -> Response:
    """`GET /v1/accounts`: at most 1,000 rows by creation time, newest first unless `sort=asc`.

    `created_after` and `created_before` are inclusive.
    """
    sim = sim_of(request)
    after_ns, before_ns = time_param(request, "created_after"), time_param(request, "created_before")
    words = request.query_params.get("query", "").lower().split()
    status = request.query_params.get("status", "")
    entities = set(csv_param(request, "entities") or ENTITIES)
    accounts = sorted(sim.ledger.accounts.values(), key=lambda account: account.created_ns)
    if request.query_params.get("sort", "desc") != "asc":
        accounts.reverse()
    rows: list[dict[str, Any]] = []
    for account in accounts:
        in_time = (after_ns is None or account.created_ns >= after_ns) and (
            before_ns is None or account.created_ns <= before_ns
        )
        if in_time and status in ("", account.status) and _matches(account, words):
            rows.append(as_listed(sim, account, account_json(account, entities)))
        if len(rows) == ACCOUNTS_MAX:
            break
    return json_response(rows)


def _matches(account: Account, words: Iterable[str]) -> bool:
    name = f"{account.account_id} {account.account_number} {account.given_name} {account.family_name}"
    searched = f"{name} {email_address(account)}".lower()
    return all(word in searched for word in words)


async def one_account(request: Request) -> Response:
    """`GET /v1/accounts/{id}`: one account with all entities."""
    sim = sim_of(request)
    account = find_account(sim, request.path_params["account_id"])
    return json_response(as_listed(sim, account, account_json(account, set(ENTITIES))))


async def trade_account(request: Request) -> Response:
    """`GET /v1/trading/accounts/{id}/account`: the balances of an account."""
    sim = sim_of(request)
    account = _path_account(request)
    row = trade_account_json(sim.market, account, reported_holdings(sim, account), sim.balance_date)
    return json_response(as_stated(sim, account, row))


def _path_account(request: Request) -> Account:
    return find_account(sim_of(request), request.path_params["account_id"])


async def positions(request: Request) -> Response:
    """`GET /v1/trading/accounts/{id}/positions`: all positions of an account."""
    sim = sim_of(request)
    account = _path_account(request)
    rows = positions_json(sim.market, reported_holdings(sim, account), sim.settings.switches)
    return json_response(as_held(sim, account, rows))


async def one_position(request: Request) -> Response:
    """`GET …/positions/{symbol_or_asset_id}`; 404 without such a position."""
    return json_response(position_in(sim_of(request), _path_account(request), request.path_params["symbol"]))


def position_in(sim: Simulator, account: Account, wanted: str) -> dict[str, Any]:
    """The position of a symbol or an asset id. Raises ApiError (404) without one."""
    for symbol, position in reported_holdings(sim, account).positions.items():
        state = sim.market.symbols[symbol]
        if wanted in _names(state.listing):
            return held_json(state, position, sim.settings.switches)
    raise ApiError(404, "position does not exist")


def _names(listing: Listing) -> tuple[str, str, str]:
    return listing.symbol, listing.symbol.replace("/", ""), listing.asset_id


async def bulk_positions(request: Request) -> Response:
    """`GET /v1/accounts/positions` (deprecated): positions at the last close. An empty page is the last."""
    sim = sim_of(request)
    page = int_param(request, "page", 1, 1, 1_000_000)
    accounts = list(sim.ledger.accounts.values())[(page - 1) * BULK_PAGE_ACCOUNTS : page * BULK_PAGE_ACCOUNTS]
    as_of = new_york(new_york_ns(sim.balance_date, SESSION_CLOSE_HOUR)).isoformat()
    return json_response({"as_of": as_of, "positions": _closing_positions(sim, accounts)})


async def eod_positions(request: Request) -> Response:
    """`GET /v1/reporting/eod/positions`: end-of-day positions, `limit` accounts per page."""
    sim = sim_of(request)
    if date_param(request, "asof", sim.balance_date) != sim.balance_date:
        raise ApiError(422, f"only the last trading date {sim.balance_date} is available")
    limit = int_param(request, "limit", BULK_PAGE_ACCOUNTS, 1, EOD_PAGE_ACCOUNTS_MAX)
    start = _page_start(request.query_params.get("page_token"))
    wanted = request.query_params.get("account_id")
    accounts = [find_account(sim, wanted)] if wanted else list(sim.ledger.accounts.values())
    page = _closing_positions(sim, accounts[start : start + limit])
    asset = request.query_params.get("asset")
    if asset:
        names = {
            name
            for state in sim.market.symbols.values()
            for name in _names(state.listing)[1:]
            if asset in _names(state.listing)
        }
        page = {key: [row for row in rows if row["symbol"] in names] for key, rows in page.items()}
        page = {key: rows for key, rows in page.items() if rows}
    more = start + limit < len(accounts)
    token = base64.b64encode(str(start + limit).encode()).decode() if more else None
    return json_response({"asof": sim.balance_date.isoformat(), "positions": page, "next_page_token": token})


def _closing_positions(sim: Simulator, accounts: Iterable[Account]) -> dict[str, list[dict[str, Any]]]:
    return {
        account.account_id: closing_positions_json(sim.market, account, sim.settings.switches)
        for account in accounts
        if account.opening.positions
    }


def _page_start(token: str | None) -> int:
    if not token:
        return 0
    try:
        return int(base64.b64decode(token, validate=True))
    except (binascii.Error, ValueError) as error:
        raise ApiError(422, "invalid page_token") from error


async def market_clock(request: Request) -> Response:
    """`GET /v1/clock`: the time, and the core sessions of the simulator's calendar."""
    sim = sim_of(request)
    now_ns = sim.reported_now_ns
    return json_response(
        {
            "timestamp": new_york(now_ns).isoformat(),
            "is_open": sim.calendar.session(now_ns) == "core",
            "next_open": new_york(sim.calendar.next_open_ns(now_ns)).isoformat(),
            "next_close": new_york(sim.calendar.next_close_ns(now_ns)).isoformat(),
        }
    )


async def calendar(request: Request) -> Response:
    """`GET /v1/calendar`: trading days with their sessions; half days close early."""
    days = sim_of(request).calendar
    low = CALENDAR_FIRST if days.is_always else FIRST_DAY
    first = max(low, date_param(request, "start", low))
    last = min(LAST_DAY, date_param(request, "end", LAST_DAY))
    wanted = (days.day(first + timedelta(days=index)) for index in range((last - first).days + 1))
    return json_response([_day_json(days, day) for day in wanted if day is not None])


def _day_json(days: Calendar, day: TradingDay) -> dict[str, str]:
    settles = day.day if day.day == LAST_DAY else days.next_day(day.day).day
    return {
        "date": day.day.isoformat(),
        "open": f"{OPEN:%H:%M}",
        "close": f"{day.close:%H:%M}",
        "session_open": f"{PRE_OPEN:%H%M}",
        "session_close": f"{day.post_close:%H%M}",
        "settlement_date": settles.isoformat(),
    }


async def assets(request: Request) -> Response:
    """`GET /v1/assets`: the assets of one class, US equities by default. All are active."""
    asset_class = request.query_params.get("asset_class", "us_equity")
    if request.query_params.get("status", "all") not in ("active", "all"):
        return json_response([])
    listings = (state.listing for state in sim_of(request).market.symbols.values())
    return json_response([asset_json(listing) for listing in listings if listing.asset_class == asset_class])


async def one_asset(request: Request) -> Response:
    """`GET /v1/assets/{symbol_or_asset_id}`; 404 for an unknown one."""
    wanted = request.path_params["symbol"]
    for state in sim_of(request).market.symbols.values():
        if state.listing.asset_class != "test" and wanted in _names(state.listing):
            return json_response(asset_json(state.listing))
    raise ApiError(404, f"asset not found for {wanted}")


ROUTES = [
    Route(TOKEN_PATH, token_endpoint, methods=["POST"]),
    Route("/v1/accounts", list_accounts),
    Route("/v1/accounts/positions", bulk_positions),
    Route("/v1/accounts/{account_id}", one_account),
    Route("/v1/trading/accounts/{account_id}/account", trade_account),
    Route("/v1/trading/accounts/{account_id}/positions", positions),
    Route("/v1/trading/accounts/{account_id}/positions/{symbol:path}", one_position),
    Route("/v1/reporting/eod/positions", eod_positions),
    Route("/v1/clock", market_clock),
    Route("/v1/calendar", calendar),
    Route("/v1/assets", assets),
    Route("/v1/assets/{symbol:path}", one_asset),
]

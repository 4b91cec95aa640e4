"""The Trading API over HTTP, for the account of the key. The simulator's own key means the first account.

`/_sim/accounts/{id}/keys` returns an account's key and secret. `/_sim/trading` returns the number of trade
update connections, and `/_sim/trading/cut` aborts them.
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from alpaca_sim.api.activities_rest import activities_page
from alpaca_sim.api.broker_json import positions_json, trade_account_json
from alpaca_sim.api.broker_rest import (
    assets,
    calendar,
    market_clock,
    one_asset,
    position_in,
    reported_holdings,
)
from alpaca_sim.api.odd_accounts import as_held, as_stated
from alpaca_sim.api.trading_stream import Trading
from alpaca_sim.api.web import ApiError, find_account, json_response, sim_of
from alpaca_sim.core.ledger import Account

# Fields of the Broker API's trading account that the Trading API's account does not have.
BROKER_ONLY = frozenset(
    {
        *("cash_transferable", "cash_withdrawable", "clearing_broker", "last_buying_power", "last_cash"),
        *("last_initial_margin", "last_long_market_value", "last_options_buying_power", "previous_close"),
        *("last_regt_buying_power", "last_short_market_value", "memoposts"),
    }
)
BROKER_ONLY_IN_ROWS = ("account_id", "description")


def account_of(request: Request) -> Account:
    """The account of the request's key. Raises ApiError when there is no account."""
    sim = sim_of(request)
    key = request.headers.get("apca-api-key-id", "")
    secret = request.headers.get("apca-api-secret-key", "")
    account_id = _trading(request).keys.account_id(key, secret)
    if account_id is None and not sim.ledger.accounts:
        raise ApiError(404, "there is no account")
    return find_account(sim, account_id or next(iter(sim.ledger.accounts)))


async def account(request: Request) -> Response:
    """`GET /v2/account`: the account and its balances, without the Broker API's own fields."""
    sim, own = sim_of(request), account_of(request)
    row = trade_account_json(sim.market, own, reported_holdings(sim, own), sim.balance_date)
    row = as_stated(sim, own, row)
    return json_response(
        {name: value for name, value in row.items() if name not in BROKER_ONLY} | {"crypto_tier": 1}
    )


async def positions(request: Request) -> Response:
    """`GET /v2/positions`: all positions of the account."""
    sim, own = sim_of(request), account_of(request)
    rows = positions_json(sim.market, reported_holdings(sim, own), sim.settings.switches)
    return json_response(as_held(sim, own, rows))


async def one_position(request: Request) -> Response:
    """`GET /v2/positions/{symbol_or_asset_id}`; 404 without such a position."""
    return json_response(position_in(sim_of(request), account_of(request), request.path_params["symbol"]))


async def activities(request: Request) -> Response:
    """`GET /v2/account/activities[/{activity_type}]`, with the pages of the Broker API."""
    rows = activities_page(request, account_of(request).account_id)
    return json_response([_own(row) for row in rows])


def _own(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in BROKER_ONLY_IN_ROWS}


async def keys(request: Request) -> Response:
    """`GET /_sim/accounts/{id}/keys`: the account's own Trading API key and secret."""
    key, secret = _trading(request).keys.pair(
        find_account(sim_of(request), request.path_params["account_id"])
    )
    return json_response({"key": key, "secret": secret})


async def listening(request: Request) -> Response:
    """`GET /_sim/trading`: the number of connections that listen to trade updates."""
    count = sum(listener.is_listening for listener in _trading(request).listeners)
    return json_response({"listening": count})


async def cut(request: Request) -> Response:
    """`POST /_sim/trading/cut`: abort all trade-update connections, without a close frame."""
    return json_response({"cut": _trading(request).cut()})


def _trading(request: Request) -> Trading:
    return request.app.state.trading


ROUTES = [
    Route("/_sim/accounts/{account_id}/keys", keys),
    Route("/_sim/trading", listening),
    Route("/_sim/trading/cut", cut, methods=["POST"]),
    Route("/v2/account", account),
    Route("/v2/account/activities", activities),
    Route("/v2/account/activities/{activity_type}", activities),
    Route("/v2/positions", positions),
    Route("/v2/positions/{symbol:path}", one_position),
    Route("/v2/clock", market_clock),
    Route("/v2/calendar", calendar),
    Route("/v2/assets", assets),
    Route("/v2/assets/{symbol:path}", one_asset),
]

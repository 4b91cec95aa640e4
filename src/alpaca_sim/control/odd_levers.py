"""`/_sim/…`: bookings that are hard for clients."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from alpaca_sim.api.web import ApiError, find_account, json_body, json_response, sim_of
from alpaca_sim.control.fields import decimal_field, positive_field, seconds_field, symbol_field
from alpaca_sim.core.decimals import text
from alpaca_sim.core.ledger import Account

TOLD_IN_S = 60.0


async def late(request: Request) -> Response:
    """`POST /_sim/late`: `{"account_id","amount","told_in_s"?}`: a deposit.

    Balances show it at once, events and rows after `told_in_s` seconds.
    """
    sim, body = sim_of(request), await json_body(request)
    account = find_account(sim, str(body.get("account_id")))
    told_in_s = seconds_field(body, "told_in_s", TOLD_IN_S)
    booked = sim.odd_bookings.late_deposit(account.account_id, decimal_field(body, "amount"), told_in_s)
    return json_response({"ref_id": booked.ref_id})


async def reset(request: Request) -> Response:
    """`POST /_sim/reset`: `{"account_id","cash"}` resets a paper account. No event or row reports it."""
    sim, body = sim_of(request), await json_body(request)
    account = find_account(sim, str(body.get("account_id")))
    sim.odd_bookings.reset(account, decimal_field(body, "cash"))
    return json_response({"cash": text(account.current.cash)})


async def exchange(request: Request) -> Response:
    """`POST /_sim/exchange`: `{"account_id","symbol","into","ratio","cash"?,"gap_s"?}`: a merger."""
    sim, body = sim_of(request), await json_body(request)
    account = find_account(sim, str(body.get("account_id")))
    symbol = _held(account, symbol_field(sim.market.symbols, body))
    into = symbol_field(sim.market.symbols, {"symbol": body.get("into")})
    cash = decimal_field({"cash": "0", **body}, "cash")
    ratio, gap_s = positive_field(body, "ratio"), seconds_field(body, "gap_s", 0.0)
    group_id = sim.odd_bookings.exchange(account, symbol, into, ratio, cash, gap_s)
    return json_response({"group_id": group_id})


async def exercise(request: Request) -> Response:
    """`POST /_sim/exercise`: `{"account_id","symbol"}` exercises an option, or assigns a short one."""
    sim, body = sim_of(request), await json_body(request)
    account = find_account(sim, str(body.get("account_id")))
    contract = _held(account, symbol_field(sim.market.symbols, body))
    if sim.market.listing(contract).asset_class != "us_option":
        raise ApiError(422, "only an option can be exercised")
    return json_response({"group_id": sim.odd_bookings.exercise(account, contract)})


async def adjust(request: Request) -> Response:
    """`POST /_sim/adjust`: `{"symbol"}` gives an option a root with a digit, in every account."""
    sim, body = sim_of(request), await json_body(request)
    contract = symbol_field(sim.market.symbols, body)
    if sim.market.listing(contract).asset_class != "us_option":
        raise ApiError(422, "only an option can be adjusted")
    adjusted, count = sim.odd_bookings.adjust(contract)
    sim.feeds.flush()
    return json_response({"symbol": adjusted, "accounts": count})


def _held(account: Account, symbol: str) -> str:
    if symbol not in account.current.positions:
        raise ApiError(422, f"the account does not hold {symbol}")
    return symbol


ROUTES = [
    Route("/_sim/late", late, methods=["POST"]),
    Route("/_sim/reset", reset, methods=["POST"]),
    Route("/_sim/exchange", exchange, methods=["POST"]),
    Route("/_sim/exercise", exercise, methods=["POST"]),
    Route("/_sim/adjust", adjust, methods=["POST"]),
]

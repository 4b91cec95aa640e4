"""`/_sim/…`: exact values and controls for the demo, load tests and tests.

Alpaca has no such paths, and the product never requests them.
"""

import asyncio
from decimal import Decimal
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from alpaca_sim.api.web import (
    ApiError,
    csv_param,
    find_account,
    int_param,
    json_body,
    json_response,
    sim_of,
    time_param,
)
from alpaca_sim.control.fields import (
    decimal_field,
    new_symbol_field,
    positive_field,
    price_field,
    symbol_field,
)
from alpaca_sim.core import accounts
from alpaca_sim.core.clock import rfc3339
from alpaca_sim.core.conditions import regular_condition
from alpaca_sim.core.decimals import ZERO, exact, text
from alpaca_sim.core.former_records import FormerRecord
from alpaca_sim.core.ledger import Holdings, Position, Truth
from alpaca_sim.core.listings import TAPES
from alpaca_sim.core.market import HISTORY_MARKS_MAX, OVERNIGHT_TAPE, Listing
from alpaca_sim.core.trader import CASH_TYPES
from alpaca_sim.streams.feeds import STAR

TRUTHS_PER_SLICE = 200  # accounts valued before other requests get a turn
CASH_STATUSES = ("executed", "correct")  # bookings of both statuses count
ASSET_CLASSES = ("us_equity", "crypto", "us_option")
# A listing must have a price. The price of an unpriced symbol is never shown.
UNPRICED_PLACEHOLDER = Decimal(1)
PRICE_DECIMALS = {"us_equity": 2, "crypto": 4, "us_option": 2}


def truth_json(truth: Truth) -> dict[str, Any]:
    """One account's exact figures as decimal strings, not rounded."""
    return {
        "account_id": truth.account_id,
        "as_of": rfc3339(truth.as_of_ns),
        "equity": text(truth.equity),
        "cash": text(truth.cash),
        "last_equity": text(truth.last_equity),
        "external_cash_flow": text(truth.external_cash_flow),
        "day_pnl": text(truth.day_pnl),
        "positions": [
            {
                "symbol": position.symbol,
                "asset_class": position.asset_class,
                "quantity": text(position.quantity),
                "multiplier": text(position.multiplier),
                "mark": text(position.mark),
                "mark_at": rfc3339(position.mark_at_ns),
                "previous_close": text(position.previous_close),
                "market_value": text(position.market_value),
                "cost_basis": text(position.cost_basis),
                "day_pnl": None if position.day_pnl is None else text(position.day_pnl),
            }
            for position in truth.positions
        ],
        "booked_at": rfc3339(truth.booked_at_ns) if truth.booked_at_ns else None,
        "unpriced": list(truth.unpriced),
        "in_transit": list(truth.in_transit),
    }


async def account_ids(request: Request) -> Response:
    """`GET /_sim/accounts`: the ids of all accounts."""
    return json_response({"accounts": list(sim_of(request).ledger.accounts)})


async def one_truth(request: Request) -> Response:
    """`GET /_sim/accounts/{id}[?at=…]`: an account's exact figures now, or at a time in the price history."""
    sim = sim_of(request)
    account = find_account(sim, request.path_params["account_id"])
    at_ns = time_param(request, "at")
    try:
        truth = sim.ledger.truth(account.account_id, at_ns or sim.clock.stamp_ns(), past=at_ns is not None)
    except LookupError as error:
        raise ApiError(422, str(error)) from error
    return json_response(truth_json(truth))


async def all_truths(request: Request) -> Response:
    """`GET /_sim/truth[?ids=a,b]`: exact figures of the accounts, all as of one instant."""
    sim = sim_of(request)
    wanted = csv_param(request, "ids") or list(sim.ledger.accounts)
    as_of_ns = sim.clock.stamp_ns()
    marks = {symbol: state.mark_trade for symbol, state in sim.market.symbols.items()}
    truths: dict[str, Any] = {}
    for index, key in enumerate(wanted):
        if index % TRUTHS_PER_SLICE == TRUTHS_PER_SLICE - 1:
            await asyncio.sleep(0)
        account_id = find_account(sim, key).account_id
        truths[key] = truth_json(sim.ledger.truth(account_id, as_of_ns, marks=marks))
    return json_response({"as_of": rfc3339(as_of_ns), "accounts": truths})


async def former_records(request: Request) -> Response:
    """`GET /_sim/former?after_s=…`: the records of accounts that have ended since, oldest first.

    Times are seconds of this machine's monotonic clock, whatever the simulated time. `whole` is false if some
    of them are forgotten.
    """
    try:
        after_s = float(request.query_params.get("after_s", ""))
    except ValueError as error:
        raise ApiError(422, f"invalid after_s: {error}") from error
    records, is_whole = sim_of(request).ledger.former.since(after_s)
    return json_response({"whole": is_whole, "records": [_former_json(record) for record in records]})


def _former_json(record: FormerRecord) -> dict[str, Any]:
    return {
        "account_id": record.account_id,
        "ended_s": record.ended_s,
        "cash": text(record.cash),
        "last_equity": text(record.last_equity),
        "external_cash_flow": text(record.external_cash_flow),
        "quantities": {symbol: text(quantity) for symbol, quantity in record.quantities.items()},
        "in_transit": record.is_in_transit,
    }


async def pause(request: Request) -> Response:
    """`POST /_sim/pause`: stop market and accounts. Responds once all streams are flushed, or after 2 s."""
    sim = sim_of(request)
    sim.is_paused = True
    is_flushed = await sim.flush()
    return json_response({"paused": True, "flushed": is_flushed})


async def resume(request: Request) -> Response:
    """`POST /_sim/resume`: start market and accounts again."""
    sim_of(request).is_paused = False
    return json_response({"paused": False})


async def trade(request: Request) -> Response:
    """`POST /_sim/trade`: `{"account_id","symbol","quantity","price"?}`: a trade, by default at the mark."""
    sim, body = sim_of(request), await json_body(request)
    account = find_account(sim, str(body.get("account_id")))
    symbol = symbol_field(sim.market.symbols, body)
    quantity = decimal_field(body, "quantity")
    if not quantity:
        raise ApiError(422, "quantity must not be zero")
    price = price_field(body) if "price" in body else None
    activity = sim.trader.trade(account.account_id, symbol, quantity, price)
    return json_response(
        {
            "event_id": activity.event_id,
            "price": text(activity.price),
            "net_amount": text(activity.net_amount),
        }
    )


async def cash(request: Request) -> Response:
    """`POST /_sim/cash`: `{"account_id","activity_type","amount","status"?}`: a cash booking.

    CSW and FEE deduct the amount whatever its sign; any other type books it as it is.
    """
    sim, body = sim_of(request), await json_body(request)
    account = find_account(sim, str(body.get("account_id")))
    activity_type = body.get("activity_type")
    if activity_type not in CASH_TYPES:
        raise ApiError(422, f"activity_type must be one of {', '.join(CASH_TYPES)}")
    amount = decimal_field(body, "amount")
    net_amount = -abs(amount) if activity_type in ("CSW", "FEE") else amount
    status = str(body.get("status", "executed"))
    if status not in CASH_STATUSES:
        raise ApiError(422, f"status must be one of {', '.join(CASH_STATUSES)}")
    activity = sim.trader.move_cash(account.account_id, activity_type, net_amount, status=status)
    return json_response({"event_id": activity.event_id, "net_amount": text(net_amount)})


async def print_trade(request: Request) -> Response:
    """`POST /_sim/print`: `{"symbol","price","conditions"?,"size"?,"tape"?,"exchange"?}`: one market trade.

    `moved` in the response says whether it set the mark.
    """
    sim, body = sim_of(request), await json_body(request)
    state = sim.market.symbols[symbol_field(sim.market.symbols, body)]
    size = positive_field(body, "size") if "size" in body else Decimal(100)
    conditions = _conditions(body, state.listing)
    tape = body.get("tape")
    if tape not in (None, state.listing.tape, OVERNIGHT_TAPE):
        raise ApiError(422, f"tape must be the symbol's own or {OVERNIGHT_TAPE}")
    venue = body.get("exchange", "")
    if not isinstance(venue, str) or not (
        venue == "" or (len(venue) == 1 and venue.isascii() and venue.isalpha())
    ):
        raise ApiError(422, "exchange must be one letter")
    moved = sim.market.print_trade(
        state.listing.symbol, price_field(body), size, conditions, venue, tape=tape
    )
    sim.feeds.flush()
    return json_response({"moved": moved, "mark": text(state.mark), "at": rfc3339(state.mark_trade.at_ns)})


async def create_account(request: Request) -> Response:
    """`POST /_sim/accounts`: `{"cash"?,"positions"?:{symbol:quantity},"last_equity"?}`: a new account.

    It has held these positions since before the last close.
    """
    sim, body = sim_of(request), await json_body(request)
    opening = Holdings(decimal_field(body, "cash") if "cash" in body else ZERO)
    positions = body.get("positions") or {}
    if not isinstance(positions, dict):
        raise ApiError(422, 'positions must be an object such as {"AAPL": "10"}')
    for symbol, quantity_text in cast("dict[str, object]", positions).items():
        listing = sim.market.listing(symbol_field(sim.market.symbols, {"symbol": symbol}))
        quantity = decimal_field({"quantity": quantity_text}, "quantity")
        with exact():
            opening.positions[symbol] = Position(
                quantity, quantity * listing.multiplier * listing.previous_close
            )
    given = "last_equity" in body
    last_equity = decimal_field(body, "last_equity") if given else sim.ledger.equity_at_closes(opening)
    index = len(sim.ledger.accounts)
    account = accounts.make_account(
        sim.ledger, index, sim.control_rng, opening, last_equity, sim.clock.stamp_ns()
    )
    return json_response({"account_id": account.account_id})


async def set_symbol(request: Request) -> Response:
    """`POST /_sim/symbols`: `{"symbol","price","previous_close"?,"asset_class"?}` lists a symbol.

    A new symbol with `"price": null` has no price until it trades. An existing one trades once at `price`.
    """
    sim, body = sim_of(request), await json_body(request)
    symbol, is_unpriced = str(body.get("symbol")), "price" in body and body["price"] is None
    state = sim.market.symbols.get(symbol)
    if state is not None and is_unpriced:
        raise ApiError(422, f"{symbol} exists: give the price at which it trades")
    price = UNPRICED_PLACEHOLDER if is_unpriced else price_field(body)
    if state is None:
        symbol, asset_class = new_symbol_field(body), str(body.get("asset_class", "us_equity"))
        if asset_class not in ASSET_CLASSES:
            raise ApiError(422, f"asset_class must be one of {', '.join(ASSET_CLASSES)}")
        previous_close = positive_field(body, "previous_close") if "previous_close" in body else price
        exchange = {"us_equity": "NASDAQ", "crypto": "CRYPTO"}.get(asset_class, "")
        tape = TAPES.get(exchange, "")
        decimals = PRICE_DECIMALS[asset_class]
        sim.market.list_symbol(
            Listing(symbol, symbol, asset_class, exchange, tape, price, previous_close, decimals), is_unpriced
        )
    else:
        if "previous_close" in body:
            raise ApiError(422, "previous_close of an existing symbol is fixed: accounts were valued with it")
        sim.market.print_trade(symbol, price, Decimal(100), _regular(state.listing))
    sim.feeds.flush()
    return json_response({"symbol": symbol, "mark": text(sim.market.mark(symbol))})


async def marks(request: Request) -> Response:
    """`GET /_sim/marks[?last=N]`: the last N marks of each symbol that has a price, newest last.

    Each is `[time, price]`: ns since the epoch and dollars, both as strings.
    """
    sim, count = sim_of(request), int_param(request, "last", 1, 1, HISTORY_MARKS_MAX)
    priced = {symbol: state for symbol, state in sim.market.symbols.items() if not state.is_unpriced}
    return json_response(
        {
            "marks": {
                symbol: [[str(at_ns), text(price)] for at_ns, price in list(state.history)[-count:]]
                for symbol, state in priced.items()
            }
        }
    )


async def state(request: Request) -> Response:
    """`GET /_sim/state`: counters of trades, activities, requests and connections."""
    sim = sim_of(request)
    guard = request.app.state.guard
    subscribed = {symbol for feed in sim.feeds.by_path.values() for symbol in feed.symbols()} - {STAR}
    return json_response(
        {
            "trades": sim.market.trade_count,
            "activities": len(sim.ledger.activities),
            "accounts": len(sim.ledger.accounts),
            "paused": sim.is_paused,
            "tape_done": sim.source.is_done,
            "market_stream_connections": len(sim.feeds.subscribers()),
            "event_stream_connections": len(sim.events.readers),
            "requests": guard.request_count,
            "requests_per_second_max": guard.requests_per_second_max,
            "rejected_429": sim.rate_limit.rejected_count,
            "market_handshakes": sim.feeds.handshake_count,
            "event_stream_connects": sim.events.connect_count,
            "subscribed_symbols": len(subscribed),
        }
    )


async def cut(request: Request) -> Response:
    """`POST /_sim/cut`: `{"stream":"market"|"events"}` aborts these connections, without a close frame."""
    sim, body = sim_of(request), await json_body(request)
    stream = body.get("stream")
    if stream not in ("market", "events"):
        raise ApiError(422, "stream must be market or events")
    clients = [reader.client for reader in (sim.sockets if stream == "market" else sim.events.readers)]
    for client in clients:
        sim.abort(client)
    return json_response({"cut": len(clients)})


def _conditions(body: dict[str, Any], listing: Listing) -> list[str]:
    """The condition codes of the request, or those of an ordinary trade. Raises ApiError (422)."""
    given = body.get("conditions")
    if given is None:
        return _regular(listing)
    if not isinstance(given, list):
        raise ApiError(422, "conditions must be an array of letters")
    letters = [str(letter) for letter in cast("list[object]", given)]
    if any(len(letter) != 1 for letter in letters):
        raise ApiError(422, "conditions must be an array of letters")
    if listing.asset_class == "us_option" and len(letters) != 1:
        raise ApiError(422, "an option trade has exactly one condition")
    return letters


def _regular(listing: Listing) -> list[str]:
    if listing.asset_class == "us_option":
        return ["I"]
    return [] if listing.asset_class == "crypto" else [regular_condition(listing.tape)]


ROUTES = [
    Route("/_sim/accounts", account_ids),
    Route("/_sim/accounts", create_account, methods=["POST"]),
    Route("/_sim/accounts/{account_id}", one_truth),
    Route("/_sim/truth", all_truths),
    Route("/_sim/former", former_records),
    Route("/_sim/pause", pause, methods=["POST"]),
    Route("/_sim/resume", resume, methods=["POST"]),
    Route("/_sim/trade", trade, methods=["POST"]),
    Route("/_sim/cash", cash, methods=["POST"]),
    Route("/_sim/print", print_trade, methods=["POST"]),
    Route("/_sim/symbols", set_symbol, methods=["POST"]),
    Route("/_sim/state", state),
    Route("/_sim/marks", marks),
    Route("/_sim/cut", cut, methods=["POST"]),
]

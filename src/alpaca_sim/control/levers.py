"""`/_sim/…`: fault plans, the clock, the switches, and acts of exchanges, companies and the broker."""

import asyncio
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from alpaca_sim.api.web import ApiError, find_account, json_body, json_response, sim_of
from alpaca_sim.control.fields import (
    SECONDS_MAX,
    bool_field,
    date_field,
    decimal_field,
    only_fields,
    positive_field,
    price_field,
    seconds_field,
    symbol_field,
)
from alpaca_sim.core import faults
from alpaca_sim.core.clock import SECOND_NS, MovableClock, new_york, parse_time_ns, rfc3339
from alpaca_sim.core.decimals import text
from alpaca_sim.core.ledger import Activity
from alpaca_sim.core.statuses import STATUSES
from alpaca_sim.core.switches import as_pairs
from alpaca_sim.core.trader import CASH_TYPES, SECURITY_TYPES

SPLIT_GAP_S = 1.0
PAY_IN_S = 60.0
SETTLE_IN_S = 60.0


async def get_faults(request: Request) -> Response:
    """`GET /_sim/faults`: active and waiting faults, the number that ended, elapsed and remaining seconds."""
    live = sim_of(request).faults
    active = [asdict(fault) for rows in live.active.values() for fault in rows]
    return json_response(
        {
            "active": active,
            "waiting": [asdict(fault) for fault in live.waiting],
            "done": live.done_count,
            "elapsed_s": round(live.elapsed_s, 3),
            "remaining_s": round(live.remaining_s, 3),
        }
    )


async def post_faults(request: Request) -> Response:
    """`POST /_sim/faults`: start a fault plan, given as YAML or JSON. Returns the whole plan."""
    sim = sim_of(request)
    try:
        plan = faults.load((await request.body()).decode("utf-8", "replace"))
        sim.install(plan)
    except faults.PlanError as error:
        raise ApiError(422, str(error)) from error
    rows = [asdict(fault) for fault in plan.faults]
    return json_response({"seed": plan.seed, "duration_s": plan.duration_s, "faults": rows})


async def delete_faults(request: Request) -> Response:
    """`DELETE /_sim/faults`: end all faults."""
    sim = sim_of(request)
    sim.end_faults()
    return json_response({"done": sim.faults.done_count})


async def get_clock(request: Request) -> Response:
    """`GET /_sim/clock`: the simulator's time, session, `balance_asof` and speed."""
    return json_response(_clock_json(request))


def _clock_json(request: Request) -> dict[str, Any]:
    sim = sim_of(request)
    now_ns = sim.clock.now_ns()
    return {
        "now": rfc3339(now_ns),
        "new_york": new_york(now_ns).isoformat(),
        "session": sim.calendar.session(now_ns),
        "balance_asof": sim.balance_date.isoformat(),
        "speed": sim.clock.speed if isinstance(sim.clock, MovableClock) else 1.0,
    }


async def post_clock(request: Request) -> Response:
    """`POST /_sim/clock`: `{"advance_s"}` or `{"set": time}` moves the clock ahead.

    With `"moves": true`, the market and the accounts trade during the jump.
    """
    sim, body = sim_of(request), await json_body(request)
    clock = sim.clock
    if not isinstance(clock, MovableClock):
        raise ApiError(422, "this simulator runs on the wall clock: start it with --speed or --start")
    if sim.is_jumping:
        raise ApiError(409, "the clock is being moved already: wait for the response to that request")
    for _ in sim.jump(_target_ns(body, clock.now_ns()), bool_field(body, "moves", default=False)):
        await asyncio.sleep(0)
    return json_response(_clock_json(request))


def _target_ns(body: dict[str, Any], now_ns: int) -> int:
    if "set" not in body:
        return now_ns + int(seconds_field(body, "advance_s", 0.0) * SECOND_NS)
    try:
        target_ns = parse_time_ns(str(body["set"]))
    except ValueError as error:
        raise ApiError(422, f"invalid set: {error}") from error
    if not now_ns <= target_ns <= now_ns + SECONDS_MAX * SECOND_NS:
        raise ApiError(
            422, f"set must be from now ({rfc3339(now_ns)}) to {SECONDS_MAX / 86_400:g} days ahead"
        )
    return target_ns


async def get_switches(request: Request) -> Response:
    """`GET /_sim/switches`: the value of each point that Alpaca's documents leave open."""
    return json_response(as_pairs(sim_of(request).settings.switches))


async def correct(request: Request) -> Response:
    """`POST /_sim/correct`: `{"symbol","price"?}` corrects the last eligible trade, or cancels it."""
    sim, body = sim_of(request), await json_body(request)
    only_fields(body, "symbol", "price")
    symbol = symbol_field(sim.market.symbols, body)
    done = sim.market.correct(symbol, price_field(body)) if "price" in body else sim.market.cancel(symbol)
    sim.feeds.flush()
    return json_response({"done": done, "mark": text(sim.market.mark(symbol))})


async def halt(request: Request) -> Response:
    """`POST /_sim/halt`: `{"symbol"}` halts a symbol; `{"symbol","halted":false}` resumes it."""
    sim, body = sim_of(request), await json_body(request)
    symbol = symbol_field(sim.market.symbols, body)
    sim.market.set_halted(symbol, bool_field(body, "halted", default=True))
    sim.feeds.flush()
    return json_response({"symbol": symbol, "halted": sim.market.symbols[symbol].is_halted})


async def amend(request: Request) -> Response:
    """`POST /_sim/amend`: `{"account_id","event_id","price"?}` corrects a trade; without price: busts it."""
    sim, body = sim_of(request), await json_body(request)
    only_fields(body, "account_id", "event_id", "price")
    account = find_account(sim, str(body.get("account_id")))
    original = _standing_trade(account.activities, str(body.get("event_id")), sim.ledger.superseded)
    activity = sim.trader.amend(original, price_field(body) if "price" in body else None)
    return json_response({"event_id": activity.event_id, "previous_id": original.ref_id})


def _standing_trade(activities: list[Activity], event_id: str, superseded: set[str]) -> Activity:
    for activity in activities:
        if activity.event_id == event_id:
            if activity.activity_type != "TRD" or activity.is_void or activity.ref_id in superseded:
                raise ApiError(422, "only a trade that still counts can be corrected or busted")
            return activity
    raise ApiError(404, "activity not found")


async def backfill(request: Request) -> Response:
    """`POST /_sim/backfill`: `{"account_id","activity_type","amount","at_s_ago"?}`: a cash booking.

    It is booked now and was executed `at_s_ago` seconds ago.
    """
    sim, body = sim_of(request), await json_body(request)
    account_id = find_account(sim, str(body.get("account_id"))).account_id
    activity_type = body.get("activity_type")
    if activity_type not in CASH_TYPES:
        raise ApiError(422, f"activity_type must be one of {', '.join(CASH_TYPES)}")
    executed_ns = sim.clock.now_ns() - int(seconds_field(body, "at_s_ago", 3_600.0) * SECOND_NS)
    amount = decimal_field(body, "amount")
    activity = sim.trader.move_cash(account_id, activity_type, amount, executed_ns=executed_ns)
    return json_response({"event_id": activity.event_id, "executed_at": rfc3339(executed_ns)})


async def set_status(request: Request) -> Response:
    """`POST /_sim/status`: `{"account_id","status"}` changes an account's status."""
    sim, body = sim_of(request), await json_body(request)
    account, status = find_account(sim, str(body.get("account_id"))), body.get("status")
    if status not in STATUSES:
        raise ApiError(422, f"status must be one of {', '.join(STATUSES)}")
    sim.statuses.change(account, status)
    return json_response({"account_id": account.account_id, "status": account.status})


async def split(request: Request) -> Response:
    """`POST /_sim/split`: `{"symbol","new_rate","old_rate"?,"gap_s"?,"ex_date"?,"told"?}` splits a stock.

    The two bookings are `gap_s` seconds apart. `"told":false`: no event and no row reports them.
    """
    sim, body = sim_of(request), await json_body(request)
    symbol = _stock_field(request, body)
    count = sim.corporate.split(
        symbol,
        positive_field(body, "new_rate"),
        positive_field({"old_rate": "1", **body}, "old_rate"),
        seconds_field(body, "gap_s", SPLIT_GAP_S),
        date_field(body, "ex_date"),
        is_told=bool_field(body, "told", default=True),
    )
    return json_response({"symbol": symbol, "accounts": count})


async def dividend(request: Request) -> Response:
    """`POST /_sim/dividend`: `{"symbol","rate","pay_in_s"?,"withheld"?}` pays a dividend.

    The price falls by `rate` dollars now; the cash follows after `pay_in_s` seconds.
    """
    sim, body = sim_of(request), await json_body(request)
    symbol = _stock_field(request, body)
    rate, mark = positive_field(body, "rate"), sim.market.mark(symbol)
    if rate >= mark:
        raise ApiError(422, f"rate must be below the price of {symbol}, {text(mark)}")
    withheld = decimal_field({"withheld": "0", **body}, "withheld")
    if not 0 <= withheld < 1:
        raise ApiError(422, "withheld must be a share from 0 to below 1")
    count = sim.corporate.dividend(symbol, rate, seconds_field(body, "pay_in_s", PAY_IN_S), withheld)
    sim.feeds.flush()
    return json_response({"symbol": symbol, "accounts": count})


def _stock_field(request: Request, body: dict[str, Any]) -> str:
    symbols = sim_of(request).market.symbols
    symbol = symbol_field(symbols, body)
    if symbols[symbol].listing.asset_class != "us_equity":
        raise ApiError(422, "only a stock splits and pays dividends")
    return symbol


async def securities(request: Request) -> Response:
    """`POST /_sim/securities`: `{"account_id","activity_type","symbol","quantity","price"}`: a transfer."""
    sim, body = sim_of(request), await json_body(request)
    account = find_account(sim, str(body.get("account_id")))
    activity_type = body.get("activity_type")
    if activity_type not in SECURITY_TYPES:
        raise ApiError(422, f"activity_type must be one of {', '.join(SECURITY_TYPES)}")
    symbol = symbol_field(sim.market.symbols, body)
    quantity = decimal_field(body, "quantity")
    if not quantity:
        raise ApiError(422, "quantity must not be zero")
    activity = sim.trader.move_securities(
        account.account_id, activity_type, symbol, quantity, price_field(body)
    )
    return json_response({"event_id": activity.event_id})


async def instant_deposit(request: Request) -> Response:
    """`POST /_sim/instant_deposit`: `{"account_id","amount","settle_in_s"?}`: MEM now, CSD later."""
    sim, body = sim_of(request), await json_body(request)
    account_id = find_account(sim, str(body.get("account_id"))).account_id
    amount = positive_field(body, "amount")
    settle_in_s = seconds_field(body, "settle_in_s", SETTLE_IN_S)
    transfer_id = sim.odd_bookings.instant_deposit(account_id, amount, settle_in_s)
    return json_response({"transfer_id": transfer_id})


ROUTES = [
    Route("/_sim/faults", get_faults),
    Route("/_sim/faults", post_faults, methods=["POST"]),
    Route("/_sim/faults", delete_faults, methods=["DELETE"]),
    Route("/_sim/clock", get_clock),
    Route("/_sim/clock", post_clock, methods=["POST"]),
    Route("/_sim/switches", get_switches),
    Route("/_sim/correct", correct, methods=["POST"]),
    Route("/_sim/halt", halt, methods=["POST"]),
    Route("/_sim/amend", amend, methods=["POST"]),
    Route("/_sim/backfill", backfill, methods=["POST"]),
    Route("/_sim/status", set_status, methods=["POST"]),
    Route("/_sim/split", split, methods=["POST"]),
    Route("/_sim/dividend", dividend, methods=["POST"]),
    Route("/_sim/securities", securities, methods=["POST"]),
    Route("/_sim/instant_deposit", instant_deposit, methods=["POST"]),
]

"""Portfolio history, one point per trading day. Its figures are JSON numbers."""

import re
from datetime import date, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from alpaca_sim.api.trading_rest import account_of
from alpaca_sim.api.web import ApiError, date_param, find_account, json_response, sim_of
from alpaca_sim.core.books import DayEnd
from alpaca_sim.core.clock import SECOND_NS
from alpaca_sim.core.sessions import POST_CLOSE, at_time_ns

TIMEFRAME = "1D"
RATIO_DECIMALS = 4
PERIOD = re.compile(r"([1-9][0-9]{0,3})([DWMA])")
DAYS_OF = {"D": 1, "W": 7, "M": 30, "A": 365}
PERIOD_DEFAULT = "1M"


async def portfolio_history(request: Request) -> Response:
    """`GET …/account/portfolio/history?timeframe=1D`: each point has the time 20:00 New York of its day."""
    sim = sim_of(request)
    account = find_account(sim, request.path_params["account_id"])
    return _answer(request, sim.books.history.get(account.account_id, []))


async def own_portfolio_history(request: Request) -> Response:
    """`GET /v2/account/portfolio/history`: the same for the account of the key."""
    return _answer(request, sim_of(request).books.history.get(account_of(request).account_id, []))


def _answer(request: Request, days: list[DayEnd]) -> Response:
    params = request.query_params
    if params.get("timeframe", TIMEFRAME) != TIMEFRAME:
        raise ApiError(422, "this simulator keeps one point a day: ask for timeframe=1D")
    if {"start", "end", "period"} <= params.keys():
        raise ApiError(422, "only two of start, end and period can be given")
    end = date_param(request, "end", date.max) if "end" in params else date.max
    if "start" in params:
        start = date_param(request, "start", date.min)
    else:
        newest = min(end, days[-1].day) if days else date.max
        start = newest - _period(params.get("period", PERIOD_DEFAULT)) if days else date.min
    kept = [day for day in days if start <= day.day <= end]
    before = max((day for day in days if day.day < start), key=lambda day: day.day, default=None)
    return json_response(history_json(kept, before))


def _period(text: str) -> timedelta:
    match = PERIOD.fullmatch(text)
    if match is None:
        raise ApiError(422, "period must be a number and a unit: 1D, 2W, 3M or 1A")
    return timedelta(days=int(match[1]) * DAYS_OF[match[2]])


def history_json(days: list[DayEnd], before: DayEnd | None = None) -> dict[str, Any]:
    """The response: equity in dollars, and profit and loss from point to point.

    Profit and loss include deposits, as in Alpaca's own examples. The base is the equity of `before`, the
    last day before the first point; without it, the equity of the first point.
    """
    equity = [float(day.equity) for day in days]
    base = float(before.equity) if before else equity[0] if equity else None
    earlier = [base, *equity][: len(equity)]
    profit = [round(now - then, 2) for now, then in zip(equity, earlier, strict=True) if then is not None]
    ratio = [
        round(gain / then, RATIO_DECIMALS) if then else None
        for gain, then in zip(profit, earlier, strict=True)
    ]
    types = sorted({name for day in days for name in day.flows})
    return {
        "timestamp": [at_time_ns(day.day, POST_CLOSE) // SECOND_NS for day in days],
        "equity": equity,
        "profit_loss": profit,
        "profit_loss_pct": ratio,
        "base_value": base,
        **({"base_value_asof": before.day.isoformat()} if before else {}),
        "timeframe": TIMEFRAME,
        "cashflow": {name: [float(day.flows.get(name, 0)) for day in days] for name in types},
    }


ROUTES = [
    Route("/v1/trading/accounts/{account_id}/account/portfolio/history", portfolio_history),
    Route("/v2/account/portfolio/history", own_portfolio_history),
]

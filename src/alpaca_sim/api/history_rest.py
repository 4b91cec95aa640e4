"""Portfolio history, one point a trading day: what the books have kept. Its figures are JSON numbers."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from alpaca_sim.api.web import ApiError, find_account, json_response, sim_of
from alpaca_sim.core.books import DayEnd
from alpaca_sim.core.clock import SECOND_NS
from alpaca_sim.core.sessions import POST_CLOSE, at_time_ns

TIMEFRAME = "1D"
RATIO_DECIMALS = 4


async def portfolio_history(request: Request) -> Response:
    """`GET …/account/portfolio/history?timeframe=1D`: each point is 20:00 New York of its day."""
    sim = sim_of(request)
    account = find_account(sim, request.path_params["account_id"])
    if request.query_params.get("timeframe", TIMEFRAME) != TIMEFRAME:
        raise ApiError(422, "this simulator keeps one point a day: ask for timeframe=1D")
    return json_response(history_json(sim.books.history.get(account.account_id, [])))


def history_json(days: list[DayEnd]) -> dict[str, Any]:
    """The object: profit and loss from point to point, deposits included, as in Alpaca's own examples."""
    equity = [float(day.equity) for day in days]
    base = equity[0] if equity else None
    before = equity[:1] + equity[:-1]
    profit = [round(now - then, 2) for now, then in zip(equity, before, strict=True)]
    ratio = [
        round(gain / then, RATIO_DECIMALS) if then else None
        for gain, then in zip(profit, before, strict=True)
    ]
    types = sorted({name for day in days for name in day.flows})
    return {
        "timestamp": [at_time_ns(day.day, POST_CLOSE) // SECOND_NS for day in days],
        "equity": equity,
        "profit_loss": profit,
        "profit_loss_pct": ratio,
        "base_value": base,
        "timeframe": TIMEFRAME,
        "cashflow": {name: [float(day.flows.get(name, 0)) for day in days] for name in types},
    }


ROUTES = [Route("/v1/trading/accounts/{account_id}/account/portfolio/history", portfolio_history)]

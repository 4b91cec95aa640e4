"""Market-data REST: latest trades, quotes, bars and snapshots. The response leaves out unknown symbols."""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from alpaca_sim.api.web import ApiError, csv_param, json_response, sim_of
from alpaca_sim.core.clock import new_york
from alpaca_sim.core.market import MarketSymbol, Trade
from alpaca_sim.streams.market_json import last_json, minute_bar_json, quote_json, snapshot_json, trade_json

OPTION_SYMBOLS_MAX = 100
CRYPTO_LOCATIONS = ("us",)
FEEDS = {
    "us_equity": ("sip", "iex", "delayed_sip", "boats", "overnight", "otc"),
    "us_option": ("opra", "indicative"),
}
NIGHT_FEEDS = ("boats", "overnight")  # these have trades only


def _wanted(request: Request, asset_class: str) -> dict[str, MarketSymbol]:
    names = csv_param(request, "symbols")
    if not names:
        raise ApiError(400, "symbols is required")
    if asset_class == "us_option" and len(names) > OPTION_SYMBOLS_MAX:
        raise ApiError(400, f"at most {OPTION_SYMBOLS_MAX} symbols")
    if request.path_params.get("loc", "us") not in CRYPTO_LOCATIONS:
        raise ApiError(400, "invalid location")
    if asset_class in FEEDS:
        _check_feed(request, asset_class)
    found = {name: sim_of(request).market.symbols.get(name) for name in names}
    return {
        name: state
        for name, state in found.items()
        if state and state.listing.asset_class == asset_class and not state.is_unpriced
    }


def _check_feed(request: Request, asset_class: str) -> None:
    """Refuse an unknown feed (400), and one that the subscription does not include (403)."""
    feed = request.query_params.get("feed")
    if feed is not None and feed not in FEEDS[asset_class]:
        raise ApiError(400, "invalid feed")
    if feed in sim_of(request).settings.denied_feeds:
        raise ApiError(403, f"subscription does not permit querying recent {feed.upper()} data", 42210000)


def _is_by_night(request: Request) -> bool:
    return request.query_params.get("feed") in NIGHT_FEEDS


def _last(request: Request, state: MarketSymbol) -> Trade | None:
    return sim_of(request).feeds.last_trade(request.query_params.get("feed"), state)


def _snapshot(request: Request, state: MarketSymbol) -> dict[str, Any]:
    day = state.day or new_york(sim_of(request).clock.now_ns()).date()
    last = _last(request, state)
    return last_json(last) if _is_by_night(request) else snapshot_json(state, day, last)


def _trade(request: Request, state: MarketSymbol) -> dict[str, Any]:
    last = _last(request, state)
    return {} if last is None else trade_json(last)


def _quote(_request: Request, state: MarketSymbol) -> dict[str, Any]:
    return quote_json(state)


def _bar(_request: Request, state: MarketSymbol) -> dict[str, Any]:
    return minute_bar_json(state)


Shape = Callable[[Request, MarketSymbol], dict[str, Any]]


def _many(path: str, asset_class: str, wrapper: str, shape: Shape, paged: bool = False) -> Route:
    """A route for `symbols=A,B`. `wrapper` is the key of the map in the response; empty: the map itself."""

    async def endpoint(request: Request) -> Response:
        shapes = {name: shape(request, state) for name, state in _wanted(request, asset_class).items()}
        rows = {name: row for name, row in shapes.items() if row}
        if not wrapper:
            return json_response(rows)
        return json_response({wrapper: rows} | ({"next_page_token": None} if paged else {}))

    return Route(path, endpoint)


def _one_stock(path: str, wrapper: str, shape: Shape) -> Route:
    """A route for one stock in the path. `wrapper` is the key of the object; empty: the object itself."""

    async def endpoint(request: Request) -> Response:
        symbol = request.path_params["symbol"]
        state = sim_of(request).market.symbols.get(symbol)
        if state is None or state.listing.asset_class != "us_equity":
            raise ApiError(404, f"no data for symbol {symbol}")
        body = shape(request, state)
        return json_response({"symbol": symbol} | ({wrapper: body} if wrapper else body))

    return Route(path, endpoint)


ROUTES = [
    _many("/v2/stocks/snapshots", "us_equity", "", _snapshot),
    _many("/v2/stocks/trades/latest", "us_equity", "trades", _trade),
    _many("/v2/stocks/quotes/latest", "us_equity", "quotes", _quote),
    _many("/v2/stocks/bars/latest", "us_equity", "bars", _bar),
    _one_stock("/v2/stocks/{symbol}/snapshot", "", _snapshot),
    _one_stock("/v2/stocks/{symbol}/trades/latest", "trade", _trade),
    _one_stock("/v2/stocks/{symbol}/quotes/latest", "quote", _quote),
    _one_stock("/v2/stocks/{symbol}/bars/latest", "bar", _bar),
    _many("/v1beta3/crypto/{loc}/snapshots", "crypto", "snapshots", _snapshot),
    _many("/v1beta3/crypto/{loc}/latest/trades", "crypto", "trades", _trade),
    _many("/v1beta3/crypto/{loc}/latest/quotes", "crypto", "quotes", _quote),
    _many("/v1beta3/crypto/{loc}/latest/bars", "crypto", "bars", _bar),
    _many("/v1beta1/options/snapshots", "us_option", "snapshots", _snapshot, paged=True),
    _many("/v1beta1/options/trades/latest", "us_option", "trades", _trade),
    _many("/v1beta1/options/quotes/latest", "us_option", "quotes", _quote),
]

"""Market-data objects in Alpaca's JSON shapes. Prices are JSON numbers in their shortest form (172.61).

The functions `…_fields` leave out type, symbol and time (`T`, `S`, `t`): stream messages encode these.
"""

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from alpaca_sim.core.clock import new_york_ns, rfc3339, rfc3339_seconds
from alpaca_sim.core.decimals import divide
from alpaca_sim.core.market import Bar, MarketSymbol, Trade

QUOTE_SIZE = 100


def number(amount: Decimal) -> float:
    """The nearest float. With 15 significant digits or fewer, its shortest form is the decimal."""
    return float(amount)


def size_number(trade_class: str, size: Decimal) -> float | int:
    """The size as a JSON number: coins are fractional, shares and contracts are whole."""
    return float(size) if trade_class == "crypto" else int(size)


def trade_fields(trade: Trade) -> dict[str, Any]:
    """A trade's fields; crypto, options and stocks have different keys."""
    size = size_number(trade.asset_class, trade.size)
    if trade.asset_class == "crypto":
        return {"p": number(trade.price), "s": size, "i": trade.trade_id, "tks": trade.taker_side}
    if trade.asset_class == "us_option":
        return {"p": number(trade.price), "s": size, "x": trade.exchange, "c": trade.conditions[0]}
    return {
        "i": trade.trade_id,
        "x": trade.exchange,
        "p": number(trade.price),
        "s": size,
        "c": list(trade.conditions),
        "z": trade.tape,
    }


def trade_json(trade: Trade) -> dict[str, Any]:
    """A trade in REST."""
    return {"t": rfc3339(trade.at_ns), **trade_fields(trade)}


def last_json(last: Trade | None) -> dict[str, Any]:
    """The latest trade as a part of a snapshot; empty without one."""
    return {} if last is None else {"latestTrade": trade_json(last)}


def quote_fields(state: MarketSymbol) -> dict[str, Any]:
    """The fields of a quote one tick around the mark."""
    listing = state.listing
    tick = Decimal(1).scaleb(-listing.price_decimals)
    bid, ask = number(max(tick, state.mark - tick)), number(state.mark + tick)
    if listing.asset_class == "crypto":
        return {"bp": bid, "bs": 1.5, "ap": ask, "as": 1.25}
    conditions = "A" if listing.asset_class == "us_option" else ["R"]
    quote: dict[str, Any] = {
        "bx": "Q",
        "bp": bid,
        "bs": QUOTE_SIZE,
        "ax": "Q",
        "ap": ask,
        "as": QUOTE_SIZE,
        "c": conditions,
    }
    if listing.asset_class != "us_option":
        quote["z"] = listing.tape
    return quote


def quote_json(state: MarketSymbol) -> dict[str, Any]:
    """The latest quote in REST."""
    return {"t": rfc3339(state.mark_trade.at_ns), **quote_fields(state)}


def bar_fields(bar: Bar, asset_class: str) -> dict[str, Any]:
    """The fields of a bar. `vw` is the volume-weighted average price."""
    return {
        "o": number(bar.open),
        "h": number(bar.high),
        "l": number(bar.low),
        "c": number(bar.close),
        "v": size_number(asset_class, bar.volume),
        "n": bar.trade_count,
        "vw": round(number(divide(bar.traded_value, bar.volume) or bar.close), 6),
    }


def minute_bar_json(state: MarketSymbol) -> dict[str, Any]:
    """The bar of the last minute in which an eligible trade happened."""
    bar = state.minute_bar
    return {"t": rfc3339_seconds(bar.start_ns), **bar_fields(bar, state.listing.asset_class)}


def daily_bar_json(state: MarketSymbol, day: date) -> dict[str, Any]:
    """The bar of the New York day `day`. Its time is the day's midnight."""
    return {"t": rfc3339_seconds(new_york_ns(day)), **bar_fields(state.daily_bar, state.listing.asset_class)}


def previous_bar_json(state: MarketSymbol, day: date) -> dict[str, Any]:
    """The raw bar of the day before `day`. Without a calendar, all its prices are the previous close."""
    close = state.listing.previous_close
    bar = state.previous_bar or Bar(0, close, close, close, close)
    before = state.previous_day or day - timedelta(days=1)
    return {"t": rfc3339_seconds(new_york_ns(before)), **bar_fields(bar, state.listing.asset_class)}


def snapshot_json(state: MarketSymbol, day: date, last: Trade | None) -> dict[str, Any]:
    """A snapshot: latest eligible trade, quote and the three bars.

    `day` is the day of the daily bar. Before a session's first trade it is the previous trading day, and
    `prevDailyBar` is one day older.
    """
    return {
        **last_json(last),
        "latestQuote": quote_json(state),
        "minuteBar": minute_bar_json(state),
        "dailyBar": daily_bar_json(state, day),
        "prevDailyBar": previous_bar_json(state, day),
    }

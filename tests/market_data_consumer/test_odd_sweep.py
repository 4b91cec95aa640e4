"""One odd element anywhere in what market data brings: it alone is refused, and the others have their mark.

A failing example is printed with a line that replays it.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio_realtime import config
from portfolio_realtime.alpaca.credentials import MarketLogin
from portfolio_realtime.alpaca.http import Answer, HttpClient
from portfolio_realtime.clock import parse_rfc3339
from portfolio_realtime.market_data_consumer import snapshots as snapshots_module
from portfolio_realtime.market_data_consumer.feeds import schedules
from portfolio_realtime.market_data_consumer.messages import SubscriptionMessage, decode_frame, decode_trades
from portfolio_realtime.market_data_consumer.snapshots import Snapshots

NOW_NS = parse_rfc3339("2026-11-20T15:00:00Z")
SYMBOLS = ("AAPL", "MSFT", "KO", "XOM", "IBM", "GE")
SPOILT: list[Any] = [
    None,
    "",
    0,
    -1,
    True,
    "text",
    1e300,
    5e-324,
    2**70,
    [],
    {},
    [None],
    ["@", None],
    "9999-12-31",
]
NO_ELEMENT: list[Any] = [None, 7, "text", [], {}, [[]], {"T": None}, {"T": "to come"}]
swept = settings(max_examples=100, deadline=None, print_blob=True)


def trade(symbol: str) -> dict[str, Any]:
    """A trade of the stream."""
    return {
        "T": "t",
        "S": symbol,
        "p": 10.5,
        "s": 100,
        "t": "2026-11-20T14:59:59.5Z",
        "c": ["@"],
        "z": "C",
        "x": "V",
        "i": 17,
    }


def snapshot() -> dict[str, Any]:
    """A whole snapshot."""
    return {
        "latestTrade": {
            "t": "2026-11-20T14:59:59.5Z",
            "p": 10.5,
            "s": 100,
            "x": "V",
            "c": ["@"],
            "z": "C",
            "i": 17,
        },
        "dailyBar": {"t": "2026-11-20T05:00:00Z", "c": 10.25},
        "prevDailyBar": {"t": "2026-11-19T05:00:00Z", "c": 10.0},
        "latestQuote": {"t": "2026-11-20T14:59:59.6Z", "bp": 10.4, "ap": 10.6},
    }


@swept
@given(st.data(), st.integers(1, 6), st.booleans(), st.booleans())
def test_trades_of_a_frame(data: st.DataObject, count: int, is_packed: bool, is_long: bool) -> None:
    """Each other symbol has its mark, of a price that arithmetic can bear; also in long frames."""
    symbols = SYMBOLS[:count]
    items: list[Any] = [trade(symbol) for symbol in symbols for _ in range(6 if is_long else 1)]
    odd: Any = trade("ODD")
    if data.draw(st.booleans()):
        odd[data.draw(st.sampled_from(sorted(odd)))] = data.draw(st.sampled_from(SPOILT))
    else:
        odd = data.draw(st.sampled_from(NO_ELEMENT))
    items.insert(data.draw(st.integers(0, len(items))), odd)
    if is_packed:
        items = [one if not isinstance(one, dict) else _small(one) for one in items]
        frame: bytes | str = msgspec.msgpack.encode(items)
    else:
        frame = json.dumps(items)

    book = schedules(config.load())[0].new_book()
    book.stream_from("sip")
    book.follow([*symbols, "ODD", "", "text"])
    trades = decode_trades(frame)
    messages, skipped = ([], []) if trades is not None else decode_frame(frame)
    if trades is not None:
        book.add_trades(trades, NOW_NS)
    for message in messages:
        book.add_trades([message], NOW_NS)  # type: ignore[list-item]  # only trades are sent here
    marks = {mark.symbol: mark for mark, _ in book.take_changed()}
    assert {symbol: marks[symbol].price for symbol in symbols} == dict.fromkeys(symbols, 10.5)
    assert all(0 < mark.price < 1e9 for mark in marks.values())
    assert (len(trades) if trades is not None else len(messages) + len(skipped)) == len(items)


def _small(item: dict[str, Any]) -> dict[str, Any]:
    """MessagePack has no whole numbers of more than 64 bits."""
    return {name: value if value != 2**70 else 2**63 for name, value in item.items()}


@swept
@given(st.data(), st.integers(1, 5), st.sampled_from([0, 1, 2]))
def test_snapshots(data: st.DataObject, count: int, feed_index: int) -> None:
    """What can be read of an odd one counts; the rest is told of with its symbol."""
    found: dict[str, Any] = {symbol: snapshot() for symbol in SYMBOLS[:count]}
    odd: Any = snapshot()
    part = data.draw(st.sampled_from([*sorted(odd), None, None]))
    if part is None:
        odd = data.draw(st.sampled_from(NO_ELEMENT))
    else:
        name = data.draw(st.sampled_from([*sorted(odd[part]), ""]))
        spoilt = data.draw(st.sampled_from(SPOILT))
        odd[part] = {**odd[part], name: spoilt} if name else spoilt
    items = [*found.items()]
    items.insert(data.draw(st.integers(0, count)), ("ODD", odd))
    told: dict[str, str] = {}

    async def get(_: HttpClient, path: str, params: Mapping[str, str]) -> Answer:
        asked = params["symbols"].split(",")
        answer = {symbol: one for symbol, one in items if symbol in asked}
        is_bare = path.startswith("/v2/")
        return Answer(200, {}, json.dumps(answer if is_bare else {"snapshots": answer}).encode())

    async def read() -> dict[str, Any]:
        loaded = config.load(broker_api_key="key", broker_secret_key="secret")
        feed = schedules(loaded)[feed_index].day
        snapshots = Snapshots(loaded, feed, MarketLogin(loaded), told.__setitem__)
        try:
            return await snapshots.read([symbol for symbol, _ in items])
        finally:
            await snapshots.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HttpClient, "get", get)
        read_ones = asyncio.run(read())
    whole = snapshots_module.Snapshot
    assert all(isinstance(read_ones[symbol], whole) for symbol in SYMBOLS[:count])
    assert told.keys() <= {"ODD"}
    assert "ODD" in read_ones or "ODD" in told

    schedule = schedules(config.load())[0]
    book = schedule.new_book()
    book.stream_from(schedule.day.source)
    book.follow([symbol for symbol, _ in items])
    for symbol, one in read_ones.items():
        book.add_snapshot(symbol, one, "2026-11-20", NOW_NS, schedule.day.source, has_close=True)
    marks = {mark.symbol: mark for mark, _ in book.take_changed()}
    assert {symbol: marks[symbol].price for symbol in SYMBOLS[:count]} == dict.fromkeys(SYMBOLS[:count], 10.5)
    assert all(mark.previous_close in (10.0, None) or mark.symbol == "ODD" for mark in marks.values())
    assert all(0 < mark.price < 1e9 for mark in marks.values())
    if part is not None and part != "latestTrade":
        assert marks["ODD"].price == 10.5


@swept
@given(st.sampled_from([None, 7, [], {}, True]), st.integers(0, 3))
def test_symbols_of_an_acknowledgement(odd: Any, place: int) -> None:
    """The feed confirms the others all the same."""
    symbols: list[Any] = list(SYMBOLS[:3])
    symbols.insert(place, odd)
    frame = json.dumps([{"T": "subscription", "trades": symbols, "quotes": []}])
    [message], skipped = decode_frame(frame)
    assert isinstance(message, SubscriptionMessage)
    assert message.symbols == set(SYMBOLS[:3])
    assert skipped == []


@pytest.mark.parametrize("text", ["[" * 100_000, '[{"T":' * 100_000, '["\\ud800"]', "\x00"])
def test_a_frame_that_is_nearly_json_is_one_malformed_message(text: str) -> None:
    """However deep it is."""
    for frame in (text, text.encode(), b"\x91" * 100_000):
        assert decode_trades(frame) is None
        messages, skipped = decode_frame(frame)
        assert (messages, len(skipped)) == ([], 1)

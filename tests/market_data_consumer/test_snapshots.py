"""Snapshots over REST, against a scripted venue on a real socket and against the simulator."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from portfolio_realtime import config
from portfolio_realtime.alpaca.credentials import MarketLogin
from portfolio_realtime.errors import FeedRefused, FeedUnavailable
from portfolio_realtime.market_data_consumer import snapshots as snapshots_module
from portfolio_realtime.market_data_consumer.feeds import schedules
from portfolio_realtime.market_data_consumer.snapshots import ATTEMPTS_MAX, Snapshots
from tests.conftest import StartSimulator

Answer = Callable[[str, dict[str, str]], tuple[int, str]]


@contextlib.asynccontextmanager
async def venue(answer: Answer) -> AsyncGenerator[str]:
    """An HTTP server that answers a path and its parameters with a status and a body; its URL."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        target = urlsplit(head.split()[1])
        status, body = answer(target.path, {name: each[0] for name, each in parse_qs(target.query).items()})
        encoded = body.encode()
        writer.write(
            f"HTTP/1.1 {status} X\r\nContent-Length: {len(encoded)}\r\nConnection: close\r\n\r\n".encode()
        )
        writer.write(encoded)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@contextlib.asynccontextmanager
async def reading(url: str, feed_index: int = 0, **settings: Any) -> AsyncGenerator[Snapshots]:
    """The snapshots of one of the three feeds."""
    merged = {"broker_api_key": "sim-key", "broker_secret_key": "sim-secret", **settings}
    loaded = config.load(alpaca_data_url=url, **merged)
    snapshots = Snapshots(loaded, schedules(loaded)[feed_index].day, MarketLogin(loaded))
    try:
        yield snapshots
    finally:
        await snapshots.close()


async def test_missing_symbols_and_parts_are_normal() -> None:
    """What the venue does not know is absent; what cannot be read costs only its symbol."""

    def answer(path: str, parameters: dict[str, str]) -> tuple[int, str]:
        assert path == "/v2/stocks/snapshots"
        assert parameters == {"symbols": "A,B,C,D", "feed": "iex"}
        whole = {"latestTrade": {"t": "2022-08-17T10:18:24.1Z", "p": 172.61, "c": ["@"], "z": "C"}}
        return 200, json.dumps({"A": whole, "B": {"latestTrade": None}, "C": {"latestTrade": {"p": "x"}}})

    async with venue(answer) as url, reading(url) as snapshots:
        found = await snapshots.read(["A", "B", "C", "D"])
    assert found.keys() == {"A", "B"}
    assert found["A"].latest_trade is not None
    assert found["A"].latest_trade.price == 172.61
    assert found["B"].latest_trade is None


async def test_one_misformed_symbol_costs_only_itself() -> None:
    """A request that is refused for its form is split until the symbol at fault is alone."""

    def answer(path: str, parameters: dict[str, str]) -> tuple[int, str]:
        symbols = parameters["symbols"].split(",")
        if "B@D" in symbols:
            return 400, '{"message":"invalid symbol(s): B@D"}'
        return 200, json.dumps({symbol: {} for symbol in symbols})

    async with venue(answer) as url, reading(url) as snapshots:
        found = await snapshots.read(["A", "B@D", "C", "E", "F"])
    assert found.keys() == {"A", "C", "E", "F"}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, "{}"),
        (403, "forbidden."),
        (422, '{"code":42210000,"message":"subscription does not permit querying recent SIP data"}'),
    ],
)
async def test_a_refusal_names_the_settings(status: int, body: str) -> None:
    """Neither credentials nor plan change by asking again."""
    async with venue(lambda _path, _parameters: (status, body)) as url, reading(url) as snapshots:
        with pytest.raises(FeedRefused, match=r"MARKET_API_KEY.*ALPACA_DATA_FEED=iex"):
            await snapshots.read(["A"])


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_busy_venue_is_asked_again_but_not_for_ever(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ATTEMPTS_MAX times; it may answer the last one."""
    monkeypatch.setattr(snapshots_module, "PAUSE_S_MIN", 0.001)
    monkeypatch.setattr(snapshots_module, "PAUSE_S_MAX", 0.001)
    asked = 0

    def answer(path: str, parameters: dict[str, str]) -> tuple[int, str]:
        nonlocal asked
        asked += 1
        return (200, '{"A":{}}') if asked == 2 * ATTEMPTS_MAX else (status, "busy")

    async with venue(answer) as url, reading(url) as snapshots:
        with pytest.raises(FeedUnavailable, match=str(status)):
            await snapshots.read(["A"])
        assert asked == ATTEMPTS_MAX
        assert (await snapshots.read(["A"])).keys() == {"A"}


async def test_a_body_that_is_no_json_is_unavailable() -> None:
    """A page of a proxy is not an empty answer."""
    async with venue(lambda _path, _parameters: (200, "<html>")) as url, reading(url) as snapshots:
        with pytest.raises(FeedUnavailable, match="cannot be read"):
            await snapshots.read(["A"])


async def test_all_three_feeds_are_read_with_either_kind_of_key(simulator: StartSimulator) -> None:
    """Stocks come bare, crypto and options wrapped; keys of a broker and keys of a user both log in."""
    market = await simulator(symbols=60, activities_per_second=0)
    truth = await market.get("/_sim/truth")
    held = {
        position["symbol"]: position["asset_class"]
        for account in truth["accounts"].values()
        for position in account["positions"]
    }
    own_keys = {"market_api_key": "sim-key", "market_secret_key": "sim-secret", "broker_api_key": "",
                "broker_secret_key": ""}  # fmt: skip
    for index, asset_class in enumerate(("us_equity", "crypto", "us_option")):
        symbols = [symbol for symbol, its_class in held.items() if its_class == asset_class][:5]
        for keys in ({}, own_keys):
            async with reading(market.url, index, **keys) as snapshots:
                found = await snapshots.read(symbols)
            assert found.keys() == set(symbols)
            assert all(each.latest_trade is not None for each in found.values())
    async with reading(market.url, market_api_key="sim-key", market_secret_key="wrong") as snapshots:
        with pytest.raises(FeedRefused, match="MARKET_SECRET_KEY"):
            await snapshots.read(["AAPL"])

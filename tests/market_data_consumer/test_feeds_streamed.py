"""Every feed end to end: the simulator streams it over a socket, the mark in Valkey says what it is worth."""

from decimal import Decimal
from typing import Any, Final

import httpx
import pytest

from portfolio_harness.virtual_time import VirtualClock
from portfolio_realtime.clock import NS_PER_S, parse_rfc3339
from portfolio_realtime.model import CRYPTO, US_EQUITY, US_OPTION, Mark, exact
from portfolio_realtime.service import Context
from portfolio_realtime.state import State
from portfolio_realtime.state.connection import Subscribed
from tests.conftest import Simulator, StartSimulator, Until
from tests.support.consumers import announced, context_of, held_symbols, marks_of, running, write_universe

OVERNIGHT_TAPE: Final = "N"
DELAY_S: Final = 900
QUIET: Final[dict[str, Any]] = {
    "accounts": 5,
    "symbols": 24,
    "trades_per_second": 0,
    "activities_per_second": 0,
}


async def subscribed_count(market: Simulator) -> int:
    """How many symbols the simulator streams to us."""
    return (await market.get("/_sim/state"))["subscribed_symbols"]


def streamed_count(context: Context, feed: str) -> float:
    """How many trades a feed's stream has brought."""
    labels = {"feed": feed, "type": "t"}
    return context.registry.get_sample_value("portfolio_realtime_feed_messages_total", labels) or 0.0


async def one_of(market: Simulator, asset_class: str) -> str:
    """A symbol of a class that some account holds."""
    return min(
        symbol for symbol, its_class in (await held_symbols(market)).items() if its_class == asset_class
    )


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
@pytest.mark.parametrize(
    ("setting", "source", "quality", "tape"),
    [
        ("alpaca_data_feed", "sip", "real_time_sip", None),
        ("alpaca_data_feed", "iex", "iex", None),
        ("alpaca_data_feed", "delayed_sip", "delayed", None),
        ("alpaca_data_feed", "boats", "real_time_boats", OVERNIGHT_TAPE),
        ("alpaca_data_feed", "overnight", "indicative", OVERNIGHT_TAPE),
        ("alpaca_data_feed", "test", "test", None),
        ("alpaca_options_feed", "opra", "real_time_opra", None),
        ("alpaca_options_feed", "indicative", "indicative", None),
        ("alpaca_crypto_location", "us", "real_time_crypto", None),
    ],
)
async def test_a_feeds_trades_move_a_mark_of_its_quality(
    simulator: StartSimulator,
    state: State,
    until: Until,
    setting: str,
    source: str,
    quality: str,
    tape: str | None,
    encoding: str,
) -> None:
    """Login, subscription, a trade that moves the mark and one that must not, in both encodings; options
    come as MessagePack all the same."""
    market = await simulator(**QUIET)
    asset_class = {"alpaca_options_feed": US_OPTION, "alpaca_crypto_location": CRYPTO}.get(setting, US_EQUITY)
    symbol = "FAKEPACA" if source == "test" else await one_of(market, asset_class)
    name = {US_EQUITY: "stocks", CRYPTO: "crypto", US_OPTION: "options"}[asset_class]
    await write_universe(state, {symbol: asset_class})
    context = context_of(market, state, **{setting: source}, alpaca_stream_encoding=encoding)

    async def trade(price: str, *conditions: str) -> None:
        body: dict[str, Any] = {"symbol": symbol, "price": price}
        if conditions:
            body["conditions"] = list(conditions)
        await market.post("/_sim/print", {**body, **({"tape": tape} if tape else {})})

    async def mark() -> Mark | None:
        return (await marks_of(state)).get(symbol)

    async with running(context):
        await until(lambda: subscribed_count(market), "the symbol is subscribed")
        await trade("201.01")

        async def is_at(price: str) -> bool:
            found = await mark()
            return found is not None and exact(found.price) == Decimal(price)

        await until(lambda: is_at("201.01"), "the trade is the mark")
        if asset_class != CRYPTO:  # there every trade counts
            await trade("190.19", "A" if asset_class == US_OPTION else "I")
        await trade("202.02")
        await until(lambda: is_at("202.02"), "the next eligible trade is the mark")
        found = await mark()
        assert found is not None
        assert (found.source, found.quality) == ("crypto" if asset_class == CRYPTO else source, quality)
        assert streamed_count(context, name) >= 2, "it was the stream that brought them"
        await until(lambda: state.feeds.live([found.source]), "the feed is live")
        assert (await market.get("/_sim/state"))["market_stream_connections"] == 1


@pytest.mark.parametrize(
    ("setting", "source", "quality", "tape"),
    [
        ("alpaca_data_feed", "delayed_sip", "delayed", None),
        ("alpaca_data_feed", "overnight", "indicative", OVERNIGHT_TAPE),
        ("alpaca_options_feed", "indicative", "indicative", None),
    ],
)
async def test_a_delayed_feed_is_as_late_as_it_is(
    simulator: StartSimulator,
    state: State,
    until: Until,
    setting: str,
    source: str,
    quality: str,
    tape: str | None,
) -> None:
    """Fifteen minutes late, stream and snapshots alike: the mark is that trade and says when it was."""
    start = "2026-11-24T12:00:00-05:00"
    market = await simulator(**QUIET, delay=DELAY_S, speed=0, start=start)
    clock = VirtualClock(parse_rfc3339(start))
    asset_class = US_OPTION if setting == "alpaca_options_feed" else US_EQUITY
    symbol = await one_of(market, asset_class)
    await write_universe(state, {symbol: asset_class})
    context = moved(context_of(market, state, **{setting: source}), clock)

    async def trade(price: str) -> None:
        body = {"symbol": symbol, "price": price}
        await market.post("/_sim/print", {**body, **({"tape": tape} if tape else {})})

    async with running(context):
        await until(lambda: subscribed_count(market), "the symbol is subscribed")
        batches = state.marks.batches()
        assert isinstance(await anext(batches), Subscribed)
        await trade("201.01")
        await advance(market, clock, DELAY_S - 1)
        await trade("202.02")
        await advance(market, clock, 2)
        seen = await announced(batches, symbol, Decimal("201.01"))
        assert Decimal("202.02") not in seen, "the second trade is not told yet"
        found = (await marks_of(state))[symbol]
        assert (found.source, found.quality) == (source, quality)
        assert found.as_of_ns // NS_PER_S == parse_rfc3339(start) // NS_PER_S
        await advance(market, clock, DELAY_S)

        async def is_second() -> bool:
            return exact((await marks_of(state))[symbol].price) == Decimal("202.02")

        await until(is_second, "the second trade is told")


async def test_the_night_has_a_feed_of_its_own(simulator: StartSimulator, state: State, until: Until) -> None:
    """From 20:00 New York the night's feed is streamed, from 04:00 the day's again; the mark is the newest
    trade of both, the previous close the day's, and neither is called away while the other has its turn."""
    start = "2026-11-24T19:59:50-05:00"
    market = await simulator(**QUIET, calendar="nyse", speed=0, start=start)
    clock = VirtualClock(parse_rfc3339(start))
    await write_universe(state, {"AAPL": US_EQUITY})
    feeds = {"alpaca_data_feed": "sip", "alpaca_overnight_feed": "boats"}
    context = moved(context_of(market, state, **feeds), clock)

    async def is_mark(price: str, source: str, quality: str) -> bool:
        mark = (await marks_of(state)).get("AAPL")
        return mark is not None and (exact(mark.price), mark.source, mark.quality) == (
            Decimal(price),
            source,
            quality,
        )

    async def close() -> float | None:
        return (await marks_of(state))["AAPL"].previous_close

    async def are_live() -> bool:
        return await state.feeds.live(["sip", "boats"]) == {"sip", "boats"}

    async with running(context):
        await until(lambda: subscribed_count(market), "AAPL is subscribed")
        await market.post("/_sim/print", {"symbol": "AAPL", "price": "201.01"})
        await until(lambda: is_mark("201.01", "sip", "real_time_sip"), "the day's trade is the mark")
        await until(close, "the previous close is known: a snapshot was taken")
        previous_close = await close()
        await advance(market, clock, 20)
        await until(lambda: turns(context) == 1, "the night's feed has its turn")
        await until(lambda: subscribed_count(market), "AAPL is subscribed at the night's feed")
        await until(are_live, "both feeds are live")
        assert await is_mark("201.01", "sip", "real_time_sip"), "nothing was traded since"
        await market.post("/_sim/print", {"symbol": "AAPL", "price": "202.02", "tape": OVERNIGHT_TAPE})
        await until(lambda: is_mark("202.02", "boats", "real_time_boats"), "the night's trade is the mark")
        assert await close() == previous_close
        await advance(market, clock, 8 * 3600)
        await until(lambda: turns(context) == 2, "the day's feed has its turn")
        await until(are_live, "both feeds are live")
        assert await is_mark("202.02", "boats", "real_time_boats"), "the newest trade stays the mark"
        await market.post("/_sim/print", {"symbol": "AAPL", "price": "203.03"})
        await until(lambda: is_mark("203.03", "sip", "real_time_sip"), "the day's trade is the mark again")


def turns(context: Context) -> float:
    """How often the stock feed has changed with the session."""
    labels = {"feed": "stocks", "reason": "session"}
    return context.registry.get_sample_value("portfolio_realtime_feed_reconnects_total", labels) or 0.0


def moved(context: Context, clock: VirtualClock) -> Context:
    """The same under a clock that the test moves."""
    return Context(context.settings, context.state, clock, context.registry, "test")


async def advance(market: Simulator, clock: VirtualClock, seconds: int) -> None:
    """Move the simulator's time and ours."""
    answer = await market.post("/_sim/clock", {"advance_s": seconds})
    clock.move_to(parse_rfc3339(answer["now"]))


@pytest.mark.parametrize(
    ("path", "feed"), [("/v2/stocks/snapshots", "boats"), ("/v1beta1/options/snapshots", "opra")]
)
async def test_a_feed_outside_the_plan_has_no_snapshots_either(
    simulator: StartSimulator, path: str, feed: str
) -> None:
    """Of stocks and of options."""
    market = await simulator(**QUIET, denied_feeds=feed)
    async with httpx.AsyncClient(base_url=market.url, auth=("sim-key", "sim-secret")) as client:
        answer = await client.get(path, params={"symbols": "AAPL", "feed": feed})
    assert answer.status_code == 403
    assert "subscription does not permit" in answer.text

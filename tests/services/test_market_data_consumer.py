"""The market data consumer against a simulated Alpaca and a real Valkey: every mark is the venue's own."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve

from portfolio_harness.valkey_kinds import Valkeys
from portfolio_realtime import config
from portfolio_realtime.clock import parse_rfc3339
from portfolio_realtime.market_data_consumer import subscription
from portfolio_realtime.market_data_consumer.feeds import schedules
from portfolio_realtime.market_data_consumer.trading_sessions import Session
from portfolio_realtime.model import Mark, exact, versions_from
from portfolio_realtime.state import State, keys, open_state
from portfolio_realtime.state.accounts import Accounts
from portfolio_realtime.state.connection import Message, Subscribed
from portfolio_realtime.state.leases import Lease
from portfolio_realtime.state.marks import decode_marks
from portfolio_realtime.valuation.book import Book
from tests.conftest import LEASE_MS, SHARDS, Simulator, StartSimulator, Until
from tests.support.consumers import (
    all_true,
    announced,
    context_of,
    held_symbols,
    marks_of,
    reconnect_count,
    running,
    true_marks,
    write_universe,
)

USUAL_TRADES = 1_000  # after so many, a silence is noticed
ENDS_S_MAX = 5.0


@pytest.fixture
async def market(simulator: StartSimulator) -> Simulator:
    """A small busy market with stocks, crypto and options."""
    return await simulator(accounts=20, symbols=60, trades_per_second=400, activities_per_second=0)


async def test_every_mark_is_the_venues_own(market: Simulator, state: State, until: Until) -> None:
    """Every held symbol gets a mark, and when the market pauses all are exact, with their previous close."""
    symbols = await held_symbols(market)
    assert set(symbols.values()) == {"us_equity", "us_option", "crypto"}
    await write_universe(state, symbols)
    async with running(context_of(market, state)):

        async def every_symbol_is_marked() -> bool:
            return symbols.keys() <= (await marks_of(state)).keys()

        await until(every_symbol_is_marked, "every symbol is marked")
        await market.post("/_sim/pause")
        await until(all_true(state, await true_marks(market)), "every mark is exact")


async def test_event_loop_in_market_data_consumer(market: Simulator, state: State, until: Until) -> None:
    """The consumer starts and stops inside a loop that is already running, and ends at once when asked."""
    await write_universe(state, await held_symbols(market))
    started_s = time.monotonic()
    async with running(context_of(market, state)):
        await until(lambda: marks_of(state), "the first marks are there")
    assert time.monotonic() - started_s < 4 * ENDS_S_MAX


async def test_only_eligible_prints_move_a_mark(
    simulator: StartSimulator, state: State, until: Until
) -> None:
    """An odd lot and an average price far off move nothing; the plain print after them does."""
    market = await simulator(accounts=5, symbols=10, trades_per_second=0, activities_per_second=0)
    await write_universe(state, {"AAPL": "us_equity"})
    await market.post("/_sim/symbols", {"symbol": "AAPL", "price": "200.01"})
    async with running(context_of(market, state)):

        async def price() -> Decimal | None:
            mark = (await marks_of(state)).get("AAPL")
            return None if mark is None else exact(mark.price)

        async def is_price(expected: Decimal) -> bool:
            return await price() == expected

        await until(lambda: is_price(Decimal("200.01")), "the first mark is there")
        batches = state.marks.batches()
        assert isinstance(await anext(batches), Subscribed)
        for conditions in (["@", "I"], ["W"], ["@", "C"], ["?"]):
            await market.post("/_sim/print", {"symbol": "AAPL", "price": "1.00", "conditions": conditions})
        await market.post("/_sim/print", {"symbol": "AAPL", "price": "201.02", "conditions": ["@"]})
        await until(lambda: is_price(Decimal("201.02")), "the eligible print is the mark")
        seen = await announced(batches, "AAPL", Decimal("201.02"))
        assert {Decimal("201.02")} == set(seen), "no ineligible print was ever announced"


async def test_a_cut_stream_is_reopened_and_exact_again(
    market: Simulator, state: State, until: Until
) -> None:
    """What was traded during the cut comes from snapshots; nothing is missed."""
    symbols = await held_symbols(market)
    await write_universe(state, symbols)
    context = context_of(market, state)
    async with running(context):

        async def all_are_subscribed() -> bool:
            return (await market.get("/_sim/state"))["subscribed_symbols"] >= len(symbols)

        await until(all_are_subscribed, "every symbol is subscribed")
        await market.post("/_sim/cut", {"stream": "market"})
        await until(lambda: reconnect_count(context) >= 3, "each feed has noticed the cut")
        await until(all_are_subscribed, "every symbol is subscribed again")
        await market.post("/_sim/pause")
        await until(all_true(state, await true_marks(market)), "every mark is exact")


async def test_marks_are_back_after_valkey_was_killed(
    market: Simulator, mortal_valkey: Valkeys, until: Until
) -> None:
    """A Valkey that comes back empty is filled from memory, over the same market connections."""
    state = open_state(mortal_valkey.url, holder="test", shards=SHARDS, lease_ms=LEASE_MS)
    symbols = await held_symbols(market)
    try:
        await write_universe(state, symbols)
        context = context_of(market, state)
        async with running(context):

            async def all_are_marked() -> bool:
                return symbols.keys() <= (await marks_of(state)).keys()

            await until(all_are_marked, "every symbol is marked")
            await market.post("/_sim/pause")
            truth = await true_marks(market)
            await until(all_true(state, truth), "every mark is exact")
            before = await marks_of(state)
            await mortal_valkey.kill()
            await mortal_valkey.start()
            await state.connection.wait_ready(10)
            await write_universe(state, symbols)
            await until(all_true(state, truth), "every mark is back from memory, for nothing is traded", 15)
            after = await marks_of(state)
            assert all(after[symbol].version >= before[symbol].version for symbol in symbols)
            assert reconnect_count(context) == 0, "the market connections were kept"
    finally:
        await state.close()


async def test_the_subscription_follows_the_universe(market: Simulator, state: State, until: Until) -> None:
    """A symbol that appears is marked while the consumer runs; with no symbols there is no connection."""
    symbols = await held_symbols(market)
    late = "LATE"
    await market.post("/_sim/symbols", {"symbol": late, "price": "12.34", "previous_close": "12.00"})

    async def connections() -> int:
        return (await market.get("/_sim/state"))["market_stream_connections"]

    async with running(context_of(market, state)):
        await until(
            lambda: state.connection.commands.exists(keys.lease("market_data:stocks")),
            "the consumer is active",
        )
        assert await connections() == 0
        await write_universe(state, symbols)

        async def is_marked(symbol: str) -> bool:
            return symbol in await marks_of(state)

        await until(lambda: is_marked(min(symbols)), "the first symbols are marked")
        await write_universe(state, {late: "us_equity"})
        await until(lambda: is_marked(late), "the new symbol is marked")
        assert (await marks_of(state))[late].previous_close == 12.0
        assert await connections() == 3
        assert (await market.get("/_sim/state"))["subscribed_symbols"] == len(symbols) + 1


async def test_a_symbol_that_nobody_holds_is_left_after_a_while(
    market: Simulator, state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays for LEAVING_S, so that selling and buying again costs nothing; the others are untouched."""
    monkeypatch.setattr(subscription, "LEAVING_S", 0.3)
    symbols = await held_symbols(market)
    await write_universe(state, symbols)
    stocks = [symbol for symbol, asset_class in symbols.items() if asset_class == "us_equity"]

    async def are_subscribed(count: int) -> bool:
        return (await market.get("/_sim/state"))["subscribed_symbols"] == count

    async with running(context_of(market, state)):
        await until(lambda: are_subscribed(len(symbols)), "every symbol is subscribed")
        await write_universe(state, {}, stocks[:3])
        await until(lambda: are_subscribed(len(symbols) - 3), "three symbols are left")
        await write_universe(state, {}, stocks[3:])
        await until(lambda: are_subscribed(len(symbols) - len(stocks)), "all stocks are left")
        await write_universe(state, symbols)
        await until(lambda: are_subscribed(len(symbols)), "every symbol is subscribed again")
        await market.post("/_sim/pause")
        await until(all_true(state, await true_marks(market)), "every mark is exact")


async def test_one_consumer_is_active_and_another_takes_over(
    market: Simulator, state: State, until: Until
) -> None:
    """The one that stands by opens no connection; when the first ends, it continues with growing times."""
    symbols = await held_symbols(market)
    await write_universe(state, symbols)
    second_state = open_state(state.connection.url, holder="second", shards=SHARDS, lease_ms=LEASE_MS)

    async def all_are_marked() -> bool:
        return symbols.keys() <= (await marks_of(state)).keys()

    async def connections() -> int:
        return (await market.get("/_sim/state"))["market_stream_connections"]

    try:
        async with contextlib.AsyncExitStack() as first:
            await first.enter_async_context(running(context_of(market, state)))
            await until(all_are_marked, "every symbol is marked")
            async with running(context_of(market, second_state)):
                before = await marks_of(state)
                assert await connections() == 3
                await first.aclose()

                async def all_are_newer() -> bool:
                    after = await marks_of(state)
                    return all(after[symbol].version > before[symbol].version for symbol in symbols)

                async def all_are_connected() -> bool:
                    return await connections() == 3

                await until(all_are_newer, "the second has written every mark")
                await until(all_are_connected, "the second has every connection, and the first has none")
                await market.post("/_sim/pause")
                await until(all_true(state, await true_marks(market)), "every mark is exact")
    finally:
        await second_state.close()


async def test_an_owner_is_believed_after_another_whatever_clocks_say_and_without_the_universe(
    market: Simulator, state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A calculator takes its marks at once, also those that did not change while another held the lease."""
    calculator, is_away, follow = Book(), False, Accounts.universe_changes

    async def hear() -> None:
        async for message in state.marks.batches():
            if isinstance(message, Message):
                calculator.apply_marks(decode_marks(message.payload).marks)

    async def follow_if_there(self: Accounts) -> AsyncIterator[Any]:
        while is_away:
            await asyncio.sleep(LEASE_MS / 1000)
        async for event in follow(self):
            yield event

    def price() -> float | None:
        mark = calculator.marks.get("AAPL")
        return mark and mark.price

    monkeypatch.setattr(Accounts, "universe_changes", follow_if_there)
    await write_universe(state, {"AAPL": "us_equity"})
    other = open_state(state.connection.url, holder="other", shards=SHARDS, lease_ms=LEASE_MS)
    hearing, lease = asyncio.create_task(hear()), None
    try:
        async with running(context_of(market, state)):
            await until(price, "the calculator has a price")
            await market.post("/_sim/pause")
            truth = (await true_marks(market))["AAPL"][0]
            await until(lambda: price() == float(truth), "the price is exact")
            is_away = True
            while lease is None:
                await state.connection.commands.delete(keys.lease("market_data:stocks"))
                lease = await other.leases.acquire("market_data:stocks")
            ahead_ns = time.time_ns() + 3600 * 10**9
            wrong = [Mark("AAPL", 1.0, ahead_ns, versions_from(lease.fencing_token) + 1, "iex")]
            await other.marks.write(lease, wrong)
            await until(lambda: price() == 1.0, "the calculator believes the other owner")
            await other.leases.release(lease)
            await until(lambda: price() == float(truth), "the owner that is back is believed")
    finally:
        hearing.cancel()
        await other.close()


async def test_a_consumer_that_lost_its_lease_frees_the_connection(
    market: Simulator, state: State, until: Until
) -> None:
    """The feed has room for few connections: the loser's is closed, and it may come back later."""
    await write_universe(state, await held_symbols(market))
    name = "market_data:stocks"

    async def connections() -> int:
        return (await market.get("/_sim/state"))["market_stream_connections"]

    async def are_connections(count: int) -> bool:
        return await connections() == count

    other = open_state(state.connection.url, holder="other", shards=SHARDS, lease_ms=LEASE_MS)
    try:
        async with running(context_of(market, state)):
            await until(lambda: are_connections(3), "all feeds are connected")
            usurpers: list[Lease] = []

            async def is_taken() -> bool:  # the consumer may be quicker to acquire it again
                await state.connection.commands.delete(keys.lease(name))
                usurper = await other.leases.acquire(name)
                usurpers.extend([] if usurper is None else [usurper])
                return usurper is not None

            await until(is_taken, "another one has the lease")
            (usurper,) = usurpers

            async def is_freed() -> bool:
                assert await other.leases.renew(usurper)
                return await connections() == 2

            await until(is_freed, "the connection for stocks is closed")
            await other.leases.release(usurper)
            await until(lambda: are_connections(3), "it is opened again")
            await market.post("/_sim/pause")
            await until(all_true(state, await true_marks(market)), "every mark is exact")
    finally:
        await other.close()


async def test_an_oauth_client_is_enough_for_market_data(
    market: Simulator, state: State, until: Until
) -> None:
    """Streams and snapshots with a token, without any key; three feeds share one token."""
    await write_universe(state, await held_symbols(market))
    client = {
        "broker_api_key": "",
        "broker_secret_key": "",
        "broker_client_id": "sim-key",
        "broker_client_secret": "sim-secret",
        "alpaca_auth_url": market.url,
    }
    async with running(context_of(market, state, **client)):
        await market.post("/_sim/pause")
        await until(all_true(state, await true_marks(market)), "every mark is exact")


@pytest.mark.parametrize("fault", ["market.mute", "market.half_open", "market.ghosts"])
async def test_a_feed_that_brings_nothing_is_live_no_longer(
    market: Simulator, state: State, until: Until, fault: str
) -> None:
    """Open and mute, half open, cut and refused: seconds later nobody calls the feed live, until it is."""
    await write_universe(state, await held_symbols(market))
    context = context_of(market, state)

    def trades() -> float:
        labels = {"feed": "stocks", "type": "t"}
        return context.registry.get_sample_value("portfolio_realtime_feed_messages_total", labels) or 0.0

    async with running(context):

        async def is_live() -> bool:
            return await state.feeds.live(["iex"]) == {"iex"}

        async def is_away() -> bool:
            return not await is_live()

        await until(is_live, "the feed is live")
        await until(lambda: trades() > USUAL_TRADES, "it is known what is usual")
        await market.post("/_sim/faults", {"faults": [{"kind": fault, "for_s": 600}]})
        await until(is_away, "the feed is away", 60)
        async with httpx.AsyncClient(base_url=market.url) as client:
            await client.delete("/_sim/faults")
        await until(is_live, "the feed is live again", 60)


async def test_a_refused_feed_does_not_stop_the_others(
    simulator: StartSimulator, state: State, until: Until, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log names the setting to change, and crypto and options go on."""
    market = await simulator(symbols=60, activities_per_second=0, denied_feeds="sip")
    symbols = await held_symbols(market)
    await write_universe(state, symbols)
    others = {symbol for symbol, asset_class in symbols.items() if asset_class != "us_equity"}
    async with running(context_of(market, state, alpaca_data_feed="sip")):

        async def others_are_marked() -> bool:
            return others <= (await marks_of(state)).keys()

        await until(others_are_marked, "crypto and options are marked")
        log = ""

        def is_refusal_logged() -> bool:
            nonlocal log
            output = capsys.readouterr()
            log += output.out + output.err
            return "ALPACA_DATA_FEED" in log

        await until(is_refusal_logged, "the refusal is logged with its remedy")
        assert others == (await marks_of(state)).keys()


@contextlib.asynccontextmanager
async def mute_feed() -> AsyncGenerator[str]:
    """A feed that lets us in, acknowledges everything and then says nothing; its URL."""

    async def script(connection: ServerConnection) -> None:
        subscribed: set[str] = set()
        await connection.send(msgspec.msgpack.encode([{"T": "success", "msg": "connected"}]))
        await connection.recv()
        await connection.send(msgspec.msgpack.encode([{"T": "success", "msg": "authenticated"}]))
        async for frame in connection:
            assert isinstance(frame, bytes)
            subscribed.update(msgspec.msgpack.decode(frame).get("trades", ()))
            answer = [{"T": "subscription", "trades": sorted(subscribed)}]
            await connection.send(msgspec.msgpack.encode(answer))

    async with serve(script, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_mute_stream_is_found_out_and_a_quiet_one_is_kept(
    simulator: StartSimulator, state: State, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence alone is no outage; silence while the venue's snapshots hold new trades is one. The marks
    follow the snapshots either way."""
    monkeypatch.setattr(subscription, "SILENCE_S_MIN", 0.2)
    monkeypatch.setattr(subscription, "SILENCE_S_MAX", dict.fromkeys(Session, 0.2))
    monkeypatch.setattr(subscription, "REFRESH_CHECK_S", 0.05)
    monkeypatch.setattr(subscription, "FEED_LAG_S_MAX", 0.0)
    market = await simulator(accounts=5, symbols=10, trades_per_second=0, activities_per_second=0)
    await write_universe(state, {"AAPL": "us_equity"})

    async def is_price(price: str) -> bool:
        mark = (await marks_of(state)).get("AAPL")
        return mark is not None and exact(mark.price) == Decimal(price)

    async def request_count() -> int:
        return (await market.get("/_sim/state"))["requests"]

    async with mute_feed() as url:
        context = context_of(market, state, alpaca_stream_url=url)
        async with running(context):
            await until(lambda: marks_of(state), "the first mark is there")
            before = await request_count()

            async def has_asked_again() -> bool:
                return await request_count() >= before + 2

            await until(has_asked_again, "the silence has led to snapshots")
            assert reconnect_count(context) == 0, "a quiet market is no outage"
            await market.post("/_sim/print", {"symbol": "AAPL", "price": "201.02", "conditions": ["@"]})
            await until(lambda: is_price("201.02"), "the mark follows the snapshot")
            await until(lambda: reconnect_count(context, "mute") > 0, "the mute stream is given up")


async def test_silence_is_told_while_something_is_followed_that_is_traded(
    market: Simulator, state: State, until: Until
) -> None:
    """Crypto is always traded: its feed cannot be reached, and the seconds count until nothing is held."""
    await write_universe(state, {"BTC/USD": "crypto"})
    context = context_of(market, state, alpaca_stream_url="ws://127.0.0.1:9")

    def silence_s(feed: str) -> float:
        labels = {"feed": feed}
        return context.registry.get_sample_value("portfolio_realtime_feed_silence_seconds", labels) or 0.0

    async with running(context):
        await until(lambda: silence_s("crypto") > 2, "the silence is told")
        assert silence_s("stocks") == 0, "no stock is held"
        await write_universe(state, {}, ["BTC/USD"])
        await until(lambda: silence_s("crypto") == 0, "nothing is held")


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-11-27T15:00:00Z", True),  # the day after Thanksgiving, 10:00 in New York
        ("2026-11-27T18:30:00Z", False),  # its market closes at 13:00
        ("2026-11-26T15:00:00Z", False),  # Thanksgiving
        ("2026-11-28T15:00:00Z", False),  # a Saturday
        ("2026-11-27T08:00:00Z", False),  # the night before
    ],
)
def test_silence_at_night_and_on_holidays_is_none(moment: str, is_open: bool) -> None:
    """Stocks and options have hours; crypto has none."""
    at_ns = parse_rfc3339(moment)

    open_now = {each.name: each.session(at_ns) is Session.CORE for each in schedules(config.load())}

    assert open_now == {"stocks": is_open, "crypto": True, "options": is_open}

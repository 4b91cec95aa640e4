"""The market-data WebSocket: session, error codes, both encodings, subscriptions, slow and cut clients."""

import asyncio
import base64
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from decimal import Decimal

import httpx
import msgpack
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from alpaca_sim.api import data_stream
from alpaca_sim.core.clock import SECOND_NS
from alpaca_sim.core.market import MINUTE_NS
from alpaca_sim.streams import feeds
from tests.alpaca_sim.conftest import AUTH_MESSAGE, Running, Start
from tests.conftest import Until
from tests.support.stream_clients import AUTHENTICATED, CONNECTED, READ_S_MAX, error, open_client, pack


@pytest.mark.parametrize("is_msgpack", [False, True])
async def test_a_session_goes_from_connected_to_trades(start: Start, is_msgpack: bool) -> None:
    """Connect, authenticate, subscribe; then the trade that was printed, in both encodings alike."""
    running = await start()
    async with open_client(running, is_msgpack=is_msgpack) as client:
        await client.log_in()
        listing = await client.ask(action="subscribe", trades=["AAPL"], quotes=["SPY"])
        assert listing["T"] == "subscription"
        assert (listing["trades"], listing["quotes"], listing["bars"]) == (["AAPL"], ["SPY"], [])
        assert listing["corrections"] == listing["cancelErrors"] == ["AAPL"]
        printed = await running.post(
            "/_sim/print", symbol="AAPL", price="172.61", conditions=["@", "F"], size=40
        )
        trade = await client.next()
    assert next(iter(trade)) == "T"
    assert (trade["T"], trade["S"], trade["p"], trade["s"], trade["c"]) == (
        "t",
        "AAPL",
        172.61,
        40,
        ["@", "F"],
    )
    if is_msgpack:
        assert isinstance(trade["t"], msgpack.Timestamp)
        assert trade["t"].to_unix_nano() == running.sim.market.symbols["AAPL"].mark_trade.at_ns
    else:
        assert trade["t"] == printed["at"]


async def test_no_content_type_means_json(start: Start) -> None:
    """Text frames by default."""
    running = await start()
    async with connect(f"{running.ws_url}/v2/sip") as opened:
        assert await opened.recv() == '[{"T":"success","msg":"connected"}]'


async def test_trades_go_to_their_subscribers_whether_or_not_they_move_the_price(start: Start) -> None:
    """An odd lot is sent like any other trade; the mark stays."""
    running = await start()
    async with open_client(running) as client:
        await client.log_in()
        await client.ask(action="subscribe", trades=["AAPL"])
        mark = running.sim.market.mark("AAPL")
        odd = await running.post("/_sim/print", symbol="AAPL", price="1.00", conditions=["@", "I"], size=3)
        assert (odd["moved"], Decimal(odd["mark"])) == (False, mark)
        await running.post("/_sim/print", symbol="MSFT", price="5.00")
        await running.post("/_sim/print", symbol="AAPL", price="2.00")
        assert [(await client.next())["p"], (await client.next())["p"]] == [1.0, 2.0]


async def test_subscriptions_add_up_and_each_answer_lists_all(start: Start) -> None:
    """Incremental both ways; `*` is a symbol of its own."""
    running = await start()
    async with open_client(running) as client:
        await client.log_in()
        assert (await client.ask(action="subscribe", trades=["MSFT"]))["trades"] == ["MSFT"]
        assert (await client.ask(action="subscribe", trades=["AAPL"]))["trades"] == ["AAPL", "MSFT"]
        both = await client.ask(action="unsubscribe", trades=["MSFT", "SPY"], quotes=["AAPL"])
        assert (both["trades"], both["quotes"]) == (["AAPL"], [])
        assert (await client.ask(action="subscribe", trades=["*"]))["trades"] == ["*", "AAPL"]
        await running.post("/_sim/print", symbol="AAPL", price="3.00")
        await running.post("/_sim/print", symbol="SPY", price="4.00")
        assert [(await client.next())["S"], (await client.next())["S"]] == ["AAPL", "SPY"]
        assert (await client.ask(action="unsubscribe", trades=["*"]))["trades"] == ["AAPL"]
        await running.post("/_sim/print", symbol="SPY", price="5.00")
        await running.post("/_sim/print", symbol="AAPL", price="6.00")
        assert (await client.next())["p"] == 6.0


async def test_star_and_named_subscribers_each_get_a_trade_once(start: Start) -> None:
    """Also whoever subscribed both ways."""
    running = await start()
    async with open_client(running) as named, open_client(running) as starred, open_client(running) as both:
        for client, symbols in ((named, ["AAPL"]), (starred, ["*"]), (both, ["*", "AAPL"])):
            await client.log_in()
            await client.ask(action="subscribe", trades=symbols)
        await running.post("/_sim/print", symbol="AAPL", price="3.00")
        await running.post("/_sim/print", symbol="AAPL", price="4.00")
        for client in (named, starred, both):
            assert [(await client.next())["p"], (await client.next())["p"]] == [3.0, 4.0]


async def test_the_session_answers_errors_by_code(start: Start) -> None:
    """400, 401, 402, 403, 410; and the connection stays usable."""
    running = await start()
    async with open_client(running) as client:
        assert await client.alone() == CONNECTED
        assert await client.ask(action="subscribe", trades=["AAPL"]) == error(401)
        assert await client.ask(action="auth", key="sim-key", secret="no") == error(402)
        assert await client.ask(**AUTH_MESSAGE) == AUTHENTICATED
        assert await client.ask(**AUTH_MESSAGE) == error(403)
        assert await client.ask(action="dance") == error(400)
        assert await client.ask(action="subscribe", trades="AAPL") == error(400)
        assert await client.ask(action="subscribe", trades=["not a symbol"]) == error(400)
        assert await client.ask(action="subscribe", orderbooks=["AAPL"]) == error(410)
        await client.socket.send("{")
        assert await client.alone() == error(400)
        assert (await client.ask(action="subscribe", trades=["AAPL"]))["trades"] == ["AAPL"]


async def test_whoever_does_not_authenticate_in_time_is_closed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """404 and a close."""
    monkeypatch.setattr(data_stream, "AUTH_TIMEOUT_S", 0.1)
    running = await start()
    async with open_client(running) as client:
        assert await client.alone() == CONNECTED
        assert await client.alone() == error(404)
        with pytest.raises(ConnectionClosed):
            await client.batch()


async def test_headers_of_the_handshake_authenticate(start: Start) -> None:
    """APCA, Basic and Bearer; a token may also come in the message."""
    running = await start(market_connection_limit=10)
    token = running.sim.credentials.issue_token()
    basic = base64.b64encode(b"sim-key:sim-secret").decode()
    for headers in (
        {"APCA-API-KEY-ID": "sim-key", "APCA-API-SECRET-KEY": "sim-secret"},
        {"Authorization": f"Basic {basic}"},
        {"Authorization": f"Bearer {token}"},
    ):
        async with open_client(running, headers=headers) as client:
            assert [await client.alone(), await client.alone()] == [CONNECTED, AUTHENTICATED]
    async with open_client(running) as client:
        assert await client.alone() == CONNECTED
        assert await client.ask(action="auth", key="access_token", secret=token) == AUTHENTICATED
    async with open_client(running, headers={"Authorization": "Bearer nobody"}) as client:
        assert [await client.alone(), await client.alone()] == [CONNECTED, error(402)]


async def test_one_connection_too_many_is_refused_until_another_ends(start: Start) -> None:
    """406 per endpoint; the same socket may try again."""
    running = await start(market_connection_limit=1)
    async with open_client(running) as second:
        assert await second.alone() == CONNECTED
        async with open_client(running) as first:
            await first.log_in()
            assert await second.ask(**AUTH_MESSAGE) == error(406)
            async with open_client(running, "/v2/iex") as elsewhere:
                await elsewhere.log_in()
        async with asyncio.timeout(READ_S_MAX):
            while await second.ask(**AUTH_MESSAGE) != AUTHENTICATED:
                pass


async def test_more_symbols_than_the_plan_allows_change_nothing(start: Start) -> None:
    """405 leaves the subscriptions as they were."""
    running = await start(market_symbol_limit=2)
    async with open_client(running) as client:
        await client.log_in()
        await client.ask(action="subscribe", trades=["AAPL", "MSFT"])
        assert await client.ask(action="subscribe", trades=["SPY"], quotes=["AAPL"]) == error(405)
        listing = await client.ask(action="subscribe", quotes=["MSFT"])
        assert (listing["trades"], listing["quotes"]) == (["AAPL", "MSFT"], ["MSFT"])


async def test_a_feed_outside_the_plan_is_refused(start: Start) -> None:
    """409 at authentication."""
    running = await start(denied_feeds=frozenset({"sip"}))
    async with open_client(running) as client:
        assert await client.alone() == CONNECTED
        assert await client.ask(**AUTH_MESSAGE) == error(409)
    async with open_client(running, "/v2/iex") as client:
        await client.log_in()


async def test_options_speak_messagepack_only(start: Start) -> None:
    """412 in JSON; in MessagePack trades have a string condition, and no star for quotes."""
    running = await start()
    contract = next(
        symbol
        for symbol, state in running.sim.market.symbols.items()
        if state.listing.asset_class == "us_option"
    )
    async with open_client(running, "/v1beta1/opra") as client:
        assert await client.alone() == error(412)
        with pytest.raises(ConnectionClosed):
            await client.batch()
    async with open_client(running, "/v1beta1/indicative", is_msgpack=True) as client:
        await client.log_in()
        assert await client.ask(action="subscribe", bars=[contract]) == error(410)
        assert await client.ask(action="subscribe", quotes=["*"]) == error(413)
        await client.ask(action="subscribe", trades=[contract])
        await running.post("/_sim/print", symbol=contract, price="2.84", conditions=["S"], size=1)
        trade = await client.next()
        assert (trade["p"], trade["c"]) == (2.84, "S")
        assert "i" not in trade


async def test_crypto_sizes_are_fractions(start: Start) -> None:
    """Crypto messages have a taker side and no conditions."""
    running = await start()
    async with open_client(running, "/v1beta3/crypto/us") as client:
        await client.log_in()
        await client.ask(action="subscribe", trades=["BTC/USD"])
        await running.post("/_sim/print", symbol="BTC/USD", price="96000.1234", size="0.000000001")
        trade = await client.next()
    assert (trade["p"], trade["s"]) == (96000.1234, 1e-09)
    assert set(trade) == {"T", "S", "p", "s", "i", "tks", "t"}


async def test_the_test_feed_has_its_own_symbol(start: Start) -> None:
    """FAKEPACA trades at any hour, and is nowhere else."""
    running = await start(trades_per_second=1.0)
    async with open_client(running, "/v2/test") as client:
        await client.log_in()
        listing = await client.ask(action="subscribe", trades=["FAKEPACA"])
        assert set(listing) == {"T", "trades", "quotes", "bars"}
        assert (await client.next())["S"] == "FAKEPACA"
    assert await running.status("/v1/assets/FAKEPACA") == 404


@pytest.mark.parametrize("is_msgpack", [False, True])
async def test_a_fragmented_client_message_is_put_together(start: Start, is_msgpack: bool) -> None:
    """Alpaca's own SDK sends its subscriptions in pieces."""
    running = await start()
    symbols = [
        s for s, state in running.sim.market.symbols.items() if state.listing.asset_class == "us_equity"
    ]
    message = {"action": "subscribe", "trades": symbols}
    async with open_client(running, is_msgpack=is_msgpack) as client:
        await client.log_in()
        if is_msgpack:
            packed = pack(message)
            await client.socket.send([packed[:30], packed[30:60], packed[60:], b""])
        else:
            written = json.dumps(message)
            await client.socket.send([written[:30], written[30:60], written[60:], ""])
        assert (await client.alone())["trades"] == sorted(symbols)


async def test_trades_of_one_moment_come_as_one_batch(start: Start) -> None:
    """Batched up to the limit, so that no frame outgrows what clients accept."""
    running = await start()
    async with open_client(running, is_msgpack=True) as client:
        await client.log_in()
        await client.ask(action="subscribe", trades=["AAPL"])
        for index in range(2_500):
            running.sim.market.print_trade("AAPL", Decimal(index + 1), Decimal(1), ("@",))
        batches = [await client.batch() for _ in range(3)]
    assert [len(batch) for batch in batches] == [1_000, 1_000, 500]
    assert [message["p"] for batch in batches for message in batch] == [
        float(index + 1) for index in range(2_500)
    ]


async def test_quotes_come_with_trades_now_and_then(start: Start) -> None:
    """A quote lies around the mark."""
    running = await start()
    async with open_client(running) as client:
        await client.log_in()
        await client.ask(action="subscribe", quotes=["AAPL"])
        for _ in range(feeds.TRADES_PER_QUOTE):
            running.sim.market.print_trade("AAPL", Decimal("50.00"), Decimal(100), ("@",))
        quote = await client.next()
    assert (quote["T"], quote["bp"], quote["ap"]) == ("q", 49.99, 50.01)


async def test_a_minute_that_is_over_comes_as_a_bar(start: Start) -> None:
    """Only for symbols that traded in it."""
    running = await start()
    now_ns = running.sim.clock.now_ns()
    running.sim.clock.now_ns = lambda: now_ns  # no minute ends in the middle of the test
    async with open_client(running) as client:
        await client.log_in()
        await client.ask(action="subscribe", bars=["*"])
        for price in ("50.00", "53.00", "51.00"):
            running.sim.market.print_trade("AAPL", Decimal(price), Decimal(100), ("@",))
        bar = running.sim.market.symbols["AAPL"].minute_bar
        running.sim.market.symbols["SPY"].minute_bar.start_ns -= MINUTE_NS
        running.sim.feeds.publish_bars(bar.start_ns)
        bars = {message["S"]: message for message in await client.batch()}
    assert "SPY" not in bars
    assert (bars["AAPL"]["T"], bars["AAPL"]["h"], bars["AAPL"]["c"]) == ("b", float(bar.high), 51.0)
    assert bars["AAPL"]["t"].endswith(":00.000000000Z")


async def test_a_slow_client_is_cut_off_and_nobody_else_waits(
    start: Start, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket that is not read fills its bounded buffer and is closed; another client goes on."""
    monkeypatch.setattr(feeds, "OUTBOUND_BYTES_MAX", 200_000)
    monkeypatch.setattr(data_stream, "CLOSE_GRACE_S", 0.05)
    running = await start()
    async with open_client(running) as healthy, stalled_client(running) as stalled:
        await healthy.log_in()
        await healthy.ask(action="subscribe", trades=["SPY"])
        feed = running.sim.feeds.by_path["/v2/sip"]
        await until(lambda: feed.symbols() == {"AAPL", "SPY"}, "both have subscribed")
        async with asyncio.timeout(30):
            while (await running.get("/_sim/state"))["market_stream_connections"] == 2:
                for _ in range(1_000):
                    running.sim.market.print_trade("AAPL", Decimal("1.00"), Decimal(100), ("@",))
        await running.post("/_sim/print", symbol="SPY", price="7.00")
        assert (await healthy.next())["p"] == 7.0
        with suppress(ConnectionError):  # what is still on its way, then the end or a reset
            while await asyncio.wait_for(asyncio.to_thread(stalled.recv, 1 << 20), READ_S_MAX):
                pass


@asynccontextmanager
async def stalled_client(running: Running) -> AsyncGenerator[socket.socket]:
    """A client that subscribes to AAPL and then never reads."""
    url = httpx.URL(running.url)
    raw = socket.create_connection((url.host, url.port or 80))
    raw.settimeout(READ_S_MAX)
    handshake = (
        "GET /v2/sip HTTP/1.1\r\nHost: simulator\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        "APCA-API-KEY-ID: sim-key\r\nAPCA-API-SECRET-KEY: sim-secret\r\n\r\n"
    )
    raw.sendall(handshake.encode())
    await asyncio.to_thread(raw.recv, 4_096)  # the server's answer
    message = json.dumps({"action": "subscribe", "trades": ["AAPL"]}).encode()
    raw.sendall(bytes([0x81, 0x80 | len(message), 0, 0, 0, 0]) + message)
    try:
        yield raw
    finally:
        raw.close()


async def test_a_cut_ends_connections_without_a_close_frame(start: Start) -> None:
    """`/_sim/cut` aborts the transport, as a broken network does."""
    running = await start()
    async with open_client(running) as client:
        await client.log_in()
        assert await running.post("/_sim/cut", stream="market") == {"cut": 1}
        with pytest.raises(ConnectionClosed) as closed:
            await client.batch()
    assert closed.value.rcvd is None


async def test_stamps_are_of_now_and_never_repeat(start: Start) -> None:
    """Each trade has a later stamp than the one before it, in nanoseconds of the wall clock."""
    running = await start(trades_per_second=500.0)
    before_ns = running.sim.clock.now_ns()
    async with open_client(running, is_msgpack=True) as client:
        await client.log_in()
        await client.ask(action="subscribe", trades=["*"])
        stamps = [(await client.next())["t"].to_unix_nano() for _ in range(200)]
    assert stamps == sorted(set(stamps))
    assert before_ns < stamps[0] < stamps[-1] < running.sim.clock.now_ns() + SECOND_NS

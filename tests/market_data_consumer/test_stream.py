"""One connection against a scripted feed on a real socket: what each answer of the feed leads to."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.errors import FeedRefused, FeedUnavailable
from portfolio_realtime.market_data_consumer import stream as stream_module
from portfolio_realtime.market_data_consumer.messages import StreamTrade, times_ns
from portfolio_realtime.market_data_consumer.stream import (
    REQUEST_BYTES_MAX,
    MarketStream,
    StreamLost,
    open_stream,
)

WELCOME = {"T": "success", "msg": "connected"}
AUTHENTICATED = {"T": "success", "msg": "authenticated"}

Script = Callable[[ServerConnection], Awaitable[None]]


def refusal(code: int) -> dict[str, Any]:
    """An error message of the feed."""
    return {"T": "error", "code": code, "msg": f"error {code}"}


async def say(connection: ServerConnection, *messages: dict[str, Any]) -> None:
    """Send one frame."""
    await connection.send(msgspec.msgpack.encode(list(messages)))


async def heard(connection: ServerConnection) -> dict[str, Any]:
    """The client's next request."""
    frame = await connection.recv()
    assert isinstance(frame, bytes)
    assert len(frame) <= REQUEST_BYTES_MAX
    return msgspec.msgpack.decode(frame)


async def welcome(connection: ServerConnection) -> None:
    """A login that succeeds."""
    await say(connection, WELCOME)
    assert await heard(connection) == {"action": "auth", "key": "k", "secret": "s"}
    await say(connection, AUTHENTICATED)


@contextlib.asynccontextmanager
async def feed(script: Script, status: int | None = None) -> AsyncGenerator[str]:
    """A feed that runs `script` with every connection, or answers the handshake with `status`; its URL."""

    def answer(connection: ServerConnection, request: Request) -> Response | None:
        assert request.headers["Content-Type"] == "application/msgpack"
        return None if status is None else connection.respond(status, "no")

    async def run(connection: ServerConnection) -> None:
        await script(connection)

    async with serve(run, "127.0.0.1", 0, process_request=answer) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def logged_in(url: str) -> AsyncGenerator[MarketStream]:
    """A connection that is logged in and whose frames are read all the time."""
    stream = await open_stream(url, "stocks")
    await stream.log_in("k", "s")
    reader = asyncio.create_task(read_on(stream))
    try:
        yield stream
    finally:
        await cancel_until_ended([reader])
        await stream.close()


async def read_on(stream: MarketStream) -> None:
    """Read until the connection is lost."""
    while True:
        await stream.read()


def limited_feed(symbols_max: int, misformed: frozenset[str] = frozenset()) -> tuple[Script, set[str]]:
    """A feed with a symbol limit that refuses requests with misformed symbols; and what is subscribed."""
    subscribed: set[str] = set()

    async def script(connection: ServerConnection) -> None:
        await welcome(connection)
        while True:
            request = await heard(connection)
            asked = set(request["trades"])
            if request["action"] == "unsubscribe":
                subscribed.difference_update(asked)
            elif asked & misformed:
                await say(connection, refusal(400))
                continue
            elif len(subscribed | asked) > symbols_max:
                await say(connection, refusal(405))
                continue
            else:
                subscribed.update(asked)
            await say(connection, {"T": "subscription", "trades": sorted(subscribed)})

    return script, subscribed


async def test_a_subscription_is_cut_into_batches_and_acknowledged_in_full() -> None:
    """However many symbols there are, no request is larger than the feed takes; removal works alike."""
    symbols = [f"SYMBOL{number:05d}" for number in range(8000)]
    script, subscribed = limited_feed(10_000)
    async with feed(script) as url, logged_in(url) as stream:
        assert await stream.subscribe(symbols) == []
        assert stream.subscribed == subscribed == set(symbols)
        await stream.unsubscribe(symbols[10:])
        assert stream.subscribed == set(symbols[:10])


async def test_a_symbol_limit_is_filled_and_the_rest_is_left_out() -> None:
    """405 changes nothing at the feed, so requests are halved until it is full."""
    symbols = [f"S{number:03d}" for number in range(100)]
    script, subscribed = limited_feed(30)
    async with feed(script) as url, logged_in(url) as stream:
        left_out = await stream.subscribe(symbols)
        assert len(subscribed) == 30
        assert set(left_out) == set(symbols) - subscribed
        assert stream.subscribed == subscribed


@pytest.mark.parametrize("symbols_max", [1, 2999, 5003])
async def test_a_symbol_limit_in_the_middle_of_a_batch_is_filled_to_the_last_place(symbols_max: int) -> None:
    """Some batches fit as they are, one is halved until what fits of it is found."""
    symbols = [f"SYMBOL{number:05d}" for number in range(8000)]
    script, subscribed = limited_feed(symbols_max)
    async with feed(script) as url, logged_in(url) as stream:
        left_out = await stream.subscribe(symbols)
        assert len(subscribed) == symbols_max
        assert set(left_out) == set(symbols) - subscribed
        await stream.unsubscribe(sorted(subscribed)[:1])
        assert await stream.subscribe(left_out[-2:]) == left_out[-1:], "one place is free, and is filled"


async def test_one_misformed_symbol_costs_only_itself() -> None:
    """400 refuses a whole request; the symbol that is at fault is found and left out."""
    symbols = [f"S{number:03d}" for number in range(50)]
    script, subscribed = limited_feed(1000, frozenset({"S007", "S033"}))
    async with feed(script) as url, logged_in(url) as stream:
        assert sorted(await stream.subscribe(symbols)) == ["S007", "S033"]
        assert subscribed == set(symbols) - {"S007", "S033"}


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(402, "MARKET_API_KEY"), (409, "ALPACA_DATA_FEED"), (411, "scope"), (410, "no trades")],
)
async def test_a_login_refused_for_good_names_the_remedy(code: int, remedy: str) -> None:
    """Waiting does not help, and the message says what to change."""

    async def script(connection: ServerConnection) -> None:
        await say(connection, WELCOME)
        await heard(connection)
        await say(connection, refusal(code))

    async with feed(script) as url:
        stream = await open_stream(url, "stocks")
        with pytest.raises(FeedRefused, match=remedy):
            await stream.log_in("k", "s")
        await stream.close()


@pytest.mark.parametrize(
    ("code", "reason"),
    [(404, "404"), (406, "406"), (500, "500"), (0, "other"), (-1, "other"), (10**12, "other")],
)
async def test_a_login_refused_for_now_may_be_tried_again(code: int, reason: str) -> None:
    """The place of a dropped connection is free again after a while. Few reasons become metric labels."""

    async def script(connection: ServerConnection) -> None:
        await say(connection, WELCOME)
        await heard(connection)
        await say(connection, refusal(code))

    async with feed(script) as url:
        stream = await open_stream(url, "stocks")
        with pytest.raises(StreamLost) as lost:
            await stream.log_in("k", "s")
        assert lost.value.reason == reason
        await stream.close()


async def test_a_slow_client_is_told_apart_from_a_lost_connection() -> None:
    """407 is about us; a socket that just ends is not."""

    async def slow(connection: ServerConnection) -> None:
        await welcome(connection)
        await say(connection, refusal(407))
        await connection.wait_closed()

    async def gone(connection: ServerConnection) -> None:
        await welcome(connection)
        connection.transport.abort()

    for script, reason in ((slow, "407"), (gone, "lost")):
        async with feed(script) as url:
            stream = await open_stream(url, "stocks")
            await stream.log_in("k", "s")
            with pytest.raises(StreamLost) as lost:
                await stream.read()
            assert lost.value.reason == reason
            await stream.close()


async def test_a_feed_that_does_not_answer_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a missing welcome nor a missing acknowledgement holds us for ever."""
    monkeypatch.setattr(stream_module, "ANSWER_S_MAX", 0.2)

    async def silent(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async def deaf(connection: ServerConnection) -> None:
        await welcome(connection)
        await connection.wait_closed()

    async with feed(silent) as url:
        stream = await open_stream(url, "stocks")
        with pytest.raises(FeedUnavailable, match="login"):
            await stream.log_in("k", "s")
        await stream.close()
    async with feed(deaf) as url, logged_in(url) as stream:
        with pytest.raises(FeedUnavailable, match="subscription"):
            await stream.subscribe(["A"])


@pytest.mark.parametrize(
    ("status", "error"), [(401, FeedRefused), (403, FeedRefused), (429, FeedUnavailable)]
)
async def test_a_refused_handshake_says_whether_waiting_helps(status: int, error: type[Exception]) -> None:
    """Bad credentials stay bad; too many connections pass."""

    async def never(connection: ServerConnection) -> None:
        raise AssertionError("no connection was to be made")

    async with feed(never, status) as url:
        with pytest.raises(error, match=str(status)):
            await open_stream(url, "stocks")


async def test_a_feed_that_turns_us_away_says_for_how_long() -> None:
    """HTTP 429 with Retry-After."""

    def answer(connection: ServerConnection, request: Request) -> Response:
        response = connection.respond(429, "slower")
        response.headers["Retry-After"] = "42"
        return response

    async with serve(welcome, "127.0.0.1", 0, process_request=answer) as server:
        with pytest.raises(StreamLost) as lost:
            await open_stream(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", "stocks")
    assert (lost.value.reason, lost.value.retry_after_s) == ("429", 42.0)


async def test_the_whole_session_speaks_json_where_it_is_asked_to() -> None:
    """Login, subscription, data and RFC 3339 times as text frames."""

    async def script(connection: ServerConnection) -> None:
        assert connection.request is not None
        assert connection.request.headers["Content-Type"] == "application/json"
        await connection.send(msgspec.json.encode([WELCOME]).decode())
        assert msgspec.json.decode(await connection.recv()) == {"action": "auth", "key": "k", "secret": "s"}
        await connection.send(msgspec.json.encode([AUTHENTICATED]).decode())
        asked = msgspec.json.decode(await connection.recv())
        acknowledged = [{"T": "subscription", "trades": asked["trades"]}]
        await connection.send(msgspec.json.encode(acknowledged).decode())
        trade = {"T": "t", "S": "A", "p": 1.5, "c": ["@"], "z": "C", "t": "2021-02-22T15:51:44.208000001Z"}
        await connection.send(msgspec.json.encode([trade]).decode())
        await connection.wait_closed()

    async with serve(script, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        stream = await open_stream(url, "stocks", encoding="json")
        await stream.log_in("k", "s")
        subscribing = asyncio.create_task(stream.subscribe(["A"]))
        while not (arrived := await stream.read()).trades:
            pass
        assert await subscribing == []
        assert times_ns(arrived.trades) == [1_614_009_104_208_000_001]
        await stream.close()


async def test_what_the_feed_does_not_confirm_is_not_taken_for_subscribed() -> None:
    """An acknowledgement lists everything; a symbol that is missing there gets its marks otherwise."""

    async def script(connection: ServerConnection) -> None:
        await welcome(connection)
        while True:
            asked = (await heard(connection))["trades"]
            await say(connection, {"T": "subscription", "trades": [each for each in asked if each != "B"]})

    async with feed(script) as url, logged_in(url) as stream:
        assert await stream.subscribe(["A", "B", "C"]) == ["B"]


@pytest.mark.parametrize(("answer", "is_told"), [(refusal(410), False), (refusal(400), False), ({}, True)])
async def test_a_feed_that_tells_no_halts_is_used_all_the_same(answer: dict[str, Any], is_told: bool) -> None:
    """Asking for statuses is optional; a refusal of trades is not."""
    requests: list[dict[str, Any]] = []

    async def script(connection: ServerConnection) -> None:
        await welcome(connection)
        requests.append(await heard(connection))
        await say(connection, answer or {"T": "subscription", "trades": [], "statuses": ["*"]})
        await heard(connection)
        await say(connection, refusal(410))
        await connection.wait_closed()

    async with feed(script) as url:
        stream = await open_stream(url, "stocks")
        await stream.log_in("k", "s")
        reader = asyncio.create_task(read_on(stream))
        assert await stream.subscribe_statuses() is is_told
        assert requests == [{"action": "subscribe", "statuses": ["*"]}]
        subscribing = asyncio.create_task(stream.subscribe(["A"]))
        with pytest.raises(FeedRefused, match="no trades"):
            await reader
        await cancel_until_ended([subscribing])
        await stream.close()


async def test_a_closed_port_is_unavailable() -> None:
    """Nobody listens: try later."""
    async with feed(welcome) as url:
        pass
    with pytest.raises(FeedUnavailable, match="cannot be reached"):
        await open_stream(url, "stocks")


async def test_data_next_to_odd_items_and_fragments_is_read() -> None:
    """A frame in fragments with one unknown item gives the others; the odd one is named."""

    async def script(connection: ServerConnection) -> None:
        await welcome(connection)
        frame = msgspec.msgpack.encode([{"T": "t", "S": "A", "p": 1.5}, {"T": "zz"}, {"T": "t", "S": "B"}])
        await connection.send([frame[:7], frame[7:20], frame[20:]])
        await connection.wait_closed()

    async with feed(script) as url:
        stream = await open_stream(url, "stocks")
        await stream.log_in("k", "s")
        arrived = await stream.read()
        assert arrived.messages == [StreamTrade("A", 1.5), StreamTrade("B")]
        assert arrived.skipped == ["zz"]
        await stream.close()

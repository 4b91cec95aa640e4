"""The event stream: what ends it, what counts as life, and that its follower leaves no gap."""

import asyncio
import itertools
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from alpaca_sim.core.ulid import encode
from portfolio_realtime.alpaca.http import basic
from portfolio_realtime.cancellation import cancel_until_ended
from portfolio_realtime.clock import NS_PER_S, SystemClock, parse_rfc3339
from portfolio_realtime.errors import BrokerRefused, BrokerUnavailable
from portfolio_realtime.symbol_collector.sources import broker_events
from portfolio_realtime.symbol_collector.sources.broker_client import ROWS_PATH, BrokerClient
from portfolio_realtime.symbol_collector.sources.broker_follower import EventFollower
from tests.conftest import Until
from tests.symbol_collector.bookings import Inbox
from tests.symbol_collector.scripted import STREAM_HEAD, response, scripted

AUTH = basic("key", "secret")


async def read_all(client: BrokerClient, since_id: str | None = None) -> list[str]:
    """The live stream until it fails, with the failure as last element."""
    found: list[str] = []
    try:
        async for text in broker_events.live(client, since_id, lambda: found.append("connected")):
            found.append(text)  # noqa: PERF401  # what came before the failure counts
    except BrokerUnavailable as error:
        found.append(type(error).__name__)
    return found


def chunks(*parts: bytes) -> Any:
    """A stream of these pieces, each sent on its own, then the end."""

    async def answer(target: str, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return answer


async def test_events_come_through_whatever_the_pieces() -> None:
    """A clean end of a live stream is a failure too: it never ends by itself."""
    answer = chunks(b": welcome\n\nda", b'ta: {"a":"\xc3', b'\xa9"}\n', b"\n:heartbeat\n\n")
    async with scripted(answer) as url, BrokerClient(url, AUTH) as client:
        assert await read_all(client) == ["connected", '{"a":"é"}', "BrokerUnavailable"]


@pytest.mark.parametrize(
    "comment", [b": you are reading too slowly, dropped 10000 messages\n", b": internal server error\n"]
)
async def test_a_comment_that_tells_of_lost_events_ends_the_stream(comment: bytes) -> None:
    """Nothing after it is taken: the stream is resumed behind the last event before it."""
    answer = chunks(b"data: 1\n\n" + comment + b"\ndata: 2\n\n")
    async with scripted(answer) as url, BrokerClient(url, AUTH) as client:
        assert await read_all(client) == ["connected", "1", "EventsLost"]


async def test_a_mute_stream_is_dead_and_heartbeats_are_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence beyond the limit is an outage, even on an open socket."""
    monkeypatch.setattr(broker_events, "IDLE_S", 0.5)
    muted = asyncio.Event()

    async def answer(target: str, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + b"data: 1\n\n")
        for _ in range(4):
            await asyncio.sleep(0.2)
            writer.write(b":heartbeat\n\n")
        writer.write(b"data: 2\n\n")
        await muted.wait()

    async with scripted(answer) as url, BrokerClient(url, AUTH) as client:
        assert await read_all(client) == ["connected", "1", "2", "BrokerUnavailable"]
        muted.set()


async def test_a_line_that_never_ends_is_no_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that stands still in the middle of an event may still send a byte now and then."""
    monkeypatch.setattr(broker_events, "IDLE_S", 0.5)
    heard: list[str] = []

    async def answer(target: str, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + b"data: 1\n\nda")
        while True:
            writer.write(b"t")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with scripted(answer) as url, BrokerClient(url, AUTH) as client, asyncio.timeout(30):
        with pytest.raises(BrokerUnavailable, match="no whole line"):
            async for text in broker_events.live(client, None, lambda: None, lambda: heard.append("heard")):
                assert text == "1"
    assert 1 <= len(heard) <= 2  # the piece before may come in two


@pytest.mark.parametrize(
    ("status", "since_id", "expected"),
    [(410, "01H", "CursorRefused"), (422, "01H", "CursorRefused"), (500, "01H", "BrokerUnavailable")],
)
async def test_a_refused_cursor_is_told_from_an_outage(status: int, since_id: str, expected: str) -> None:
    """Only without the cursor is there a way on."""

    async def answer(target: str, writer: asyncio.StreamWriter) -> None:
        assert parse_qs(urlsplit(target).query) == {"since_id": ["01H"]}
        writer.write(response(status, "{}"))

    async with scripted(answer) as url, BrokerClient(url, AUTH) as client:
        assert await read_all(client, since_id) == [expected]


async def test_refused_credentials_are_for_good() -> None:
    """Waiting does not help."""

    async def answer(target: str, writer: asyncio.StreamWriter) -> None:
        writer.write(response(401, "{}"))

    async with scripted(answer) as url, BrokerClient(url, AUTH) as client:
        with pytest.raises(BrokerRefused, match="BROKER_API_KEY"):
            await read_all(client)


def _event(event_id: str) -> bytes:
    event = {"account_id": "a", "event_id": event_id, "activity_type": "CSD", "net_amount": "1"}
    return f"data: {json.dumps({**event, 'at': '2026-11-20T15:00:00Z'})}\n\n".encode()


class Broker:
    """A stream that knows no cursors, and a history; what was asked for is noted."""

    def __init__(self) -> None:
        self.asked: list[dict[str, list[str]]] = []
        self.live: list[asyncio.StreamWriter] = []
        self.is_over = asyncio.Event()

    async def __call__(self, target: str, writer: asyncio.StreamWriter) -> None:
        """One stream."""
        query = parse_qs(urlsplit(target).query)
        if urlsplit(target).path == ROWS_PATH:
            writer.write(response(200, "[]"))
            return
        self.asked.append(query)
        if "since_id" in query:
            writer.write(response(422, "{}"))
        elif "since" in query:
            writer.write(STREAM_HEAD + _event("history"))
        else:
            writer.write(STREAM_HEAD + _event("live"))
            self.live.append(writer)
            await self.is_over.wait()


async def test_a_gap_without_a_cursor_is_replayed(until: Until) -> None:
    """The broker refuses to resume: live starts again, and what was missed comes from the history."""
    broker = Broker()
    inbox, clock = Inbox(), SystemClock()

    def taken() -> list[tuple[str, bool]]:
        return [(one.event_id, is_live) for one, is_live in zip(inbox.taken, inbox.live, strict=True)]

    async with scripted(broker) as url, BrokerClient(url, AUTH) as client:
        follower = EventFollower(client, clock, inbox)

        async def follow() -> None:
            for _ in range(3):
                with pytest.raises(BrokerUnavailable):
                    await follower.follow()

        following = asyncio.create_task(follow())
        await until(lambda: taken() == [("live", True)], "the first event")
        assert follower.cursor == "live", "to resume behind"
        heard_ns = clock.now_ns()
        broker.live[0].transport.abort()
        await asyncio.wait_for(follower.fill_gap(), 10)
        await until(lambda: ("history", False) in taken() and taken().count(("live", True)) == 2, "both")
        broker.live[1].transport.abort()
        following.cancel()
        broker.is_over.set()

    kinds = [next(iter(query), "live") for query in broker.asked]
    assert kinds[:4] == ["live", "since_id", "live", "since"]
    assert parse_rfc3339(broker.asked[3]["since"][0]) < heard_ns


async def test_history_is_replayed_once_and_extended_when_a_day_began_earlier() -> None:
    """Each span of time is asked for once; nothing is older than the limit."""
    broker = Broker()
    clock = SystemClock()
    async with scripted(broker) as url, BrokerClient(url, AUTH) as client:
        follower = EventFollower(client, clock, Inbox())
        now_ns = clock.now_ns()
        hour_ns = 3600 * 10**9
        for hours in (5, 5, 2, 9, 7, 24 * 365, 24 * 300):
            await follower.know_history_since(now_ns - hours * hour_ns)

    spans = [(parse_rfc3339(q["since"][0]), parse_rfc3339(q["until"][0])) for q in broker.asked]
    assert len(spans) == 3
    assert spans[1][1] - spans[0][0] < 1000
    assert spans[2][1] - spans[1][0] < 1000
    assert spans[2][0] > now_ns - 8 * 24 * hour_ns


class HalfOpen(Broker):
    """Its live streams say welcome and nothing more; what was booked meanwhile is in the history."""

    async def __call__(self, target: str, writer: asyncio.StreamWriter) -> None:
        """One stream."""
        query = parse_qs(urlsplit(target).query)
        if "since" in query:
            await super().__call__(target, writer)
            return
        self.asked.append(query)
        writer.write(STREAM_HEAD + b": welcome\n\n")
        await self.is_over.wait()


async def test_what_a_dead_stream_leaves_out_comes_by_asking(until: Until) -> None:
    """The broker lives, and its stream brings nothing: the booking comes, and nothing counts as mute."""
    broker, inbox = HalfOpen(), Inbox()
    async with scripted(broker) as url, BrokerClient(url, AUTH) as client:
        follower = EventFollower(client, SystemClock(), inbox)
        parts = [asyncio.create_task(part()) for _, part in (*follower.ahead, *follower.parts)]  # type: ignore[arg-type]  # coroutines
        await until(lambda: len(broker.asked) > 3, "asked")
        assert {one.event_id for one in inbox.taken} == {"history"}
        assert not follower.is_mute()
        broker.is_over.set()
        await cancel_until_ended(parts)
    spans = [(parse_rfc3339(one["since"][0]), parse_rfc3339(one["until"][0])) for one in broker.asked[1:]]
    assert all(span[0] < before[1] for before, span in itertools.pairwise(spans)), "no gap between them"
    assert all(since_ns < until_ns < SystemClock().now_ns() for since_ns, until_ns in spans)


async def test_events_that_come_late_are_told_until_they_are_caught_up(until: Until) -> None:
    """A stream that trails, of the broker's or of ours: what is behind the newest event is unknown."""
    inbox, clock = Inbox(), SystemClock()
    writers: list[asyncio.StreamWriter] = []
    is_over = asyncio.Event()

    async def answer(target: str, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + b": welcome\n\n")
        writers.append(writer)
        await is_over.wait()

    def published(ago_s: float) -> bytes:
        return _event(encode((clock.now_ns() - int(ago_s * NS_PER_S)) // 1_000_000 << 80))

    async with scripted(answer) as url, BrokerClient(url, AUTH) as client:
        follower = EventFollower(client, clock, inbox)
        following = asyncio.create_task(follower.follow())
        await until(lambda: writers, "connected")
        for text, is_late in (
            (published(0), False),
            (published(60), True),
            (published(0), False),
            (published(60), True),
            (b":heartbeat\n\n", False),
        ):
            writers[0].write(text)
            await until(lambda is_late=is_late: follower.is_mute() == is_late, f"late: {is_late}")
        assert len(inbox.taken) >= 4
        is_over.set()
        await cancel_until_ended([following])

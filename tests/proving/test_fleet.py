"""A fleet against servers that lie: each kind of wrong frame is counted; and the sums of many processes."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence

import pytest

from portfolio_realtime.frames import text_frame
from portfolio_realtime.proving.crew import Crew
from portfolio_realtime.proving.fleet import Fleet, Lags, wire_ns
from portfolio_realtime.proving.loadtest import Step, knee
from portfolio_realtime.proving.oracle import Truth
from tests.conftest import Until
from tests.websocket.wire import value

ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
GOODBYE = b"\x88\x02\x0f\xa1"  # close 4001
PING = b"\x89\x02hi"
TOKEN = "token"


@contextlib.asynccontextmanager
async def lying(*frames: bytes) -> AsyncGenerator[str]:
    """A server that upgrades everybody and then sends these bytes, byte by byte."""

    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            for byte in ACCEPTED + b"".join(frames):
                writer.write(bytes((byte,)))
                await writer.drain()
            await reader.read()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await asyncio.gather(*filter(None, serving))


def told(epoch: int, sequence: int, account_id: str = "a") -> bytes:
    return text_frame(json.dumps(value(account_id, epoch, sequence)).encode())


async def seen_by(frames: Sequence[bytes], until: Until, when: Callable[[Fleet], bool]) -> Fleet:
    """A fleet of one after it has met a lying server."""
    async with lying(*frames) as url:
        fleet = Fleet(url, ["a"], lambda _: TOKEN, interval_s=1, detail=False)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(fleet.start(), 5)
        await until(lambda: when(fleet), "the fleet has seen it")
        await fleet.stop()
    return fleet


@pytest.mark.parametrize(
    ("second", "count"),
    [
        (told(1, 4), "regressions"),
        (told(1, 5), "regressions"),
        (told(0, 9), "regressions"),
        (told(1, 7), "gaps"),
        (told(1, 6, "ab"), "leaks"),
        (text_frame(b"{"), "unreadable"),
        (text_frame(b'{"type":"error"}'), "errors"),
    ],
)
async def test_each_kind_of_wrong_frame_is_counted(second: bytes, count: str, until: Until) -> None:
    """Once, as what it is, and as nothing else."""
    fleet = await seen_by([told(1, 5), second], until, lambda fleet: fleet.counts[count] > 0)

    wrong = ("regressions", "gaps", "leaks", "unreadable", "errors")
    assert {name: fleet.counts[name] for name in wrong if fleet.counts[name]} == {count: 1}


async def test_good_frames_are_nothing_wrong(until: Until) -> None:
    """Growing sequences, a new epoch, a ping between; frames cut anywhere."""
    frames = [told(1, 5), told(1, 6), PING, told(2, 1), told(2, 2)]
    fleet = await seen_by(frames, until, lambda fleet: fleet.counts["messages"] == 4)

    assert fleet.counts.keys() <= {"messages", "gaps", "reconnects"}
    assert fleet.counts["gaps"] == 0
    assert fleet.clients[0].order == (2, 2)


async def test_a_connection_that_ends_is_counted_and_made_again(until: Until) -> None:
    """With the server's code; the snapshot after it may repeat the newest value."""
    frames = [told(1, 5), GOODBYE]
    fleet = await seen_by(frames, until, lambda fleet: fleet.close_codes[4001] > 1)

    assert fleet.counts["reconnects"] > 0
    assert len(fleet.outages_s) > 0
    assert fleet.counts["regressions"] == 0


async def test_a_figure_that_differs_is_named(until: Until) -> None:
    """To the cent."""
    fleet = await seen_by([told(1, 5)], until, lambda fleet: fleet.clients[0].has_value)
    figures = {"equity": "100.00", "cash": "10.00"}

    assert await fleet.mismatches({"a": Truth(figures, {})}) == {}
    assert await fleet.mismatches({"a": Truth(figures | {"cash": "10.01"}, {})}) == {"a": ["cash"]}


async def test_several_processes_are_one_crew(until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their counts are added up, and their accounts compared."""
    monkeypatch.setattr("portfolio_realtime.proving.crew.CONNECTIONS_PER_PROCESS_MAX", 2)
    async with (
        lying(told(1, 5), told(1, 7)) as url,
        Crew(url, ["a", "a", "a"], lambda _: TOKEN, interval_s=1) as crew,
    ):
        assert len(crew.pids) == 2
        await crew.start(3)

        async def all_have_read() -> bool:
            return (await crew.seen()).counts["messages"] == 6

        await until(all_have_read, "all three have read both frames")
        assert (await crew.seen()).counts["gaps"] == 3
        assert await crew.mismatches({"a": Truth({"equity": "1.00"}, {})}) == {"a": ["equity"]}


def test_percentiles_of_lags() -> None:
    """Of all seconds, and of a part of the time; added up over processes."""
    first, second = Lags(), Lags()
    for milliseconds in range(100):
        first.add(10**9 * (milliseconds // 50), milliseconds * 1_000_000)
    second.add(3 * 10**9, 500 * 1_000_000)

    assert [first.percentile_ms(share) for share in (0, 0.5, 0.99)] == [0, 50, 99]
    assert first.between(0.5, 1).percentile_ms(0) == 50
    assert first.merge([second]).percentile_ms(1 - 1e-9) == 500
    assert Lags().percentile_ms(0.99) == 0


def test_the_knee_is_the_last_step_that_held() -> None:
    """None where it never bent."""

    def steps(*lags_ms: float) -> list[Step]:
        return [Step(100, 1000.0 * index, 1, lag_ms) for index, lag_ms in enumerate(lags_ms, 1)]

    assert knee(steps(50, 90, 251, 400)) == 2000
    assert knee(steps(300)) == 0
    assert knee(steps(50, 90)) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1970-01-01T00:00:01.000002Z", 1_000_002_000), ("1970-01-01T01:00:01+01:00", 1_000_000_000)],
)
def test_times_of_the_wire(text: str, expected: int) -> None:
    """The short way and the long one agree."""
    assert wire_ns(text) == expected

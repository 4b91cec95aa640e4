"""A clients against servers that lie: each kind of wrong frame is counted; and the sums of many processes."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence

import pytest

from portfolio_harness.client_processes import ClientProcesses
from portfolio_harness.clients import WAITING_BYTES_MAX, Clients, wire_ns
from portfolio_harness.lags import Lags
from portfolio_harness.oracle import Truth
from portfolio_realtime.websocket_server.clients.endpoint import WRITE_BUFFER_BYTES_MAX
from portfolio_realtime.wire.frames import text_frame
from tests.conftest import Until
from tests.support.publications import value

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


def told(epoch: int, sequence: int, account_id: str = "a", **fields: str) -> bytes:
    return text_frame(json.dumps({**value(account_id, epoch, sequence), **fields}).encode())


async def seen_by(
    frames: Sequence[bytes], until: Until, when: Callable[[Clients], bool], stalled: int = 0
) -> Clients:
    """A clients of one after it has met a lying server."""
    async with lying(*frames) as url:
        clients = Clients(url, ["a"], lambda _: TOKEN, interval_s=1, detail=False, stalled=stalled)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(clients.start(), 5)
        await until(lambda: when(clients), "the clients have seen it")
        await clients.stop()
    return clients


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
    clients = await seen_by([told(1, 5), second], until, lambda clients: clients.counts[count] > 0)

    wrong = ("regressions", "gaps", "leaks", "unreadable", "errors")
    assert {name: clients.counts[name] for name in wrong if clients.counts[name]} == {count: 1}


async def test_good_frames_are_nothing_wrong(until: Until) -> None:
    """Growing sequences, a new epoch, a ping between; frames cut anywhere."""
    frames = [told(1, 5), told(1, 6), PING, told(2, 1), told(2, 2)]
    clients = await seen_by(frames, until, lambda clients: clients.counts["messages"] == 4)

    assert clients.counts.keys() <= {"messages", "payload_bytes", "gaps", "reconnects"}
    assert clients.counts["gaps"] == 0
    assert clients.all[0].order == (2, 2)


async def test_a_connection_that_ends_is_counted_and_made_again(until: Until) -> None:
    """With the server's code; the snapshot after it may repeat the newest value."""
    frames = [told(1, 5), GOODBYE]
    clients = await seen_by(frames, until, lambda clients: clients.close_codes[4001] > 1)

    assert clients.counts["reconnects"] > 0
    assert len(clients.outages_s) > 0
    assert clients.cut_off == 1
    clients.begin_measuring()
    assert clients.cut_off == 0


LONG_AGO, NEVER_YET = "2026-11-20T15:04:05.123456Z", "2126-11-20T15:04:05.123456Z"  # late, and in time
WAITING = 120  # values of about 300 bytes: more than the server keeps waiting for a client


def test_the_clients_know_how_much_waits_for_one_in_the_server() -> None:
    """They do not load the server's code, which would make each of their processes twice as large."""
    assert WAITING_BYTES_MAX == WRITE_BUFFER_BYTES_MAX


@pytest.mark.parametrize(
    ("waiting", "timestamps", "behind"),
    [
        (WAITING, (LONG_AGO, LONG_AGO), 2),
        (WAITING, (LONG_AGO, NEVER_YET), 0),  # it had caught up before the gap
        (WAITING // 4, (LONG_AGO, LONG_AGO), 0),  # too little waited for it
        (WAITING, (NEVER_YET, NEVER_YET), 0),  # nothing waited for it
    ],
)
async def test_a_gap_can_be_explained_only_to_a_client_that_is_far_behind(
    waiting: int, timestamps: tuple[str, str], behind: int, until: Until
) -> None:
    """As far as the server lets one fall behind before it leaves out numbers."""
    fields = "x" * 8  # a name that nobody reads, so that a value has some length
    frames = [told(1, number, timestamp=timestamps[0], more=fields) for number in range(1, waiting)]
    frames += [told(1, waiting, timestamp=timestamps[1]), told(1, waiting + 3)]

    clients = await seen_by(frames, until, lambda clients: clients.counts["gaps"] > 0)

    assert clients.counts["gaps"] == 2
    assert clients.counts["gaps_behind"] == behind


async def test_what_befalls_who_stops_reading_is_counted_apart(
    until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes again by itself, since it cannot see that it was cut; it is neither back nor away."""
    monkeypatch.setattr("portfolio_harness.clients.STALLED_S", 0.01)
    frames = [told(1, 5), told(1, 9)]
    clients = await seen_by(
        frames, until, lambda clients: clients.counts["reconnects_stalled"] > 2, stalled=1
    )

    assert (clients.counts["reconnects"], clients.counts["gaps"], clients.cut_off) == (0, 0, 0)
    assert (clients.without_value, clients.regular, clients.outages_s, clients.close_codes) == (0, 0, [], {})


async def test_the_first_value_of_each_client_is_timed(until: Until) -> None:
    """Once, from asking for it, whatever comes afterwards."""
    clients = await seen_by([told(1, 5), GOODBYE], until, lambda clients: len(clients.outages_s) > 1)

    assert sum(sum(counts.values()) for counts in clients.first_values.counts.values()) == 1
    assert clients.first_values.percentile_ms(0) < 60_000


async def test_silence_is_the_longest_time_without_a_newer_value(until: Until) -> None:
    """Of a client that had values regularly before; the silence that still lasts counts, a repetition not."""
    clients = await seen_by([told(1, 5), told(1, 6)], until, lambda clients: clients.counts["messages"] == 2)
    (client,) = clients.all
    assert (clients.regular, clients.silence_s) == (0, 0)

    clients.begin_measuring()
    assert clients.regular == 1
    client.heard_ns -= 4 * 10**9
    assert 4 <= clients.silence_s < 60
    heard_ns, client.is_snapshot = client.heard_ns, True
    clients.check_message(client, json.dumps(value("a", 1, 6)).encode())
    assert client.heard_ns == heard_ns
    clients.check_message(client, json.dumps(value("a", 1, 7)).encode())
    assert client.silence_until_ns(client.heard_ns) >= 4 * 10**9
    assert client.silence_until_ns(client.heard_ns + 10**9) < 60 * 10**9

    clients.begin_measuring()
    client.heard_ns -= 3 * 10**9
    clients.begin_measuring()
    assert (clients.regular, clients.silence_s) == (0, 0)
    assert clients.counts["regressions"] == 0


async def test_a_figure_that_differs_is_named(until: Until) -> None:
    """To the cent."""
    clients = await seen_by([told(1, 5)], until, lambda clients: clients.all[0].has_value)
    figures = {"equity": "100.00", "cash": "10.00"}

    assert await clients.mismatches({"a": Truth(figures, {})}) == {}
    assert await clients.mismatches({"a": Truth(figures | {"cash": "10.01"}, {})}) == {"a": ["cash"]}


async def test_several_processes_count_as_one(until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their counts are added up, and their accounts compared."""
    monkeypatch.setattr("portfolio_harness.client_processes.CONNECTIONS_PER_PROCESS_MAX", 2)
    async with (
        lying(told(1, 5), told(1, 7)) as url,
        ClientProcesses(url, ["a", "a", "a"], lambda _: TOKEN, interval_s=1) as clients,
    ):
        assert len(clients.pids) == 2
        await clients.start(3)

        async def all_have_read() -> bool:
            return (await clients.seen()).counts["messages"] == 6

        await until(all_have_read, "all three have read both frames")
        seen = await clients.seen()
        assert seen.counts["gaps"] == 3
        assert sum(sum(counts.values()) for counts in seen.first_values.counts.values()) == 3
        assert await clients.mismatches({"a": Truth({"equity": "1.00"}, {})}) == {"a": ["equity"]}


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1970-01-01T00:00:01.000002Z", 1_000_002_000), ("1970-01-01T01:00:01+01:00", 1_000_000_000)],
)
def test_times_of_the_wire(text: str, expected: int) -> None:
    """The short way and the long one agree."""
    assert wire_ns(text) == expected

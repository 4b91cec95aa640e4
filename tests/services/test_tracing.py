"""A price followed through the services by OpenTelemetry, and nothing of it where nobody asks."""

import asyncio
import logging
import os
import subprocess
import sys
from contextlib import AsyncExitStack

import msgspec
import pytest
from benchmarks.trace_picture import NS_PER_MS, SETTINGS, WAY, Span, collecting, is_part, watch_all

from portfolio_harness.system import running, simulator_options, wait_known
from portfolio_realtime.clock import SystemClock
from portfolio_realtime.errors import SettingsError
from portfolio_realtime.model import Mark, Publication, PublicationBatch
from portfolio_realtime.portfolio_calculator.valuation_traces import ValuationTraces
from portfolio_realtime.processes import end_all
from portfolio_realtime.state import State, keys
from portfolio_realtime.state.embedded import free_port
from portfolio_realtime.state.marks import TracedMark, decode_marks
from portfolio_realtime.state.valuations import decode_batch
from portfolio_realtime.tracing import open_tracing
from portfolio_realtime.valuation.valuer import Valuer
from tests.conftest import Until
from tests.support.publications import batch_of
from tests.valuation.records import account, position

ACCOUNTS = 4
START_S_MAX = 60.0
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MARKS = [Mark("AAPL", 190.5, 1, 2, "iex"), Mark("MSFT", 410.25, 3, 4, "iex")]
EXTRA = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto")
TRACING = {"opentelemetry.sdk.trace", "opentelemetry.exporter", "requests"}
STARTED = {
    "market_data_consumer": b"lease acquired",
    "portfolio_calculator": b"shards owned",
    "websocket_server": b"serving",
}


async def test_one_price_is_one_trace_from_the_feed_to_the_client(until: Until) -> None:
    """Three services, each below the one before it, in the order of time, their parts within them."""
    with collecting() as collector:
        settings = {**SETTINGS, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        options = simulator_options(ACCOUNTS, 20, 10.0, 7)
        async with running(options, port=0, overrides=settings) as system, AsyncExitStack() as stack:
            await wait_known(system.url, ACCOUNTS, lambda _: None)
            await watch_all(system, stack)
            await until(collector.complete, "a trace of all three services has come", START_S_MAX)
    for spans in collector.complete():
        way = [span for span in spans if not is_part(span, spans)]
        by_id = {span.span_id: span for span in spans}
        assert {span.service for span in way} == set(WAY)
        assert [by_id[span.parent_id].service for span in way if span.parent_id] == list(WAY[: len(way) - 1])
        assert [span.start_ns for span in way] == sorted(span.start_ns for span in way)
        assert all(span.end_ns >= span.start_ns for span in spans)
        assert all(is_within(span, by_id[span.parent_id]) for span in spans if is_part(span, spans))


def is_within(part: Span, whole: Span) -> bool:
    """A part begins and ends with its whole, or between."""
    return whole.start_ns <= part.start_ns and part.end_ns <= whole.end_ns + NS_PER_MS


@pytest.mark.parametrize("service", STARTED)
async def test_a_service_runs_without_the_extra(service: str, valkey_url: str) -> None:
    """As installed without the extra: nothing that it brings can be imported, and the service is up."""
    hide = f"import runpy, sys; sys.modules.update(dict.fromkeys({EXTRA}))"
    run = f"runpy.run_module('portfolio_realtime.{service}', run_name='__main__')"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", f"{hide}; {run}"),
        env={**os.environ, "REDIS_URL": valkey_url, "SHARDS": "4", "WEBSOCKET_PORT": str(free_port())},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    said = b""
    try:
        async with asyncio.timeout(START_S_MAX):
            while STARTED[service] not in said:
                line = await process.stderr.readline()
                said += line
                assert line, said
    finally:
        await end_all([process])


def test_by_default_nothing_that_traces_is_imported() -> None:
    """Though it is installed here. FastAPI and the client of Valkey import other parts by themselves."""
    ask = (
        f"import sys, {', '.join(f'portfolio_realtime.{name}.__main__' for name in STARTED)}\n"
        "from portfolio_realtime.tracing import open_tracing\n"
        "for ratio in (0.0, 1.0):\n"
        "    is_on = open_tracing('test', 'here', ratio, '') is not None\n"
        f"    print(is_on, len({TRACING} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["False 0", f"True {len(TRACING)}"]


async def test_a_followed_mark_is_announced_and_not_stored(state: State) -> None:
    """The trace travels beside the marks."""
    lease = await state.leases.acquire("market_data:stocks")
    assert lease is not None
    heard: list[bytes] = []

    async def hear() -> None:
        async for message in state.marks.batches():
            payload = getattr(message, "payload", None)
            if payload is not None:
                heard.append(payload)
            else:
                subscribed.set()
            if len(heard) == 2:
                return

    subscribed = asyncio.Event()
    hearing = asyncio.create_task(hear())
    await subscribed.wait()
    await state.marks.write(lease, MARKS)
    followed_mark = TracedMark("MSFT", 4, TRACEPARENT)
    await state.marks.write(lease, MARKS, followed_mark)
    async with asyncio.timeout(START_S_MAX):
        await hearing

    plain, followed = heard
    assert decode_marks(plain) == (MARKS, [], None, [])
    assert decode_marks(followed) == (MARKS, [], followed_mark, [])
    assert TRACEPARENT.encode() not in b"".join(await state.connection.commands.hvals(keys.marks()))  # pyright: ignore


def test_a_trace_goes_on_with_the_first_account_that_shows_its_price_and_with_no_newer_price() -> None:
    """Who does not hold the symbol is passed over; a price that was replaced is shown by nobody."""
    tracing = open_tracing("test", "here", 1.0, f"http://127.0.0.1:{free_port()}")
    assert tracing is not None
    valuer = Valuer(price_ttl_s=3600, min_update_interval_s=1)
    for account_id, symbol in (("a", "AAPL"), ("m", "MSFT")):
        valuer.watch(account(account_id, [position(symbol, 3)]), 1, with_positions=False)
    traces = ValuationTraces(tracing, SystemClock(), valuer)
    followed = TracedMark("MSFT", MARKS[1].version, TRACEPARENT)
    valuer.apply_marks(MARKS)
    now_ns = SystemClock().now_ns()
    traces.hear(followed, now_ns)
    assert traces.begin(["a"], now_ns) == {}
    (account_id, traceparent), *others = traces.begin(["a", "m"], now_ns).items()
    assert (account_id, traceparent[:36], others) == ("m", TRACEPARENT[:36], [])
    assert traceparent != TRACEPARENT
    traces.end()
    assert traces.begin(["a", "m"], now_ns) == {}, "each trace goes on once"
    traces.hear(followed, now_ns)
    valuer.apply_marks([msgspec.structs.replace(MARKS[1], version=5, price=411.0)])
    assert traces.begin(["a", "m"], now_ns) == {}


def test_batches_of_publications_are_read_with_and_without_traces() -> None:
    """During a deployment either may be the older: each reads the other's batches."""
    publications = [Publication("a", 1, b"{}"), Publication("b", 2, b"{}")]
    batch = batch_of(7, publications, (), {"b": TRACEPARENT})
    assert batch.traceparents == {1: TRACEPARENT}
    columns = msgspec.to_builtins(batch, builtin_types=(bytes,))
    older = decode_batch(msgspec.msgpack.encode(columns[:-1]))
    assert older == batch_of(7, publications)
    former = msgspec.defstruct("Former", list(PublicationBatch.__annotations__.items())[:-1], array_like=True)
    read = msgspec.msgpack.decode(msgspec.msgpack.encode(batch), type=former)
    assert msgspec.structs.astuple(read)[1] == ["a", "b"]


async def test_a_collector_that_is_away_and_a_context_that_is_broken_harm_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Spans are lost with a warning, closing ends, and what no service can have sent begins no trace."""
    tracing = open_tracing("test", "here", 1.0, f"http://127.0.0.1:{free_port()}")
    assert tracing is not None
    span = tracing.begin("first", 1)
    assert span is not None
    assert tracing.traceparent(span).startswith("00-")
    assert tracing.go_on(tracing.traceparent(span), "next", 2) is not None
    assert tracing.go_on("not a context", "next", 2) is None
    span.end()
    async with asyncio.timeout(START_S_MAX):
        await tracing.close()
    exporter = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    exporter.error("Failed to export spans batch")  # what it says when it gives up
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert "Transient" not in caplog.text


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where traces are asked for."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert open_tracing("test", "here", 0.0, "") is None
    with pytest.raises(SettingsError, match=r"pip install 'portfolio-realtime\[otel\]'"):
        open_tracing("test", "here", 0.5, "")

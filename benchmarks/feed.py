"""Trades of the market-data stream decoded, filtered, marked and conflated, beside alpaca-py's stream.

`python -m benchmarks.feed --tape DIR --json`

Everybody gets the same frames in the same run, in turns, and is measured in CPU time of one core: medians of
REPEATS, so that what counts are the ratios. Of ours, all of the work: reading, conditions, mark price
policy, and the newest mark of each symbol every MARK_FLUSH_INTERVAL. Of alpaca-py's `StockDataStream`:

- decode: its unpacking and its model objects alone, nothing done with them;
- stream: its own loop around that, `_consume`, from a socket that never waits to a handler that does nothing.

With `--tape` (a folder of LEAN trade files) the frames are a real day's trades, and the same day is replayed
by the simulator at 1,000 × speed through sockets, the consumer and Valkey: the lag of a mark, from its trade
to its announcement, in the first and in the second half, after WARM_UP_S. Without it the frames are made up:
SYMBOLS symbols, some traded far more often than others, four of ten trades ineligible. `--ties` leaves the
tape's trades in their milliseconds, so that many of one symbol have the same time.
"""

import asyncio
import contextlib
import itertools
import os
import random
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from datetime import date
from datetime import time as time_of_day
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import msgpack
import msgspec
import typer
import uvloop
from alpaca.data.live.stock import StockDataStream
from alpaca.data.models import Trade
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from alpaca_sim.core.tape import Tape
from alpaca_sim.streams.messages import timestamp
from portfolio_realtime import config
from portfolio_realtime.clock import NS_PER_S, SystemClock
from portfolio_realtime.market_data_consumer import consumer
from portfolio_realtime.market_data_consumer.conditions import stock_effect
from portfolio_realtime.market_data_consumer.mark_book import MarkBook
from portfolio_realtime.market_data_consumer.messages import decode_trades
from portfolio_realtime.model import US_EQUITY
from portfolio_realtime.service import Context
from portfolio_realtime.state import State, open_state
from portfolio_realtime.state.connection import Message
from portfolio_realtime.state.embedded import EmbeddedServer
from portfolio_realtime.state.marks import decode_marks

REPEATS: Final = 5
FRAME_TRADES: Final = 500
FLUSH_S: Final = 0.1  # the default of MARK_FLUSH_INTERVAL
SYMBOLS: Final = 5_000
BASE_NS: Final = 1_795_000_000 * NS_PER_S
TAPE_DAY: Final = date(2013, 10, 7)
TAPE_START: Final = time_of_day(9, 30)
TAPE_SYMBOLS_MAX: Final = 100
TRADE_APART_NS: Final = 100
LAG_SPEED: Final = 1_000
READY_S_MAX: Final = 30.0
WARM_UP_S: Final = 2.0  # the first marks are as old as their snapshots
MARKS_MIN: Final = 4  # two in each half
CONDITIONS: Final = (  # letters behind the tape's regular one, and how many of a hundred trades have them
    ((), 40),
    (("F",), 20),
    (("I",), 30),
    (("F", "I"), 5),
    (("T",), 3),
    (("U",), 2),
)


class NoMarks(Exception):
    """The replay brought too few marks for a figure; the message says how many."""


class Frames:
    """Encoded frames of trades, in the order of time."""

    def __init__(self, messages: Iterator[dict[str, Any]], trades: int) -> None:
        taken = list(itertools.islice(messages, trades))
        self.trade_count = len(taken)
        self.symbols = {message["S"] for message in taken}
        self.encoded = [
            msgspec.msgpack.encode(taken[at : at + FRAME_TRADES]) for at in range(0, len(taken), FRAME_TRADES)
        ]

    def per_core_s(self, work: Callable[[], object]) -> float:
        """Trades per second of CPU time."""
        started_s = time.process_time()
        work()
        return self.trade_count / (time.process_time() - started_s)


def tape_messages(folder: Path, apart_ns: int) -> Iterator[dict[str, Any]]:
    """A real day from the open on, as the stream would bring it.

    The tape tells milliseconds, the stream nanoseconds: trades of the same millisecond lie `apart_ns` apart.
    """
    tape = Tape(folder, TAPE_DAY, TAPE_START, TAPE_SYMBOLS_MAX)
    tapes = {listing.symbol: listing.tape for listing in tape.listings}
    at_ms = index = 0
    for number, row in enumerate(tape.rows()):
        if row.at_ms != at_ms:
            at_ms, index = row.at_ms, 0
        yield {
            "T": "t",
            "S": row.symbol,
            "i": number,
            "x": row.exchange,
            "p": float(row.price),
            "s": row.size,
            "c": list(row.conditions),
            "z": tapes[row.symbol],
            "t": timestamp(BASE_NS + at_ms * 1_000_000 + index * apart_ns),
        }
        index += 1


def made_up_messages(seed: int) -> Iterator[dict[str, Any]]:
    """Trades of SYMBOLS symbols, the n-th of them about 1/n as often as the first."""
    random_ = random.Random(seed)
    symbols = [f"S{index:04d}" for index in range(SYMBOLS)]
    popularity = list(itertools.accumulate(1 / (index + 10) for index in range(SYMBOLS)))
    tapes = {symbol: random_.choice("ABC") for symbol in symbols}
    prices = {symbol: random_.uniform(5, 500) for symbol in symbols}
    letters, shares = zip(*CONDITIONS, strict=True)
    at_ns = BASE_NS
    for number in itertools.count():
        (symbol,) = random_.choices(symbols, cum_weights=popularity)
        (extra,) = random_.choices(letters, shares)
        prices[symbol] *= 1 + random_.gauss(0, 1e-4)
        at_ns += random_.randrange(1, 20_000)
        tape = tapes[symbol]
        yield {
            "T": "t",
            "S": symbol,
            "i": number,
            "x": random_.choice("VDQNKZ"),
            "p": round(prices[symbol], 2),
            "s": random_.randrange(1, 500),
            "c": ["@" if tape == "C" else " ", *extra],
            "z": tape,
            "t": timestamp(at_ns),
        }


def ours(frames: Frames) -> None:
    """Everything between the socket and the write to Valkey."""
    book = MarkBook("sip", stock_effect)
    book.follow(frames.symbols)
    received_ns = BASE_NS + 24 * 3600 * NS_PER_S
    flushed_s = time.process_time()
    mark_count = 0
    for frame in frames.encoded:
        trades = decode_trades(frame)
        assert trades is not None
        book.add_trades(trades, received_ns)
        if time.process_time() - flushed_s >= FLUSH_S:
            mark_count += len(book.take_changed())
            flushed_s = time.process_time()
    mark_count += len(book.take_changed())
    assert mark_count


def ours_decoding(frames: Frames) -> None:
    """The reading of the frames alone."""
    for frame in frames.encoded:
        decode_trades(frame)


def alpaca_decode(frames: Frames) -> None:
    """What `_consume` and `_dispatch` do to a frame to get model objects, without the loop around it."""
    stream: Any = StockDataStream("key", "secret")
    cast = stream._cast  # noqa: SLF001  # its decoding has no public name
    for frame in frames.encoded:
        for message in msgpack.unpackb(frame):
            cast(message)


class _Socket:
    """Has every frame at hand, then ends the stream that reads it."""

    def __init__(self, stream: Any, frames: Frames) -> None:
        self._stream = stream
        self._frames = iter(frames.encoded)

    async def recv(self) -> bytes:
        frame = next(self._frames, None)
        if frame is None:
            self._stream._stop_stream_queue.put_nowait({"should_stop": True})  # noqa: SLF001  # as its stop()
            return b"\x90"
        return frame

    async def close(self) -> None:
        """Nothing to close."""


def alpaca_stream(frames: Frames) -> None:
    """Its own loop from the socket to the handler."""

    async def ignore(_: Trade) -> None:
        pass

    async def run() -> None:
        stream: Any = StockDataStream("key", "secret")
        stream._handlers["trades"]["*"] = ignore  # noqa: SLF001  # subscribe_trades wants a running loop
        stream._ws = _Socket(stream, frames)  # noqa: SLF001
        stream._running = True  # noqa: SLF001
        await stream._consume()  # noqa: SLF001

    asyncio.run(run())


def throughput(frames: Frames) -> dict[str, float]:
    """Medians of everybody, taken in turns so that a busy moment of the machine hits all."""
    everybody = (ours, ours_decoding, alpaca_decode, alpaca_stream)
    rates: dict[str, list[float]] = {work.__name__: [] for work in everybody}
    for _ in range(REPEATS):
        for work in everybody:
            rates[work.__name__].append(frames.per_core_s(lambda work=work: work(frames)))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    return {
        "trades": frames.trade_count,
        "symbols": len(frames.symbols),
        "trades_per_core_s": round(medians["ours"]),
        "decoding_only_per_core_s": round(medians["ours_decoding"]),
        "alpaca_py_decode_per_core_s": round(medians["alpaca_decode"]),
        "alpaca_py_stream_per_core_s": round(medians["alpaca_stream"]),
        "vs_alpaca_py_decode": round(medians["ours"] / medians["alpaca_decode"], 2),
        "vs_alpaca_py_stream": round(medians["ours"] / medians["alpaca_stream"], 2),
    }


async def tape_lag(folder: Path, seconds: float) -> dict[str, float]:
    """The tape at LAG_SPEED through the simulator, the consumer and Valkey: the lag of its marks, in ms."""
    symbols = [listing.symbol for listing in Tape(folder, TAPE_DAY, TAPE_START, TAPE_SYMBOLS_MAX).listings]
    async with _simulator(folder) as url, _embedded_state() as state:
        lease = await state.leases.acquire("symbol_collector")
        assert lease is not None
        await state.accounts.write_universe(lease, dict.fromkeys(symbols, US_EQUITY), [])
        settings = config.load(
            broker_api_key="sim-key",
            broker_secret_key="sim-secret",  # noqa: S106  # the simulator's
            alpaca_data_url=url,
            alpaca_stream_url=url.replace("http", "ws", 1),
        )
        registry = CollectorRegistry()
        context = Context(settings, state, SystemClock(), registry, "benchmark")
        running = asyncio.ensure_future(consumer.run(context))
        try:
            lags_ms = await _lags_ms(state, url, seconds)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        traded = registry.get_sample_value(
            "portfolio_realtime_feed_messages_total", {"feed": "stocks", "type": "t"}
        )
    half = len(lags_ms) // 2
    first, second = lags_ms[:half], lags_ms[half:]
    return {
        "tape_speed": LAG_SPEED,
        "tape_trades": int(traded or 0),
        "tape_marks": len(lags_ms),
        "lag_first_half_ms": round(statistics.median(first), 1),
        "lag_second_half_ms": round(statistics.median(second), 1),
        "lag_p99_first_half_ms": round(statistics.quantiles(first, n=100)[98], 1),
        "lag_p99_second_half_ms": round(statistics.quantiles(second, n=100)[98], 1),
    }


async def _lags_ms(state: State, url: str, seconds: float) -> list[float]:
    """From each mark's trade to its announcement, until the tape ends or `seconds` have passed after the
    warm-up. Raises NoMarks.
    """
    lags_ms: list[float] = []
    is_warm = asyncio.Event()

    async def listen() -> None:
        began_ns = 0
        async for message in state.marks.batches():
            if not isinstance(message, Message):
                continue
            now_ns = time.time_ns()
            began_ns = began_ns or now_ns
            if now_ns - began_ns > WARM_UP_S * NS_PER_S:
                lags_ms.extend((now_ns - mark.as_of_ns) / 1e6 for mark in decode_marks(message.payload).marks)
                is_warm.set()

    listener = asyncio.ensure_future(listen())
    try:
        with contextlib.suppress(TimeoutError):  # of what is there, NoMarks will tell
            await asyncio.wait_for(is_warm.wait(), READY_S_MAX)
        give_up_s = time.monotonic() + seconds
        async with httpx.AsyncClient(base_url=url, timeout=READY_S_MAX) as client:
            is_done = False
            while not is_done and time.monotonic() < give_up_s:
                await asyncio.sleep(0.5)
                is_done = (await client.get("/_sim/state")).json()["tape_done"]
    finally:
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)
    if len(lags_ms) < MARKS_MIN:
        raise NoMarks(f"{len(lags_ms)} marks came in {seconds:g} s after {WARM_UP_S:g} s of warm-up: too few")
    return lags_ms


@contextlib.asynccontextmanager
async def _simulator(folder: Path) -> AsyncGenerator[str, None]:
    """The simulator in a process of its own, with the tape as its market; its URL."""
    flags = ["--port", "0", "--accounts", "0", "--activities-per-second", "0", "--tape", str(folder)]
    flags += ["--tape-day", f"{TAPE_DAY:%Y-%m-%d}", "--tape-start", f"{TAPE_START:%H:%M}"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "alpaca_sim", *flags, "--tape-speed", str(LAG_SPEED)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(READY_S_MAX):
            while " ready on " not in (line := (await process.stdout.readline()).decode()):
                assert line, "the simulator ended before it was ready"
        yield line.split(" ready on ")[1].split()[0]
    finally:
        process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def _embedded_state() -> AsyncGenerator[State, None]:
    async with EmbeddedServer() as server:
        state = open_state(server.url, holder="benchmark", shards=1, lease_ms=60_000)
        try:
            yield state
        finally:
            await state.close()


def main(
    tape: Annotated[Path | None, typer.Option(help="Folder of LEAN trade files; else made-up trades")] = None,
    ties: Annotated[
        bool, typer.Option("--ties", help="Leave the tape's trades in their milliseconds; without the lag")
    ] = False,
    trades: Annotated[int, typer.Option(min=FRAME_TRADES, help="Measured in one turn")] = 200_000,
    seconds: Annotated[
        float, typer.Option(min=1, help="Of the tape's replay after the warm-up, at most")
    ] = 30.0,
    seed: Annotated[int, typer.Option(help="Of made-up trades")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line")] = False,
) -> None:
    """Trades decoded, filtered, marked and conflated per core-second, beside alpaca-py."""
    messages = made_up_messages(seed) if tape is None else tape_messages(tape, 0 if ties else TRADE_APART_NS)
    frames = Frames(messages, trades)
    result = throughput(frames)
    if tape is not None and not ties:
        try:
            result |= uvloop.run(tape_lag(tape, seconds))
        except NoMarks as error:
            typer.echo(f"no lag: {error}; give --seconds more", err=True)
            raise typer.Exit(1) from error
    if as_json:
        print(msgspec.json.encode(result).decode())
        return
    table = Table(title="The market-data stream on one core")
    table.add_column("figure")
    table.add_column("", justify="right")
    for name, figure in result.items():
        table.add_row(name, f"{figure:,}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)

"""Bytes and cost of a message to a browser that watches one account: whole, as a delta, and compressed.

`python -m benchmarks.delta`: 20 positions of which one moves at each message. The messages are made by the
product's own code. permessage-deflate is measured as the package `websockets` would do it: with its context
kept, and with windows that a server can afford for many connections.
"""

import argparse
import itertools
import json
import os
import random
import statistics
import time
import zlib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.provenance import provenance
from benchmarks.service_world import memory_mb
from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.model import US_EQUITY, Account, Mark, Position
from portfolio_realtime.valuation.portfolio_message import Figures, constant, encode_row, encode_values
from portfolio_realtime.websocket_server.fanout.deltas import Whole, delta_body, delta_head
from portfolio_realtime.websocket_server.fanout.newest_columns import StreamPosition
from portfolio_realtime.websocket_server.fanout.watched_account import POSITIONS_KEY

ACCOUNT_ID: Final = "0d18ae51-6a5c-4a5e-9b1c-0a8f6d3c2b1a"
EPOCH: Final = 1763822405123
BEGAN_NS: Final = EPOCH * 1_000_000
WINDOWS: Final = ((15, 8), (12, 5), (9, 1))  # bits of the window, level of memory: the default, and less
COMPRESSORS: Final = 400  # kept, to see what one takes
TAIL: Final = b"\x00\x00\xff\xff"  # which permessage-deflate leaves out
RATIO_MAX: Final = 0.4
KEPT: Final[list[object]] = []  # to the end, so that none takes the memory of another


def publications(count: int, positions: int = 20) -> list[tuple[Whole, str]]:
    """Each publication with the symbol that moved."""
    rng = random.Random(5)
    held = [
        Position(f"SYM{number}", US_EQUITY, Decimal(10 + number), Decimal(1), Decimal(900 + number))
        for number in range(positions)
    ]
    prices = {one.symbol: 90.0 + 7 * place for place, one in enumerate(held)}
    cash, last_equity = Decimal("10211.37"), Decimal("53002.10")
    account = Account(
        ACCOUNT_ID, 1, "ACTIVE", "USD", cash, last_equity, "2026-11-20", Decimal(0), tuple(held), BEGAN_NS
    )
    always = [constant(account, EPOCH)]
    rows: dict[str, bytes] = {}
    found: list[tuple[Whole, str]] = []
    for sequence in range(1, count + 1):
        moved = held if not rows else [rng.choice(held)]
        now_ns = BEGAN_NS + int((sequence + rng.random()) * NS_PER_S)
        for one in moved:
            prices[one.symbol] = round(prices[one.symbol] * (1 + rng.uniform(-0.001, 0.001)), 2)
            mark = Mark(one.symbol, prices[one.symbol], now_ns, now_ns, "iex", 100.0, quality="iex")
            rows[one.symbol] = encode_row(one, mark)
        worth = sum(float(one.quantity) * prices[one.symbol] for one in held)
        equity = round(100 * (float(cash) + worth))
        gained = equity - round(100 * float(last_equity))
        figures = Figures(np.array([equity]), np.array([gained]), np.array([now_ns]), {}, {})
        (value,) = encode_values(always, [sequence], figures, now_ns + int(0.02 * NS_PER_S))
        found.append((Whole(StreamPosition(EPOCH, sequence), value, dict(rows), {}), moved[0].symbol))
    return found


def sizes_and_cost(count: int) -> dict[str, Any]:
    """Bytes of a message, and microseconds of making it from what the calculator sends."""
    made = publications(count)
    whole = [message(one, symbol) for one, symbol in made[1:]]
    pairs = [(base, newest) for (base, _), (newest, _) in itertools.pairwise(made)]
    deltas = [delta_head(1) + delta_body(*pair) for pair in pairs]
    results: dict[str, Any] = {
        "messages": len(whole),
        "whole": {"bytes": round(statistics.mean(map(len, whole)), 1)},
        "delta": {
            "bytes": round(statistics.mean(map(len, deltas)), 1),
            "us": _us(lambda: [delta_body(*pair) for pair in pairs], len(pairs)),
        },
    }
    for window, memory in WINDOWS:
        for name, texts in (("whole", whole), ("delta", deltas)):
            bytes_, us = _deflated(texts, window, memory)
            results[f"{name} deflated {window}/{memory}"] = {"bytes": bytes_, "us": us}
        results[f"whole deflated {window}/{memory}"]["bytes_per_connection"] = _memory(window, memory)
    results["ratio"] = round(results["delta"]["bytes"] / results["whole"]["bytes"], 3)
    return results


def message(one: Whole, moved: str) -> bytes:
    """As it is sent to whoever does not ask for deltas."""
    assert one.rows is not None
    return one.value[:-1] + POSITIONS_KEY + b"[" + one.rows[moved] + b"]}"


def _deflated(texts: list[bytes], window: int, memory: int) -> tuple[float, float]:
    lengths: list[int] = []

    def run() -> None:
        compressor = zlib.compressobj(wbits=-window, memLevel=memory)
        for text in texts:
            packed = compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH)
            lengths.append(len(packed) - len(TAIL))

    us = _us(run, len(texts))
    return round(statistics.mean(lengths), 1), us


def _us(work: Callable[[], object], count: int) -> float:
    """Processor time of one of so many, the least of five rounds."""
    rounds: list[float] = []
    for _ in range(5):
        begin = time.process_time()
        work()
        rounds.append(time.process_time() - begin)
    return round(1e6 * min(rounds) / count, 2)


def _memory(window: int, memory: int) -> int:
    """Resident bytes of one compressor that has been used."""
    filling = random.Random(1).randbytes(2**17)
    before = memory_mb(os.getpid(), "VmRSS")
    for _ in range(COMPRESSORS):
        compressor = zlib.compressobj(wbits=-window, memLevel=memory)
        compressor.compress(filling)
        compressor.flush(zlib.Z_SYNC_FLUSH)
        KEPT.append(compressor)
    return round(2**20 * (memory_mb(os.getpid(), "VmRSS") - before) / COMPRESSORS)


def main() -> None:
    """Print JSON; exit code 1 where a delta is larger than the goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--data", type=Path, help="where to keep the figures, with where they are from")
    given = parser.parse_args()
    results = sizes_and_cost(given.messages)
    print(json.dumps(results, indent=2))
    if given.data:
        given.data.write_text(json.dumps({**provenance(), **results}, indent=2) + "\n")
    raise SystemExit(results["ratio"] > RATIO_MAX)


if __name__ == "__main__":
    main()

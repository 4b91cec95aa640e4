"""Trades as Alpaca packs them, and all that a mark book tells of them."""

import random
from typing import Any
from unittest import mock

import msgspec

from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.market_data_consumer import mark_book
from portfolio_realtime.market_data_consumer.mark_book import MarkBook
from portfolio_realtime.market_data_consumer.messages import VECTOR_MIN

SYMBOLS = ["A", "T", "BRK.B", "LONGSYMB"]
CONDITIONS = [["@"], [], ["@", "F"], ["@", "F", "T", "X"], ["@", "I"], ["@", "Z"], ["@", "?"]]
SHARES = [40, 5, 20, 5, 27, 2, 1]
NUMBERS = [0, 1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**63, 2**64 - 2]


def timestamp(ns: int) -> msgspec.msgpack.Ext:
    """The 64-bit MessagePack timestamp."""
    seconds, remainder = divmod(ns, NS_PER_S)
    return msgspec.msgpack.Ext(-1, (remainder << 34 | seconds).to_bytes(8, "big"))


def trade(**fields: Any) -> dict[str, Any]:
    """A trade as Alpaca lays it out."""
    usual = {"T": "t", "S": "A", "i": 7, "x": "D", "p": 1.5, "s": 100, "c": ["@"], "z": "C"}
    return {**usual, "t": timestamp(NS_PER_S), **fields}


def some_trades(
    rng: random.Random, count: int, odd_share: float, apart_ns: int = 1000
) -> list[dict[str, Any]]:
    """Nearly in order of time, many at the same time, some twice, some at an absurd price."""
    trades: list[dict[str, Any]] = []
    at_ns = NS_PER_S
    for _ in range(count):
        is_odd = rng.random() < odd_share
        if trades and rng.random() < 0.05:
            trades.append(rng.choice(trades[-8:]))
            continue
        at_ns += rng.choice([0, 0, min(1, apart_ns), apart_ns])
        trades.append(
            trade(
                S=rng.choice([*SYMBOLS, "NOBODY"]),
                i=rng.choice(NUMBERS) if is_odd else rng.getrandbits(rng.choice([7, 8, 16, 32, 63])),
                x=rng.choice("DVQ"),
                p=rng.choice([0.0, float("nan"), 0.5, 9e9]) if is_odd else rng.uniform(90, 110),
                s=rng.choice(NUMBERS),
                c=rng.choice(CONDITIONS) if is_odd else rng.choices(CONDITIONS, SHARES)[0],
                t=timestamp(at_ns - rng.randrange(2 * apart_ns + 1) if is_odd else at_ns),
            )
        )
    return trades


def state_of(book: MarkBook, vector_min: int = VECTOR_MIN) -> tuple[Any, ...]:
    """All that a book tells. From `vector_min` changed symbols on, their marks are made in columns."""
    with mock.patch.object(mark_book, "VECTOR_MIN", vector_min):
        marks = book.take_changed()
    return marks, book.counts, book.marks_at(2 * NS_PER_S), book.take_to_refresh()

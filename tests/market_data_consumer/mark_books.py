"""A book that follows one stock, A, and what is heard about it."""

from collections.abc import Iterable

import msgspec

from portfolio_realtime.clock import rfc3339
from portfolio_realtime.market_data_consumer.conditions import stock_effect
from portfolio_realtime.market_data_consumer.mark_book import MarkBook
from portfolio_realtime.market_data_consumer.messages import (
    Snapshot,
    SnapshotTrade,
    StreamTrade,
)
from portfolio_realtime.model import Mark
from tests.market_data_consumer.moments import raw_moment

BASE_S = 0  # all trades lie within a minute of their arrival
MOVES, FIRST_ONLY, NEVER, UNKNOWN = ("@",), ("@", "Z"), ("@", "I"), ("@", "?")


def moment(second: int) -> str:
    """A time of day as the wire has it."""
    return rfc3339((BASE_S + second) * 10**9)


def trade(
    second: int, price: float | None, conditions: tuple[str, ...] = MOVES, number: int = 0
) -> StreamTrade:
    """A trade of A on tape C; its number is its second when none is given."""
    return StreamTrade("A", price, raw_moment(moment(second)), conditions, "C", "D", number or second)


def snapshot(second: int, price: float, conditions: tuple[str, ...] = MOVES, number: int = 0) -> Snapshot:
    """A snapshot whose latest trade is that one."""
    return Snapshot(SnapshotTrade(price, moment(second), conditions, "C", "D", number or second))


def make_book() -> MarkBook:
    """A book of stocks that follows A."""
    book = MarkBook("iex", stock_effect)
    book.follow(["A"])
    return book


def mark_of(book: MarkBook) -> Mark | None:
    """The mark of A as the book would write it now."""
    book.touch_all()
    marks = [mark for mark, _ in book.take_changed()]
    return marks[0] if marks else None


def price_of(book: MarkBook) -> float | None:
    """The price of A's mark."""
    mark = mark_of(book)
    return None if mark is None else mark.price


def quality_of(book: MarkBook) -> str | None:
    """The quality of A's mark."""
    mark = mark_of(book)
    return None if mark is None else mark.quality


def mark_version(book: MarkBook) -> int:
    """The version of A's newest mark."""
    mark = mark_of(book)
    assert mark is not None
    return mark.version


def add_all(book: MarkBook, trades: Iterable[StreamTrade]) -> None:
    """Add trades in this order; each may be added again."""
    for received_ns, each in enumerate(trades, start=1):
        book.add_trade(msgspec.structs.replace(each), received_ns)

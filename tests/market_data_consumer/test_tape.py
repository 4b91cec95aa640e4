"""A real tape gives the price path that an independent reading of the rules gives.

The suite takes the beginning of each day. All of it, more than a million trades:
`TAPE_TRADES=0 pytest tests/market_data_consumer/test_tape.py`.
"""

import csv
import io
import itertools
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from portfolio_realtime.market_data_consumer.conditions import stock_effect
from portfolio_realtime.market_data_consumer.mark_book import MarkBook
from portfolio_realtime.market_data_consumer.messages import decode_trades

TAPE = Path(__file__).resolve().parents[3] / "shared" / "tape"
MIDNIGHT_NS = {"20131007": 1_381_118_400 * 10**9, "20131008": 1_381_204_800 * 10**9}  # in New York
FRAME_TRADES = 500
TRADES = int(os.environ.get("TAPE_TRADES", "60000"))  # of each symbol and day; 0: all

# Which bit of the tape's flags is which letter of the consolidated tape
LETTERS = dict(
    zip(
        (
            0,
            1,
            2,
            3,
            4,
            5,
            6,
            7,
            8,
            9,
            11,
            13,
            14,
            15,
            16,
            17,
            18,
            19,
            20,
            21,
            22,
            23,
            24,
            25,
            26,
            27,
            28,
            31,
        ),
        " CNRYFO654LTZSABVDWXHKMPQIEI",
        strict=True,
    )
)
# The independent reading, for a symbol of tape A or B, straight from the bits: cash, next day, seller,
# yellow, split, acquisition, bunched, stock option, distribution, average price, price variation, official
# close, official open, odd lots. Three more set a price only where there is none.
NEVER = sum(1 << bit for bit in (1, 2, 3, 4, 15, 16, 17, 18, 19, 20, 22, 24, 26, 27, 31))
FIRST_ONLY = 1 << 9 | 1 << 14 | 1 << 25

Row = tuple[int, int, str, int]  # milliseconds, price × 10,000, exchange, flags


def rows_of(symbol: str, day: str = "20131007") -> list[Row]:
    """The day's first TRADES trades, in the order of the tape."""
    path = TAPE / f"{symbol.lower()}-{day}.zip"
    if not path.exists():
        pytest.skip("the real tape is not part of this repository")
    with zipfile.ZipFile(path) as archive:
        text = io.TextIOWrapper(archive.open(archive.namelist()[0]))
        lines = itertools.islice(csv.reader(text), TRADES or None)
        return [(int(row[0]), int(row[1]), row[3], int(row[4], 16)) for row in lines]


def expected_path(rows: list[Row]) -> list[float]:
    """The price after each trade that sets one, by the bits alone."""
    path: list[float] = []
    for _, price, _, flags in rows:
        if not flags & NEVER and (not flags & FIRST_ONLY or not path):
            path.append(price / 10_000)
    return path


def frames_of(symbol: str, day: str, rows: list[Row]) -> Iterator[bytes]:
    """The same trades as the stream would bring them."""
    for at in range(0, len(rows), FRAME_TRADES):
        messages = [
            {
                "T": "t",
                "S": symbol,
                "i": at + index,
                "x": exchange,
                "p": price / 10_000,
                "s": 100,
                "c": [letter for bit, letter in LETTERS.items() if flags >> bit & 1] or [" "],
                "z": "B" if symbol == "SPY" else "A",
                "t": timestamp(MIDNIGHT_NS[day] + ms * 10**6),
            }
            for index, (ms, price, exchange, flags) in enumerate(rows[at : at + FRAME_TRADES])
        ]
        yield msgspec.msgpack.encode(messages)


def timestamp(ns: int) -> msgspec.msgpack.Ext:
    """The 64-bit MessagePack timestamp."""
    seconds, remainder = divmod(ns, 10**9)
    return msgspec.msgpack.Ext(-1, (remainder << 34 | seconds).to_bytes(8, "big"))


@pytest.mark.timeout(600)
@pytest.mark.no_cover  # tracing would take most of the time
@pytest.mark.parametrize("symbol", ["AIG", "BAC", "IBM", "SPY"])
@pytest.mark.parametrize("day", sorted(MIDNIGHT_NS))
def test_a_day_of_the_tape_gives_the_price_path_of_the_rules(symbol: str, day: str) -> None:
    """Through decoding, conditions and policy: trade by trade, and as whole frames that are conflated."""
    rows = rows_of(symbol, day)
    received_ns = MIDNIGHT_NS[day] + 24 * 3600 * 10**9
    one_by_one, conflated = MarkBook("sip", stock_effect), MarkBook("sip", stock_effect)
    path: list[float] = []
    for book in (one_by_one, conflated):
        book.follow([symbol])
    for frame in frames_of(symbol, day, rows):
        trades = decode_trades(frame)
        assert trades is not None
        path += [trade.price or 0.0 for trade in trades if one_by_one.add_trade(trade, received_ns)]
        conflated.add_trades(trades, received_ns)
        assert [mark.price for mark, _ in conflated.take_changed()] in ([], path[-1:])
    assert path == expected_path(rows)
    assert path[-1] == next(mark.price for mark, _ in one_by_one.take_changed())
    assert 0 < len(path) < len(rows), "the tape holds both kinds of trades"
    assert (one_by_one.counts.refused, one_by_one.counts.set_aside) == (0, 0)
    assert one_by_one.counts == conflated.counts

"""A long frame read in columns says what each of its trades says, and does what they do one by one."""

import random
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.market_data_consumer.conditions import stock_effect
from portfolio_realtime.market_data_consumer.mark_book import MarkBook
from portfolio_realtime.market_data_consumer.messages import (
    Cancel,
    Correction,
    PackedTrades,
    StreamTrade,
    as_of_ns,
    decode_trades,
)
from portfolio_realtime.market_data_consumer.msgpack_columns import (
    PACKED_MIN,
    conditions_number,
    symbol_number,
)
from tests.market_data_consumer.packed_trades import (
    CONDITIONS,
    SYMBOLS,
    some_trades,
    state_of,
    timestamp,
    trade,
)

one_by_one = msgspec.msgpack.Decoder(list[StreamTrade]).decode


ALL_KINDS = [trade(c=conditions, x=exchange) for conditions in CONDITIONS for exchange in "DVQ"]


def texts(trades: Iterable[StreamTrade]) -> list[str]:
    """All fields of each; as texts, for a price may be no number, which equals nothing."""
    return [repr({**msgspec.structs.asdict(each), "at": bytes(each.at)}) for each in trades]


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32),
    counts=st.lists(st.integers(1, 3 * PACKED_MIN), min_size=1, max_size=3),
    odd_share=st.sampled_from([0.0, 0.01, 0.2]),
    apart_ns=st.sampled_from([0, 1000]),
    boundary_ns=st.sampled_from([None, NS_PER_S + 20_000]),
)
def test_frames_of_any_size_do_what_their_trades_do_one_by_one(
    seed: int, counts: list[int], odd_share: float, apart_ns: int, boundary_ns: int | None
) -> None:
    """Marks, counts, questions: and after corrections and cancels, which need every recent trade."""
    rng = random.Random(seed)
    whole, single = MarkBook("sip", stock_effect), MarkBook("sip", stock_effect)
    for book in (whole, single):
        book.follow(["GONE", *SYMBOLS[:2]])
        book.forget(["GONE"])
        book.follow(SYMBOLS)
        book.set_boundary(boundary_ns)
        book.add_trades(one_by_one(msgspec.msgpack.encode(ALL_KINDS)), NS_PER_S)
    for received_ns, count in enumerate(counts, start=2 * NS_PER_S):
        trades = some_trades(rng, count, odd_share, apart_ns)
        frame = msgspec.msgpack.encode(trades)
        decoded = decode_trades(frame)
        assert decoded is not None
        assert isinstance(decoded, PackedTrades) == (count >= PACKED_MIN)
        whole.add_trades(decoded, received_ns)
        for each in one_by_one(frame):
            single.add_trades((each,), received_ns)
        assert state_of(whole, vector_min=0) == state_of(single)
        for each in rng.choices(trades[-40:], k=rng.choice([0, 6])):
            correction = Correction(each["S"], each["x"], each["i"], 5, rng.uniform(90, 110), ("@",), "C")
            change = rng.choice([Cancel(each["S"], each["x"], each["i"]), correction])
            for book in (whole, single):
                if isinstance(change, Cancel):
                    book.cancel(change, received_ns)
                else:
                    book.correct(change, received_ns)
        assert state_of(whole, vector_min=0) == state_of(single)


def test_a_repetition_in_a_frame_is_no_later_arrival() -> None:
    """Neither of a trade in the same frame, nor of one in an earlier frame, nor of one that was withdrawn."""
    book = MarkBook("sip", stock_effect)
    book.follow(SYMBOLS)
    book.add_trades(one_by_one(msgspec.msgpack.encode(ALL_KINDS)), NS_PER_S)
    at = timestamp(NS_PER_S + 1)
    trades = [trade(i=1000 + number, p=2.0 + number / 64, t=at) for number in range(PACKED_MIN)]
    others = [trade(S="T", i=number, t=at) for number in range(PACKED_MIN)]

    def price_after(*frame: dict[str, Any]) -> float:
        decoded = decode_trades(msgspec.msgpack.encode(frame))
        assert isinstance(decoded, PackedTrades)
        book.add_trades(decoded, NS_PER_S)
        return book.marks_at(2 * NS_PER_S)["A"].price

    newest = 2.0 + (PACKED_MIN - 1) / 64
    assert price_after(*trades, trades[-3]) == newest
    assert price_after(*others, trades[-2]) == newest
    book.cancel(Cancel("A", "D", 1000 + PACKED_MIN - 1), NS_PER_S)
    assert price_after(*others, trades[-1]) == newest - 1 / 64


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(PACKED_MIN, 2 * PACKED_MIN))
def test_columns_and_objects_say_the_same(seed: int, count: int) -> None:
    """Every field of every trade, also when one is asked for alone."""
    frame = msgspec.msgpack.encode(some_trades(random.Random(seed), count, 0.2))
    trades, expected = decode_trades(frame), one_by_one(frame)
    assert isinstance(trades, PackedTrades)
    assert texts(trades) == texts(expected) == texts(trades[:])
    assert trades[-1].trade_id == expected[-1].trade_id
    packed = trades.packed
    assert packed.symbol.tolist() == [symbol_number(each.symbol) for each in expected]
    assert packed.conditions.tolist() == [conditions_number(each.conditions, each.tape) for each in expected]
    assert [chr(letter) for letter in packed.exchange.tolist()] == [each.exchange for each in expected]
    assert packed.trade_id.tolist() == [each.trade_id for each in expected]
    assert repr(packed.price.tolist()) == repr([each.price for each in expected])
    assert packed.as_of_ns.tolist() == [as_of_ns(each.at) for each in expected]


@pytest.mark.parametrize(
    "odd",
    [
        trade(S="TOOLONGSYMBOL"),
        trade(S=""),
        trade(S="A\0"),
        trade(S="Ä"),
        trade(S=None),
        trade(i="7"),
        trade(i=-1),
        trade(i=None),
        trade(i=1.0),
        trade(x="DD"),
        trade(x="\x80"),
        trade(p=1),
        trade(p=None),
        trade(s=None),
        trade(c=None),
        trade(c="@"),
        trade(c=["@", "FT"]),
        trade(c=["@", "F", "T", "I", "X"]),
        trade(z=None),
        trade(t=None),
        trade(t="2026-11-24T10:00:00Z"),
        trade(t=msgspec.msgpack.Ext(-1, bytes(4))),
        trade(u="corrected"),
        {"T": "t", "S": "A"},
        {"T": "q", "S": "A", "bp": 1.0},
        dict(reversed(trade().items())),
    ],
)
@pytest.mark.parametrize("at", [0, PACKED_MIN // 2, PACKED_MIN - 1])
def test_a_frame_with_anything_else_in_it_is_not_read_in_columns(odd: dict[str, Any], at: int) -> None:
    """It is read as ever."""
    items = [trade() for _ in range(PACKED_MIN)]
    items[at] = odd
    frame = msgspec.msgpack.encode(items)
    trades = decode_trades(frame)
    assert not isinstance(trades, PackedTrades)
    assert_same(trades, read_one_by_one(frame))


def assert_same(trades: Iterable[StreamTrade] | None, expected: list[StreamTrade] | None) -> None:
    """Both are the same trades, or none are read."""
    assert (None if trades is None else texts(trades)) == (None if expected is None else texts(expected))


def read_one_by_one(frame: bytes) -> list[StreamTrade] | None:
    """The reading that columns are compared with."""
    try:
        return one_by_one(frame)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), changes=st.integers(1, 3), is_cut=st.booleans())
def test_a_damaged_frame_is_read_as_ever(seed: int, changes: int, is_cut: bool) -> None:
    """Columns are read only where the other reading finds the same."""
    rng = random.Random(seed)
    frame = bytearray(msgspec.msgpack.encode(some_trades(rng, PACKED_MIN, 0.0)))
    for _ in range(changes):
        frame[rng.randrange(len(frame))] = rng.choice([0, 0x80, 0xA1, 0xC0, 0xD7, 0xFF, rng.randrange(256)])
    if is_cut:
        del frame[rng.randrange(len(frame)) :]
    assert_same(decode_trades(bytes(frame)), read_one_by_one(bytes(frame)))


def test_conditions_and_symbols_are_never_taken_for_others() -> None:
    """Nothing that is written in another way has a number, and no two have the same."""
    conditions = [(), ("@",), ("\0",), ("@", "\0"), ("\0", "@"), ("@", "@"), ("@", "F", "T", "I")]
    numbers = [conditions_number(each, tape) for each in conditions for tape in "ABC"]
    assert len(set(numbers)) == len(numbers)
    assert None not in numbers
    for odd in (None, "@", ("@F",), ("@F", ""), ("é",), ("@",) * 5):
        assert conditions_number(odd, "C") is None
    assert conditions_number(("@",), None) is conditions_number(("@",), "CC") is None
    symbols = ["A", "B", "AB", "BA", "\0A", "LONGSYMB"]
    assert len({symbol_number(each) for each in symbols}) == len(symbols)
    assert all(symbol_number(each) is None for each in ("", "A\0", "É", "\ud800", "LONGSYMBO"))

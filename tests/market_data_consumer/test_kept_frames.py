"""Frames that are kept and decoded together do what they do one by one, whatever is in them."""

import random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio_realtime.clock import NS_PER_S
from portfolio_realtime.market_data_consumer.apply_message import apply_message
from portfolio_realtime.market_data_consumer.conditions import stock_effect
from portfolio_realtime.market_data_consumer.kept_frames import KEPT_BYTES_MAX, KeptFrames
from portfolio_realtime.market_data_consumer.mark_book import MarkBook
from portfolio_realtime.market_data_consumer.messages import PackedTrades
from portfolio_realtime.market_data_consumer.msgpack_columns import begins_with_trade
from portfolio_realtime.market_data_consumer.stream import Arrived, decoded
from tests.market_data_consumer.packed_trades import SYMBOLS, some_trades, state_of, timestamp, trade

encode = msgspec.msgpack.encode


def new_book() -> MarkBook:
    """A book that follows all symbols."""
    book = MarkBook("sip", stock_effect)
    book.follow(SYMBOLS)
    book.set_boundary(NS_PER_S + 20_000)
    return book


def apply(book: MarkBook, arrived: Arrived) -> None:
    """As a subscription does."""
    if arrived.trades:
        book.add_trades(arrived.trades, 2 * NS_PER_S)
    for message in arrived.messages:
        apply_message(book, message, 2 * NS_PER_S)


def other_messages(rng: random.Random, trades: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What comes beside trades: a cancel, a correction, a halt, something that nobody reads."""
    one = rng.choice(trades)
    kinds: list[dict[str, Any]] = [
        {"T": "x", "S": one["S"], "i": one["i"], "x": one["x"]},
        {"T": "c", "S": one["S"], "x": one["x"], "oi": one["i"], "ci": 5, "cp": 99.0, "cc": ["@"], "z": "C"},
        {"T": "s", "S": one["S"], "sc": "H", "z": "C", "t": timestamp(NS_PER_S)},
        {"T": "new", "S": one["S"]},
    ]
    return rng.sample(kinds, rng.randrange(1, 3))


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32),
    counts=st.lists(st.integers(1, 200), min_size=1, max_size=8),
    others_share=st.sampled_from([0.0, 0.3]),
    taken_share=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_kept_frames_do_what_they_do_one_by_one(
    seed: int, counts: list[int], others_share: float, taken_share: float
) -> None:
    """Corrections, cancels and halts keep their place among the trades, and no trade is lost."""
    rng = random.Random(seed)
    together, single, kept = new_book(), new_book(), KeptFrames()
    for count in counts:
        messages = some_trades(rng, count, 0.02)
        if rng.random() < others_share:
            at = rng.randrange(1, len(messages) + 1)
            messages[at:at] = other_messages(rng, messages)
        frame = encode(messages)
        assert begins_with_trade(frame)
        kept.add(frame)
        apply(single, decoded(frame))
        if rng.random() < taken_share:
            for arrived in kept.take():
                apply(together, arrived)
            assert state_of(together) == state_of(single)
    for arrived in kept.take():
        apply(together, arrived)
    assert not kept.take()
    assert state_of(together) == state_of(single)


def test_ordinary_frames_are_decoded_as_one() -> None:
    """Short ones, which would be read trade by trade, and long ones."""
    kept = KeptFrames()
    for first, count in ((0, 3), (3, 15), (18, 16), (34, 100)):
        kept.add(encode([trade(i=first + index) for index in range(count)]))
    (arrived,) = kept.take()
    assert isinstance(arrived.trades, PackedTrades)
    assert [one.trade_id for one in arrived.trades] == list(range(134))


def test_more_messages_than_a_frame_can_count_are_not_joined() -> None:
    """Each frame is decoded by itself."""
    frame = encode([trade(), *[0] * 40_000])
    kept = KeptFrames()
    kept.add(frame)
    kept.add(frame)
    assert [len(one.messages) for one in kept.take()] == [1, 1]


def test_what_is_kept_has_a_limit() -> None:
    """Whoever adds takes when it is reached."""
    frame, kept = encode(some_trades(random.Random(1), 1000, 0.0)), KeptFrames()
    added = 0
    while not kept.is_full:
        kept.add(frame)
        added += len(frame)
    assert added < KEPT_BYTES_MAX + len(frame)
    kept.take()
    assert not kept.is_full


def test_only_frames_that_begin_with_a_trade_may_wait() -> None:
    """Control messages are answers that somebody waits for."""
    control = [{"T": "subscription", "trades": ["A"]}, trade()]
    for frame in (encode(control), encode([]), encode({"T": "t"}), b"", b"\x91", b"\xdc\x00", b"\xc1"):
        assert not begins_with_trade(frame)
    assert begins_with_trade(encode([trade()] * 15))
    assert begins_with_trade(encode([trade()] * 16))

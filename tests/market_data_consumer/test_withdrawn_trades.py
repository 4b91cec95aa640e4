"""Cancels and corrections: a withdrawn trade gives its place to the one before it."""

import random

from hypothesis import given
from hypothesis import strategies as st

from portfolio_realtime.market_data_consumer.messages import (
    Cancel,
    Correction,
)
from portfolio_realtime.market_data_consumer.trade_columns import RECENT_MAX
from tests.market_data_consumer.mark_books import (
    BASE_S,
    MOVES,
    NEVER,
    add_all,
    make_book,
    price_of,
    snapshot,
    trade,
)


@given(
    kinds=st.lists(st.sampled_from([MOVES, NEVER]), min_size=1, max_size=RECENT_MAX),
    cancelled=st.sets(st.integers(1, RECENT_MAX)),
    corrected=st.dictionaries(
        st.integers(1, RECENT_MAX), st.tuples(st.sampled_from([MOVES, NEVER]), st.floats(1, 1000))
    ),
    seed=st.integers(0, 2**32),
)
def test_cancels_and_corrections_repair_the_mark(
    kinds: list[tuple[str, ...]],
    cancelled: set[int],
    corrected: dict[int, tuple[tuple[str, ...], float]],
    seed: int,
) -> None:
    """The mark is what it would have been, had the trades been right from the start; and repetitions of
    withdrawn trades do not bring them back."""
    trades = [trade(second + 1, 100.0 + second, kind) for second, kind in enumerate(kinds)]
    changes: list[Cancel | Correction] = [Cancel("A", "D", number) for number in cancelled]
    changes += [
        Correction("A", "D", number, 1000 + number, price, conditions, "C")
        for number, (conditions, price) in corrected.items()
        if number not in cancelled
    ]
    rng = random.Random(seed)
    rng.shuffle(trades)
    rng.shuffle(changes)
    book = make_book()
    add_all(book, trades)
    for change in changes:
        if isinstance(change, Cancel):
            book.cancel(change, 100)
        else:
            book.correct(change, 100)

    right: dict[int, float] = {}
    for number, kind in enumerate(kinds, start=1):
        if kind == NEVER or number in cancelled:
            continue
        conditions, price = corrected.get(number, (MOVES, 99.0 + number))
        if conditions == MOVES:
            right[number] = price
    expected = right[max(right)] if right else None
    assert price_of(book) == expected
    add_all(book, trades)
    assert price_of(book) == expected
    was_marked = MOVES in kinds
    assert book.take_to_refresh() == (["A"] if was_marked and not right else [])


def test_a_correction_may_keep_the_number_of_the_trade() -> None:
    """Its new price stays, also when the venue repeats it in a snapshot."""
    book = make_book()
    book.add_trade(trade(5, 50.0), 1)
    book.correct(Correction("A", "D", 5, 5, 51.0, MOVES, "C"), 2)
    assert price_of(book) == 51.0
    book.add_snapshot("A", snapshot(5, 51.0), "2023-11-14", 3)
    assert price_of(book) == 51.0
    assert book.take_to_refresh() == []


def test_a_correction_to_an_impossible_price_withdraws_the_trade() -> None:
    """We know that the old price was wrong, and nothing else."""
    book = make_book()
    add_all(book, [trade(4, 40.0), trade(5, 50.0)])
    book.correct(Correction("A", "D", 5, 6, None, MOVES, "C"), 2)
    assert price_of(book) == 40.0
    assert book.counts.refused == 1


def test_a_symbol_that_lost_all_trades_keeps_asking_for_a_snapshot() -> None:
    """The venue may still show the cancelled trade for a moment; that one does not come back."""
    book = make_book()
    book.add_snapshot("A", snapshot(5, 50.0), "2023-11-14", 1)
    assert price_of(book) == 50.0
    book.cancel(Cancel("A", "D", 5), 2)
    assert book.take_to_refresh() == ["A"]
    assert price_of(book) == 50.0, "the last mark stays until the snapshot is there"
    assert not book.add_snapshot("A", snapshot(5, 50.0), "2023-11-14", 3)
    assert book.take_to_refresh() == ["A"]
    assert book.add_snapshot("A", snapshot(4, 40.0), "2023-11-14", 4)
    assert price_of(book) == 40.0
    assert book.take_to_refresh() == []


def test_a_cancel_of_an_unknown_trade_changes_nothing() -> None:
    """The same number on another exchange is another trade."""
    book = make_book()
    book.add_trade(trade(5, 50.0), 1)
    book.take_changed()
    book.cancel(Cancel("A", "V", 5), 2)
    book.cancel(Cancel("A", "D", 6), 2)
    book.cancel(Cancel("A", "D", None), 2)
    book.cancel(Cancel("B", "D", 5), 2)
    assert book.take_changed() == []
    assert price_of(book) == 50.0


def test_a_withdrawn_trade_is_not_the_mark_of_a_boundary() -> None:
    """The one before it is; when all are withdrawn the mark stays, as it does now."""
    book = make_book()
    boundary_ns = (BASE_S + 10) * 10**9
    book.set_boundary(boundary_ns)
    add_all(book, [trade(8, 1.0), trade(9, 2.0), trade(11, 3.0)])
    book.cancel(Cancel("A", "D", 9), 4)
    assert book.marks_at(boundary_ns)["A"].price == 1.0

    lone = make_book()
    lone.set_boundary(boundary_ns)
    add_all(lone, [trade(9, 2.0)])
    assert price_of(lone) == 2.0
    lone.cancel(Cancel("A", "D", 9), 4)
    assert lone.marks_at(boundary_ns)["A"].price == price_of(lone) == 2.0

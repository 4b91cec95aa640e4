"""The mark price policy: the last eligible trade by trade time, whatever the order of arrival."""

import math
import random
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_realtime.clock import parse_rfc3339, rfc3339
from portfolio_realtime.market.conditions import crypto_effect, option_effect, stock_effect
from portfolio_realtime.market.marks import RING_MAX, MarkBook, previous_close
from portfolio_realtime.market.messages import (
    Cancel,
    Correction,
    DailyBar,
    Snapshot,
    SnapshotTrade,
    StreamTrade,
)
from portfolio_realtime.market.sessions import new_york_date_of
from portfolio_realtime.model import Mark, MinuteMark

BASE_S = 0  # all trades lie within a minute of their arrival
MOVES, FIRST_ONLY, NEVER, UNKNOWN = ("@",), ("@", "Z"), ("@", "I"), ("@", "?")


def moment(second: int) -> str:
    """A time of day as the wire has it."""
    return rfc3339((BASE_S + second) * 10**9)


def trade(
    second: int, price: float | None, conditions: tuple[str, ...] = MOVES, number: int = 0
) -> StreamTrade:
    """A trade of A on tape C; its number is its second when none is given."""
    return StreamTrade("A", price, moment(second), conditions, "C", "D", number or second)


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


def offer_all(book: MarkBook, trades: Iterable[StreamTrade]) -> None:
    """Offer trades in this order; each may be offered again."""
    for received_ns, each in enumerate(trades, start=1):
        book.offer(msgspec.structs.replace(each), received_ns)


@given(
    kinds=st.lists(st.sampled_from([MOVES, FIRST_ONLY, NEVER, UNKNOWN]), max_size=20),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_the_mark_is_the_newest_eligible_trade_in_any_order(
    kinds: list[tuple[str, ...]], seed: int, data: st.DataObject
) -> None:
    """Any order and any repetition of the same trades ends in the same mark."""
    trades = [trade(second + 1, 100.0 + second, kind) for second, kind in enumerate(kinds)]
    arriving = trades + (data.draw(st.lists(st.sampled_from(trades), max_size=10)) if trades else [])
    random.Random(seed).shuffle(arriving)
    book = make_book()
    offer_all(book, arriving)

    moving = [each for each in trades if each.conditions == MOVES]
    first_only = [each for each in trades if each.conditions == FIRST_ONLY]
    expected = moving[-1] if moving else first_only[0] if first_only else None
    assert (expected and expected.price) == price_of(book)


@given(
    kinds=st.lists(st.sampled_from([MOVES, NEVER]), min_size=1, max_size=RING_MAX),
    cancelled=st.sets(st.integers(1, RING_MAX)),
    corrected=st.dictionaries(
        st.integers(1, RING_MAX), st.tuples(st.sampled_from([MOVES, NEVER]), st.floats(1, 1000))
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
    offer_all(book, trades)
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
    offer_all(book, trades)
    assert price_of(book) == expected
    was_marked = MOVES in kinds
    assert book.take_to_refresh() == (["A"] if was_marked and not right else [])


def test_a_correction_may_keep_the_number_of_the_trade() -> None:
    """Its new price stays, also when the venue repeats it in a snapshot."""
    book = make_book()
    book.offer(trade(5, 50.0), 1)
    book.correct(Correction("A", "D", 5, 5, 51.0, MOVES, "C"), 2)
    assert price_of(book) == 51.0
    book.offer_snapshot("A", snapshot(5, 51.0), "2023-11-14", 3)
    assert price_of(book) == 51.0
    assert book.take_to_refresh() == []


def test_a_correction_to_an_impossible_price_withdraws_the_trade() -> None:
    """We know that the old price was wrong, and nothing else."""
    book = make_book()
    offer_all(book, [trade(4, 40.0), trade(5, 50.0)])
    book.correct(Correction("A", "D", 5, 6, None, MOVES, "C"), 2)
    assert price_of(book) == 40.0
    assert book.counts.refused == 1


def test_an_older_trade_does_not_move_the_mark() -> None:
    """What was traded earlier and arrives later is history."""
    book = make_book()
    assert book.offer(trade(5, 50.0), 1)
    assert not book.offer(trade(4, 40.0), 2)
    assert price_of(book) == 50.0


def test_of_two_trades_at_the_same_time_the_later_arrival_wins() -> None:
    """Their order of arrival is all that is known about them."""
    book = make_book()
    offer_all(book, [trade(5, 50.0, number=1), trade(5, 51.0, number=2)])
    assert price_of(book) == 51.0


def test_a_repeated_trade_does_not_win_over_one_at_the_same_time() -> None:
    """A repetition is not a later arrival."""
    book = make_book()
    offer_all(book, [trade(5, 50.0, number=1), trade(5, 51.0, number=2), trade(5, 50.0, number=1)])
    assert price_of(book) == 51.0


def test_a_snapshot_is_merged_by_trade_time() -> None:
    """A newer one moves the mark, an older one or an ineligible one does not."""
    book = make_book()
    book.offer(trade(5, 50.0), 1)
    assert not book.offer_snapshot("A", snapshot(4, 40.0), "2023-11-14", 2)
    assert not book.offer_snapshot("A", snapshot(7, 70.0, NEVER), "2023-11-14", 2)
    assert price_of(book) == 50.0
    assert book.offer_snapshot("A", snapshot(6, 60.0), "2023-11-14", 3)
    assert price_of(book) == 60.0


def test_a_snapshot_at_the_same_time_is_older_than_the_stream() -> None:
    """The stream delivers the snapshot's trade again when it comes after the others of that moment."""
    book = make_book()
    book.offer(trade(5, 51.0, number=2), 1)
    book.offer_snapshot("A", snapshot(5, 50.0, number=1), "2023-11-14", 2)
    assert price_of(book) == 51.0

    book = make_book()
    book.offer_snapshot("A", snapshot(5, 51.0, number=2), "2023-11-14", 1)
    offer_all(book, [trade(5, 50.0, number=1), trade(5, 51.0, number=2)])
    assert price_of(book) == 51.0


def test_a_first_only_trade_gives_way_to_an_older_eligible_one() -> None:
    """It may arrive before the snapshot that shows that it was not the first."""
    book = make_book()
    book.offer(trade(9, 90.0, FIRST_ONLY), 1)
    assert price_of(book) == 90.0
    assert book.offer_snapshot("A", snapshot(5, 50.0), "2023-11-14", 2)
    assert price_of(book) == 50.0
    assert not book.offer(trade(10, 91.0, FIRST_ONLY), 3)
    assert not book.offer(trade(4, 92.0, FIRST_ONLY), 3)
    assert price_of(book) == 50.0


@pytest.mark.parametrize("price", [None, 0.0, -1.0, math.nan, math.inf, -math.inf])
def test_an_impossible_price_is_refused_and_counted(price: float | None) -> None:
    """No mark is better than a wrong one."""
    book = make_book()
    assert not book.offer(trade(1, price), 1)
    assert price_of(book) is None
    assert book.counts.refused == 1


def test_a_trade_without_a_time_is_refused_and_counted() -> None:
    """Nobody could say whether it is the newest."""
    book = make_book()
    assert not book.offer(StreamTrade("A", 5.0, None, MOVES, "C"), 1)
    assert book.counts.refused == 1


def test_ineligible_and_unknown_trades_are_counted() -> None:
    """Both are ignored; the unknown ones are told apart."""
    book = make_book()
    offer_all(book, [trade(1, 1.0, NEVER), trade(2, 2.0, UNKNOWN), trade(3, 3.0)])
    assert (book.counts.ignored, book.counts.unknown, book.counts.refused) == (2, 1, 0)
    assert price_of(book) == 3.0


def test_options_and_crypto_have_rules_of_their_own() -> None:
    """An option's I is an ordinary trade and C a cancelled one; crypto trades always count."""
    options = MarkBook("indicative", option_effect, is_sane=False)
    options.follow(["A"])
    options.offer(StreamTrade("A", 2.0, moment(1), "I", None, "N"), 1)
    options.offer(StreamTrade("A", 3.0, moment(2), "C", None, "N"), 2)
    assert price_of(options) == 2.0
    crypto = MarkBook("crypto", crypto_effect)
    crypto.follow(["A"])
    crypto.offer(StreamTrade("A", 47.3, moment(1), trade_id=7), 1)
    assert price_of(crypto) == 47.3


def test_a_symbol_that_lost_all_trades_keeps_asking_for_a_snapshot() -> None:
    """The venue may still show the cancelled trade for a moment; that one does not come back."""
    book = make_book()
    book.offer_snapshot("A", snapshot(5, 50.0), "2023-11-14", 1)
    assert price_of(book) == 50.0
    book.cancel(Cancel("A", "D", 5), 2)
    assert book.take_to_refresh() == ["A"]
    assert price_of(book) == 50.0, "the last mark stays until the snapshot is there"
    assert not book.offer_snapshot("A", snapshot(5, 50.0), "2023-11-14", 3)
    assert book.take_to_refresh() == ["A"]
    assert book.offer_snapshot("A", snapshot(4, 40.0), "2023-11-14", 4)
    assert price_of(book) == 40.0
    assert book.take_to_refresh() == []


def test_a_cancel_of_an_unknown_trade_changes_nothing() -> None:
    """The same number on another exchange is another trade."""
    book = make_book()
    book.offer(trade(5, 50.0), 1)
    book.take_changed()
    book.cancel(Cancel("A", "V", 5), 2)
    book.cancel(Cancel("A", "D", 6), 2)
    book.cancel(Cancel("A", "D", None), 2)
    book.cancel(Cancel("B", "D", 5), 2)
    assert book.take_changed() == []
    assert price_of(book) == 50.0


def test_received_times_of_a_symbol_only_grow() -> None:
    """Even when the clock stands still, goes back, or an earlier owner was ahead of it."""
    book = make_book()
    received: list[int] = []
    for second, received_ns in [(1, 100), (2, 100), (3, 50), (4, 300)]:
        book.offer(trade(second, float(second)), received_ns)
        received += [mark.received_ns for mark, _ in book.take_changed()]
    assert received == [100, 101, 102, 300]
    book.raise_floor([Mark("A", 9.0, 9, 5000, "iex")])
    mark = mark_of(book)
    assert mark is not None
    assert (mark.price, mark.received_ns) == (4.0, 5001)
    book.raise_floor([mark])
    assert mark == mark_of(book), "our own mark needs no new number"


def test_only_what_changed_is_taken_and_only_the_newest() -> None:
    """Two trades between two flushes are one mark; what did not move is not written again."""
    book = make_book()
    book.follow(["B"])
    offer_all(book, [trade(1, 1.0), trade(2, 2.0), trade(3, 9.0, NEVER)])
    assert [(mark.symbol, mark.price, live) for mark, live in book.take_changed()] == [("A", 2.0, True)]
    assert book.take_changed() == []
    book.forget(["A"])
    assert not book.offer(trade(4, 4.0), 4)
    assert book.take_changed() == []


def test_the_mark_of_a_past_boundary_is_the_last_trade_until_then() -> None:
    """However many trades came after it, and though the last one before it came late."""
    book = make_book()
    boundary_ns = (BASE_S + 10) * 10**9
    book.set_boundary(boundary_ns)
    offer_all(book, [trade(8, 1.0), trade(9, 2.0)])
    assert book.marks_at(boundary_ns) == {"A": MinuteMark(2.0, (BASE_S + 9) * 10**9)}

    offer_all(book, [trade(second, float(second)) for second in range(11, 13 + RING_MAX)])
    assert book.marks_at(boundary_ns)["A"].price == 2.0

    late = make_book()
    late.set_boundary(boundary_ns)
    offer_all(late, [trade(9, 2.0), trade(11, 3.0), trade(10, 4.0), trade(10, 5.0, NEVER, number=99)])
    assert late.marks_at(boundary_ns)["A"].price == 4.0


def test_a_boundary_before_the_first_trade_has_no_mark() -> None:
    """Nothing is carried back."""
    book = make_book()
    book.set_boundary((BASE_S + 10) * 10**9)
    offer_all(book, [trade(11, 1.0)])

    assert book.marks_at((BASE_S + 10) * 10**9) == {}


def test_a_withdrawn_trade_is_not_the_mark_of_a_boundary() -> None:
    """The one before it is; when all are withdrawn the mark stays, as it does now."""
    book = make_book()
    boundary_ns = (BASE_S + 10) * 10**9
    book.set_boundary(boundary_ns)
    offer_all(book, [trade(8, 1.0), trade(9, 2.0), trade(11, 3.0)])
    book.cancel(Cancel("A", "D", 9), 4)
    assert book.marks_at(boundary_ns)["A"].price == 1.0

    lone = make_book()
    lone.set_boundary(boundary_ns)
    offer_all(lone, [trade(9, 2.0)])
    assert price_of(lone) == 2.0
    lone.cancel(Cancel("A", "D", 9), 4)
    assert lone.marks_at(boundary_ns)["A"].price == price_of(lone) == 2.0


def test_a_first_only_trade_is_the_mark_of_a_boundary_that_has_no_other() -> None:
    """The same rule as for the mark of now."""
    book = make_book()
    boundary_ns = (BASE_S + 10) * 10**9
    book.set_boundary(boundary_ns)
    offer_all(book, [trade(9, 2.0, FIRST_ONLY), trade(11, 3.0)])

    assert book.marks_at(boundary_ns)["A"].price == 2.0


def test_previous_close_goes_by_date_before_the_market_opens() -> None:
    """Alpaca's own pre-market example: `dailyBar` is still yesterday's, and so it is the previous close."""
    bars = [DailyBar("2022-08-16T04:00:00Z", 173.03), DailyBar("2022-08-15T04:00:00Z", 173.19)]
    assert previous_close(bars, "2022-08-17") == ("2022-08-16", 173.03)
    assert previous_close(bars, "2022-08-16") == ("2022-08-15", 173.19)
    assert previous_close(bars, "2022-08-15") is None


def test_previous_close_of_crypto_and_missing_bars() -> None:
    """Crypto bars begin at midnight in Chicago; missing, odd and impossible bars are passed over."""
    crypto = [DailyBar("2022-08-17T05:00:00Z", 24000.5), DailyBar("2022-08-16T05:00:00Z", 23900.25)]
    assert previous_close(crypto, "2022-08-17") == ("2022-08-16", 23900.25)
    odd = [None, DailyBar(None, 1.0), DailyBar("soon", 2.0), DailyBar("2022-08-15T04:00:00Z", 0.0), crypto[1]]
    assert previous_close(odd, "2022-08-17") == ("2022-08-16", 23900.25)
    assert previous_close([None, None], "2022-08-17") is None


@pytest.mark.parametrize(
    ("moment", "date"),
    [
        ("2026-03-08T04:59:59Z", "2026-03-07"),
        ("2026-03-08T05:00:00Z", "2026-03-08"),
        ("2026-03-09T03:59:59Z", "2026-03-08"),
        ("2026-11-02T05:00:00Z", "2026-11-02"),
    ],
)
def test_the_date_is_new_yorks_also_in_the_weeks_of_change(moment: str, date: str) -> None:
    """Midnight is 05:00 UTC in winter and 04:00 in summer."""
    assert date == new_york_date_of(parse_rfc3339(moment))


def test_a_new_previous_close_is_a_change_of_the_mark() -> None:
    """It is written even when no trade moved; an older day's close never replaces a newer one."""
    book = make_book()
    early = Snapshot(None, DailyBar("2022-08-16T04:00:00Z", 173.03), None)
    book.offer(trade(1, 5.0), 1)
    book.offer_snapshot("A", early, "2022-08-17", 2)
    mark = mark_of(book)
    assert mark is not None
    assert (mark.previous_close, mark.previous_close_date) == (173.03, "2022-08-16")
    assert not book.offer_snapshot("A", early, "2022-08-17", 3)
    assert book.take_changed() == []
    older = Snapshot(None, None, DailyBar("2022-08-15T04:00:00Z", 1.0))
    book.offer_snapshot("A", older, "2022-08-17", 4)
    assert book.take_changed() == []

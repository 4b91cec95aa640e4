"""The mark price policy: the last eligible trade by trade time, whatever the order of arrival."""

import math
import random
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_realtime.clock import new_york_date_of, parse_rfc3339, rfc3339
from portfolio_realtime.market_data_consumer.conditions import crypto_effect, option_effect, stock_effect
from portfolio_realtime.market_data_consumer.mark_book import (
    AHEAD_S_MAX,
    REFRESHES_MAX,
    MarkBook,
    previous_close,
)
from portfolio_realtime.market_data_consumer.messages import (
    Cancel,
    Correction,
    DailyBar,
    Quote,
    Snapshot,
    SnapshotTrade,
    StreamTrade,
    TradingStatus,
)
from portfolio_realtime.market_data_consumer.trade_columns import RECENT_MAX
from portfolio_realtime.model import Mark, MinuteMark
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
    assert not book.offer(StreamTrade("A", 5.0, raw_moment(None), MOVES, "C"), 1)
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
    options.offer(StreamTrade("A", 2.0, raw_moment(moment(1)), "I", None, "N"), 1)
    options.offer(StreamTrade("A", 3.0, raw_moment(moment(2)), "C", None, "N"), 2)
    assert price_of(options) == 2.0
    crypto = MarkBook("crypto", crypto_effect)
    crypto.follow(["A"])
    crypto.offer(StreamTrade("A", 47.3, raw_moment(moment(1)), trade_id=7), 1)
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

    offer_all(book, [trade(second, float(second)) for second in range(11, 13 + RECENT_MAX)])
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


def test_a_mark_says_what_its_price_is_worth() -> None:
    """Each feed's trades have their quality; a snapshot of another feed keeps its own."""
    book = MarkBook("sip", stock_effect)
    book.follow(["A"])
    book.offer(trade(1, 10.0), 1)
    mark = mark_of(book)
    assert mark is not None
    assert (mark.source, mark.quality) == ("sip", "real_time_sip")
    book.stream_from("overnight")
    assert mark_of(book) == mark, "the last trade is still the day's"
    book.offer_snapshot("A", snapshot(2, 11.0), "1970-01-01", 2, "sip", has_close=False)
    by_day = mark_of(book)
    assert by_day is not None
    assert (by_day.price, by_day.source, by_day.quality) == (11.0, "sip", "real_time_sip")
    book.offer(trade(3, 12.0), 3)
    by_night = mark_of(book)
    assert by_night is not None
    assert (by_night.price, by_night.source, by_night.quality) == (12.0, "overnight", "indicative")
    book.cancel(Cancel("A", "D", 3), 4)
    assert mark_of(book) == msgspec.structs.replace(by_day, received_ns=mark_received_ns(book))


def mark_received_ns(book: MarkBook) -> int:
    """When the newest mark of A was received."""
    mark = mark_of(book)
    assert mark is not None
    return mark.received_ns


def test_a_snapshot_of_the_night_does_not_tell_the_previous_close() -> None:
    """Its daily bars are another venue's."""
    book = make_book()
    bars = Snapshot(daily_bar=DailyBar("2022-08-16T04:00:00Z", 9.0))
    book.offer_snapshot("A", bars, "2022-08-17", 1, has_close=False)
    assert mark_of(book) is None
    book.offer_snapshot("A", bars, "2022-08-17", 1)
    assert mark_of(book) is not None


def test_a_trade_from_the_future_is_refused_and_counted() -> None:
    """It would hold the mark until its time has come; a clock that is a little slow does no harm."""
    book = make_book()
    assert book.offer(trade(AHEAD_S_MAX, 10.0), 1)
    assert not book.offer(trade(AHEAD_S_MAX + 1, 11.0), 1)
    assert not book.offer_snapshot("A", snapshot(AHEAD_S_MAX + 1, 11.0), "1970-01-01", 1)
    assert (book.counts.refused, book.counts.ahead) == (2, 2)
    assert price_of(book) == 10.0


@pytest.mark.parametrize("factor", [0.001, 1 / 26, 26, 1000])
def test_an_absurd_price_waits_for_the_venues_second_word(factor: float) -> None:
    """The stream alone is not believed; the next trade replaces it, or a snapshot confirms it."""
    book = make_book()
    offer_all(book, [trade(1, 100.0), trade(2, 101.0)])
    book.take_changed()
    assert not book.offer(trade(3, 100.0 * factor), 3)
    assert book.counts.set_aside == 1
    assert price_of(book) == 101.0
    assert book.take_to_refresh() == ["A"]
    assert book.take_to_refresh() == [], "once is enough"
    assert book.offer(trade(4, 102.0), 4), "the market goes on where it was"
    assert book.offer_snapshot("A", snapshot(5, 100.0 * factor), "1970-01-01", 5)
    assert price_of(book) == 100.0 * factor
    assert book.offer(trade(6, 100.0 * factor), 6), "and from there"


def test_a_price_within_reason_needs_no_second_word() -> None:
    """A 20-for-1 split is nothing unheard of; and an option may jump as it likes."""
    book = make_book()
    offer_all(book, [trade(1, 100.0), trade(2, 5.0)])
    assert price_of(book) == 5.0
    options = MarkBook("indicative", option_effect, is_sane=False)
    options.follow(["A"])
    options.offer(StreamTrade("A", 0.01, raw_moment(moment(1)), "I", None, "N"), 1)
    options.offer(StreamTrade("A", 5.0, raw_moment(moment(2)), "I", None, "N"), 2)
    assert price_of(options) == 5.0


@pytest.mark.parametrize(("tape", "halt", "resume"), [("A", "2", "3"), ("C", "H", "T"), ("C", "P", "T")])
def test_a_halted_symbol_keeps_its_mark_and_says_so(tape: str, halt: str, resume: str) -> None:
    """Until trading resumes, or an eligible trade shows that it has."""
    book = make_book()
    book.offer(trade(1, 10.0), 1)
    book.set_status(TradingStatus("A", halt, moment(2), tape), 2)
    assert (price_of(book), quality_of(book)) == (10.0, "halted")
    book.set_status(TradingStatus("A", "Q", moment(3), tape), 3)
    assert not book.offer(trade(3, 11.0, NEVER), 3), "an odd lot that was on its way"
    assert quality_of(book) == "halted"
    book.set_status(TradingStatus("A", resume, moment(4), tape), 4)
    assert (price_of(book), quality_of(book)) == (10.0, "iex")

    book.set_status(TradingStatus("A", halt, moment(5), tape), 5)
    assert book.offer(trade(6, 10.5), 6)
    assert (price_of(book), quality_of(book)) == (10.5, "iex")


def quality_of(book: MarkBook) -> str | None:
    """The quality of A's mark."""
    mark = mark_of(book)
    return None if mark is None else mark.quality


def test_a_late_resumption_does_not_end_a_newer_halt() -> None:
    """Messages may come out of order."""
    book = make_book()
    book.offer(trade(1, 10.0), 1)
    book.set_status(TradingStatus("A", "H", moment(9), "C"), 2)
    book.set_status(TradingStatus("A", "T", moment(8), "C"), 3)
    book.set_status(TradingStatus("A", "T", None, "C"), 3)
    book.set_status(TradingStatus("B", "T", moment(10), "C"), 3)
    assert quality_of(book) == "halted"


def test_an_untraded_option_is_worth_the_middle_of_its_quote() -> None:
    """Where both sides are there and not far apart; else the previous close; a trade wins over both."""
    options = MarkBook("indicative", option_effect, is_sane=False, is_quoted=True)
    options.follow(["A"])
    close = DailyBar("2022-08-16T04:00:00Z", 1.0)
    for bid, ask in ((0.0, 1.3), (1.1, None), (0.5, 1.5), (1.4, 1.2), (1.2, math.inf)):
        book_quote = Quote(bid, ask, "2022-08-17T15:00:00Z")
        options.offer_snapshot("A", Snapshot(daily_bar=close, latest_quote=book_quote), "2022-08-17", 1)
        assert (price_of(options), quality_of(options)) == (1.0, "end_of_day"), (bid, ask)
    quote = Quote(1.15, 1.3, "2022-08-17T15:00:00Z")
    options.offer_snapshot("A", Snapshot(daily_bar=close, latest_quote=quote), "2022-08-17", 2)
    mark = mark_of(options)
    assert mark is not None
    assert (mark.price, mark.quality) == (1.225, "indicative"), "to the last digit"
    assert mark.as_of_ns == parse_rfc3339("2022-08-17T15:00:00Z")
    options.offer(StreamTrade("A", 2.0, raw_moment(moment(1)), "I", None, "N"), 3)
    assert price_of(options) == 2.0
    options.offer_snapshot("A", Snapshot(latest_quote=quote), "2022-08-17", 4)
    assert price_of(options) == 2.0


def test_an_untraded_stock_is_worth_its_previous_close_as_of_that_day() -> None:
    """Marked end of day, as of 16:00 in New York; never the middle of a quote."""
    book = make_book()
    parts = Snapshot(
        daily_bar=DailyBar("2022-08-16T04:00:00Z", 173.03),
        latest_quote=Quote(172.6, 172.7, "2022-08-17T10:18:27Z"),
    )
    book.offer_snapshot("A", parts, "2022-08-17", 1)
    mark = mark_of(book)
    assert mark is not None
    assert (mark.price, mark.quality) == (173.03, "end_of_day")
    assert mark.as_of_ns == parse_rfc3339("2022-08-16T20:00:00Z")
    assert not book.is_marked("A"), "it counts as no trade"


def test_a_snapshot_without_its_trade_is_asked_for_again() -> None:
    """A part may be missing this time only; of an option once, for many are never traded."""
    book = make_book()
    for _ in range(REFRESHES_MAX):
        book.offer_snapshot("A", Snapshot(), "1970-01-01", 1)
        assert book.take_to_refresh() == ["A"]
    book.offer_snapshot("A", Snapshot(), "1970-01-01", 1)
    assert book.take_to_refresh() == []
    options = MarkBook("indicative", option_effect, is_quoted=True)
    options.follow(["A"])
    for expected in (["A"], [], []):
        options.offer_snapshot("A", Snapshot(), "1970-01-01", 1)
        assert options.take_to_refresh() == expected


def test_the_stream_must_bring_what_a_snapshot_shows() -> None:
    """A snapshot's own trade is no proof that the stream works."""
    book = make_book()
    book.offer_snapshot("A", snapshot(5, 50.0), "1970-01-01", 1)
    traded_ns = 5 * 10**9
    assert not book.has_streamed("A", traded_ns)
    book.offer(trade(4, 40.0), 2)
    assert not book.has_streamed("A", traded_ns)
    book.offer(trade(5, 50.0), 2)
    assert book.has_streamed("A", traded_ns)
    assert not book.has_streamed("B", traded_ns)

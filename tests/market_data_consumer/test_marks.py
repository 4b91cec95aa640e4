"""The mark price policy: the last eligible trade by trade time, whatever the order of arrival."""

import math
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_realtime.market_data_consumer.conditions import crypto_effect, option_effect
from portfolio_realtime.market_data_consumer.mark_book import REFRESHES_MAX, MarkBook
from portfolio_realtime.market_data_consumer.messages import (
    Cancel,
    Snapshot,
    StreamTrade,
)
from portfolio_realtime.market_data_consumer.trade_columns import RECENT_MAX
from portfolio_realtime.market_data_consumer.trade_eligibility import AHEAD_S_MAX
from portfolio_realtime.model import MinuteMark, versions_from
from tests.market_data_consumer.mark_books import (
    BASE_S,
    FIRST_ONLY,
    MOVES,
    NEVER,
    UNKNOWN,
    add_all,
    make_book,
    moment,
    price_of,
    snapshot,
    trade,
)
from tests.market_data_consumer.moments import raw_moment


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
    add_all(book, arriving)

    moving = [each for each in trades if each.conditions == MOVES]
    first_only = [each for each in trades if each.conditions == FIRST_ONLY]
    expected = moving[-1] if moving else first_only[0] if first_only else None
    assert (expected and expected.price) == price_of(book)


def test_an_older_trade_does_not_move_the_mark() -> None:
    """What was traded earlier and arrives later is history."""
    book = make_book()
    assert book.add_trade(trade(5, 50.0), 1)
    assert not book.add_trade(trade(4, 40.0), 2)
    assert price_of(book) == 50.0


def test_of_two_trades_at_the_same_time_the_later_arrival_wins() -> None:
    """Their order of arrival is all that is known about them."""
    book = make_book()
    add_all(book, [trade(5, 50.0, number=1), trade(5, 51.0, number=2)])
    assert price_of(book) == 51.0


def test_a_repeated_trade_does_not_win_over_one_at_the_same_time() -> None:
    """A repetition is not a later arrival."""
    book = make_book()
    add_all(book, [trade(5, 50.0, number=1), trade(5, 51.0, number=2), trade(5, 50.0, number=1)])
    assert price_of(book) == 51.0


def test_a_snapshot_is_merged_by_trade_time() -> None:
    """A newer one moves the mark, an older one or an ineligible one does not."""
    book = make_book()
    book.add_trade(trade(5, 50.0), 1)
    assert not book.add_snapshot("A", snapshot(4, 40.0), "2023-11-14", 2)
    assert not book.add_snapshot("A", snapshot(7, 70.0, NEVER), "2023-11-14", 2)
    assert price_of(book) == 50.0
    assert book.add_snapshot("A", snapshot(6, 60.0), "2023-11-14", 3)
    assert price_of(book) == 60.0


def test_a_snapshot_at_the_same_time_is_older_than_the_stream() -> None:
    """The stream delivers the snapshot's trade again when it comes after the others of that moment."""
    book = make_book()
    book.add_trade(trade(5, 51.0, number=2), 1)
    book.add_snapshot("A", snapshot(5, 50.0, number=1), "2023-11-14", 2)
    assert price_of(book) == 51.0

    book = make_book()
    book.add_snapshot("A", snapshot(5, 51.0, number=2), "2023-11-14", 1)
    add_all(book, [trade(5, 50.0, number=1), trade(5, 51.0, number=2)])
    assert price_of(book) == 51.0


def test_a_first_only_trade_gives_way_to_an_older_eligible_one() -> None:
    """It may arrive before the snapshot that shows that it was not the first."""
    book = make_book()
    book.add_trade(trade(9, 90.0, FIRST_ONLY), 1)
    assert price_of(book) == 90.0
    assert book.add_snapshot("A", snapshot(5, 50.0), "2023-11-14", 2)
    assert price_of(book) == 50.0
    assert not book.add_trade(trade(10, 91.0, FIRST_ONLY), 3)
    assert not book.add_trade(trade(4, 92.0, FIRST_ONLY), 3)
    assert price_of(book) == 50.0


@pytest.mark.parametrize("price", [None, 0.0, -1.0, math.nan, math.inf, -math.inf])
def test_an_impossible_price_is_refused_and_counted(price: float | None) -> None:
    """No mark is better than a wrong one."""
    book = make_book()
    assert not book.add_trade(trade(1, price), 1)
    assert price_of(book) is None
    assert book.counts.refused == 1


def test_a_trade_without_a_time_is_refused_and_counted() -> None:
    """Nobody could say whether it is the newest."""
    book = make_book()
    assert not book.add_trade(StreamTrade("A", 5.0, raw_moment(None), MOVES, "C"), 1)
    assert book.counts.refused == 1


def test_ineligible_and_unknown_trades_are_counted() -> None:
    """Both are ignored; the unknown ones are told apart."""
    book = make_book()
    add_all(book, [trade(1, 1.0, NEVER), trade(2, 2.0, UNKNOWN), trade(3, 3.0)])
    assert (book.counts.ignored, book.counts.unknown, book.counts.refused) == (2, 1, 0)
    assert price_of(book) == 3.0


def test_options_and_crypto_have_rules_of_their_own() -> None:
    """An option's I is an ordinary trade and C a cancelled one; crypto trades always count."""
    options = MarkBook("indicative", option_effect, is_sane=False)
    options.follow(["A"])
    options.add_trade(StreamTrade("A", 2.0, raw_moment(moment(1)), "I", None, "N"), 1)
    options.add_trade(StreamTrade("A", 3.0, raw_moment(moment(2)), "C", None, "N"), 2)
    assert price_of(options) == 2.0
    crypto = MarkBook("crypto", crypto_effect)
    crypto.follow(["A"])
    crypto.add_trade(StreamTrade("A", 47.3, raw_moment(moment(1)), trade_id=7), 1)
    assert price_of(crypto) == 47.3


def test_versions_only_grow_whatever_the_clocks_say() -> None:
    """They begin at the fencing token, and a new lease gives every mark a higher one; nothing else does."""
    book = make_book()
    book.begin_versions(7)
    versions: list[int] = []
    for second, received_ns in [(1, 100), (2, 100), (3, 50), (4, 300)]:
        book.add_trade(trade(second, float(second)), received_ns)
        versions += [mark.version for mark, _ in book.take_changed()]
    assert versions == sorted(set(versions))
    assert versions_from(7) < versions[0] <= versions[-1] < versions_from(8)
    book.touch_all()
    ((again, _),) = book.take_changed()
    assert again.version == versions[-1], "a mark that is written again is the same mark"
    book.begin_versions(8)
    ((renewed, _),) = book.take_changed()
    assert renewed == msgspec.structs.replace(again, version=versions_from(8))
    book.begin_versions(3)
    ((later, _),) = book.take_changed()
    assert later.version > renewed.version, "Valkey has lost its tokens and its time"


def test_a_mark_without_its_trades_stays_under_a_new_lease() -> None:
    """All trades are withdrawn: the mark is written again, above what another owner wrote."""
    book = make_book()
    book.add_trade(trade(1, 1.0), 1)
    book.take_changed()
    book.cancel(Cancel("A", "D", 1), 2)
    book.take_changed()
    book.begin_versions(8)
    ((mark, _),) = book.take_changed()
    assert (mark.price, mark.version) == (1.0, versions_from(8))


def test_a_correction_that_was_missed_comes_with_the_snapshot_after_the_connection() -> None:
    """It has the time of the original and an id of its own. While connected, the stream knows better."""
    book = make_book()
    book.add_trade(trade(5, 10.0), 1)
    book.add_snapshot("A", snapshot(5, 9.0, number=76), "2026-11-20", 2)
    assert price_of(book) == 10.0
    book.stream_from("iex")
    assert price_of(book) == 10.0
    corrected = snapshot(5, 11.0, number=77)
    book.add_snapshot("A", corrected, "2026-11-20", 3)
    assert price_of(book) == 11.0
    book.add_snapshot("A", corrected, "2026-11-20", 4)
    book.add_trade(trade(6, 12.0), 5)
    assert price_of(book) == 12.0


def test_only_what_changed_is_taken_and_only_the_newest() -> None:
    """Two trades between two flushes are one mark; what did not move is not written again."""
    book = make_book()
    book.follow(["B"])
    add_all(book, [trade(1, 1.0), trade(2, 2.0), trade(3, 9.0, NEVER)])
    assert [(mark.symbol, mark.price, live) for mark, live in book.take_changed()] == [("A", 2.0, True)]
    assert book.take_changed() == []
    book.forget(["A"])
    assert not book.add_trade(trade(4, 4.0), 4)
    assert book.take_changed() == []


def test_the_mark_of_a_past_boundary_is_the_last_trade_until_then() -> None:
    """However many trades came after it, and though the last one before it came late."""
    book = make_book()
    boundary_ns = (BASE_S + 10) * 10**9
    book.set_boundary(boundary_ns)
    add_all(book, [trade(8, 1.0), trade(9, 2.0)])
    assert book.marks_at(boundary_ns) == {"A": MinuteMark(2.0, (BASE_S + 9) * 10**9)}

    add_all(book, [trade(second, float(second)) for second in range(11, 13 + RECENT_MAX)])
    assert book.marks_at(boundary_ns)["A"].price == 2.0

    late = make_book()
    late.set_boundary(boundary_ns)
    add_all(late, [trade(9, 2.0), trade(11, 3.0), trade(10, 4.0), trade(10, 5.0, NEVER, number=99)])
    assert late.marks_at(boundary_ns)["A"].price == 4.0


def test_a_boundary_before_the_first_trade_has_no_mark() -> None:
    """Nothing is carried back."""
    book = make_book()
    book.set_boundary((BASE_S + 10) * 10**9)
    add_all(book, [trade(11, 1.0)])

    assert book.marks_at((BASE_S + 10) * 10**9) == {}


def test_a_first_only_trade_is_the_mark_of_a_boundary_that_has_no_other() -> None:
    """The same rule as for the mark of now."""
    book = make_book()
    boundary_ns = (BASE_S + 10) * 10**9
    book.set_boundary(boundary_ns)
    add_all(book, [trade(9, 2.0, FIRST_ONLY), trade(11, 3.0)])

    assert book.marks_at(boundary_ns)["A"].price == 2.0


def test_a_trade_from_the_future_is_refused_and_counted() -> None:
    """It would hold the mark until its time has come; a clock that is a little slow does no harm."""
    book = make_book()
    assert book.add_trade(trade(AHEAD_S_MAX, 10.0), 1)
    assert not book.add_trade(trade(AHEAD_S_MAX + 1, 11.0), 1)
    assert not book.add_snapshot("A", snapshot(AHEAD_S_MAX + 1, 11.0), "1970-01-01", 1)
    assert (book.counts.refused, book.counts.ahead) == (2, 2)
    assert price_of(book) == 10.0


@pytest.mark.parametrize("factor", [0.001, 1 / 26, 26, 1000])
def test_an_absurd_price_waits_for_the_venues_second_word(factor: float) -> None:
    """The stream alone is not believed; the next trade replaces it, or a snapshot confirms it."""
    book = make_book()
    add_all(book, [trade(1, 100.0), trade(2, 101.0)])
    book.take_changed()
    assert not book.add_trade(trade(3, 100.0 * factor), 3)
    assert book.counts.set_aside == 1
    assert price_of(book) == 101.0
    assert book.take_to_refresh() == ["A"]
    assert book.take_to_refresh() == [], "once is enough"
    assert book.add_trade(trade(4, 102.0), 4), "the market goes on where it was"
    assert book.add_snapshot("A", snapshot(5, 100.0 * factor), "1970-01-01", 5)
    assert price_of(book) == 100.0 * factor
    assert book.add_trade(trade(6, 100.0 * factor), 6), "and from there"


def test_a_price_within_reason_needs_no_second_word() -> None:
    """A 20-for-1 split is nothing unheard of; and an option may jump as it likes."""
    book = make_book()
    add_all(book, [trade(1, 100.0), trade(2, 5.0)])
    assert price_of(book) == 5.0
    options = MarkBook("indicative", option_effect, is_sane=False)
    options.follow(["A"])
    options.add_trade(StreamTrade("A", 0.01, raw_moment(moment(1)), "I", None, "N"), 1)
    options.add_trade(StreamTrade("A", 5.0, raw_moment(moment(2)), "I", None, "N"), 2)
    assert price_of(options) == 5.0


def test_a_snapshot_without_its_trade_is_asked_for_again() -> None:
    """A part may be missing this time only; of an option once, for many are never traded."""
    book = make_book()
    for _ in range(REFRESHES_MAX):
        book.add_snapshot("A", Snapshot(), "1970-01-01", 1)
        assert book.take_to_refresh() == ["A"]
    book.add_snapshot("A", Snapshot(), "1970-01-01", 1)
    assert book.take_to_refresh() == []
    options = MarkBook("indicative", option_effect, is_quoted=True)
    options.follow(["A"])
    for expected in (["A"], [], []):
        options.add_snapshot("A", Snapshot(), "1970-01-01", 1)
        assert options.take_to_refresh() == expected


def test_the_stream_must_bring_what_a_snapshot_shows() -> None:
    """A snapshot's own trade is no proof that the stream works."""
    book = make_book()
    book.add_snapshot("A", snapshot(5, 50.0), "1970-01-01", 1)
    traded_ns = 5 * 10**9
    assert not book.has_streamed("A", traded_ns)
    book.add_trade(trade(4, 40.0), 2)
    assert not book.has_streamed("A", traded_ns)
    book.add_trade(trade(5, 50.0), 2)
    assert book.has_streamed("A", traded_ns)
    assert not book.has_streamed("B", traded_ns)

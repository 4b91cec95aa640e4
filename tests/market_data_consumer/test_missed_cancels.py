"""A cancel that was missed between two connections: the snapshots after it show the trade before."""

import pytest

from portfolio_realtime.market_data_consumer.conditions import option_effect
from portfolio_realtime.market_data_consumer.mark_book import MarkBook
from portfolio_realtime.market_data_consumer.messages import Cancel, Snapshot, SnapshotTrade, StreamTrade
from portfolio_realtime.market_data_consumer.missed_cancels import SNAPSHOT_LAG_S_MAX
from portfolio_realtime.market_data_consumer.trade_columns import RECENT_MAX
from tests.market_data_consumer.mark_books import (
    FIRST_ONLY,
    MOVES,
    NEVER,
    add_all,
    make_book,
    moment,
    price_of,
    snapshot,
    trade,
)
from tests.market_data_consumer.moments import raw_moment

BEGAN_S = 1000.0
LATE_S = BEGAN_S + SNAPSHOT_LAG_S_MAX
EARLY_S = LATE_S - 0.1


def look(book: MarkBook, shown: Snapshot, requested_s: float, source: str | None = None) -> bool:
    """Add a snapshot of the streamed feed as the subscription does; return whether trades were taken back."""
    is_back = book.take_back("A", shown.latest_trade, requested_s, 100)
    book.add_snapshot("A", shown, "1970-01-01", 100, source)
    return is_back


def connect_again(*seconds: int, source: str = "iex") -> MarkBook:
    """A book with trades at these seconds, whose price is the second, at the begin of a new connection."""
    book = make_book()
    book.stream_from(source, 0.0)
    add_all(book, [trade(second, float(second)) for second in seconds])
    book.stream_from(source, BEGAN_S)
    return book


@pytest.mark.parametrize("shown_s", [3, 2], ids=["a trade that we know", "one that we do not know"])
def test_a_cancel_that_was_missed_is_taken_from_the_second_snapshot(shown_s: int) -> None:
    """All trades after the shown one are cancelled. Trades go on from there."""
    book = connect_again(*([3] if shown_s == 3 else []), *range(10, 10 + RECENT_MAX - 1))
    newest = float(10 + RECENT_MAX - 2)
    shown = snapshot(shown_s, float(shown_s))
    assert not look(book, shown, BEGAN_S)
    assert (price_of(book), book.take_suspect(EARLY_S)) == (newest, [])
    assert (book.take_suspect(LATE_S), book.take_suspect(LATE_S)) == (["A"], []), "asked once"
    assert look(book, shown, LATE_S)
    assert price_of(book) == shown_s
    book.add_trade(trade(20, 20.0), 101)
    assert price_of(book) == 20.0


def test_the_only_known_trade_is_cancelled() -> None:
    """The snapshot's trade takes its place; nothing more is asked for."""
    book = connect_again(5)
    look(book, snapshot(4, 4.0), BEGAN_S)
    assert look(book, snapshot(4, 4.0), LATE_S)
    assert (price_of(book), book.take_to_refresh(), book.take_suspect(LATE_S)) == (4.0, [], [])


def test_snapshots_that_lag_take_nothing_back() -> None:
    """The second one has the trade that the first lacked. One alone, or an early one, decides nothing."""
    book = connect_again(4, 5)
    for requested_s in (BEGAN_S, BEGAN_S + 2.0, EARLY_S):
        assert not look(book, snapshot(4, 4.0), requested_s)
    assert book.take_suspect(LATE_S) == ["A"]
    assert not look(book, snapshot(5, 5.0), LATE_S)
    assert not look(book, snapshot(4, 4.0), LATE_S + 300.0)
    assert (price_of(book), book.take_suspect(LATE_S + 300.0)) == (5.0, [])

    alone = connect_again(4, 5)
    assert not look(alone, snapshot(4, 4.0), LATE_S)
    assert (price_of(alone), alone.take_suspect(LATE_S)) == (5.0, ["A"])


@pytest.mark.parametrize("is_newest", [True, False])
def test_a_trade_of_the_present_connection_is_never_taken_back(is_newest: bool) -> None:
    """The stream knows better than any snapshot."""
    book = connect_again(4, 8)
    look(book, snapshot(4, 4.0), BEGAN_S)
    book.add_trade(trade(9 if is_newest else 6, 60.0), 101)
    expected = price_of(book)
    for requested_s in (LATE_S, LATE_S + 1.0):
        assert not look(book, snapshot(4, 4.0), requested_s)
        assert price_of(book) == expected


def test_a_trade_that_a_snapshot_has_brought_stays() -> None:
    """It is not from before the connection, so the stream would have told its cancel."""
    book = connect_again(4, 5)
    look(book, snapshot(6, 6.0), BEGAN_S)
    for requested_s in (LATE_S, LATE_S + 1.0, LATE_S + 2.0):
        assert not look(book, snapshot(5, 5.0), requested_s)
    assert price_of(book) == 6.0


def test_marks_change_once_whatever_snapshots_show() -> None:
    """Alpaca's latest trade might follow another rule than ours."""
    book = connect_again(4, 5, 6)
    look(book, snapshot(5, 5.0), BEGAN_S)
    assert look(book, snapshot(5, 5.0), LATE_S)
    look(book, snapshot(6, 6.0), LATE_S + 1.0)
    assert price_of(book) == 6.0, "it was there after all"
    for second in range(2, 10):
        assert not look(book, snapshot(5, 5.0), LATE_S + second)
        assert book.take_suspect(LATE_S + second) == []
    assert price_of(book) == 6.0


@pytest.mark.parametrize("conditions", [NEVER, FIRST_ONLY])
def test_an_ineligible_trade_in_a_snapshot_proves_nothing(conditions: tuple[str, ...]) -> None:
    """Then the snapshot's latest trade is not chosen as ours is."""
    book = connect_again(4, 6)
    for requested_s in (BEGAN_S, LATE_S, LATE_S + 1.0):
        assert not look(book, snapshot(5, 5.0, conditions), requested_s)
    assert price_of(book) == 6.0


def test_a_snapshot_with_a_cancelled_trade_proves_nothing() -> None:
    """It lags behind."""
    book = connect_again(4, 5, 6)
    book.cancel(Cancel("A", "D", 5), 99)
    for requested_s in (BEGAN_S, LATE_S, LATE_S + 1.0):
        assert not look(book, snapshot(5, 5.0), requested_s)
    assert price_of(book) == 6.0


def test_a_trade_of_another_feed_is_not_taken_back() -> None:
    """By night another feed is streamed, whose latest trade is of the last night; so in the morning."""
    book = make_book()
    book.stream_from("iex", 0.0)
    add_all(book, [trade(3, 3.0), trade(8, 8.0)])
    book.stream_from("overnight", BEGAN_S)
    for requested_s in (BEGAN_S, LATE_S, LATE_S + 1.0):
        assert not look(book, snapshot(4, 4.0), requested_s, "overnight")
        assert price_of(book) == 8.0
    book.add_trade(trade(9, 9.0), 101)
    book.stream_from("iex", BEGAN_S)
    for requested_s in (BEGAN_S, LATE_S, LATE_S + 1.0):
        assert not look(book, snapshot(3, 3.0), requested_s)
    assert price_of(book) == 9.0


def test_a_trade_of_another_feed_counts_when_one_is_taken_back() -> None:
    """A trade by night is cancelled: the day's last trade counts again, not the last night's."""
    book = make_book()
    book.stream_from("iex", 0.0)
    book.add_trade(trade(5, 5.0), 1)
    book.stream_from("overnight", 0.0)
    book.add_trade(trade(8, 8.0), 2)
    book.stream_from("overnight", BEGAN_S)
    look(book, snapshot(2, 2.0), BEGAN_S)
    assert look(book, snapshot(2, 2.0), LATE_S)
    assert price_of(book) == 5.0


def test_trades_without_ids_and_feeds_without_cancels_are_left_alone() -> None:
    """Options' trades have no ids."""
    options = MarkBook("indicative", option_effect, is_sane=False)
    options.follow(["A"])
    for second in (1, 2):
        traded = StreamTrade("A", float(second), raw_moment(moment(second)), "I", None, "N")
        options.add_trade(traded, second)
    options.stream_from("indicative", BEGAN_S)
    older = Snapshot(SnapshotTrade(1.0, moment(1), "I", None, "N"))
    for requested_s in (BEGAN_S, LATE_S, LATE_S + 1.0):
        assert not look(options, older, requested_s)
    assert price_of(options) == 2.0

    book = connect_again(4, 5)
    book.stream_from("iex")
    for requested_s in (BEGAN_S, LATE_S, LATE_S + 1.0):
        assert not look(book, snapshot(4, 4.0), requested_s)
    assert (price_of(book), book.take_suspect(LATE_S)) == (5.0, [])


def test_a_trade_that_is_taken_back_is_not_the_mark_of_a_boundary() -> None:
    """The one before it is."""
    book = make_book()
    book.set_boundary(10 * 10**9)
    add_all(book, [trade(8, 8.0), trade(9, 9.0, MOVES)])
    book.stream_from("iex", BEGAN_S)
    look(book, snapshot(8, 8.0), BEGAN_S)
    assert look(book, snapshot(8, 8.0), LATE_S)
    assert book.marks_at(10 * 10**9)["A"].price == 8.0

"""What a mark is worth, and what stands in where no trade is known."""

import math

import msgspec
import pytest

from portfolio_realtime.clock import new_york_date_of, parse_rfc3339
from portfolio_realtime.market_data_consumer.conditions import option_effect, stock_effect
from portfolio_realtime.market_data_consumer.fallback_prices import previous_close
from portfolio_realtime.market_data_consumer.mark_book import MarkBook
from portfolio_realtime.market_data_consumer.messages import (
    Cancel,
    DailyBar,
    Quote,
    Snapshot,
    StreamTrade,
    TradingStatus,
)
from tests.market_data_consumer.mark_books import (
    NEVER,
    make_book,
    mark_of,
    mark_version,
    moment,
    price_of,
    quality_of,
    snapshot,
    trade,
)
from tests.market_data_consumer.moments import raw_moment


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
    book.add_trade(trade(1, 5.0), 1)
    book.add_snapshot("A", early, "2022-08-17", 2)
    mark = mark_of(book)
    assert mark is not None
    assert (mark.previous_close, mark.previous_close_date) == (173.03, "2022-08-16")
    assert not book.add_snapshot("A", early, "2022-08-17", 3)
    assert book.take_changed() == []
    older = Snapshot(None, None, DailyBar("2022-08-15T04:00:00Z", 1.0))
    book.add_snapshot("A", older, "2022-08-17", 4)
    assert book.take_changed() == []


def test_a_mark_says_what_its_price_is_worth() -> None:
    """Each feed's trades have their quality; a snapshot of another feed keeps its own."""
    book = MarkBook("sip", stock_effect)
    book.follow(["A"])
    book.add_trade(trade(1, 10.0), 1)
    mark = mark_of(book)
    assert mark is not None
    assert (mark.source, mark.quality) == ("sip", "real_time_sip")
    book.stream_from("overnight")
    assert mark_of(book) == mark, "the last trade is still the day's"
    book.add_snapshot("A", snapshot(2, 11.0), "1970-01-01", 2, "sip", has_close=False)
    by_day = mark_of(book)
    assert by_day is not None
    assert (by_day.price, by_day.source, by_day.quality) == (11.0, "sip", "real_time_sip")
    book.add_trade(trade(3, 12.0), 3)
    by_night = mark_of(book)
    assert by_night is not None
    assert (by_night.price, by_night.source, by_night.quality) == (12.0, "overnight", "indicative")
    book.cancel(Cancel("A", "D", 3), 4)
    assert mark_of(book) == msgspec.structs.replace(by_day, version=mark_version(book))


def test_a_snapshot_of_the_night_does_not_tell_the_previous_close() -> None:
    """Its daily bars are another venue's."""
    book = make_book()
    bars = Snapshot(daily_bar=DailyBar("2022-08-16T04:00:00Z", 9.0))
    book.add_snapshot("A", bars, "2022-08-17", 1, has_close=False)
    assert mark_of(book) is None
    book.add_snapshot("A", bars, "2022-08-17", 1)
    assert mark_of(book) is not None


@pytest.mark.parametrize(("tape", "halt", "resume"), [("A", "2", "3"), ("C", "H", "T"), ("C", "P", "T")])
def test_a_halted_symbol_keeps_its_mark_and_says_so(tape: str, halt: str, resume: str) -> None:
    """Until trading resumes, or an eligible trade shows that it has."""
    book = make_book()
    book.add_trade(trade(1, 10.0), 1)
    book.set_status(TradingStatus("A", halt, moment(2), tape), 2)
    assert (price_of(book), quality_of(book)) == (10.0, "halted")
    book.set_status(TradingStatus("A", "Q", moment(3), tape), 3)
    assert not book.add_trade(trade(3, 11.0, NEVER), 3), "an odd lot that was on its way"
    assert quality_of(book) == "halted"
    book.set_status(TradingStatus("A", resume, moment(4), tape), 4)
    assert (price_of(book), quality_of(book)) == (10.0, "iex")

    book.set_status(TradingStatus("A", halt, moment(5), tape), 5)
    assert book.add_trade(trade(6, 10.5), 6)
    assert (price_of(book), quality_of(book)) == (10.5, "iex")


def test_a_late_resumption_does_not_end_a_newer_halt() -> None:
    """Messages may come out of order."""
    book = make_book()
    book.add_trade(trade(1, 10.0), 1)
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
        options.add_snapshot("A", Snapshot(daily_bar=close, latest_quote=book_quote), "2022-08-17", 1)
        assert (price_of(options), quality_of(options)) == (1.0, "end_of_day"), (bid, ask)
    quote = Quote(1.15, 1.3, "2022-08-17T15:00:00Z")
    options.add_snapshot("A", Snapshot(daily_bar=close, latest_quote=quote), "2022-08-17", 2)
    mark = mark_of(options)
    assert mark is not None
    assert (mark.price, mark.quality) == (1.225, "indicative"), "to the last digit"
    assert mark.as_of_ns == parse_rfc3339("2022-08-17T15:00:00Z")
    options.add_trade(StreamTrade("A", 2.0, raw_moment(moment(1)), "I", None, "N"), 3)
    assert price_of(options) == 2.0
    options.add_snapshot("A", Snapshot(latest_quote=quote), "2022-08-17", 4)
    assert price_of(options) == 2.0


def test_an_untraded_stock_is_worth_its_previous_close_as_of_that_day() -> None:
    """Marked end of day, as of 16:00 in New York; never the middle of a quote."""
    book = make_book()
    parts = Snapshot(
        daily_bar=DailyBar("2022-08-16T04:00:00Z", 173.03),
        latest_quote=Quote(172.6, 172.7, "2022-08-17T10:18:27Z"),
    )
    book.add_snapshot("A", parts, "2022-08-17", 1)
    mark = mark_of(book)
    assert mark is not None
    assert (mark.price, mark.quality) == (173.03, "end_of_day")
    assert mark.as_of_ns == parse_rfc3339("2022-08-16T20:00:00Z")
    assert not book.is_marked("A"), "it counts as no trade"

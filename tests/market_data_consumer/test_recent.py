"""The packed trades of a symbol: in order, told apart, and never one that was not offered."""

from hypothesis import given
from hypothesis import strategies as st

from portfolio_realtime.clock import rfc3339
from portfolio_realtime.market_data_consumer.conditions import stock_effect
from portfolio_realtime.market_data_consumer.mark_book import MarkBook
from portfolio_realtime.market_data_consumer.messages import NO_TIME, Cancel, StreamTrade, TradeId
from portfolio_realtime.market_data_consumer.symbol_trades import KnownTrade, RecentTrades, id_number
from portfolio_realtime.market_data_consumer.trade_columns import NO_ID, RECENT_MAX, Columns
from tests.market_data_consumer.moments import raw_moment

IDS: list[TradeId] = [0, 1, 2**63, NO_ID - 1, -1, -(2**63), "", "1", "7a", "é"]


@given(
    offered=st.lists(
        st.tuples(st.sampled_from(IDS[:RECENT_MAX]), st.integers(0, 1)), min_size=1, max_size=24
    ),
    batch=st.integers(1, 24),
    cancelled=st.sets(st.sampled_from(IDS)),
)
def test_trades_at_the_same_time_are_told_apart_by_any_id(
    offered: list[tuple[TradeId, int]], batch: int, cancelled: set[TradeId]
) -> None:
    """The later arrival of the newest time is the mark, a repetition is none; cancels go back in that order.

    Each id belongs to one time; a repetition says the same.
    """
    second_of: dict[TradeId, int] = {}
    for trade_id, second in offered:
        second_of.setdefault(trade_id, second)
    trades = [
        StreamTrade(
            symbol="A",
            price=100.0 + IDS.index(trade_id),
            at=raw_moment(rfc3339(second_of[trade_id] * 10**9)),
            conditions=("@",),
            tape="C",
            exchange="D",
            trade_id=trade_id,
        )
        for trade_id, _ in offered
    ]
    book = MarkBook("sip", stock_effect)
    book.follow(["A"])
    for at in range(0, len(trades), batch):
        book.add_trades(trades[at : at + batch], 1)
    arrived = sorted(second_of, key=second_of.__getitem__)  # stable: of one time in the order of arrival
    left = [trade_id for trade_id in arrived if trade_id not in cancelled]
    assert [mark.price for mark, _ in book.take_changed()] == [100.0 + IDS.index(arrived[-1])]
    for trade_id in cancelled:
        book.cancel(Cancel("A", "D", trade_id), 2)
    prices = [mark.price for mark in book.marks_at(10**9).values()]
    assert prices == [100.0 + IDS.index((left or arrived)[-1])]


def test_trades_without_an_id_are_all_different() -> None:
    """Options have none: two of the same time and price are two trades, and none can be withdrawn."""
    book = MarkBook("sip", stock_effect)
    book.follow(["A"])
    for price in (1.0, 2.0, 1.0):
        assert book.add_trade(StreamTrade("A", price, raw_moment(rfc3339(10**9)), ("@",), "C", "D"), 1)
    book.cancel(Cancel("A", "D", None), 2)
    assert [mark.price for mark, _ in book.take_changed()] == [1.0]


@given(count=st.integers(0, 3 * RECENT_MAX), kept=st.integers(0, RECENT_MAX))
def test_rows_that_are_written_over_leave_the_newest(count: int, kept: int) -> None:
    """Written one after another as the mark price policy does, or put back as a list."""
    columns = Columns()
    recent = RecentTrades(columns, columns.allocate())
    trades = [KnownTrade(number, number, 0, 0, float(number)) for number in range(count)]
    recent.replace(trades[:kept])
    for trade in trades[kept:]:
        columns.append(recent.slot, *trade)
    assert recent.trades() == trades[-RECENT_MAX:]
    assert recent.newest() == (trades[-1] if trades else None)


def test_any_id_is_a_number_of_its_own() -> None:
    """Nothing that a message can hold is out of range, and no two of these are taken for each other."""
    numbers = [id_number(trade_id) for trade_id in [*IDS, None]]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= number <= NO_ID for number in numbers)
    assert NO_TIME < 0, "no trade has the time of an empty row"

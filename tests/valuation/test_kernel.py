"""The kernel's counts and times, account by account, next to plain Python."""

import random

import numpy as np

from portfolio_realtime.valuation import kernel
from portfolio_realtime.valuation.book import NEVER_NS, Book

from .records import NOW_NS, account, mark, position, selected

STALE_BEFORE_NS = NOW_NS - 1000


def test_counts_and_times_equal_a_loop_over_positions() -> None:
    """Unpriced, stale and newest are those of each account's own positions; empty rows disturb nobody."""
    rng = random.Random(3)
    book = Book()
    marks = {
        f"S{i}": mark(f"S{i}", 1.0, as_of_ns=NOW_NS - rng.randrange(2000))
        for i in range(30)
        if rng.random() < 0.8
    }
    book.apply_marks(marks.values())
    accounts = [
        account(
            f"a{index}",
            [position(f"S{s}", rng.randrange(2)) for s in rng.sample(range(30), rng.randrange(6))],
            as_of_ns=NOW_NS - rng.randrange(3000),
        )
        for index in range(200)
    ]
    for one in accounts:
        book.put_account(one)
    selection = selected(book, [one.account_id for one in accounts])
    valued = kernel.value(selection, book.prices, book.as_of_ns, book.applied, STALE_BEFORE_NS)
    for index, one in enumerate(accounts):
        held = [p.symbol for p in one.positions if p.quantity]
        known = [marks[symbol] for symbol in held if symbol in marks]
        stale = [m for m in known if m.as_of_ns < STALE_BEFORE_NS]
        assert valued.unpriced_count[index] == len(held) - len(known)
        assert valued.stale_count[index] == len(stale)
        assert valued.as_of_ns[index] == max([one.as_of_ns, *(m.as_of_ns for m in known)])
        assert valued.applied[index] == max([0 if held else NEVER_NS, *(1 for _ in known)])
        assert np.isnan(valued.equity[index]) == (len(held) > len(known))
        assert np.isnan(valued.day_pnl[index]) == (len(held) > len(known))
        assert valued.known_equity[index] == 1000 + len(known)


def test_a_mark_exactly_at_the_limit_is_not_stale() -> None:
    """Older than the limit is stale; as old as the limit is not."""
    book = Book()
    book.put_account(account(positions=[position("A", 1), position("B", 1)]))
    book.apply_marks([mark("A", 1.0, as_of_ns=STALE_BEFORE_NS), mark("B", 1.0, as_of_ns=STALE_BEFORE_NS - 1)])
    valued = kernel.value(
        selected(book, ["alice"]), book.prices, book.as_of_ns, book.applied, STALE_BEFORE_NS
    )
    assert valued.stale_count.tolist() == [1]


def test_an_account_without_positions_is_worth_its_cash() -> None:
    """No position, no mark: equity is cash, and nothing is unpriced."""
    book = Book()
    book.put_account(account(cash="12.34", last_equity="12.00", external_cash_flow="0.04"))
    valued = kernel.value(selected(book, ["alice"]), book.prices, book.as_of_ns, book.applied, 0)
    assert valued.equity.tolist() == [12.34]
    assert round(float(valued.day_pnl[0]), 9) == 0.30
    assert valued.unpriced_count.tolist() == [0]
    assert valued.as_of_ns.tolist() == [NOW_NS]


def test_nobody_to_value_is_valued() -> None:
    """An empty selection gives empty vectors."""
    book = Book()
    valued = kernel.value(selected(book, []), book.prices, book.as_of_ns, book.applied, 0)
    assert valued.equity.tolist() == []
    assert valued.stale_count.tolist() == []

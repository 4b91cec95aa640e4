"""The whole book, kept current by what has changed, equals the whole book valued from scratch."""

import math
import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from portfolio_realtime.model import Account
from portfolio_realtime.valuation import book as book_module
from portfolio_realtime.valuation import book_totals as module
from portfolio_realtime.valuation.book import UNPRICED, Book
from portfolio_realtime.valuation.book_totals import BookTotals, Stretch, WholeBook
from portfolio_realtime.valuation.kernel import UNIT_ROUNDOFF

from .records import account, mark, position

SYMBOLS = [f"S{index}" for index in range(12)]


class Desk:
    """A book, a plain dict that says the same, and a whole that follows the book."""

    def __init__(self, source: random.Random) -> None:
        self.source = source
        self.book = Book()
        self.whole = WholeBook(self.book)
        self.accounts: dict[str, Account] = {}
        self.prices: dict[str, float] = {}
        self.looks = 0
        self.packing: Iterator[None] | None = None

    def put(self) -> None:
        """A new account, or one with other positions."""
        key = f"a{self.source.randrange(40)}"
        held = [position(s, self.source.randint(-9, 9)) for s in self.source.sample(SYMBOLS, 4)]
        self.accounts[key] = account(
            key, held, cash=self.source.randrange(-999, 999), last_equity=self.source.randrange(999)
        )
        self.book.put_account(self.accounts[key])

    def drop(self) -> None:
        """An account goes."""
        key = f"a{self.source.randrange(40)}"
        self.book.drop(key)
        self.accounts.pop(key, None)

    def apply(self) -> None:
        """Some prices move, or come."""
        for symbol in self.source.sample(SYMBOLS, self.source.randint(1, 3)):
            self.prices[symbol] = self.source.randrange(1, 99_999) / 100
            self.book.apply_marks([mark(symbol, self.prices[symbol])])

    def split(self) -> None:
        """A price goes."""
        symbol = self.source.choice(SYMBOLS)
        self.prices.pop(symbol, None)
        self.book.prices[self.book.column(symbol)] = UNPRICED

    def tidy(self) -> None:
        """Some steps of a packing that has begun, or the symbols that nobody holds are forgotten."""
        if self.source.random() < 0.5:
            self.packing = self.packing or self.book.pack()
            for _ in range(self.source.randint(1, 4)):
                if next(self.packing, "ended") == "ended":
                    self.packing = None
                    return
        else:
            self.packing = None
            for _ in self.book.count_holders():
                pass
            for symbol in self.book.free(self.book.unheld()):
                self.prices.pop(symbol, None)

    def look(self) -> None:
        """Refresh some stretches or all, and compare those."""
        stretches = self.whole.stretches()
        for stretch in self.source.sample(stretches, self.source.randint(0, len(stretches))):
            self.looks += 1
            stretch.refresh()
            self.compare(stretch)

    def compare(self, stretch: Stretch) -> None:
        """Every row of the stretch, to within the float error of so many additions."""
        first = self.whole.stretches().index(stretch) * module.STRETCH
        count = min(module.STRETCH, self.book.row_count - first)
        assert len(stretch.equity) == len(stretch.day_pnl) == count
        expected, bases = [0.0] * count, [0.0] * count
        for key in self.accounts:
            row = self.book._rows.row(key)
            assert row is not None
            if first <= row < first + count:
                held = self.accounts[key]
                worths = [
                    float(p.quantity) * self.prices.get(p.symbol, math.nan)
                    for p in held.positions
                    if p.quantity
                ]
                expected[row - first] = float(held.cash) + sum(worths)
                bases[row - first] = float(held.last_equity)
        scale = 9 * 4 * 1000 + 2000  # no sum of magnitudes is larger
        bound = scale * (self.looks + 20) * UNIT_ROUNDOFF
        day_pnl = np.array(expected) - np.array(bases)
        np.testing.assert_allclose(stretch.equity, expected, rtol=0, atol=bound, equal_nan=True)
        np.testing.assert_allclose(stretch.day_pnl, day_pnl, rtol=0, atol=2 * bound, equal_nan=True)


@pytest.fixture
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten rows in a stretch, so that a few accounts fill several; columns keep up with more changes."""
    monkeypatch.setattr(module, "STRETCH", 10)
    monkeypatch.setattr(book_module, "STEP_ROWS", 7)
    monkeypatch.setattr(book_module, "STEP_PLACES", 23)
    monkeypatch.setattr(module, "CHANGED_SHARE", 3)
    monkeypatch.setattr(module, "MOVED_SHARE", 2)
    monkeypatch.setattr(module, "CALLS", 0)


@pytest.mark.usefixtures("short_stretches")
def test_what_is_kept_current_equals_what_is_valued_from_scratch() -> None:
    """Any order of puts, drops, moves, prices that come and go, packings and looks."""

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 2**32), st.integers(1, 150))
    @example(1, 2000)
    def check(seed: int, steps: int) -> None:
        desk = Desk(random.Random(seed))
        acts = (
            [desk.put] * 4
            + [desk.drop]
            + [desk.apply] * 6
            + [desk.split, desk.tidy, desk.tidy]
            + [desk.look] * 6
        )
        for _ in range(steps):
            desk.source.choice(acts)()

    check()


@pytest.mark.usefixtures("short_stretches")
def test_a_stretch_whose_rows_are_gone_is_worth_nothing() -> None:
    """The book is packed between the look at one stretch and at the next."""
    book = Book()
    for index in range(25):
        book.put_account(account(f"a{index}", [position("A", 1)]))
    book.apply_marks([mark("A", 1.0)])
    first, *_, last = WholeBook(book).stretches()
    first.refresh()
    last.refresh()
    assert last.totals().equity == 5 * 1001.0
    for index in range(25):
        book.drop(f"a{index}")
    book.put_account(account("b", [position("A", 1)]))
    for _ in book.pack():
        pass
    assert book.row_count == 1
    for stretch in (first, last):
        stretch.refresh()
    assert first.totals().equity == 1001.0 * book.row_count
    assert last.totals() == BookTotals()
    assert last.measure_drift() == 0


def whole_of(*accounts: Account) -> tuple[Book, Stretch]:
    """A book of these accounts, and the stretch that they all are in."""
    book = Book()
    for one in accounts:
        book.put_account(one)
    (stretch,) = WholeBook(book).stretches()
    return book, stretch


def _fail(_: Stretch) -> None:
    pytest.fail("valued from scratch")


def test_only_what_has_moved_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small move neither values all rows from scratch nor puts the columns in order again."""
    book, stretch = whole_of(*(account(f"a{index}", [position(f"S{index}", 2)]) for index in range(64)))
    book.apply_marks([mark(f"S{index}", 10.0) for index in range(64)])
    stretch.refresh()
    monkeypatch.setattr(module, "CALLS", 0)
    monkeypatch.setattr(Stretch, "recalculate", _fail)
    book.apply_marks([mark("S3", 11.5)])
    stretch.refresh()
    assert stretch.equity.tolist() == [1023.0 if index == 3 else 1020.0 for index in range(64)]
    assert stretch.day_pnl.tolist() == [23.0 if index == 3 else 20.0 for index in range(64)]


def test_totals_leave_out_what_is_not_known() -> None:
    """The sum is of accounts that are wholly priced; the others are counted, as are debtors."""
    book, stretch = whole_of(
        account("rich", [position("A", 2)], cash=100),
        account("poor", [position("A", -9)], cash=10),
        account("unknown", [position("A", 1), position("B", 1)], cash=1000),
    )
    book.apply_marks([mark("A", 50.0)])
    stretch.refresh()
    assert stretch.totals() == BookTotals(equity=200.0 - 440.0, unpriced=1, negative=1)
    book.apply_marks([mark("B", 1.0)])
    stretch.refresh()
    assert stretch.totals() == BookTotals(equity=200.0 - 440.0 + 1051.0, unpriced=0, negative=1)
    assert BookTotals(1.5, 2, 3).plus(BookTotals(1.0, 1, 1)) == BookTotals(2.5, 3, 4)


def test_a_check_takes_the_drift_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A high price, gone again, leaves a trace in a float sum; valuing from scratch does not know it."""
    monkeypatch.setattr(module, "CALLS", 0)
    accounts = [account(f"a{index}", [position(f"S{index}", 1)], cash=0) for index in range(8)]
    book, stretch = whole_of(*accounts)
    book.apply_marks([mark(f"S{index}", 0.1) for index in range(8)])
    for price in (0.1, 1e9, 0.1):
        book.apply_marks([mark("S0", price)])
        stretch.refresh()
    assert stretch.equity[0] == pytest.approx(0.1, abs=1e-6)
    assert stretch.equity[0] != 0.1
    assert 0 < stretch.measure_drift() < 1e-6
    assert stretch.equity[0] == 0.1
    assert stretch.measure_drift() == 0

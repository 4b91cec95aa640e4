"""The whole book, watched or not: equity and day P&L of every account, updated by what has changed.

Few prices move between two refreshes. If the price of symbol j has moved by d, the equity and the day P&L of
an account move by its quantity of j, times d:

    equity += Q[:, moved] · d        day P&L += Q[:, moved] · d

The book stores Q by rows. Each stretch of rows stores it by columns as well, at 12 bytes per position. Some
accounts are valued from scratch: those whose record has changed (the columns do not have the new quantities
yet) and holders of a symbol whose price appeared or disappeared (nothing can be added to an unknown value). A
whole stretch is valued from scratch where so much has moved that this is faster.

Every addition leaves a float error. `measure_drift` removes these errors and returns the largest. Nothing is
published from here: clients see values of the kernel, which bounds its error.
"""

from typing import Final, NamedTuple

import numpy as np

from portfolio_realtime.valuation.arrays import Floats, Ints
from portfolio_realtime.valuation.book import Book, Rows
from portfolio_realtime.valuation.sparse import Lines, by_columns, csc_matvec, some_of

STRETCH: Final = 65_536  # rows valued at once: a millisecond or two
MOVED_SHARE: Final = 4  # if more than one position in so many has moved, valuing from scratch is faster
CALLS: Final = 20_000  # fixed cost of an addition, as a number of positions
CHANGED_SHARE: Final = 16  # if more than one row in so many has changed, the columns are built again


class BookTotals(NamedTuple):
    """Sums over some accounts."""

    equity: float = 0.0  # dollars, of accounts without an unpriced position
    unpriced: int = 0  # accounts with an unpriced position
    negative: int = 0  # accounts with a negative equity

    def plus(self, other: "BookTotals") -> "BookTotals":
        """The sums of both together."""
        return BookTotals(
            self.equity + other.equity, self.unpriced + other.unpriced, self.negative + other.negative
        )


class Stretch:
    """Neighbouring rows of the book, with their values at the last refresh."""

    def __init__(self, book: Book, first: int) -> None:
        self._book = book
        self._first = first
        self._count = 0  # rows at the last refresh
        self._is_ordered = False
        self._columns = Lines(np.zeros(1, np.int32), np.zeros(0, np.int32), np.zeros(0))
        self._ordered_count = 0  # rows of these columns
        self._prices: Floats = np.zeros(0)  # of these columns, at the last refresh

    @property
    def equity(self) -> Floats:
        """Dollars, by row; NaN if a position is unpriced."""
        return self._book.equity[self._first : self._first + self._count]

    @property
    def day_pnl(self) -> Floats:
        """The same of the day P&L."""
        return self._book.day_pnl[self._first : self._first + self._count]

    def refresh(self) -> None:
        """Update equity and day P&L to the book's present prices and records, by what has changed."""
        is_changed = self._book.is_changed(self._first, self._first + STRETCH)
        changed = np.flatnonzero(is_changed)
        has_shrunk = len(is_changed) < self._count
        if not self._is_ordered or has_shrunk or len(changed) * CHANGED_SHARE > len(is_changed):
            self._order()
            is_changed[:] = False
            self.recalculate()
            return
        now, then = self._book.prices[: len(self._prices)], self._prices
        differs = np.flatnonzero(now != then)  # NaN differs from all, itself included
        move = now[differs] - then[differs]
        moved = differs[is_known := ~np.isnan(move)]
        came_or_went = differs[np.isnan(now[differs]) != np.isnan(then[differs])]
        touched = self._held(moved) + self._held(came_or_went)
        if (touched + CALLS) * MOVED_SHARE > len(self._columns.elements):
            self.recalculate()
            return
        self._prices = now.copy()
        self._count = len(is_changed)  # new rows count as changed
        if len(moved):
            self._add(_product(self._columns, self._ordered_count, moved, move[is_known]))
        if len(came_or_went):
            changed = np.union1d(changed, some_of(self._columns, came_or_went.astype(np.int32)).indices)
        if len(changed):
            new = np.empty((2, len(changed)))
            self._rows().only(changed).value(*new)
            self.equity[changed], self.day_pnl[changed] = new

    def recalculate(self) -> None:
        """Value all rows from scratch."""
        rows = self._rows()
        self._count = len(rows.cash)
        self._prices = rows.value(self.equity, self.day_pnl)[: len(self._prices)]

    def measure_drift(self) -> float:
        """Value all rows from scratch; return the largest error of an equity before that, in dollars."""
        self.refresh()
        kept = self.equity.copy()
        self.recalculate()
        return float(np.fmax.reduce(np.abs(self.equity - kept), initial=0.0))

    def totals(self) -> BookTotals:
        """The sums at the last refresh."""
        is_priced = ~np.isnan(self.equity)
        return BookTotals(
            equity=float(self.equity.sum(where=is_priced)),
            unpriced=len(self.equity) - int(is_priced.sum()),
            negative=int((self.equity < 0).sum()),
        )

    def _rows(self) -> Rows:
        return self._book.rows(self._first, self._first + STRETCH)

    def _order(self) -> None:
        """Store the present quantities by columns."""
        rows = self._rows()
        self._columns, self._ordered_count = by_columns(rows.lines, len(rows.prices)), len(rows.cash)
        self._prices = np.zeros(len(self._book.symbols))
        self._is_ordered = True

    def _held(self, columns: Ints) -> int:
        """How many positions these columns have."""
        pointers = self._columns.pointers
        return int((pointers[columns + 1] - pointers[columns]).sum())

    def _add(self, change: Floats) -> None:
        self.equity[: len(change)] += change
        self.day_pnl[: len(change)] += change


class WholeBook:
    """All rows of a book in independent stretches, between which other tasks may run."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._stretches: list[Stretch] = []

    def stretches(self) -> list[Stretch]:
        """The stretches that cover all present rows."""
        firsts = range(0, self._book.row_count, STRETCH)
        self._stretches = self._stretches[: len(firsts)]
        self._stretches += [Stretch(self._book, first) for first in firsts[len(self._stretches) :]]
        return list(self._stretches)


def _product(matrix: Lines, row_count: int, columns: Ints, factors: Floats) -> Floats:
    """`matrix[:, columns] @ factors`, for a matrix stored by columns."""
    some = some_of(matrix, columns.astype(np.int32))
    product = np.zeros(row_count)
    csc_matvec(row_count, len(columns), *some, factors, product)
    return product

"""The book: all positions as one sparse matrix Q (accounts × symbols), and one price per symbol.

In terms of finance, row i of Q lists how many units account i holds of each symbol: contracts times their
multiplier, negative for short. In terms of algebra, `equity = cash + Q · price` and `day P&L = equity − day
base`.

Q is stored as compressed sparse rows, always ready for a product: the rows follow each other in two flat
arrays (column, quantity). A row may have spare places, filled with quantity 0 of column 0, which is no symbol
and has the price 0. A row that outgrows its places is abandoned and starts again at the end. When half of the
places are abandoned, `pack` is due. A change to one account costs time in proportion to that account.

Whatever visits all accounts (`ids`, `pack`, `count_holders`) does so in steps of milliseconds. Accounts and
marks may be added and removed between two steps.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from portfolio_realtime.model import Account, Mark, Position
from portfolio_realtime.valuation.account_index import AccountIndex
from portfolio_realtime.valuation.arrays import Floats, Int32s, Ints
from portfolio_realtime.valuation.rounding import day_base
from portfolio_realtime.valuation.sparse import Lines, csr_matvec, some_of

UNPRICED: Final = float("nan")
PADDING: Final = 0  # the column of spare places
SPARE_SHARE: Final = 16  # a new row gets one spare place per this many positions
PLACES_MAX: Final = 2**31 - 1
INITIAL: Final = 64  # places in a new array; a full array doubles
NEVER_NS: Final = -(2**62)
FOREVER_NS: Final = 2**62
VECTORS: Final = ("_cash", "_day_base", "_record_as_of_ns", "_heard_ns")
STEP_ROWS: Final = 4096  # rows moved or listed in one step
STEP_PLACES: Final = 2**20  # places visited in one step
# Symbols that no account holds may use this many columns, plus as many as there were after the last `free`.
SPARE_COLUMNS: Final = 1024


@dataclass(frozen=True)
class Selection:
    """Some rows of the book, copied: the input of one valuation.

    `columns` and `quantity` list the positions with a quantity, row after row. The other vectors have one
    entry per row.
    """

    counts: Ints  # positions in each row
    columns: Int32s
    quantity: Floats
    cash: Floats
    day_base: Floats
    record_as_of_ns: Ints
    heard_ns: Ints  # when the broker last stated the account; NEVER_NS if its newest answer is unreadable


@dataclass(frozen=True)
class Rows:
    """Neighbouring rows of the book, not copied: valid until the book changes.

    Quantities are in CSR, n rows × all symbols. Spare places and abandoned rows are zeros.
    """

    pointers: Int32s  # n + 1 indices into the next two
    columns: Int32s
    quantity: Floats
    prices: Floats  # of all symbols
    cash: Floats
    day_base: Floats

    @property
    def lines(self) -> Lines:
        """The matrix alone; its elements are not copied."""
        first, last = self.pointers[0], self.pointers[-1]
        return Lines(self.pointers - first, self.columns[first:last], self.quantity[first:last])

    def only(self, indices: Ints) -> "Rows":
        """A copy of the rows at these indices."""
        some = some_of(self.lines, indices.astype(np.int32))
        return Rows(*some, self.prices, self.cash[indices], self.day_base[indices])

    def value(self, equity: Floats, day_pnl: Floats) -> Floats:
        """Write the value of each row in dollars: NaN if a position is unpriced, 0 for an abandoned row.

        Unrounded and without an error bound: for totals of the whole book, not for publication. Return a copy
        of the prices.
        """
        equity[:] = self.cash
        # What was just written lies in the cache, and the product reads the prices in no order.
        prices = self.prices.copy()
        # This product adds in place; `quantities @ prices` would write an array that is read only once.
        csr_matvec(len(equity), len(prices), self.pointers, self.columns, self.quantity, prices, equity)
        np.subtract(equity, self.day_base, out=day_pnl)
        return prices


class Book:
    """Accounts as rows, symbols as columns, marks as one value per column."""

    def __init__(self) -> None:
        self.row_count = 0  # abandoned rows included
        self.position_count = 0  # positions with a quantity, over all accounts
        self.columns: dict[str, int] = {}
        self.symbols: list[str] = [""]
        self.prices: Floats = np.full(INITIAL, UNPRICED)
        self.prices[PADDING] = 0.0
        self.as_of_ns: Ints = np.full(INITIAL, NEVER_NS)
        self.versions: Ints = np.zeros(INITIAL, np.int64)  # of the marks; 0: none
        self.applied: Ints = np.zeros(INITIAL, np.int64)  # in which batch the mark came; 0: none
        self._batches = 0  # batches of marks with anything new in them
        self.marks: dict[str, Mark] = {}
        self.sources: set[str] = set()  # sources of all marks so far
        self.away: frozenset[str] = frozenset()  # sources that are not live now …
        self.is_away: NDArray[np.bool_] = np.zeros(INITIAL, bool)  # … and the columns with a mark of theirs
        self._free_columns: list[int] = []
        self._columns_max = SPARE_COLUMNS  # with more columns in use, holders are counted
        # Columns found in rows since the last count.
        self._is_held: NDArray[np.bool_] = np.zeros(INITIAL, bool)
        self._rows = AccountIndex()
        self._abandoned = 0  # abandoned places and rows
        self._pointers: Int32s = np.zeros(INITIAL + 1, np.int32)
        self._column_of: Int32s = np.zeros(INITIAL, np.int32)
        self._quantity: Floats = np.zeros(INITIAL)
        self._cash: Floats = np.zeros(INITIAL)
        self._day_base: Floats = np.zeros(INITIAL)
        self._record_as_of_ns: Ints = np.zeros(INITIAL, np.int64)
        self._heard_ns: Ints = np.zeros(INITIAL, np.int64)
        self._is_changed: NDArray[np.bool_] = np.zeros(INITIAL, bool)
        # By row, in dollars; `book_totals` keeps them. One array for all rows, not one for each stretch:
        # NumPy asks for huge pages from 4 MB on, and without them a full pass takes 5 % longer.
        self.equity: Floats = np.zeros(INITIAL)
        self.day_pnl: Floats = np.zeros(INITIAL)
        self.numbering = 0  # grows when `pack` changes the rows of accounts
        self._moved: set[int] = set()  # columns whose price, times or source have changed

    def __contains__(self, account_id: str) -> bool:
        return self._rows.row(account_id) is not None

    def __len__(self) -> int:
        return len(self._rows)

    def ids(self) -> Iterator[list[str]]:
        """Every account of the book, in steps, some perhaps twice. `pack` must not run meanwhile."""
        first = 0
        while first < self.row_count:
            yield self._rows.ids(first, min(first + STEP_ROWS, self.row_count))
            first += STEP_ROWS

    def reserve(self, accounts: int) -> None:
        """Expect this many accounts, so that the index need not be rebuilt again and again."""
        self._rows.reserve(accounts)

    def row(self, account_id: str) -> int:
        """The row of an account, which must be in the book.

        `put_account` returns a new row, and `numbering` grows when rows change otherwise.
        """
        row = self._rows.row(account_id)
        assert row is not None, "an account is not in the book"
        return row

    def put_account(self, account: Account) -> int:
        """Insert an account or replace its record; return its row."""
        held = [position for position in account.positions if position.quantity]
        row = self._rows.row(account.account_id)
        if row is not None:
            self.position_count -= self._held(row)
        if row is None or len(held) > self._pointers[row + 1] - self._pointers[row]:
            if row is not None:
                self._abandon(row)
            row = self._new_row(len(held))
            self._rows.set_row(account.account_id, row)
        self._fill(row, held)
        self._cash[row] = float(account.cash)
        self._day_base[row] = float(day_base(account))
        self._record_as_of_ns[row] = account.as_of_ns
        self._heard_ns[row] = NEVER_NS if account.is_unreadable else account.as_of_ns
        self.position_count += len(held)
        return row

    def drop(self, account_id: str) -> None:
        """Remove an account, if it is in the book."""
        row = self._rows.drop(account_id)
        if row is not None:
            self.position_count -= self._held(row)
            self._abandon(row)

    def apply_marks(self, marks: Iterable[Mark]) -> bool:
        """Apply marks; return whether any was newer than the mark of its symbol.

        A mark without a higher version than the present one's is ignored.
        """
        is_changed, batch = False, self._batches + 1
        for mark in marks:
            column = self.column(mark.symbol)
            if mark.version > self.versions[column]:
                self.prices[column] = mark.price
                self.as_of_ns[column] = mark.as_of_ns
                self.versions[column] = mark.version
                self.applied[column] = batch
                self.marks[mark.symbol] = mark
                self.sources.add(mark.source)
                self.is_away[column] = mark.source in self.away
                self._moved.add(column)
                is_changed = True
        self._batches += is_changed
        return is_changed

    def set_versions(self, stored: Iterable[Mark]) -> None:
        """Let marks count as newer than the stored ones, also if the known ones have higher versions.

        Valkey may have lost its data, and with them the fencing tokens from which versions begin.
        """
        self.versions[:] = 0
        for mark in stored:
            self.versions[self.column(mark.symbol)] = mark.version

    def unprice(self, symbol: str) -> None:
        """Remove the mark of a symbol."""
        column = self.columns[symbol]
        del self.marks[symbol]
        self.prices[column] = UNPRICED
        self._moved.add(column)

    def take_moved(self) -> Ints:
        """The columns whose mark, or its staleness by source, has changed since the last call."""
        moved = np.fromiter(self._moved, np.int64, len(self._moved))
        self._moved.clear()
        return moved

    def set_away(self, sources: Iterable[str]) -> bool:
        """Count the marks of exactly these sources as stale; return whether that is a change."""
        before, self.away = self.away, frozenset(sources)
        if self.away == before:
            return False
        for symbol, mark in self.marks.items():
            self.is_away[column := self.columns[symbol]] = mark.source in self.away
            self._moved.add(column)
        return True

    def column(self, symbol: str) -> int:
        """The symbol's column; a new symbol gets a new one."""
        column = self.columns.get(symbol)
        if column is None:
            column = self.columns[symbol] = self._new_column()
            self.symbols[column] = symbol
        return column

    @property
    def is_crowded(self) -> bool:
        """Whether so many symbols may be held by no account that `count_holders` is due."""
        return len(self.columns) > self._columns_max

    def count_holders(self) -> Iterator[None]:
        """Find, step by step, which symbols are held. `pack` must not run meanwhile."""
        self._is_held[:] = False
        place = 0
        while place < (end := int(self._pointers[self.row_count])):
            last = min(place + STEP_PLACES, end)
            self._is_held[self._column_of[place:last]] = True
            place = last
            yield

    def unheld(self) -> dict[str, Mark | None]:
        """Symbol -> mark, of the symbols found in no row by the last count or since."""
        return {
            symbol: self.marks.get(symbol)
            for symbol, column in self.columns.items()
            if not self._is_held[column]
        }

    def free(self, unheld: Mapping[str, Mark | None]) -> list[str]:
        """Remove those of these symbols that are still unheld and have still this mark; return them."""
        freed = [
            symbol
            for symbol, mark in unheld.items()
            if not self._is_held[self.columns[symbol]] and self.marks.get(symbol) is mark
        ]
        for symbol in freed:
            column = self.columns.pop(symbol)
            self.marks.pop(symbol, None)
            self.symbols[column] = ""
            self.prices[column] = UNPRICED
            self.as_of_ns[column] = NEVER_NS
            self.versions[column] = self.applied[column] = 0
            self.is_away[column] = False
            self._free_columns.append(column)
        self._columns_max = 2 * len(self.columns) + SPARE_COLUMNS
        return freed

    def select(self, rows: Ints) -> Selection:
        """A copy of these rows, in this order."""
        places, counts = self._places(rows)
        is_held = self._quantity[places] != 0.0
        if not is_held.all():
            counts = np.add.reduceat(np.append(is_held, False), counts.cumsum() - counts) * (counts > 0)
            places = places[is_held]
        return Selection(
            counts=counts,
            columns=self._column_of[places],
            quantity=self._quantity[places],
            cash=self._cash[rows],
            day_base=self._day_base[rows],
            record_as_of_ns=self._record_as_of_ns[rows],
            heard_ns=self._heard_ns[rows],
        )

    def rows(self, first: int, last: int) -> Rows:
        """The existing rows from `first` to before `last`, not copied."""
        first, last = min(first, self.row_count), min(last, self.row_count)
        return Rows(
            self._pointers[first : last + 1],
            self._column_of,
            self._quantity,
            self.prices[: len(self.symbols)],
            self._cash[first:last],
            self._day_base[first:last],
        )

    def is_changed(self, first: int, last: int) -> NDArray[np.bool_]:
        """Whether each row from `first` to before `last` has changed. The caller resets it to False."""
        return self._is_changed[first : min(last, self.row_count)]

    @property
    def is_loose(self) -> bool:
        """Whether half of the places are abandoned, so that `pack` is due."""
        in_all = int(self._pointers[self.row_count]) + self.row_count
        return self._abandoned > 0 and 2 * self._abandoned >= in_all

    def pack(self) -> Iterator[None]:
        """Move all rows to the front, step by step, and leave out the abandoned ones.

        Between two steps, the places of moved rows are in the middle, as abandoned rows.
        """
        row, kept, freed = 0, 0, 0
        while row < self.row_count:
            last = min(row + STEP_ROWS, self.row_count)
            taken = np.flatnonzero(self._rows.is_taken(row, last)) + row
            start, end = int(self._pointers[row]), int(self._pointers[last])
            freed += end - start - int(self._places_of(taken).sum()) + last - row - len(taken)
            kept = self._move(row, last, taken, kept)
            row = last
            yield
        self.row_count = kept
        self._abandoned = max(0, self._abandoned - freed)

    def _move(self, first: int, last: int, taken: Ints, kept: int) -> int:
        """Move the `taken` ones of these rows to row `kept` and after it; return the next free row."""
        if len(taken) == last - kept:
            return last  # no row has been abandoned so far
        old_ids = self._rows.ids(first, last)
        places, counts = self._places(taken)
        start, first_place, end = (int(self._pointers[row]) for row in (kept, first, last))
        filled, beyond = start + len(places), kept + len(taken)
        self._quantity[start:filled] = self._quantity[places]
        self._column_of[start:filled] = self._column_of[places]
        vacated = slice(max(filled, first_place), end)
        self._quantity[vacated], self._column_of[vacated] = 0.0, PADDING
        self._pointers[kept + 1 : beyond + 1] = start + counts.cumsum()
        for vector in (getattr(self, name) for name in VECTORS):
            vector[kept:beyond] = vector[taken]
            vector[max(beyond, first) : last] = 0
        self._is_changed[kept:beyond] = self._is_changed[max(beyond, first) : last] = True
        self.numbering += 1
        for number, account_id in enumerate(old_ids, kept):
            self._rows.set_row(account_id, number)
        return beyond

    def _held(self, row: int) -> int:
        start, end = self._pointers[row], self._pointers[row + 1]
        return int(np.count_nonzero(self._quantity[start:end]))

    def _fill(self, row: int, held: Sequence[Position]) -> None:
        start, end = int(self._pointers[row]), int(self._pointers[row + 1])
        filled = start + len(held)
        columns = [self.column(position.price_name) for position in held]
        self._column_of[start:filled] = columns
        self._is_held[columns] = True
        self._quantity[start:filled] = [float(position.quantity * position.multiplier) for position in held]
        self._column_of[filled:end] = PADDING
        self._quantity[filled:end] = 0.0
        self._is_changed[row] = True

    def _abandon(self, row: int) -> None:
        self._fill(row, ())
        self._cash[row] = self._day_base[row] = 0.0
        self._abandoned += 1 + int(self._pointers[row + 1] - self._pointers[row])

    def _new_row(self, count: int) -> int:
        """A new row at the end, with places for `count` positions and a few spare ones."""
        places = count + count // SPARE_SHARE
        row = self.row_count
        end = int(self._pointers[row]) + places
        assert end <= PLACES_MAX, "too many positions for one book: run more calculators"
        while end > len(self._quantity):
            self._quantity, self._column_of = _grown(self._quantity, 0), _grown(self._column_of, 0)
        if row + 2 > len(self._pointers):
            self._pointers = _grown(self._pointers, 0)
        if row >= len(self._cash):
            for name in (*VECTORS, "_is_changed", "equity", "day_pnl"):
                setattr(self, name, _grown(getattr(self, name), 0))
        self._pointers[row + 1] = end
        self.row_count += 1
        return row

    def _places(self, rows: Ints) -> tuple[Ints, Ints]:
        """The places of all elements of these rows, row after row, and the number of places of each row."""
        starts, counts = self._pointers[rows].astype(np.int64), self._places_of(rows)
        first = counts.cumsum() - counts
        return np.repeat(starts - first, counts) + np.arange(int(counts.sum())), counts

    def _places_of(self, rows: Ints) -> Ints:
        """The number of places of each of these rows."""
        return (self._pointers[rows + 1] - self._pointers[rows]).astype(np.int64)

    def _new_column(self) -> int:
        if self._free_columns:
            return self._free_columns.pop()
        column = len(self.symbols)
        self.symbols.append("")
        if column >= len(self.prices):
            self.prices = _grown(self.prices, UNPRICED)
            self.as_of_ns = _grown(self.as_of_ns, NEVER_NS)
            self.versions = _grown(self.versions, 0)
            self.applied = _grown(self.applied, 0)
            self.is_away = _grown(self.is_away, False)
            self._is_held = _grown(self._is_held, False)
        return column


def _grown(array: NDArray[Any], filler: float) -> NDArray[Any]:
    """A copy of double length, the new half filled. Zeros that were never written take no memory yet."""
    longer = np.zeros(2 * len(array), array.dtype)
    longer[: len(array)] = array
    if filler:
        longer[len(array) :] = filler
    return longer

"""The book: every account's positions as one sparse matrix Q (accounts x symbols), and one price per symbol.

For a reader of finance: row i of Q lists how many units account i holds of each symbol (contracts times
their multiplier, short is negative). For a reader of algebra: `equity = cash + Q · price`, and
`day P&L = equity - day base`.

Q is kept in compressed sparse row form, always ready to be multiplied: the rows lie one behind the other in
two flat arrays (column, quantity). A row may have spare places, filled with quantity 0 of column 0, which is
no symbol and has the price 0. A row that outgrows its places is emptied and begun anew at the end; when half
of the places are abandoned, `pack` is due. A change to one account costs the size of that account.

What goes through all accounts (`ids`, `pack`, `count_holders`) does so in steps of milliseconds; between two
of them accounts and marks may come and go.
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
SPARE_SHARE: Final = 16  # a new row gets one spare place for so many positions
PLACES_MAX: Final = 2**31 - 1
INITIAL: Final = 64  # places in a new array; arrays double when full
NEVER_NS: Final = -(2**62)
FOREVER_NS: Final = 2**62
VECTORS: Final = ("_cash", "_day_base", "_record_as_of_ns", "_heard_ns")
STEP_ROWS: Final = 4096  # moved or named in one step
STEP_PLACES: Final = 2**20  # looked at in one step
BLOCK_ROWS: Final = 16_384  # valued at a time
SPARE_COLUMNS: Final = (
    1024  # symbols that nobody holds may take so many columns, and as many again as are kept
)


@dataclass(frozen=True)
class Selection:
    """Some rows of the book, copied: what one valuation works on.

    Row after row the positions with a quantity, each a column and a quantity; the other vectors have one
    entry a row.
    """

    counts: Ints  # positions in each row
    columns: Int32s
    quantity: Floats
    cash: Floats
    day_base: Floats
    record_as_of_ns: Ints
    heard_ns: Ints  # when the broker last said something readable about it; NEVER_NS where it no longer does


@dataclass(frozen=True)
class Rows:
    """Neighbouring rows of the book, not copied: valid until the book changes.

    Quantities are in CSR, n rows x all symbols; spare places and abandoned rows are in it as zeros.
    """

    pointers: Int32s  # length n + 1, into these two
    columns: Int32s
    quantity: Floats
    prices: Floats  # of all symbols
    cash: Floats
    day_base: Floats

    @property
    def lines(self) -> Lines:
        """The matrix by itself, its elements not copied."""
        first, last = self.pointers[0], self.pointers[-1]
        return Lines(self.pointers - first, self.columns[first:last], self.quantity[first:last])

    def only(self, indices: Ints) -> "Rows":
        """These of the rows, copied."""
        some = some_of(self.lines, indices.astype(np.int32))
        return Rows(*some, self.prices, self.cash[indices], self.day_base[indices])

    def value(self, equity: Floats, day_pnl: Floats) -> None:
        """Write down what the rows are worth, in dollars, NaN where unpriced; abandoned rows are worth 0.

        Unrounded and without an error bound: for looking at the whole book, not for publication. So many rows
        at a time that what is written for them is still in the cache when it is read again.
        """
        for first in range(0, len(self.cash), BLOCK_ROWS):
            block = slice(first, first + BLOCK_ROWS)
            worth = equity[block]
            worth[:] = self.cash[block]
            # SciPy's own product, which adds: `quantities @ prices` would write an array that is read once.
            parts = self.pointers[first : first + len(worth) + 1], self.columns, self.quantity
            csr_matvec(len(worth), len(self.prices), *parts, self.prices, worth)
            np.subtract(worth, self.day_base[block], out=day_pnl[block])


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
        self.received_ns: Ints = np.full(INITIAL, NEVER_NS)
        self.marks: dict[str, Mark] = {}
        self.sources: set[str] = set()  # of all marks so far
        self.away: frozenset[str] = frozenset()  # sources that bring nothing now …
        self.is_away: NDArray[np.bool_] = np.zeros(INITIAL, bool)  # … and the columns with a mark of theirs
        self._free_columns: list[int] = []
        self._columns_max = SPARE_COLUMNS  # more in use: see which of them are held
        self._is_held: NDArray[np.bool_] = np.zeros(INITIAL, bool)  # columns seen in rows since last counted
        self._rows = AccountIndex()
        self._abandoned = 0  # places and rows
        self._pointers: Int32s = np.zeros(INITIAL + 1, np.int32)
        self._column_of: Int32s = np.zeros(INITIAL, np.int32)
        self._quantity: Floats = np.zeros(INITIAL)
        self._cash: Floats = np.zeros(INITIAL)
        self._day_base: Floats = np.zeros(INITIAL)
        self._record_as_of_ns: Ints = np.zeros(INITIAL, np.int64)
        self._heard_ns: Ints = np.zeros(INITIAL, np.int64)
        self._is_changed: NDArray[np.bool_] = np.zeros(INITIAL, bool)
        self.numbering = 0  # grows when accounts that are not put change their rows
        self._moved: set[int] = set()  # columns whose price, times or source have changed

    def __contains__(self, account_id: str) -> bool:
        return self._rows.row(account_id) is not None

    def __len__(self) -> int:
        return len(self._rows)

    def ids(self) -> Iterator[list[str]]:
        """Every account of the book, step by step, some perhaps twice; `pack` must not run meanwhile."""
        first = 0
        while first < self.row_count:
            yield self._rows.ids(first, min(first + STEP_ROWS, self.row_count))
            first += STEP_ROWS

    def reserve(self, accounts: int) -> None:
        """So many accounts will come: looking them up must not be put in order again and again."""
        self._rows.reserve(accounts)

    def row(self, account_id: str) -> int:
        """The row of an account, which must be in the book; `put_account` and `numbering` tell of another."""
        row = self._rows.row(account_id)
        assert row is not None, "an account is not in the book"
        return row

    def put_account(self, account: Account) -> int:
        """Insert an account or replace its record; its row."""
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
        """Forget an account, if it is there."""
        row = self._rows.drop(account_id)
        if row is not None:
            self.position_count -= self._held(row)
            self._abandon(row)

    def apply_marks(self, marks: Iterable[Mark]) -> bool:
        """Take in marks; one that was received earlier than the current is ignored. Did any count?"""
        is_changed = False
        for mark in marks:
            column = self.column(mark.symbol)
            if mark.received_ns > self.received_ns[column]:
                self.prices[column] = mark.price
                self.as_of_ns[column] = mark.as_of_ns
                self.received_ns[column] = mark.received_ns
                self.marks[mark.symbol] = mark
                self.sources.add(mark.source)
                self.is_away[column] = mark.source in self.away
                self._moved.add(column)
                is_changed = True
        return is_changed

    def unprice(self, symbol: str) -> None:
        """The symbol has no mark any more."""
        column = self.columns[symbol]
        del self.marks[symbol]
        self.prices[column] = UNPRICED
        self._moved.add(column)

    def take_moved(self) -> Ints:
        """The columns whose mark has changed since the last call, or counts as stale or not since then."""
        moved = np.fromiter(self._moved, np.int64, len(self._moved))
        self._moved.clear()
        return moved

    def set_away(self, sources: Iterable[str]) -> bool:
        """Let the marks of these sources, and of no others, count as stale. Is that a change?"""
        before, self.away = self.away, frozenset(sources)
        if self.away == before:
            return False
        for symbol, mark in self.marks.items():
            self.is_away[column := self.columns[symbol]] = mark.source in self.away
            self._moved.add(column)
        return True

    def column(self, symbol: str) -> int:
        """The symbol's column, a new one if need be."""
        column = self.columns.get(symbol)
        if column is None:
            column = self.columns[symbol] = self._new_column()
            self.symbols[column] = symbol
        return column

    @property
    def is_crowded(self) -> bool:
        """May many of the symbols be held by nobody? Then `count_holders` is worth its time."""
        return len(self.columns) > self._columns_max

    def count_holders(self) -> Iterator[None]:
        """See, step by step, which symbols are held; `pack` must not run meanwhile."""
        self._is_held[:] = False
        place = 0
        while place < (end := int(self._pointers[self.row_count])):
            last = min(place + STEP_PLACES, end)
            self._is_held[self._column_of[place:last]] = True
            place = last
            yield

    def unheld(self) -> dict[str, Mark | None]:
        """The symbols that were in no row when last counted, nor since, and their marks."""
        return {
            symbol: self.marks.get(symbol)
            for symbol, column in self.columns.items()
            if not self._is_held[column]
        }

    def free(self, unheld: Mapping[str, Mark | None]) -> list[str]:
        """Forget those of these symbols that are still unheld and have still this mark; which."""
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
            self.as_of_ns[column] = self.received_ns[column] = NEVER_NS
            self.is_away[column] = False
            self._free_columns.append(column)
        self._columns_max = 2 * len(self.columns) + SPARE_COLUMNS
        return freed

    def select(self, rows: Ints) -> Selection:
        """These rows, in this order."""
        places, counts = self._places(rows)
        is_held = self._quantity[places] != 0.0
        if not is_held.all():
            counts = np.add.reduceat(np.append(is_held, False), np.cumsum(counts) - counts) * (counts > 0)
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
        """The rows from `first` to before `last`, as far as there are any."""
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
        """Which of these rows were put or dropped since somebody wrote False here."""
        return self._is_changed[first : min(last, self.row_count)]

    @property
    def is_loose(self) -> bool:
        """Are half of the places abandoned? Then `pack` is worth its time."""
        in_all = int(self._pointers[self.row_count]) + self.row_count
        return self._abandoned > 0 and 2 * self._abandoned >= in_all

    def pack(self) -> Iterator[None]:
        """Move all rows together to the front, step by step, leaving out the abandoned ones.

        Between two steps the rows that have been moved away lie in the middle, as abandoned ones.
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
        """Move the `taken` ones of these rows to the row `kept` and behind it; the row behind them."""
        if len(taken) == last - kept:
            return last  # nothing has been abandoned so far
        old_ids = self._rows.ids(first, last)
        places, counts = self._places(taken)
        start, first_place, end = (int(self._pointers[row]) for row in (kept, first, last))
        filled, beyond = start + len(places), kept + len(taken)
        self._quantity[start:filled] = self._quantity[places]
        self._column_of[start:filled] = self._column_of[places]
        vacated = slice(max(filled, first_place), end)
        self._quantity[vacated], self._column_of[vacated] = 0.0, PADDING
        self._pointers[kept + 1 : beyond + 1] = start + np.cumsum(counts)
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
        columns = [self.column(position.symbol) for position in held]
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
        """An empty row at the end with places for `count` positions and a few more."""
        places = count + count // SPARE_SHARE
        row = self.row_count
        end = int(self._pointers[row]) + places
        assert end <= PLACES_MAX, "too many positions for one book: run more calculators"
        while end > len(self._quantity):
            self._quantity, self._column_of = _grown(self._quantity, 0), _grown(self._column_of, 0)
        if row + 2 > len(self._pointers):
            self._pointers = _grown(self._pointers, 0)
        if row >= len(self._cash):
            for name in (*VECTORS, "_is_changed"):
                setattr(self, name, _grown(getattr(self, name), 0))
        self._pointers[row + 1] = end
        self.row_count += 1
        return row

    def _places(self, rows: Ints) -> tuple[Ints, Ints]:
        """Where the elements of these rows lie, row after row, and how many places each row has."""
        starts, counts = self._pointers[rows].astype(np.int64), self._places_of(rows)
        first = np.cumsum(counts) - counts
        return np.repeat(starts - first, counts) + np.arange(int(counts.sum())), counts

    def _places_of(self, rows: Ints) -> Ints:
        """How many places each of these rows has."""
        return (self._pointers[rows + 1] - self._pointers[rows]).astype(np.int64)

    def _new_column(self) -> int:
        if self._free_columns:
            return self._free_columns.pop()
        column = len(self.symbols)
        self.symbols.append("")
        if column >= len(self.prices):
            self.prices = _grown(self.prices, UNPRICED)
            self.as_of_ns = _grown(self.as_of_ns, NEVER_NS)
            self.received_ns = _grown(self.received_ns, NEVER_NS)
            self.is_away = _grown(self.is_away, False)
            self._is_held = _grown(self._is_held, False)
        return column


def _grown(array: NDArray[Any], filler: float) -> NDArray[Any]:
    """Twice as long, the new half filled. Zeros that nobody has written to take no memory yet."""
    longer = np.zeros(2 * len(array), array.dtype)
    longer[: len(array)] = array
    if filler:
        longer[len(array) :] = filler
    return longer

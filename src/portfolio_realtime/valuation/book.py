"""The book: every account's positions as one sparse matrix Q (accounts x symbols), and one price per symbol.

For a reader of finance: row i of Q lists how many units account i holds of each symbol (contracts times
their multiplier, short is negative). For a reader of algebra: `equity = cash + Q · price`.

Rows are stored one behind the other in two flat arrays (column index, quantity). A row that outgrows its
place moves to the end; when more than half of the arrays is abandoned they are packed again. A change to one
account therefore costs the size of that account.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from portfolio_realtime.model import Account, Mark

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

UNPRICED: Final = float("nan")
INITIAL: Final = 64  # places in a new array; arrays double when full
NEVER_NS: Final = -(2**62)


@dataclass(frozen=True)
class Selection:
    """Some rows of the book, cut out as a matrix of their own: what one valuation works on.

    `quantities` is CSR, n accounts x all symbols, without zero quantities; the vectors have length n.
    """

    account_ids: tuple[str, ...]
    quantities: csr_array
    magnitudes: csr_array  # |quantities|, for the error bound
    counts: Ints  # positions in each row
    cash: Floats
    last_equity: Floats
    external_cash_flow: Floats
    record_as_of_ns: Ints


class Book:
    """Accounts as rows, symbols as columns, marks as one value per column."""

    def __init__(self) -> None:
        self.version = 0  # grows whenever a Selection would differ
        self.columns: dict[str, int] = {}
        self.symbols: list[str] = []
        self.prices: Floats = np.full(INITIAL, UNPRICED)
        self.as_of_ns: Ints = np.full(INITIAL, NEVER_NS)
        self.received_ns: Ints = np.full(INITIAL, NEVER_NS)
        self.marks: dict[str, Mark] = {}
        self._rows: dict[str, int] = {}
        self._free_rows: list[int] = []
        self._starts: Ints = np.zeros(INITIAL, np.int64)
        self._counts: Ints = np.zeros(INITIAL, np.int64)
        self._places: Ints = np.zeros(INITIAL, np.int64)
        self._cash: Floats = np.zeros(INITIAL)
        self._last_equity: Floats = np.zeros(INITIAL)
        self._external_cash_flow: Floats = np.zeros(INITIAL)
        self._record_as_of_ns: Ints = np.zeros(INITIAL, np.int64)
        self._column_of: NDArray[np.int32] = np.zeros(INITIAL, np.int32)
        self._quantity: Floats = np.zeros(INITIAL)
        self._end = 0
        self._abandoned = 0

    def __contains__(self, account_id: str) -> bool:
        return account_id in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def account_ids(self) -> list[str]:
        """Every account of the book."""
        return list(self._rows)

    @property
    def position_count(self) -> int:
        """Positions with a quantity, over all accounts."""
        rows = list(self._rows.values())
        return int(self._counts[rows].sum())

    def put(self, account: Account) -> None:
        """Insert an account or replace its record."""
        row = self._rows.get(account.account_id)
        if row is None:
            row = self._rows[account.account_id] = self._new_row()
        held = [position for position in account.positions if position.quantity]
        self._make_place(row, len(held))
        start = int(self._starts[row])
        for place, position in enumerate(held, start):
            self._column_of[place] = self.column(position.symbol)
            self._quantity[place] = float(position.quantity * position.multiplier)
        self._counts[row] = len(held)
        self._cash[row] = float(account.cash)
        self._last_equity[row] = float(account.last_equity)
        self._external_cash_flow[row] = float(account.external_cash_flow)
        self._record_as_of_ns[row] = account.as_of_ns
        self.version += 1

    def drop(self, account_id: str) -> None:
        """Forget an account, if it is there."""
        row = self._rows.pop(account_id, None)
        if row is not None:
            self._abandoned += int(self._places[row])
            self._places[row] = self._counts[row] = 0
            self._free_rows.append(row)
            self.version += 1

    def apply(self, marks: Iterable[Mark]) -> bool:
        """Take in marks; one that was received earlier than the current is ignored. Did any count?"""
        is_changed = False
        for mark in marks:
            column = self.column(mark.symbol)
            if mark.received_ns > self.received_ns[column]:
                self.prices[column] = mark.price
                self.as_of_ns[column] = mark.as_of_ns
                self.received_ns[column] = mark.received_ns
                self.marks[mark.symbol] = mark
                is_changed = True
        return is_changed

    def column(self, symbol: str) -> int:
        """The symbol's column, a new one if need be."""
        column = self.columns.get(symbol)
        if column is None:
            column = self.columns[symbol] = len(self.symbols)
            self.symbols.append(symbol)
            if column >= len(self.prices):
                self.prices = _grown(self.prices, UNPRICED)
                self.as_of_ns = _grown(self.as_of_ns, NEVER_NS)
                self.received_ns = _grown(self.received_ns, NEVER_NS)
                self.version += 1  # a Selection is as wide as the price vector
        return column

    def select(self, account_ids: Sequence[str]) -> Selection:
        """The rows of these accounts, which must be in the book, in this order."""
        rows = np.fromiter((self._rows[account_id] for account_id in account_ids), np.int64, len(account_ids))
        counts = self._counts[rows]
        ends = np.cumsum(counts)
        first = ends - counts
        # place of each wanted element: its row's start plus its index within the row
        places = np.repeat(self._starts[rows] - first, counts) + np.arange(int(counts.sum()))
        quantity = self._quantity[places]
        columns = self._column_of[places]
        pointers = np.concatenate(([0], ends))
        shape = (len(rows), len(self.prices))
        return Selection(
            account_ids=tuple(account_ids),
            quantities=csr_array((quantity, columns, pointers), shape=shape),
            magnitudes=csr_array((np.abs(quantity), columns, pointers), shape=shape),
            counts=counts,
            cash=self._cash[rows],
            last_equity=self._last_equity[rows],
            external_cash_flow=self._external_cash_flow[rows],
            record_as_of_ns=self._record_as_of_ns[rows],
        )

    def _new_row(self) -> int:
        if self._free_rows:
            return self._free_rows.pop()
        row = len(self._rows)  # the new account is not in _rows yet
        if row >= len(self._starts):
            for name in ("_starts", "_counts", "_places", "_cash", "_last_equity", "_external_cash_flow"):
                setattr(self, name, _grown(getattr(self, name), 0))
            self._record_as_of_ns = _grown(self._record_as_of_ns, 0)
        return row

    def _make_place(self, row: int, count: int) -> None:
        if count <= self._places[row]:
            return
        self._abandoned += int(self._places[row])
        self._places[row] = self._counts[row] = 0
        if self._end + count > len(self._quantity):
            self._pack_or_grow(count)
        self._starts[row], self._places[row] = self._end, count
        self._end += count

    def _pack_or_grow(self, count: int) -> None:
        if 2 * self._abandoned > self._end:
            self._pack()
        while self._end + count > len(self._quantity):
            self._quantity = _grown(self._quantity, 0)
            self._column_of = _grown(self._column_of, 0)

    def _pack(self) -> None:
        """Move all rows together to the front, leaving out what was abandoned."""
        rows = np.fromiter(self._rows.values(), np.int64, len(self._rows))
        counts = self._counts[rows]
        ends = np.cumsum(counts)
        first = ends - counts
        places = np.repeat(self._starts[rows] - first, counts) + np.arange(int(counts.sum()))
        self._end = len(places)
        self._quantity[: self._end] = self._quantity[places]
        self._column_of[: self._end] = self._column_of[places]
        self._starts[rows], self._places[rows] = first, counts
        self._abandoned = 0


def _grown(array: NDArray[Any], filler: float) -> NDArray[Any]:
    """Twice as long, the new half filled."""
    return np.concatenate((array, np.full(len(array), filler, array.dtype)))

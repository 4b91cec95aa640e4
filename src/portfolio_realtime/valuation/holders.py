"""Which watched accounts hold a symbol, so that a price change concerns only its holders.

The positions of the watched accounts are sorted by column. An account that was added or whose record has
changed since then counts as a holder of every column until the next sorting. It may be returned without need,
but is never missed.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from portfolio_realtime.valuation.arrays import Ints
from portfolio_realtime.valuation.book import Selection

# Sorting is due when more accounts than LOOSE_MIN plus one in LOOSE_SHARE are loose.
LOOSE_MIN: Final = 64
LOOSE_SHARE: Final = 8

NO_SLOTS: Final[Ints] = np.zeros(0, np.int64)


class Holders:
    """Maps columns of the book to slots of the watchlist."""

    def __init__(self) -> None:
        self._pointers: NDArray[np.int64] = np.zeros(1, np.int64)
        self._slots = NO_SLOTS  # by column
        self._loose: set[int] = set()
        self._count = 0

    @property
    def is_loose(self) -> bool:
        """Whether so many accounts are loose that `sort` is due."""
        return len(self._loose) > LOOSE_MIN + self._count // LOOSE_SHARE

    def loosen(self, slot: int) -> None:
        """Count a slot as a holder of every column: it is new, or its record has changed."""
        self._loose.add(slot)

    def sort(self, slots: Ints, held: Selection, width: int) -> None:
        """Sort the positions `held` by the accounts in `slots`. `width`: the number of columns."""
        order = np.argsort(held.columns, kind="stable")
        self._slots = np.repeat(slots, held.counts)[order]
        self._pointers = np.concatenate(([0], np.cumsum(np.bincount(held.columns, minlength=width))))
        self._loose.clear()
        self._count = len(slots)

    def of(self, columns: Ints) -> Ints:
        """All slots whose account may hold one of these columns, some perhaps twice."""
        columns = columns[columns < len(self._pointers) - 1]  # only loose accounts can hold newer columns
        starts, ends = self._pointers[columns], self._pointers[columns + 1]
        counts = ends - starts
        places = np.repeat(starts - (counts.cumsum() - counts), counts) + np.arange(int(counts.sum()))
        loose = np.fromiter(self._loose, np.int64, len(self._loose))
        return np.concatenate((self._slots[places], loose))

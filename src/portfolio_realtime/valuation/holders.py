"""Who of the watched holds a symbol: so that a price that moves is looked at by its holders alone.

The positions of the watched lie sorted by column. Who has come since, or whose record has changed, is asked
about every column until the next sorting: it may be named in vain, and is never missed.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from portfolio_realtime.valuation.arrays import Ints
from portfolio_realtime.valuation.book import Selection

LOOSE_MIN: Final = 64  # so many may be named in vain before it is worth sorting again …
LOOSE_SHARE: Final = 8  # … or one of so many

NO_SLOTS: Final[Ints] = np.zeros(0, np.int64)


class Holders:
    """Columns of the book -> slots of the watchlist."""

    def __init__(self) -> None:
        self._pointers: NDArray[np.int64] = np.zeros(1, np.int64)
        self._slots = NO_SLOTS  # by column
        self._loose: set[int] = set()
        self._count = 0

    @property
    def is_loose(self) -> bool:
        """Are so many named in vain that `sort` is worth its time?"""
        return len(self._loose) > LOOSE_MIN + self._count // LOOSE_SHARE

    def loosen(self, slot: int) -> None:
        """What it holds is not what it was when sorted, or it has come since."""
        self._loose.add(slot)

    def sort(self, slots: Ints, held: Selection, width: int) -> None:
        """Take in what the accounts in these slots hold, of so many columns."""
        order = np.argsort(held.columns, kind="stable")
        self._slots = np.repeat(slots, held.counts)[order]
        self._pointers = np.concatenate(([0], np.cumsum(np.bincount(held.columns, minlength=width))))
        self._loose.clear()
        self._count = len(slots)

    def of(self, columns: Ints) -> Ints:
        """All slots whose account may hold one of these, some perhaps twice."""
        columns = columns[columns < len(self._pointers) - 1]  # newer ones only the loose can hold
        starts, ends = self._pointers[columns], self._pointers[columns + 1]
        counts = ends - starts
        places = np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(int(counts.sum()))
        loose = np.fromiter(self._loose, np.int64, len(self._loose))
        return np.concatenate((self._slots[places], loose))

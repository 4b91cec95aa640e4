"""The kernel: values a selection of accounts at once, with a bound on the float error.

    equity  = cash + sum of quantity · price
    day P&L = equity - day base        (day base = last equity + external cash flow)

Error bound. Let u = 2^-53. A quantity, a price and cash each carry at most one rounding to float64, each
product one more, and the sum of n products and cash at most n more (in any order). The day base carries one,
and the difference for the day P&L adds one. By the standard result for such expressions (Higham, Accuracy and
Stability of Numerical Algorithms, section 3.1) the error is at most `(n + 6)·u / (1 - (n + 6)·u)` times the
sum of magnitudes. We use n + 12. This also covers the computation of that sum in float64, the factor 1/(1 -
…) for n below 10^12, and the later multiplication by 100.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from portfolio_realtime.valuation.arrays import Floats, Int32s, Ints
from portfolio_realtime.valuation.book import NEVER_NS, Selection

UNIT_ROUNDOFF: Final = 2.0**-53

Number = TypeVar("Number", np.float64, np.int64)


@dataclass(frozen=True)
class Valued:
    """One valuation of a selection; every vector has one entry per account.

    Where `unpriced_count` is not 0, equity and day P&L are NaN and `known_equity` is the value of the rest.
    """

    equity: Floats  # dollars
    day_pnl: Floats  # dollars
    known_equity: Floats  # dollars, without unpriced positions
    error_bound: Floats  # dollars: |float result - exact result| is at most this
    unpriced_count: Ints
    stale_count: Ints
    stale_sum_ns: Ints  # sum of the stale marks' times modulo 2^64; shows whether other marks are stale now
    is_record_stale: NDArray[np.bool_]
    stale_accounts: Ints  # the index of the account of each stale mark, in order …
    stale_columns: Int32s  # … and its column
    as_of_ns: Ints  # newest input
    applied: Ints  # of the mark that was applied last; shows whether any mark of the account has changed


def value(
    selection: Selection,
    prices: Floats,
    as_of_ns: Ints,
    applied: Ints,
    stale_before_ns: int | Ints,
    records_stale_before_ns: int = NEVER_NS,
) -> Valued:
    """Value every account of the selection at these prices (dollars; NaN: unpriced).

    A mark with `as_of_ns` before `stale_before_ns` (one time, or one per column) is stale: it is used and
    counted. So is a record that the broker has not stated since `records_stale_before_ns`.
    """
    rows = _Rows.of(selection.counts)
    price = prices[selection.columns]
    at_ns = as_of_ns[selection.columns]
    is_unpriced = np.isnan(price)
    unpriced_count = rows.count_true(is_unpriced)
    has_unpriced = bool(unpriced_count.any())
    worth = selection.quantity * (np.where(is_unpriced, 0.0, price) if has_unpriced else price)
    known_equity = selection.cash + rows.sum(worth)
    magnitude: Floats = (
        rows.sum(np.abs(worth, out=worth)) + np.abs(selection.cash) + np.abs(selection.day_base)
    )
    equity = np.where(unpriced_count > 0, np.nan, known_equity) if has_unpriced else known_equity
    oldest_ns = stale_before_ns if isinstance(stale_before_ns, int) else stale_before_ns[selection.columns]
    is_stale = at_ns < oldest_ns
    if has_unpriced:
        is_stale &= ~is_unpriced
    stale_count = rows.count_true(is_stale)
    stale_places = is_stale.nonzero()[0]
    is_record_stale = selection.heard_ns < records_stale_before_ns
    return Valued(
        equity=equity,
        day_pnl=equity - selection.day_base,
        known_equity=known_equity,
        error_bound=magnitude * ((selection.counts + 12) * UNIT_ROUNDOFF),
        unpriced_count=unpriced_count,
        stale_count=stale_count + is_record_stale,
        stale_sum_ns=rows.sum(np.where(is_stale, at_ns, 0)) if stale_count.any() else stale_count,
        is_record_stale=is_record_stale,
        stale_accounts=rows.of_places(stale_places),
        stale_columns=selection.columns[stale_places],
        as_of_ns=np.maximum(rows.newest(at_ns), selection.record_as_of_ns),
        applied=rows.newest(applied[selection.columns]),
    )


class _Rows(NamedTuple):
    """Reduces one element per position to one per account."""

    count_of_rows: int
    starts: Ints  # of rows with positions
    has_any: NDArray[np.bool_] | None  # whether each row has positions; None: all have

    @classmethod
    def of(cls, counts: Ints) -> "_Rows":
        """For rows with so many positions."""
        starts, has_any = counts.cumsum() - counts, counts > 0
        return cls(len(counts), starts, None) if has_any.all() else cls(len(counts), starts[has_any], has_any)

    def sum(self, elements: NDArray[Number]) -> NDArray[Number]:
        """The sum of each account's elements. Integers wrap around on overflow."""
        return self._reduce(elements, np.add, 0)

    def count_true(self, elements: NDArray[np.bool_]) -> Ints:
        """How many of each account's elements are true."""
        if not elements.any():
            return np.zeros(self.count_of_rows, np.int64)
        return self._reduce(elements.astype(np.int64), np.add, 0)

    def newest(self, numbers: Ints) -> Ints:
        """The newest time, or the highest other number, among each account's positions."""
        return self._reduce(numbers, np.maximum, NEVER_NS)

    def of_places(self, places: Ints) -> Ints:
        """The account of each of these positions."""
        if not len(places):
            return places
        indices = self.starts.searchsorted(places, side="right") - 1
        return indices if self.has_any is None else self.has_any.nonzero()[0][indices]

    def _reduce(self, elements: NDArray[Number], operation: np.ufunc, empty: int) -> NDArray[Number]:
        """Reduce the elements of each row; rows without positions get `empty`."""
        if self.has_any is None:
            return operation.reduceat(elements, self.starts) if self.count_of_rows else elements[:0]
        result = np.full(self.count_of_rows, empty, elements.dtype)
        if len(self.starts):
            result[self.has_any] = operation.reduceat(elements, self.starts)
        return result

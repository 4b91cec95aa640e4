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
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from portfolio_realtime.valuation.arrays import Floats, Ints
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
    as_of_ns: Ints  # newest input
    received_ns: Ints  # newest mark's arrival; shows whether any mark of the account has changed


def value(
    selection: Selection,
    prices: Floats,
    as_of_ns: Ints,
    received_ns: Ints,
    stale_before_ns: int | Ints,
    records_stale_before_ns: int = NEVER_NS,
) -> Valued:
    """Value every account of the selection at these prices (dollars; NaN: unpriced).

    A mark with `as_of_ns` before `stale_before_ns` (one time, or one per column) is stale: it is used and
    counted. So is a record that the broker has not stated since `records_stale_before_ns`.
    """
    price = prices[selection.columns]
    at_ns = as_of_ns[selection.columns]
    is_unpriced = np.isnan(price)
    worth = selection.quantity * np.where(is_unpriced, 0.0, price)
    known_equity = selection.cash + _sum(selection, worth)
    magnitude: Floats = _sum(selection, np.abs(worth)) + np.abs(selection.cash) + np.abs(selection.day_base)
    unpriced_count = _sum(selection, is_unpriced.astype(np.int64))
    equity = np.where(unpriced_count > 0, np.nan, known_equity)
    oldest_ns = stale_before_ns if isinstance(stale_before_ns, int) else stale_before_ns[selection.columns]
    is_stale = (at_ns < oldest_ns) & ~is_unpriced
    stale_count, stale_sum_ns = _stale(selection, is_stale, at_ns)
    return Valued(
        equity=equity,
        day_pnl=equity - selection.day_base,
        known_equity=known_equity,
        error_bound=magnitude * ((selection.counts + 12) * UNIT_ROUNDOFF),
        unpriced_count=unpriced_count,
        stale_count=stale_count + (selection.heard_ns < records_stale_before_ns),
        stale_sum_ns=stale_sum_ns,
        as_of_ns=np.maximum(_newest(selection, at_ns), selection.record_as_of_ns),
        received_ns=_newest(selection, received_ns[selection.columns]),
    )


def _stale(selection: Selection, is_stale: NDArray[np.bool_], at_ns: Ints) -> tuple[Ints, Ints]:
    """How many of each account's marks are stale, and the sum of their times."""
    if not is_stale.any():
        return np.zeros(len(selection.counts), np.int64), np.zeros(len(selection.counts), np.int64)
    return _sum(selection, is_stale.astype(np.int64)), _sum(selection, np.where(is_stale, at_ns, 0))


def _sum(selection: Selection, elements: NDArray[Number]) -> NDArray[Number]:
    """The sum of each account's elements. Integers wrap around on overflow."""
    return _reduce(selection, elements, np.add, 0)


def _newest(selection: Selection, times_ns: Ints) -> Ints:
    """The newest time among each account's positions."""
    return _reduce(selection, times_ns, np.maximum, NEVER_NS)


def _reduce(
    selection: Selection, elements: NDArray[Number], operation: np.ufunc, empty: int
) -> NDArray[Number]:
    """Reduce the elements of each row; rows without positions get `empty`."""
    counts = selection.counts
    starts = np.cumsum(counts) - counts
    has_any = counts > 0
    if has_any.all():
        return operation.reduceat(elements, starts) if len(counts) else elements[:0]
    result = np.full(len(counts), empty, elements.dtype)
    if has_any.any():
        result[has_any] = operation.reduceat(elements, starts[has_any])
    return result

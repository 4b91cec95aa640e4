"""The kernel: what a selection of accounts is worth, all at once, with a bound on the float error.

    equity  = cash + Q · price
    day P&L = equity - day base        (day base = last equity + external cash flow)

Error bound. Let u = 2^-53. A quantity, a price and cash each carry at most one rounding into float64, each
product one more, and the sum of n products and cash at most n more (in any order); the day base carries one,
and the difference for the day P&L adds one. By the standard result for such expressions (Higham,
Accuracy and Stability of Numerical Algorithms, section 3.1) the error is at most
`(n + 6)·u / (1 - (n + 6)·u)` times the sum of magnitudes. We take n + 12, which also covers computing that
sum itself in float64, the factor 1/(1 - …) for n below 10^12, and the later multiplication by 100.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from portfolio_realtime.valuation.arrays import Floats, Ints
from portfolio_realtime.valuation.book import NEVER_NS, Selection

UNIT_ROUNDOFF: Final = 2.0**-53


@dataclass(frozen=True)
class Valued:
    """One valuation of a selection; every vector has one entry per account.

    Where `unpriced_count` is not 0, equity and day P&L are NaN and `known_equity` holds the known part.
    """

    equity: Floats  # dollars
    day_pnl: Floats  # dollars
    known_equity: Floats  # dollars, without unpriced positions
    error_bound: Floats  # dollars: |float result - exact result| is at most this
    unpriced_count: Ints
    stale_count: Ints
    stale_sum_ns: Ints  # times of the stale marks, summed modulo 2^64; tells whether others are stale now
    as_of_ns: Ints  # newest input
    received_ns: Ints  # newest mark's arrival; tells whether any mark of the account has changed


def value(
    selection: Selection,
    prices: Floats,
    as_of_ns: Ints,
    received_ns: Ints,
    stale_before_ns: int | Ints,
    records_stale_before_ns: int = NEVER_NS,
) -> Valued:
    """Value every account of the selection at these prices (dollars; NaN: unpriced).

    A mark with `as_of_ns` before `stale_before_ns`, of all or of its column, is stale: used, and counted. So
    is a record that the broker has not spoken of since `records_stale_before_ns`.
    """
    is_unpriced = np.isnan(prices)
    known_prices = np.where(is_unpriced, 0.0, prices)
    known_equity = selection.cash + selection.quantities @ known_prices
    magnitude: Floats = (
        selection.magnitudes @ known_prices + np.abs(selection.cash) + np.abs(selection.day_base)
    )
    unpriced_count = _count(selection, is_unpriced)
    equity = np.where(unpriced_count > 0, np.nan, known_equity)
    is_stale = (as_of_ns < stale_before_ns) & ~is_unpriced
    return Valued(
        equity=equity,
        day_pnl=equity - selection.day_base,
        known_equity=known_equity,
        error_bound=magnitude * ((selection.counts + 12) * UNIT_ROUNDOFF),
        unpriced_count=unpriced_count,
        stale_count=_count(selection, is_stale) + (selection.heard_ns < records_stale_before_ns),
        stale_sum_ns=_sum(selection, np.where(is_stale, as_of_ns, 0)),
        as_of_ns=np.maximum(_newest(selection, as_of_ns), selection.record_as_of_ns),
        received_ns=_newest(selection, received_ns),
    )


def _count(selection: Selection, is_marked: NDArray[np.bool_]) -> Ints:
    """How many of each account's positions are in marked columns."""
    return _sum(selection, is_marked.astype(np.int64))


def _sum(selection: Selection, numbers: Ints) -> Ints:
    """The sum of the numbers of each account's columns; an overflow wraps around."""
    return _reduce(selection, numbers[selection.quantities.indices], np.add, 0)


def _newest(selection: Selection, times_ns: Ints) -> Ints:
    """The newest time among each account's positions."""
    return _reduce(selection, times_ns[selection.quantities.indices], np.maximum, NEVER_NS)


def _reduce(selection: Selection, elements: Ints, operation: np.ufunc, empty: int) -> Ints:
    """Reduce the elements of each row; rows without positions get `empty`."""
    result = np.full(len(selection.counts), empty, np.int64)
    has_any = selection.counts > 0
    if has_any.any():
        result[has_any] = operation.reduceat(elements, selection.quantities.indptr[:-1][has_any])
    return result

"""Exact cents from float64: Ziv's rounding test, with Decimal where floats cannot decide.

A float result and its error bound span an interval that holds the exact value. If the interval holds no half
cent, all its values round to the same cent, so the float's rounding is the exact one. Otherwise the figure is
computed again in Decimal by `rounding`, which can be imported without NumPy. Source: A. Ziv, Fast evaluation
of elementary mathematical functions with correctly rounded last bit, 1991.
"""

import numpy as np
from numpy.typing import NDArray

from portfolio_realtime.valuation.arrays import Floats, Ints


def round_to_cents(dollars: Floats, error_bound: Floats) -> tuple[Ints, NDArray[np.bool_]]:
    """Cents, and where the float cannot decide; the cents are 0 there. NaN cannot be decided.

    `dollars` and `error_bound` are in dollars, of equal length.
    """
    hundredfold = 100.0 * dollars
    nearest = np.rint(hundredfold)
    distance = np.abs(np.abs(hundredfold - nearest) - 0.5)
    is_sure = distance > 100.0 * error_bound
    return np.where(is_sure, nearest, 0.0).astype(np.int64), ~is_sure

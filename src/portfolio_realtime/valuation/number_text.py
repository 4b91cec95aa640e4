"""Columns of numbers as columns of text: thousands of messages are written at once, digit by digit.

Written one at a time, the numbers of a message take longer than everything else of its valuation.
"""

from typing import Final

import msgspec
import numpy as np

from portfolio_realtime.clock import rfc3339
from portfolio_realtime.valuation.arrays import Floats, Ints

BLANK, POINT, ZERO = b" .0"
CENT_PLACES: Final = 2
GROUP: Final = 3  # digits between two separators

_encode = msgspec.json.Encoder().encode


def amounts(cents: Ints, separator: str = "") -> list[str]:
    """Dollars without their sign: -10421137 -> `104211.37`, or `104,211.37` with a separator.

    The texts are the rows of a table of characters, filled from the last character to the first.
    """
    rest = np.abs(cents)
    columns = []
    place = 0
    while place <= CENT_PLACES or rest.any():
        if place == CENT_PLACES:
            columns.append(np.full(len(rest), POINT))
        elif separator and place > CENT_PLACES and (place - CENT_PLACES) % GROUP == 0:
            columns.append(np.where(rest > 0, ord(separator), BLANK))
        tenth = rest // 10
        digit = ZERO + (rest - 10 * tenth)
        columns.append(digit if place <= CENT_PLACES else np.where(rest > 0, digit, BLANK))
        rest = tenth
        place += 1
    columns.append(np.full(len(rest), BLANK))
    table = np.array(columns[::-1], np.uint8).T
    return table.tobytes().decode().split()


def signs(cents: Ints, plus: str = "") -> list[str]:
    """`-` or what stands before an amount that is not negative."""
    return np.where(cents < 0, "-", plus).tolist()


def numbers(column: Floats) -> list[str]:
    """JSON numbers in their shortest form; NaN is null."""
    return _encode(column.tolist()).decode()[1:-1].split(",") if len(column) else []


def times(moments_ns: Ints) -> list[str]:
    """RFC 3339; many accounts share their newest mark, and its text."""
    moments = moments_ns.tolist()
    texts = {moment_ns: rfc3339(moment_ns) for moment_ns in set(moments)}
    return [texts[moment_ns] for moment_ns in moments]

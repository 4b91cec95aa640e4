"""Strictly increasing ULIDs: 48 bits of milliseconds, then 80 bits (github.com/ulid/spec).

The first of the 80 bits is zero, so that an id can be counted up; the others are random.
"""

import random

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH = 26
_ENTROPY_BITS = 80


class UlidSequence:
    """The ids of one publisher. Where a new id would not be greater, it is the last one plus one."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._last = 0

    def next(self, at_ns: int) -> str:
        """The id of an event published at `at_ns` (ns since the epoch)."""
        fresh = (at_ns // 1_000_000) << _ENTROPY_BITS | self._rng.getrandbits(_ENTROPY_BITS - 1)
        self._last = fresh if fresh > self._last else self._last + 1
        return encode(self._last)


def encode(number: int) -> str:
    """128 bits as 26 characters of Crockford's base 32."""
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(5 * (LENGTH - 1), -1, -5))


def milliseconds(ulid: str) -> int:
    """The time of an id, in ms since the epoch. Raises ValueError when it is not a ULID."""
    if len(ulid) != LENGTH or ulid[0] > "7":
        raise ValueError(f"not a ULID: {ulid!r}")
    number = 0
    for character in ulid:
        number = number << 5 | _ALPHABET.index(character)
    return number >> _ENTROPY_BITS

"""Account id -> row of the book: a hash table in flat arrays, about 50 bytes per account.

A dict of strings takes about 170 bytes per account, more than ten of its positions in the book. Ids are
fixed-width bytes in row order. The table holds row numbers and is probed linearly. It is split into segments
that grow one at a time, so that growth never stops everything at once.
"""

from array import array
from typing import Final

import numpy as np
from numpy.typing import NDArray

SEGMENTS_BITS: Final = 8
SEGMENTS: Final = 1 << SEGMENTS_BITS  # 4,000 accounts each for a million: rebuilt in milliseconds
INITIAL: Final = 16  # places in a new segment; always a power of two
FULL: Final = 0.6  # share of used places at which a segment is rebuilt
FREE: Final = -1
GONE: Final = -2  # was used: probing continues after it


class AccountIndex:
    """Maps account ids to rows, and rows to account ids."""

    def __init__(self) -> None:
        self._width = 36  # bytes of an id; grows with the longest
        self._ids = bytearray()  # of each row; zeros for a row without an account
        self._tables = [_table(INITIAL) for _ in range(SEGMENTS)]
        self._used = [0] * SEGMENTS  # places that are not FREE
        self._count = 0
        self._expected = 0  # accounts in each segment, after all are added

    def __len__(self) -> int:
        return self._count

    def row(self, account_id: str) -> int | None:
        """The account's row, or None."""
        place = self._find(account_id)
        return None if place is None else self._tables[hash(account_id) % SEGMENTS][place]

    def set_row(self, account_id: str, row: int) -> None:
        """Set the account's row, which replaces an earlier one."""
        key = account_id.encode()
        if len(key) > self._width:
            self._widen(len(key))
        place = self._find(account_id)
        if place is not None:
            table = self._tables[hash(account_id) % SEGMENTS]
            self._write_id(table[place], b"")
            table[place] = row
        self._write_id(row, key)
        if place is None:
            self._count += 1
            self._insert(account_id, row)

    def drop(self, account_id: str) -> int | None:
        """Remove the account; return the row it had, or None."""
        place = self._find(account_id)
        if place is None:
            return None
        table = self._tables[hash(account_id) % SEGMENTS]
        row, table[place] = table[place], GONE
        self._write_id(row, b"")
        self._count -= 1
        return row

    def ids(self, first: int, last: int) -> list[str]:
        """The accounts in the rows from `first` to before `last`, in row order."""
        return [self._id(row) for row in (first + np.flatnonzero(self.is_taken(first, last))).tolist()]

    def is_taken(self, first: int, last: int) -> NDArray[np.bool_]:
        """For each row from `first` to before `last`, whether it has an account."""
        ids = np.frombuffer(bytes(self._ids[first * self._width : last * self._width]), np.uint8)
        return ids[:: self._width] != 0

    def reserve(self, count: int) -> None:
        """Expect this many accounts: a segment that is full then grows to its share at once."""
        self._expected = count // SEGMENTS

    def _id(self, row: int) -> str:
        return bytes(self._ids[row * self._width : (row + 1) * self._width]).rstrip(b"\0").decode()

    def _write_id(self, row: int, key: bytes) -> None:
        end = (row + 1) * self._width
        if len(self._ids) < end:
            self._ids.extend(bytes(end - len(self._ids)))
        self._ids[end - self._width : end] = key.ljust(self._width, b"\0")

    def _find(self, account_id: str) -> int | None:
        """The account's place in its segment, or None."""
        key = account_id.encode().ljust(self._width, b"\0")
        hashed = hash(account_id)
        table = self._tables[hashed % SEGMENTS]
        last = len(table) - 1
        place = (hashed >> SEGMENTS_BITS) & last
        while (row := table[place]) != FREE:
            if row >= 0 and self._ids.startswith(key, row * self._width):
                return place
            place = (place + 1) & last
        return None

    def _insert(self, account_id: str, row: int) -> None:
        hashed = hash(account_id)
        segment = hashed % SEGMENTS
        if self._used[segment] >= FULL * len(self._tables[segment]):
            self._rebuild(segment)
        self._used[segment] += _insert(self._tables[segment], hashed, row)

    def _rebuild(self, segment: int) -> None:
        """Rebuild a segment without GONE places and with room for the expected accounts."""
        rows = [row for row in self._tables[segment] if row >= 0]
        size = INITIAL
        while len(rows) > FULL * size / 2 or self._expected > FULL * size:
            size *= 2
        table = self._tables[segment] = _table(size)
        for row in rows:
            _insert(table, hash(self._id(row)), row)
        self._used[segment] = len(rows)

    def _widen(self, width: int) -> None:
        old, self._width = self._width, width
        count = len(self._ids) // old
        ids = (bytes(self._ids[row * old : (row + 1) * old]) for row in range(count))
        self._ids = bytearray(b"".join(key.ljust(width, b"\0") for key in ids))


def _table(size: int) -> "array[int]":
    return array("i", [FREE]) * size


def _insert(table: "array[int]", hashed: int, row: int) -> bool:
    """Write a row to its first usable place; return whether that was FREE."""
    last = len(table) - 1
    place = (hashed >> SEGMENTS_BITS) & last
    while table[place] >= 0:
        place = (place + 1) & last
    was_free = table[place] == FREE
    table[place] = row
    return was_free

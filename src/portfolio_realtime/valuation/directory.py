"""Which row is an account in: a hash table in flat arrays, about 50 bytes an account.

A dict of strings takes about 170 bytes an account, more than ten positions of it do in the book. Ids are
kept as fixed-width bytes in row order; the table holds row numbers and is probed linearly.
"""

from array import array
from collections.abc import Iterator
from typing import Final

INITIAL: Final = 128  # places in a new table; always a power of two
FULL: Final = 0.6  # share of used places at which the table doubles
FREE: Final = -1
GONE: Final = -2  # was used: probing goes on behind it


class Directory:
    """Account id <-> row."""

    def __init__(self) -> None:
        self._width = 36  # bytes of an id; grows with the longest
        self._ids = bytearray()
        self._table = array("i", [FREE]) * INITIAL
        self._used = 0  # places that are not FREE
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def row(self, account_id: str) -> int | None:
        """The account's row, or None."""
        place = self._find(account_id)
        return None if place is None else self._table[place]

    def put(self, account_id: str, row: int) -> None:
        """The account is in this row from now on."""
        key = account_id.encode()
        if len(key) > self._width:
            self._widen(len(key))
        place = self._find(account_id)
        self._write_id(row, key)
        if place is not None:
            self._table[place] = row
            return
        self._count += 1
        self._insert(account_id, row)
        if self._used > FULL * len(self._table):
            self._rebuild()

    def drop(self, account_id: str) -> int | None:
        """Forget the account; the row it was in, or None."""
        place = self._find(account_id)
        if place is None:
            return None
        row, self._table[place] = self._table[place], GONE
        self._count -= 1
        return row

    def items(self) -> Iterator[tuple[str, int]]:
        """Every account and its row, in no order that means anything."""
        for row in self._table:
            if row >= 0:
                yield self._id(row).rstrip(b"\0").decode(), row

    def renumber(self, rows: dict[int, int]) -> None:
        """Rows have moved: old -> new, for every row."""
        ids = bytearray(len(rows) * self._width)
        for old, new in rows.items():
            ids[new * self._width : (new + 1) * self._width] = self._id(old)
        self._table = array("i", (rows[row] if row >= 0 else row for row in self._table))
        self._ids = ids

    def _id(self, row: int) -> bytes:
        return bytes(self._ids[row * self._width : (row + 1) * self._width])

    def _write_id(self, row: int, key: bytes) -> None:
        end = (row + 1) * self._width
        if len(self._ids) < end:
            self._ids.extend(bytes(end - len(self._ids)))
        self._ids[end - self._width : end] = key.ljust(self._width, b"\0")

    def _find(self, account_id: str) -> int | None:
        key = account_id.encode().ljust(self._width, b"\0")
        last = len(self._table) - 1
        place = hash(account_id) & last
        while (row := self._table[place]) != FREE:
            if row >= 0 and self._ids.startswith(key, row * self._width):
                return place
            place = (place + 1) & last
        return None

    def _insert(self, account_id: str, row: int) -> None:
        last = len(self._table) - 1
        place = hash(account_id) & last
        while self._table[place] >= 0:
            place = (place + 1) & last
        self._used += self._table[place] == FREE
        self._table[place] = row

    def reserve(self, count: int) -> None:
        """So many accounts will come: make room for them at once, not again and again."""
        if count > FULL * len(self._table):
            self._rebuild(count)

    def _rebuild(self, count: int = 0) -> None:
        """A table without GONE places, with room for `count` accounts, twice as long where it is needed."""
        known = list(self.items())
        size = len(self._table)
        while self._count > FULL * size / 2 or count > FULL * size:
            size *= 2
        self._table = array("i", [FREE]) * size
        self._used = 0
        for account_id, row in known:
            self._insert(account_id, row)

    def _widen(self, width: int) -> None:
        old, self._width = self._width, width
        count = len(self._ids) // old
        ids = (bytes(self._ids[row * old : (row + 1) * old]) for row in range(count))
        self._ids = bytearray(b"".join(key.ljust(width, b"\0") for key in ids))

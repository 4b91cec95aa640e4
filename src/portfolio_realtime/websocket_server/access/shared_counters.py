"""Counts that the server processes of one port share: how many of each key, in shared memory.

Each process has a part that only it writes and all read, so nothing is locked. When a process is killed, the
parent clears its part.
"""

import hashlib
import mmap
import os
import secrets
import sys
import tempfile
from collections.abc import Sequence
from typing import Final, Self

KINDS: Final = ("user", "user minute", "address", "minute", "refusals")  # counted, each in its own table
SLOTS: Final = 1 << 17  # of one process and kind: more than twice what it may have open
PROBED: Final = 16  # slots from its own on in which a key may be; with none of them free it is not shared
DIGEST_BYTES: Final = 8
COUNT_BYTES: Final = 4
PLACES: Final = SLOTS + PROBED
TABLE_BYTES: Final = PLACES * (DIGEST_BYTES + COUNT_BYTES)
SALT_BYTES: Final = hashlib.blake2b.MAX_KEY_SIZE  # so that nobody can choose keys that crowd
HEAD_BYTES: Final = mmap.PAGESIZE  # before the tables, the salt in it


class _Table:
    """What one process has of one kind: digests of keys, 0 where a slot is free, and their counts."""

    def __init__(self, memory: memoryview) -> None:
        at = PLACES * DIGEST_BYTES
        self._digests, self._counts = memory[:at].cast("Q"), memory[at:].cast("I")

    def count(self, digest: int) -> int:
        """How many it has."""
        slot = self._slot(digest, digest)
        return 0 if slot is None else self._counts[slot]

    def set_count(self, digest: int, count: int) -> None:
        """It has so many; where no slot is free, that stays unsaid."""
        slot = self._slot(digest, digest)
        if slot is None:
            slot = self._slot(digest, 0)
        if slot is not None:
            self._counts[slot] = count
            self._digests[slot] = digest if count else 0

    def _slot(self, digest: int, wanted: int) -> int | None:
        home = digest % SLOTS
        probed = self._digests[home : home + PROBED].tolist()
        return home + probed.index(wanted) if wanted in probed else None

    def clear(self) -> None:
        """It has nothing any more."""
        self._digests[:] = memoryview(bytes(PLACES * DIGEST_BYTES)).cast("Q")


class SharedCounter:
    """How many of each key the other processes have, and what this one tells them."""

    def __init__(self, salt: bytes, own: _Table, others: Sequence[_Table]) -> None:
        self._salt, self._own, self._others = salt, own, others

    def tell(self, key: str, count: int) -> None:
        """This process has so many of the key."""
        self._own.set_count(self._digest(key), count)

    def elsewhere(self, key: str) -> int:
        """How many the other processes have of the key."""
        digest = self._digest(key)
        return sum(other.count(digest) for other in self._others)

    def clear(self) -> None:
        """This process has nothing any more."""
        self._own.clear()

    def _digest(self, key: str) -> int:
        found = hashlib.blake2b(key.encode(), digest_size=DIGEST_BYTES, key=self._salt).digest()
        return int.from_bytes(found) or 1


class SharedCounters:
    """The shared memory of so many processes; it ends with the last that has it open."""

    def __init__(self, file: int, process_count: int) -> None:
        self.file = file  # its descriptor, for children
        self._memory = mmap.mmap(file, _size(process_count))
        self._process_count = process_count

    @classmethod
    def create(cls, process_count: int) -> Self:
        """A new one, with nothing in it."""
        file = _anonymous_file()
        os.truncate(file, _size(process_count))
        os.pwrite(file, secrets.token_bytes(SALT_BYTES), 0)
        return cls(file, process_count)

    def counter(self, index: int, kind: str) -> SharedCounter:
        """What the process with this index tells and hears about a kind."""
        tables = [self._table(process, kind) for process in range(self._process_count)]
        own = tables.pop(index)
        return SharedCounter(self._memory[:SALT_BYTES], own, tables)

    def clear(self, index: int) -> None:
        """The process with this index has ended."""
        for kind in KINDS:
            self._table(index, kind).clear()

    def _table(self, process: int, kind: str) -> _Table:
        at = HEAD_BYTES + (process * len(KINDS) + KINDS.index(kind)) * TABLE_BYTES
        return _Table(memoryview(self._memory)[at : at + TABLE_BYTES])


def _size(process_count: int) -> int:
    return HEAD_BYTES + process_count * len(KINDS) * TABLE_BYTES


def _anonymous_file() -> int:
    """The descriptor of a file without a name, in memory where the system can."""
    if sys.platform == "linux":
        return os.memfd_create("shared counters")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())

"""What a server reads for each message of nearly every account: a few numbers, side by side for all accounts.

A thousand publications are looked through in a few steps then, and no object of an account is touched.
"""

from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

NOBODY: Final = 0  # the slot of no account
NO_SOCKET: Final = -1
INITIAL: Final = 64  # slots; they double when all are taken

Slots = NDArray[np.intp]
Numbers = NDArray[np.int64]


class StreamPosition(NamedTuple):
    """Where in an account's stream of publications; it only ever grows."""

    epoch: int
    sequence: int


_make: Final = partial(tuple.__new__, StreamPosition)  # a third of the time of the named tuple's own


class NewestColumns:
    """The newest publication of each watched account and, where it has one client only, who that is."""

    def __init__(self) -> None:
        self.socket: NDArray[np.int32] = np.full(INITIAL, NO_SOCKET, np.int32)  # the only client's, if direct
        self.frame: NDArray[Any] = np.full(INITIAL, None, object)  # without positions, or None
        self._epoch: NDArray[np.int64] = np.zeros(INITIAL, np.int64)
        self._sequence: NDArray[np.int64] = np.zeros(INITIAL, np.int64)
        self._free = list(range(INITIAL - 1, NOBODY, -1))

    def allocate(self) -> int:
        """A free slot."""
        if not self._free:
            count = len(self.socket)
            self._free = list(range(2 * count - 1, count - 1, -1))
            self.socket = np.append(self.socket, np.full(count, NO_SOCKET, np.int32))
            self.frame = np.append(self.frame, np.full(count, None, object))
            self._epoch = np.append(self._epoch, np.zeros(count, np.int64))
            self._sequence = np.append(self._sequence, np.zeros(count, np.int64))
        return self._free.pop()

    def release(self, slot: int) -> None:
        """The account is not watched any more."""
        self.socket[slot], self.frame[slot] = NO_SOCKET, None
        self._epoch[slot] = self._sequence[slot] = 0
        self._free.append(slot)

    def position(self, slot: int) -> StreamPosition | None:
        """Where the newest publication is, if there is any."""
        if self.frame[slot] is None:
            return None
        return _make((self._epoch.item(slot), self._sequence.item(slot)))

    def store(self, slot: int, at: StreamPosition, frame: bytes) -> None:
        """The newest publication of one account."""
        self._epoch[slot], self._sequence[slot] = at
        self.frame[slot] = frame

    def are_newer(self, slots: Slots, epochs: Numbers, sequences: Numbers) -> NDArray[np.bool_]:
        """Which of these publications are newer than what is known of their accounts."""
        known = self._epoch[slots]
        return (known < epochs) | ((known == epochs) & (self._sequence[slots] < sequences))

    def store_all(self, slots: Slots, epochs: Numbers, sequences: Numbers, frames: list[bytes]) -> None:
        """The newest publications of these accounts, each once."""
        self._epoch[slots], self._sequence[slots], self.frame[slots] = epochs, sequences, frames

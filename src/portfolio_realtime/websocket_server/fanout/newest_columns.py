"""The numbers that a server reads for each message of nearly every account, in columns over all accounts.

A thousand publications are processed in a few steps, without touching any account object.
"""

from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

NOBODY: Final = 0  # the slot of no account
NO_SOCKET: Final = -1
INITIAL: Final = 64  # slots; their number doubles when all are in use

Slots = NDArray[np.intp]
Numbers = NDArray[np.int64]


class StreamPosition(NamedTuple):
    """A position in an account's stream of publications. It only grows."""

    epoch: int
    sequence: int


# Takes a third of the time of the class's own constructor.
_make: Final = partial(tuple.__new__, StreamPosition)


class NewestColumns:
    """The newest publication of each watched account, and its client if it has only one."""

    def __init__(self) -> None:
        # File descriptor of the only client, if direct.
        self.socket: NDArray[np.int32] = np.full(INITIAL, NO_SOCKET, np.int32)
        self.frame: NDArray[Any] = np.full(INITIAL, None, object)  # without positions; None before the first
        self._epoch: NDArray[np.int64] = np.zeros(INITIAL, np.int64)
        self._sequence: NDArray[np.int64] = np.zeros(INITIAL, np.int64)
        self._free = list(range(INITIAL - 1, NOBODY, -1))

    def allocate(self) -> int:
        """A free slot, now in use."""
        if not self._free:
            count = len(self.socket)
            self._free = list(range(2 * count - 1, count - 1, -1))
            self.socket = np.append(self.socket, np.full(count, NO_SOCKET, np.int32))
            self.frame = np.append(self.frame, np.full(count, None, object))
            self._epoch = np.append(self._epoch, np.zeros(count, np.int64))
            self._sequence = np.append(self._sequence, np.zeros(count, np.int64))
        return self._free.pop()

    def release(self, slot: int) -> None:
        """Clear a slot and make it free."""
        self.socket[slot], self.frame[slot] = NO_SOCKET, None
        self._epoch[slot] = self._sequence[slot] = 0
        self._free.append(slot)

    def position(self, slot: int) -> StreamPosition | None:
        """The stream position of the newest publication, or None."""
        if self.frame[slot] is None:
            return None
        return _make((self._epoch.item(slot), self._sequence.item(slot)))

    def store(self, slot: int, at: StreamPosition, frame: bytes) -> None:
        """Set the newest publication of one account."""
        self._epoch[slot], self._sequence[slot] = at
        self.frame[slot] = frame

    def are_newer(self, slots: Slots, epochs: Numbers, sequences: Numbers) -> NDArray[np.bool_]:
        """Which of these publications are newer than those of their accounts."""
        known = self._epoch[slots]
        return (known < epochs) | ((known == epochs) & (self._sequence[slots] < sequences))

    def store_all(self, slots: Slots, epochs: Numbers, sequences: Numbers, frames: list[bytes]) -> None:
        """Set the newest publications of these accounts, each of which occurs once."""
        self._epoch[slots], self._sequence[slots], self.frame[slots] = epochs, sequences, frames

"""The way of nearly every frame: straight to the socket, for all clients of a burst in one loop.

The transport's own `write` is right for one client; for thousands at once it is the greater part of the cost
beside the system call. Here a socket is its number: used only while the transport has nothing left to write,
so that bytes keep their order, and never after `close`, which comes before the transport closes the socket:
else the number would soon be another client's.
"""

import os
from collections.abc import Callable, Sequence

Unsent = Callable[[bytes], None]


class DirectWrites:
    """The sockets that may be sent to past their transports, and who deals with what they do not take."""

    def __init__(self) -> None:
        self._unsent: dict[int, Unsent] = {}

    def open(self, fileno: int, unsent: Unsent) -> None:
        """From now on this socket, which does not block, is sent to; its leftovers go to `unsent`."""
        self._unsent[fileno] = unsent

    def close(self, fileno: int) -> None:
        """Send to this socket no more."""
        del self._unsent[fileno]

    def send_all(self, filenos: Sequence[int], frames: Sequence[bytes]) -> int:
        """Send each socket its frames; the rest of what it does not take goes to its `unsent`. All bytes."""
        in_all = sum(map(len, frames))  # now, while they are in the caches
        counts: list[int] = []
        numbers, texts = iter(filenos), iter(frames)
        while True:
            try:
                counts.extend(map(os.write, numbers, texts))  # no bytecode between two system calls
                break
            except OSError:  # full, or broken: the transport will find out
                counts.append(0)
        if sum(counts) != in_all:
            for fileno, text, count in zip(filenos, frames, counts, strict=True):
                if count != len(text) and (unsent := self._unsent.get(fileno)) is not None:
                    unsent(text[count:])
        return in_all

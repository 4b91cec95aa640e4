"""Direct writes: a burst of publications goes directly to the sockets of all clients, in one loop.

The transport's `write` is right for one client. For thousands at once it would be most of the cost apart from
the system call. A socket is named by its file descriptor. It is used only while its transport has nothing
left to write, so that bytes keep their order. It is never used after `close`, which is called before the
transport closes the socket: after that, the number may be another client's.
"""

import os
from collections.abc import Callable, Sequence

Unsent = Callable[[bytes], None]


class DirectWrites:
    """The sockets that may be written to directly, and the handlers of what they do not take."""

    def __init__(self) -> None:
        self._unsent: dict[int, Unsent] = {}

    def open(self, fileno: int, unsent: Unsent) -> None:
        """Allow direct writes to this non-blocking socket. `unsent` gets what the socket does not take."""
        self._unsent[fileno] = unsent

    def close(self, fileno: int) -> None:
        """End direct writes to this socket."""
        del self._unsent[fileno]

    def send_all(self, filenos: Sequence[int], frames: Sequence[bytes]) -> int:
        """Write each socket its frame; its `unsent` gets what it does not take. Returns all bytes."""
        in_all = sum(map(len, frames))  # now, while the frames are in the caches
        counts: list[int] = []
        numbers, texts = iter(filenos), iter(frames)
        while True:
            try:
                counts.extend(map(os.write, numbers, texts))  # no bytecode between two system calls
                break
            except OSError:  # full or broken: the transport handles it
                counts.append(0)
        if sum(counts) != in_all:
            for fileno, text, count in zip(filenos, frames, counts, strict=True):
                if count != len(text) and (unsent := self._unsent.get(fileno)) is not None:
                    unsent(text[count:])
        return in_all

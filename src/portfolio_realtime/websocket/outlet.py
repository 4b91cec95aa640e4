"""The way of nearly every frame: straight to the socket, for all clients of a burst in one loop.

The transport's own `write` is right for one client; for thousands at once it is the greater part of the cost
beside the system call. An outlet is a second handle on the transport's socket, used only while the transport
has nothing left to write, so that bytes keep their order. It never owns the socket: `detach` before that is
closed, else its number would soon be another client's.
"""

import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

_send: Final = socket.socket.send


class Outlet(socket.socket):
    """A connection's socket, and who deals with what it does not take."""

    __slots__ = ("unsent",)

    def __init__(self, raw: Any, unsent: Callable[[bytes], None]) -> None:
        """`raw`: what the transport calls its socket, non-blocking."""
        super().__init__(raw.family, socket.SOCK_STREAM, 0, raw.fileno())
        self.settimeout(0)
        self.unsent = unsent


def send_all(frames: Mapping[Outlet, bytes]) -> None:
    """Send each outlet its frames; the rest of what a socket does not take goes to `unsent`."""
    counts: list[int] = []
    outlets, texts = iter(frames), iter(frames.values())
    while True:
        try:
            counts.extend(map(_send, outlets, texts))  # no bytecode between two system calls
            break
        except OSError:  # full, or broken: the transport will find out
            counts.append(0)
    if sum(counts) != sum(map(len, frames.values())):
        rests = zip(tuple(frames.items()), counts, strict=True)
        for (outlet, text), count in rests:
            if count != len(text):
                outlet.unsent(text[count:])

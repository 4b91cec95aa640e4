"""Servers that accept connections and hold whoever asks: they say nothing, or one byte now and then."""

import contextlib
import socket
import threading
from collections.abc import Generator
from typing import Final

MUTE: Final = b""
HTTP: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
VALKEY: Final = b"$100000\r\n"
BYTE_S: Final = 0.05


@contextlib.contextmanager
def slow_peer(begins: bytes) -> Generator[int]:
    """The port of a server whose answers begin so, one byte every BYTE_S, and never end; MUTE: no byte."""
    over = threading.Event()
    held = list[threading.Thread]()

    def drip(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            sent = 0
            while not over.wait(BYTE_S):
                if begins:
                    connection.sendall(begins[sent : sent + 1] or b" ")
                    sent += 1

    def accept() -> None:
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                held.append(threading.Thread(target=drip, args=(connection,)))
                held[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(BYTE_S)
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            accepting.join()
            for one in held:
                one.join()

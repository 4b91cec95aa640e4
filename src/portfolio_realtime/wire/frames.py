"""WebSocket frames of a server (RFC 6455 §5.2), made once and sent to many clients.

The calculator makes the frames of its publications, so that several servers do not each make them again.
"""

import operator
import struct
from collections.abc import Sequence
from typing import Final

HEADERS_MAX: Final = 2048  # bytes of payload; the headers of longer ones are made when they are needed


def _header(length: int) -> bytes:
    if length < 126:
        return bytes((0x81, length))
    if length < 1 << 16:
        return struct.pack("!BBH", 0x81, 126, length)
    return struct.pack("!BBQ", 0x81, 127, length)


_HEADERS: Final = tuple(map(_header, range(HEADERS_MAX)))


def text_frame(payload: bytes) -> bytes:
    """An unfragmented, unmasked text frame with this payload."""
    return _header(len(payload)) + payload


def text_frames(payloads: Sequence[bytes]) -> list[bytes]:
    """A `text_frame` of each payload: there are thousands per second, so their headers are kept."""
    lengths = list(map(len, payloads))
    if max(lengths, default=0) >= HEADERS_MAX:
        return list(map(text_frame, payloads))
    return list(map(operator.add, map(_HEADERS.__getitem__, lengths), payloads))


def text_of(frame: bytes) -> bytes:
    """The payload of a `text_frame`."""
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]
